//! What is there is not made again, and what was begun is gone on with.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::Stdio,
};

use dype::testing::output::LatentsFile;
use sha2::{Digest, Sha256};

use crate::{
    arguments, batch, dype, files, lines, names, pictures, place, provenance,
    support::{
        copy_folder, fixture,
        program::{Place, rgb8},
    },
};

const ONE: [&str; 4] = ["--prompt", "a lake", "--steps", "8"];

/// Runs until some steps are done and kills it; gives the checkpoint.
fn begun(place: &Place, step: usize) -> PathBuf {
    begun_with(place, &ONE, step)
}

fn begun_with(place: &Place, args: &[&str], step: usize) -> PathBuf {
    let mut command = place.command(&arguments(args));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts");
    let told = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    let word = format!("step {step}/8");
    assert!(told.map_while(Result::ok).any(|line| line.contains(&word)), "{word}");
    child.kill().expect("killed");
    child.wait().expect("ended");
    files(&place.path("outputs/.dype")).into_iter().find(|path| is_checkpoint(path)).expect("a checkpoint")
}

fn is_checkpoint(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "safetensors")
}

fn resume(place: &Place) -> crate::support::program::Run {
    dype(place, &[&ONE[..], &["--resume"]].concat())
}

/// The picture when nothing interrupts it.
fn uninterrupted() -> Vec<u8> {
    let place = Place::new();
    let run = dype(&place, &ONE);
    rgb8(&place.path(run.succeeds().stdout.trim_end()))
}

#[test]
fn a_resumed_picture_equals_the_uninterrupted_one() {
    let expected = uninterrupted();
    let place = Place::new();
    begun(&place, 3);
    let run = resume(&place);
    assert_eq!(lines(run.succeeds()), ["outputs/seed_42_method_dy_yarn_res_64x64.png"]);
    run.tells(&["going on after step", "step 8/8"]);
    assert!(!run.stderr.contains("step 1/8"), "{}", run.stderr);
    assert_eq!(rgb8(&place.path(run.stdout.trim_end())), expected);
    assert_eq!(names(&place.path("outputs")), ["seed_42_method_dy_yarn_res_64x64.png"], "no checkpoint stays");
}

/// What a method reads of the latents at a step, it reads again after the interruption.
#[test]
fn a_resumed_picture_by_sega_equals_the_uninterrupted_one() {
    let args = [&ONE[..], &["--method", "sega", "--base-resolution", "32", "-o", "outputs/x.png"]].concat();
    let (whole, place) = (Place::new(), Place::new());
    dype(&whole, &args).succeeds();
    begun_with(&place, &args, 3);
    let run = dype(&place, &[&args[..], &["--resume"]].concat());
    run.succeeds().tells(&["going on after step"]);
    assert!(rgb8(&place.path("outputs/x.png")) == rgb8(&whole.path("outputs/x.png")));
}

#[test]
fn without_resume_it_starts_anew_and_says_what_could_be() {
    let place = Place::new();
    begun(&place, 3);
    let run = dype(&place, &ONE);
    run.succeeds().tells(&["--resume goes on from its checkpoint", "step 1/8"]);
    assert_eq!(names(&place.path("outputs")).len(), 1, "its own checkpoint took the place of the other");
}

#[test]
fn a_damaged_checkpoint_is_not_taken_for_good() {
    let expected = uninterrupted();
    type Damage = fn(&mut Vec<u8>);
    let damage: [(&str, Damage); 5] = [
        ("cut", |bytes| bytes.truncate(bytes.len() / 2)),
        ("empty", Vec::clear),
        ("one bit", |bytes| *bytes.last_mut().expect("bytes") ^= 1),
        ("zeros at the end", |bytes| {
            let half = bytes.len() / 2;
            bytes[half..].fill(0);
        }),
        ("a header that lies", |bytes| bytes[0] ^= 0x55),
    ];
    for (what, break_it) in damage {
        let place = Place::new();
        let checkpoint = begun(&place, 3);
        let mut bytes = fs::read(&checkpoint).expect("readable");
        break_it(&mut bytes);
        fs::write(&checkpoint, bytes).expect("written");
        let run = resume(&place);
        run.succeeds().tells(&["a checkpoint cannot be used", "step 1/8"]);
        assert_eq!(rgb8(&place.path(run.stdout.trim_end())), expected, "{what}");
        assert_eq!(names(&place.path("outputs")).len(), 1, "{what}");
    }
}

