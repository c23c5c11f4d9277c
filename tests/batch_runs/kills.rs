//! Killed at any moment, a batch loses nothing but the step it was at.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use crate::{arguments, batch, dype, files, name, names, pictures, place};

const KILLS: usize = 50;

/// A few random numbers; moments differ from run to run anyhow.
struct Random(u64);

impl Random {
    /// A duration up to `most`. Source of the constants: Knuth's MMIX generator.
    fn up_to(&mut self, most: Duration) -> Duration {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        most.mul_f64((self.0 >> 11) as f64 / (1u64 << 53) as f64)
    }
}

/// Pictures in x, and their latents beside them.
const LATENTS: [&str; 4] = ["-o", "x/", "--save-latents", "x/z.safetensors"];

/// The files of latents in a folder, byte for byte.
fn latents_in(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let paths = files(folder).into_iter().filter(|path| path.extension().is_some_and(|ending| ending == "safetensors"));
    paths.map(|path| (name(&path), fs::read(&path).expect("readable"))).collect()
}

/// No temporary file and no checkpoint is left anywhere.
#[track_caller]
fn assert_clean(folder: &Path) {
    let hidden: Vec<_> = files(folder).iter().map(|path| name(path)).filter(|name| name.starts_with('.')).collect();
    assert_eq!(hidden, [""; 0]);
}

#[test]
fn fifty_kills_at_random_moments_lose_nothing() {
    let undisturbed = place();
    let started = Instant::now();
    dype(&undisturbed, &batch(&LATENTS)).succeeds();
    let whole = started.elapsed();
    let (expected, latents) = (pictures(&undisturbed.path("x")), latents_in(&undisturbed.path("x")));
    assert_eq!((expected.len(), latents.len()), (6, 6));

    let place = place();
    let folder = place.path("x");
    let mut random = Random(20_260_211);
    let (mut kills, mut finished, mut begun) = (0, 0, 0);
    while kills < KILLS {
        let mut command =
            place.command(&arguments(&batch(&[&LATENTS[..], &["--resume", "--checkpoint-every", "1"]].concat())));
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
        std::thread::sleep(random.up_to(whole / 2));
        if child.try_wait().expect("a state").is_some() {
            // Every kill until here is made good for; the next ones begin with an empty folder.
            assert_eq!(pictures(&folder), expected);
            assert!(latents_in(&folder) == latents, "{:?}", names(&folder));
            assert_clean(&folder);
            fs::remove_dir_all(&folder).expect("removed");
            finished += 1;
            continue;
        }
        child.kill().expect("killed");
        child.wait().expect("ended");
        kills += 1;
        begun += usize::from(folder.join(".dype").exists());
        // At no moment is there a picture that is not whole, nor latents.
        if folder.exists() {
            for (name, bytes) in latents_in(&folder) {
                assert!(latents.get(&name) == Some(&bytes), "{name} after {kills} kills");
            }
            for (name, picture) in pictures(&folder) {
                assert_eq!(expected.get(&name), Some(&picture), "{name} after {kills} kills");
            }
        }
    }
    assert!(begun > 5, "only {begun} kills met a picture that was begun");
    let last = dype(&place, &batch(&[&LATENTS[..], &["--resume"]].concat()));
    last.succeeds();
    assert!(latents_in(&folder) == latents, "{:?}", names(&folder));
    assert_eq!(pictures(&folder), expected, "after {kills} kills, {finished} whole batches and a last run");
    assert_clean(&folder);
}
