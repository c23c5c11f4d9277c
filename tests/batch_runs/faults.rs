//! Disks and shares that answer otherwise than a local disk: what was computed is there afterwards, whatever they say.

use std::{fs, path::Path, process::Command, sync::OnceLock};

use crate::{
    arguments, batch, files, lines, names, pictures, place,
    support::program::{Place, Run, rgb8},
};

/// A library that lets calls fail (`tests/real-world/faults.c`).
fn library() -> &'static Path {
    static BUILT: OnceLock<std::path::PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real-world/faults.c");
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults.so");
        // Under a name of its own first: another test process may be loading it.
        let own = library.with_extension(std::process::id().to_string());
        let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&own).arg(source).arg("-ldl").status();
        assert!(built.expect("a C compiler").success());
        fs::rename(own, &library).expect("renamed");
        library
    })
}

/// The program where these calls fail, with a cache of its own.
fn with_faults(place: &Place, faults: &str, args: &[&str]) -> Run {
    let mut command = place.command(&arguments(args));
    command.env("LD_PRELOAD", library()).env("FAULTS", faults).env("DYPE_CACHE", place.path("cache"));
    command.env("TMPDIR", place.path("cache"));
    command.output().expect("starts").into()
}

fn lake<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["--prompt", "a lake", "--steps", "2", "-o", "x/a.png"], more].concat()
}

/// The pixels of [`lake`] on a disk without faults.
fn expected() -> Vec<u8> {
    let place = Place::new();
    crate::dype(&place, &lake(&[])).succeeds();
    rgb8(&place.path("x/a.png"))
}

#[test]
fn a_disk_that_cannot_confirm_keeps_the_picture_and_says_so_once() {
    let expected = expected();
    for errno in [libc::EINVAL, libc::ENOSYS, libc::EOPNOTSUPP, libc::ENOTSUP] {
        let place = Place::new();
        let run = with_faults(&place, &format!("fsync:{errno}"), &lake(&[]));
        assert_eq!(lines(run.succeeds()), ["x/a.png"], "{errno}");
        assert_eq!(
            run.stderr.matches("cannot say whether files are on the disk").count(),
            1,
            "{errno}: {}",
            run.stderr
        );
        assert!(!run.stderr.contains("no checkpoint"), "{errno}: {}", run.stderr);
        assert_eq!(names(&place.path("x")), ["a.png"]);
        assert_eq!(rgb8(&place.path("x/a.png")), expected);
    }
}

#[test]
fn a_disk_that_fails_leaves_the_picture_in_the_cache_and_the_run_fails() {
    let expected = expected();
    let faults = ["fsync:5:/x/", "fsync:28:/x/", "fsync:122:/x/", "write:28:/x/", "rename:5:x/a,linkat:5:x/a"];
    for fault in faults {
        let place = Place::new();
        let run = with_faults(&place, fault, &lake(&[]));
        let kept = place.path("cache/kept/a.png");
        let words = ["cannot write x/a.png", "what was made is kept as", &kept.display().to_string(), "move it"];
        run.fails(1, &words);
        assert_eq!(rgb8(&kept), expected, "{fault}");
        assert!(!place.path("x/a.png").exists(), "{fault}");
    }
}

/// Where no disk confirms anything the picture is still there.
#[test]
fn a_picture_is_kept_though_every_disk_fails_to_confirm_it() {
    let place = Place::new();
    let run = with_faults(&place, "fsync:5", &lake(&[]));
    run.fails(1, &["cannot write x/a.png", "kept as", "cannot say whether files are on the disk"]);
    assert_eq!(rgb8(&place.path("cache/kept/a.png")), expected());
}

#[test]
fn a_batch_on_a_failing_disk_loses_no_picture() {
    let roomy = place();
    crate::dype(&roomy, &batch(&["-o", "x/"])).succeeds();
    let place = place();
    let run = with_faults(&place, "fsync:5:/x/", &batch(&["-o", "x/"]));
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    run.tells(&["6 of 6 pictures could not be made"]);
    let mut found: Vec<_> = pictures(&place.path("cache/kept")).into_values().map(|picture| picture.1).collect();
    let mut wanted: Vec<_> = pictures(&roomy.path("x")).into_values().map(|picture| picture.1).collect();
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted);
}

#[test]
fn latents_without_a_place_are_kept_elsewhere_and_the_picture_is_made() {
    let place = Place::new();
    fs::create_dir(place.path("l")).expect("a folder");
    let args = lake(&["--save-latents", "l/a.safetensors"]);
    let run = with_faults(&place, "fsync:28:/l/", &args);
    assert_eq!((run.code, lines(&run).as_slice()), (Some(1), ["x/a.png"].as_slice()), "{}", run.stderr);
    run.tells(&["cannot write l/a.safetensors", "cache/kept/a.safetensors"]);
    assert_eq!(rgb8(&place.path("x/a.png")), expected());
    assert!(place.path("cache/kept/a.safetensors").is_file());
    assert!(files(&place.path("l")).is_empty());
}

/// exFAT and many shares.
#[test]
fn a_share_without_links_and_locks_gives_each_picture_its_name() {
    for errno in [libc::EPERM, libc::EOPNOTSUPP, libc::ENOSYS] {
        let place = Place::new();
        let faults = format!("linkat:{errno},flock:{errno}");
        for name in ["x/a.png", "x/a_2.png"] {
            assert_eq!(lines(with_faults(&place, &faults, &lake(&[])).succeeds()), [name], "{errno}");
        }
        assert_eq!(names(&place.path("x")), ["a.png", "a_2.png"]);
    }
}

/// As a bare number in a container is, or whoever runs this where the server with the list of users does not answer.
#[test]
fn a_user_whom_the_system_does_not_know_needs_no_cache_for_a_model_of_this_disk() {
    for errno in [libc::ENOENT, libc::EIO] {
        let place = Place::new();
        place.dype(&["export-demo", "m"]).succeeds();
        let run = |args: &[&str]| -> Run {
            let mut command = place.command(args);
            for name in ["HOME", "HF_HOME", "XDG_CACHE_HOME", "DYPE_CACHE"] {
                command.env_remove(name);
            }
            command.env("LD_PRELOAD", library()).env("FAULTS", format!("getpwuid_r:{errno}"));
            command.env("TMPDIR", place.path("")).output().expect("starts").into()
        };
        let small = ["--prompt", "a lake", "--width", "64", "--height", "64", "--steps", "1"];
        for (model, path) in [("demo", "a.png"), ("m", "b.png")] {
            run(&[&["--model", model, "-o", path], &small[..]].concat()).succeeds();
            assert!(place.path(path).is_file(), "{model} {errno}");
        }
        let listed = run(&["models", "--json"]);
        assert!(listed.succeeds().stdout.contains("\"copy\":\"none\""), "{}", listed.stdout);
        run(&[&["--model", "owner/name", "-o", "c.png"], &small[..]].concat())
            .fails(2, &["nothing says where the cache of the Hub is", "HF_HOME"]);
    }
}