#[test]
fn a_checkpoint_of_other_settings_is_never_used() {
    let place = Place::new();
    let checkpoint = begun(&place, 3);
    let run = dype(&place, &["--prompt", "a lake", "--steps", "8", "--guidance", "2", "--resume"]);
    run.succeeds().tells(&["step 1/8"]);
    assert!(checkpoint.exists(), "it belongs to another picture");
    // Nor under the name of another.
    let other = Place::new();
    let name = begun_with(&other, &["--prompt", "a hill", "--steps", "8"], 3);
    fs::copy(&checkpoint, &name).expect("copied");
    let run = dype(&other, &["--prompt", "a hill", "--steps", "8", "--resume"]);
    run.succeeds().tells(&["no checkpoint of this picture", "step 1/8"]);
}

#[test]
fn what_is_there_is_told_and_not_made_again() {
    let place = place();
    let first = dype(&place, &batch(&[]));
    let before = pictures(&place.path("outputs"));
    let times: Vec<_> = files(&place.path("outputs")).iter().map(|path| modified(path)).collect();
    let again = dype(&place, &batch(&["--resume"]));
    assert_eq!(again.succeeds().stdout, first.stdout);
    assert!(!again.stderr.contains("denoise"), "{}", again.stderr);
    assert_eq!(files(&place.path("outputs")).iter().map(|path| modified(path)).collect::<Vec<_>>(), times);
    fs::remove_file(place.path("outputs/seed_5_method_dy_ntk_res_64x64.png")).expect("removed");
    let third = dype(&place, &batch(&["--resume"]));
    assert_eq!(lines(third.succeeds()).len(), 6);
    third.tells(&["picture   1 of 1, prompts.txt line 4, seed 5"]);
    assert_eq!(pictures(&place.path("outputs")), before);
}

fn modified(path: &Path) -> std::time::SystemTime {
    fs::metadata(path).and_then(|data| data.modified()).expect("a time")
}

#[test]
fn other_settings_are_another_picture() {
    let place = Place::new();
    dype(&place, &["--prompt", "a lake", "--resume"]).succeeds();
    for args in [&["--prompt", "a hill"][..], &["--prompt", "a lake", "--guidance", "3"]] {
        let run = dype(&place, &[args, &["--resume"]].concat());
        assert!(run.succeeds().stderr.contains("denoise"));
    }
    assert_eq!(pictures(&place.path("outputs")).len(), 3);
    for ending in ["jpg", "webp"] {
        let file = format!("x.{ending}");
        for is_made in [true, false] {
            let run = dype(&place, &["--prompt", "a lake", "-o", &file, "--resume"]);
            assert_eq!(lines(run.succeeds()), [file.as_str()]);
            assert_eq!(run.stderr.contains("denoise"), is_made, "{ending}");
        }
    }
}

#[test]
fn a_cut_picture_is_made_again_in_its_place() {
    let place = Place::new();
    for ending in ["png", "jpg", "webp"] {
        let file = format!("x.{ending}");
        let make = || dype(&place, &["--prompt", "a lake", "-o", &file, "--resume"]);
        make().succeeds();
        let whole = fs::read(place.path(&file)).expect("readable");
        fs::write(place.path(&file), &whole[..whole.len() - 9]).expect("written");
        make().succeeds().tells(&["is cut short"]);
        assert_eq!(fs::read(place.path(&file)).expect("readable"), whole);
    }
    assert_eq!(names(&place.path("")), ["x.jpg", "x.png", "x.webp"]);
}

