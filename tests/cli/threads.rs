//! How many threads compute: what is asked, else what the process may use.

use crate::support::program::{Place, rgb8, small};

/// The machine of a dry run with these flags and variables.
fn machine(flags: &[&str], variables: &[(&str, &str)], has_usual: bool) -> String {
    let place = Place::new();
    let mut command = place.command(&small(&[&["--dry-run", "--json"], flags].concat()));
    if has_usual {
        command.env_remove("RAYON_NUM_THREADS");
    }
    command.envs(variables.iter().copied()).env("DYPE_MATRIX_UNIT", "off");
    let output = command.output().expect("starts");
    assert!(output.status.success(), "{output:?}");
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    plan["plan"]["machine"].as_str().expect("a machine").to_owned()
}

#[test]
fn a_flag_goes_before_a_variable_and_both_before_what_programs_share() {
    assert_eq!(machine(&[], &[], false), "cpu f32, 2 threads", "RAYON_NUM_THREADS of the tests");
    assert_eq!(machine(&["--threads", "3"], &[], false), "cpu f32, 3 threads");
    assert_eq!(machine(&[], &[("DYPE_THREADS", "4")], false), "cpu f32, 4 threads");
    assert_eq!(machine(&["--threads", "1"], &[("DYPE_THREADS", "4")], false), "cpu f32, 1 thread");
    let most = std::thread::available_parallelism().expect("known").get();
    for nonsense in [&[][..], &[("RAYON_NUM_THREADS", "0")], &[("RAYON_NUM_THREADS", "many")], &[("DYPE_THREADS", "")]]
    {
        let usual = machine(&[], nonsense, true);
        let count = usual.strip_prefix("cpu f32, ").and_then(|text| text.split(' ').next()).expect("a count");
        assert!((1..=most).contains(&count.parse().expect("a number")), "{usual}");
    }
}

#[test]
fn what_is_no_number_of_threads_is_refused() {
    for text in ["0", "many", "-1", "2.5", "100000", ""] {
        Place::new().small(&["--threads", text]).fails(2, &["--threads", "1 to 1024"]);
    }
}

/// `taskset`, and whatever else gives a process some of the processors.
#[cfg(target_os = "linux")]
#[test]
fn a_process_of_one_processor_computes_on_one_thread() {
    use std::os::unix::process::CommandExt;

    let place = Place::new();
    let mut command = place.command(&small(&["--dry-run", "--json"]));
    command.env_remove("RAYON_NUM_THREADS").env("DYPE_MATRIX_UNIT", "off");
    let one = || {
        // SAFETY: sets of processors are numbers; the calls are async-signal-safe and touch nothing but this new process.
        unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set);
            let first = (0..libc::CPU_SETSIZE as usize).find(|cpu| libc::CPU_ISSET(*cpu, &set)).unwrap_or(0);
            libc::CPU_ZERO(&mut set);
            libc::CPU_SET(first, &mut set);
            match libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        }
    };
    // SAFETY: the closure allocates nothing and takes no lock.
    unsafe { command.pre_exec(one) };
    let output = command.output().expect("starts");
    assert!(String::from_utf8_lossy(&output.stdout).contains(r#""machine":"cpu f32, 1 thread""#), "{output:?}");
}

#[test]
fn the_matrix_unit_is_named_and_what_is_no_word_of_its_variable_is_refused() {
    assert_eq!(machine(&[], &[], false), "cpu f32, 2 threads");
    let place = Place::new();
    let run = |word: &str| place.command(&small(&["--dry-run", "--json"])).env("DYPE_MATRIX_UNIT", word).output();
    let output = run("model").expect("starts");
    assert!(
        String::from_utf8_lossy(&output.stdout).contains(r#""machine":"cpu f32, 2 threads, a model of AMX""#),
        "{output:?}"
    );
    let output = run("avx").expect("starts");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("DYPE_MATRIX_UNIT is \"avx\""), "{output:?}");
}

#[test]
fn what_is_no_word_of_the_variable_of_pairs_is_refused() {
    let place = Place::new();
    let run = |word: &str| place.command(&small(&["--dry-run"])).env("DYPE_BF16_PAIRS", word).output().expect("starts");
    for word in ["", "on", "off"] {
        assert_eq!(run(word).status.code(), Some(0), "{word:?}");
    }
    let output = run("yes");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && error.contains("DYPE_BF16_PAIRS is \"yes\""), "{output:?}");
    assert!(error.contains("\"on\" and \"off\""), "{error}");
}

/// Whether there is one to insist on, as a dry run says; where there is none it says so, and nothing else.
fn has_unit(place: &Place) -> bool {
    let output =
        place.command(&small(&["--dry-run", "--json"])).env("DYPE_MATRIX_UNIT", "on").output().expect("starts");
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    match output.status.code() {
        Some(0) => assert!(out.contains(r#""machine":"cpu f32, 2 threads, AMX""#), "{output:?}"),
        code => {
            assert!(code == Some(2) && out.is_empty(), "{output:?}");
            assert!(error.contains("DYPE_MATRIX_UNIT is \"on\": this processor has no matrix unit"), "{output:?}");
        }
    }
    output.status.success()
}

/// A picture by a matrix unit, f32 numbers in two halves, is the picture by vectors; the unit's is its model's, in bf16 too.
#[test]
fn a_matrix_unit_changes_hardly_a_pixel() {
    let place = Place::new();
    let pixels = |unit: &str, dtype: &str| {
        let name = format!("{unit}-{dtype}.png");
        let output = place
            .command(&small(&["-o", &name, "--dtype", dtype]))
            .env("DYPE_MATRIX_UNIT", unit)
            .output()
            .expect("starts");
        assert!(output.status.success(), "{output:?}");
        rgb8(&place.path(String::from_utf8_lossy(&output.stdout).trim_end()))
    };
    let near = |a: &[u8], b: &[u8]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.abs_diff(*b) <= 1);
    let model = pixels("model", "f32");
    assert!(near(&pixels("off", "f32"), &model));
    if has_unit(&place) {
        assert!(near(&pixels("on", "f32"), &model));
        assert!(near(&pixels("on", "bf16"), &pixels("model", "bf16")));
    }
}

#[test]
fn threads_change_no_pixel() {
    let place = Place::new();
    let pixels = |threads: &str| {
        let run = place.small(&["--threads", threads]);
        rgb8(&place.path(run.succeeds().stdout.trim_end()))
    };
    assert!(pixels("1") == pixels("5"));
}