#[test]
fn a_preview_is_not_taken_for_the_picture() {
    let place = Place::new();
    let file = "outputs/seed_42_method_dy_yarn_res_64x64_2.png";
    dype(&place, &["--prompt", "a lake", "--preview", file]).succeeds();
    fs::remove_file(place.path("outputs/seed_42_method_dy_yarn_res_64x64.png")).expect("removed");
    let run = dype(&place, &["--prompt", "a lake", "--resume"]);
    assert!(run.succeeds().stderr.contains("denoise"));
    assert!(provenance(&place.path(run.stdout.trim_end())).get("preview").is_none());
}

#[test]
fn checkpoints_come_every_k_steps_or_never() {
    let place = Place::new();
    let run = |every: &str| {
        let args = [&ONE[..], &["--checkpoint-every", every]].concat();
        let mut command = place.command(&arguments(&args));
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts");
        let told = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        assert!(told.map_while(Result::ok).any(|line| line.contains("step 4/8")));
        child.kill().expect("killed");
        child.wait().expect("ended");
    };
    run("0");
    assert!(!place.path("outputs/.dype").exists());
    run("3");
    let run = resume(&place);
    run.succeeds().tells(&["going on after step 3 of 8"]);
}

#[test]
fn two_processes_in_one_folder_do_not_harm_each_other() {
    let alone = place();
    dype(&alone, &batch(&[])).succeeds();
    let expected = pictures(&alone.path("outputs"));
    let place = place();
    let start = || {
        let mut command = place.command(&arguments(&batch(&["--resume"])));
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts")
    };
    let ends = [start(), start(), start()].map(|child| child.wait_with_output().expect("ends"));
    for end in &ends {
        assert!(end.status.success(), "{}", String::from_utf8_lossy(&end.stderr));
        assert_eq!(end.stdout.iter().filter(|byte| **byte == b'\n').count(), 6);
    }
    // Each made what the others had not finished yet: nothing is missing, and each file is one of the six pictures.
    let made = pictures(&place.path("outputs"));
    for (name, picture) in &made {
        assert!(expected.values().any(|expected| expected == picture), "{name}");
    }
    for (name, picture) in &expected {
        assert!(made.values().any(|made| made == picture), "{name}");
    }
    assert!(
        names(&place.path("outputs")).iter().all(|name| !name.starts_with('.')),
        "{:?}",
        names(&place.path("outputs"))
    );
}

/// Without `--overwrite` the pictures of one name got the next free ones, so that the names they would get with it are taken by
/// each other.
#[test]
fn a_resumed_run_that_overwrites_keeps_the_pictures_it_has_found() {
    let place = Place::new();
    fs::write(place.path("prompts.txt"), "a lake\na hill\na boat\n").expect("written");
    fs::write(place.path("x.png"), "not ours").expect("written");
    let args = |more: &[&'static str]| [&["--prompts", "prompts.txt", "-o", "x.png"], more].concat();
    let first = dype(&place, &args(&[]));
    assert_eq!(lines(first.succeeds()), ["x_2.png", "x_3.png", "x_4.png"]);
    let before: Vec<_> = ["x_2.png", "x_3.png"].map(|name| fs::read(place.path(name)).expect("read")).into();
    let third = fs::read(place.path("x_4.png")).expect("read");
    fs::remove_file(place.path("x_4.png")).expect("removed");
    let again = dype(&place, &args(&["--resume", "--overwrite"]));
    assert_eq!(lines(again.succeeds()), ["x_2.png", "x_3.png", "x_4.png"]);
    let after: Vec<_> = ["x_2.png", "x_3.png"].map(|name| fs::read(place.path(name)).expect("read")).into();
    assert!(after == before, "what was found is kept");
    assert!(fs::read(place.path("x_4.png")).expect("read") == third);
    assert_eq!(fs::read(place.path("x.png")).expect("read"), b"not ours");
}

/// One file may be named in several ways.
#[test]
fn two_pictures_of_one_run_never_share_a_file() {
    let place = Place::new();
    fs::create_dir(place.path("walls")).expect("created");
    let ways = ["x.png", "./x.png", "walls/../x.png"];
    let prompts = ways.map(|way| format!(r#"{{"prompt": "to {way}", "output": "{way}"}}"#)).join("\n");
    fs::write(place.path("prompts.txt"), prompts).expect("written");
    for more in [&["--overwrite"][..], &["--overwrite", "--resume"]] {
        let run = dype(&place, &[&["--prompts", "prompts.txt"], more].concat());
        assert_eq!(lines(run.succeeds()).len(), 3);
        let made = pictures(&place.path(""));
        let prompts: Vec<_> = made.values().map(|(settings, _)| settings["prompt"].clone()).collect();
        assert_eq!(prompts.len(), 3, "{prompts:?}");
        assert!(ways.iter().all(|way| prompts.contains(&format!("to {way}").into())), "{prompts:?}");
    }
}

/// tiny-flux in a folder of the place, under this name.
fn own_model(place: &Place, name: &str) {
    copy_folder(&fixture("tiny-flux"), &place.path(name));
}

/// Another number in the last tensor of a file, which keeps its length and its time.
fn change_weights(path: &Path) {
    let time = modified(path);
    let mut bytes = fs::read(path).expect("read");
    let at = bytes.len() - 2;
    bytes[at] ^= 0x20;
    fs::write(path, bytes).expect("written");
    fs::File::options().write(true).open(path).and_then(|file| file.set_modified(time)).expect("a time");
}

#[test]
fn a_model_is_one_however_its_path_is_written() {
    let place = Place::new();
    own_model(&place, "m1");
    let made = |model: &str| {
        let run = dype(&place, &["--prompt", "a lake", "--model", model, "-o", "x.png", "--resume"]);
        assert_eq!(lines(run.succeeds()), ["x.png"]);
        run.stderr.contains("denoise")
    };
    assert!(made("m1"));
    let absolute = place.path("m1").display().to_string();
    for way in ["m1/", "./m1", "m1/.", &absolute] {
        assert!(!made(way), "{way}");
    }
    copy_folder(&place.path("m1"), &place.path("elsewhere/m2"));
    assert!(!made("elsewhere/m2"), "a copy is the same model");
}

#[test]
fn weights_that_were_replaced_in_place_are_another_model_and_told() {
    for (file, part) in [
        ("transformer/diffusion_pytorch_model-00003-of-00003.safetensors", "transformer"),
        ("vae/diffusion_pytorch_model-00002-of-00002.safetensors", "vae"),
        ("scheduler/scheduler_config.json", "scheduler"),
    ] {
        let place = Place::new();
        own_model(&place, "m");
        let args = ["--prompt", "a lake", "--model", "m", "--steps", "2", "--resume"];
        dype(&place, &args).succeeds();
        if part == "scheduler" {
            let text = fs::read_to_string(place.path("m").join(file)).expect("read");
            assert!(text.contains("1.15"), "{text}");
            fs::write(place.path("m").join(file), text.replace("1.15", "1.25")).expect("written");
        } else {
            change_weights(&place.path("m").join(file));
        }
        let run = dype(&place, &args);
        run.succeeds().tells(&["denoise", "was made with another model", &format!("it differs in: {part}")]);
        assert_eq!(pictures(&place.path("outputs")).len(), 2, "{part}: both are kept");
        let again = dype(&place, &args);
        assert!(!again.succeeds().stderr.contains("denoise"), "{part}");
        let replayed = place.dype(&["replay", "outputs/seed_42_method_dy_yarn_res_64x64.png", "-o", "r.png"]);
        replayed.succeeds().tells(&["is not the one the picture was made with", part]);
    }
}

#[test]
fn a_checkpoint_is_never_gone_on_with_by_other_weights() {
    let place = Place::new();
    own_model(&place, "m");
    let args = [&ONE[..], &["--model", "m"]].concat();
    let checkpoint = begun_with(&place, &args, 3);
    change_weights(&place.path("m/transformer/diffusion_pytorch_model-00003-of-00003.safetensors"));
    let run = dype(&place, &[&args[..], &["--resume"]].concat());
    run.succeeds().tells(&["a checkpoint of the same settings", "another transformer", "step 1/8"]);
    assert!(checkpoint.exists(), "it belongs to the other weights");
    let run = dype(&place, &[&args[..], &["--resume", "--dtype", "f16", "--output", "outputs/y.png"]].concat());
    run.tells(&["a checkpoint of the same settings", "dtype"]);
}

/// A checkpoint and a picture as the first version left them: it knew a model by its name.
#[test]
fn what_the_first_version_left_is_found() {
    let expected = uninterrupted();
    let place = Place::new();
    let checkpoint = begun(&place, 3);
    let mut file = LatentsFile::read(&checkpoint).expect("readable");
    let settings: serde_json::Value = serde_json::from_str(&file.metadata["settings"]).expect("JSON");
    let model = fixture("tiny-flux").display().to_string();
    let key = first_key(&settings, &model);
    for name in ["model", "device", "dtype", "program_version"] {
        file.metadata.remove(name);
    }
    file.metadata.insert("key".to_owned(), key.clone());
    fs::remove_file(&checkpoint).expect("removed");
    file.write(&checkpoint.with_file_name(format!("{key}.safetensors")), false).expect("written");
    let run = resume(&place);
    run.succeeds().tells(&["going on after step"]);
    let path = place.path(run.stdout.trim_end());
    assert_eq!(rgb8(&path), expected);
    assert_eq!(names(&place.path("outputs")).len(), 1, "no checkpoint stays");

    let mut json = provenance(&path);
    json["model"] = serde_json::json!({ "model": model, "layout": "diffusers" });
    let (side, rgb8) = (64, rgb8(&path));
    let picture = dype::testing::output::Picture { height: side, width: side, rgb8 };
    dype::testing::output::save(
        &path,
        &picture,
        &dype::testing::output::Provenance { parameters: String::new(), json },
        true,
    )
    .expect("saved");
    assert!(!resume(&place).succeeds().stderr.contains("denoise"));
}

/// The first version's key of a checkpoint on the CPU in f32.
fn first_key(settings: &serde_json::Value, model: &str) -> String {
    let all = serde_json::json!({
        "settings": settings,
        "model": { "model": model, "layout": "diffusers" },
        "device": "cpu",
        "dtype": "f32",
        "program_version": env!("CARGO_PKG_VERSION"),
    });
    Sha256::digest(dype::testing::base::json::sorted(&all)).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A run that ends between a picture's latents and the picture leaves the latents: the next one makes them again, and gives them no
/// second name, which would be the next picture's.
#[test]
fn latents_whose_picture_is_missing_keep_their_name() {
    let place = place();
    let folder = place.path("x");
    let flags = batch(&["-o", "x/", "--save-latents", "x/z.safetensors", "--resume"]);
    dype(&place, &flags).succeeds();
    let (whole, latents) = (names(&folder), fs::read(folder.join("z.safetensors")).expect("readable"));
    for picture in files(&folder).iter().filter(|path| path.extension().is_some_and(|ending| ending == "png")) {
        fs::remove_file(picture).expect("removed");
    }
    dype(&place, &flags).succeeds();
    assert_eq!(names(&folder), whole);
    assert!(fs::read(folder.join("z.safetensors")).expect("readable") == latents);
    // Others of that name are nobody's to write over.
    dype(&place, &batch(&["-o", "y/", "--save-latents", "x/z.safetensors", "--resume", "--guidance", "2"])).succeeds();
    assert!(fs::read(folder.join("z.safetensors")).expect("readable") == latents);
    assert_eq!(names(&folder).len(), whole.len() + 6);
}
