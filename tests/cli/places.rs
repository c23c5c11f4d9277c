//! Outputs that are no plain file: stdout, pipes, links; and names that no file can have, or that are no text.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::Read,
    os::unix::{ffi::OsStrExt, fs::symlink},
    process::{Command, Stdio},
    thread,
};

use serde_json::Value;

use crate::support::program::{Place, Run, rgb8, small};

/// The pixels of a picture's bytes.
fn decoded(bytes: &[u8]) -> Vec<u8> {
    image::load_from_memory(bytes).expect("a picture").to_rgb8().into_raw()
}

fn run_of(place: &Place, args: &[&OsStr]) -> std::process::Output {
    let mut command = place.command(&small(&[]));
    command.args(args).output().expect("starts")
}

#[test]
fn a_dash_is_stdout_which_holds_the_picture_and_nothing_else() {
    let place = Place::new();
    let expected = place.pixels(&["-o", "x.png"]);
    for name in ["-", "/dev/stdout", "/dev/fd/1"] {
        let ended = run_of(&place, &["-o".as_ref(), name.as_ref()]);
        assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
        assert!(ended.stdout.starts_with(b"\x89PNG") && decoded(&ended.stdout) == expected, "{name}");
    }
    assert_eq!(place.names(), ["x.png"], "no file of that name, and no checkpoint");
    let file = File::create(place.path("y.png")).expect("created");
    assert!(place.command(&small(&["-o", "-"])).stdout(file).status().expect("starts").success());
    assert!(rgb8(&place.path("y.png")) == expected);
}

#[test]
fn stdout_takes_one_picture() {
    let place = Place::new();
    place.small(&["-o", "-", "-n", "2"]).fails(2, &["2 pictures cannot all go to -", "name a folder"]);
    place.small(&["-o", "-", "--json"]).fails(2, &["--json and the picture both want stdout", "--output"]);
    place.dype(&["compare", "--model", "demo", "-o", "-"]).fails(2, &["--output -", "several files"]);
    assert_eq!(place.names(), [""; 0]);
}

#[test]
fn a_reader_that_went_away_costs_no_picture() {
    let place = Place::new();
    let expected = place.pixels(&["-o", "x.png"]);
    let mut command = place.command(&small(&["-o", "-"]));
    command.env("DYPE_CACHE", place.path("cache")).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("starts");
    drop(child.stdout.take());
    let run = Run::from(child.wait_with_output().expect("ended"));
    run.fails(1, &["cannot write -", "kept as", "cache/kept/picture.png"]);
    assert!(rgb8(&place.path("cache/kept/picture.png")) == expected);
}

#[test]
fn latents_are_decoded_to_stdout_too() {
    let place = Place::new();
    place.small(&["-o", "x.png", "--save-latents", "l.safetensors"]).succeeds();
    let model = crate::support::fixture("tiny-flux").display().to_string();
    let ended = place.command(&["decode", "l.safetensors", "--model", &model, "-o", "-"]).output().expect("starts");
    assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
    assert!(decoded(&ended.stdout) == rgb8(&place.path("x.png")));
}

#[test]
fn a_named_pipe_gets_the_picture_and_stays_a_pipe() {
    let place = Place::new();
    let expected = place.pixels(&["-o", "x.png"]);
    for overwrite in [&[][..], &["--overwrite"]] {
        let pipe = place.path("pipe.png");
        assert!(Command::new("mkfifo").arg(&pipe).status().expect("starts").success());
        let reader = thread::spawn({
            let pipe = pipe.clone();
            move || {
                let mut bytes = Vec::new();
                File::open(pipe).expect("opened").read_to_end(&mut bytes).expect("read");
                bytes
            }
        });
        let run = place.small(&[&["-o", "pipe.png"], overwrite].concat());
        assert_eq!(run.succeeds().stdout, "pipe.png\n");
        assert!(decoded(&reader.join().expect("read")) == expected);
        fs::remove_file(pipe).expect("still there");
        assert_eq!(place.names(), ["x.png"]);
    }
    assert_eq!(place.small(&["-o", "/dev/null"]).succeeds().stdout, "/dev/null\n");
}

#[test]
fn overwriting_goes_through_a_link() {
    let place = Place::new();
    let expected = place.pixels(&["-o", "x.png"]);
    fs::create_dir(place.path("there")).expect("a folder");
    fs::write(place.path("there/old.png"), "old").expect("written");
    for (link, target) in [("l.png", "there/old.png"), ("m.png", "l.png"), ("n.png", "there/new.png")] {
        symlink(target, place.path(link)).expect("linked");
        assert_eq!(place.small(&["-o", link, "--overwrite"]).succeeds().stdout, format!("{link}\n"));
        assert!(place.path(link).is_symlink() && rgb8(&place.path(link)) == expected, "{link}");
    }
    assert!(rgb8(&place.path("there/old.png")) == expected && rgb8(&place.path("there/new.png")) == expected);
    symlink("nowhere/x.png", place.path("o.png")).expect("linked");
    assert_eq!(place.small(&["-o", "o.png"]).succeeds().stdout, "o_2.png\n", "a link is a taken name");
    symlink("p.png", place.path("p.png")).expect("linked");
    let run = place.small(&["-o", "p.png", "--overwrite"]);
    run.fails(1, &["p.png", "symbolic links"]);
    assert!(!run.stderr.contains("denoise"), "{}", run.stderr);
}

#[test]
fn a_name_that_no_file_can_have_is_refused_before_anything_is_computed() {
    let long = format!("{}.png", "x".repeat(252));
    let umlauts = format!("{}.png", "ü".repeat(126));
    for flags in [
        ["-o", long.as_str()],
        ["-o", umlauts.as_str()],
        ["-o", &format!("{long}/")],
        ["--save-latents", &long],
        ["--preview", &long],
    ] {
        let place = Place::new();
        let run = place.small(&[&["-o", "x.png"], &flags[..]].concat());
        run.fails(2, &["is too long for its file system", "25", "shorter"]);
        assert!(!run.stderr.contains("text  "), "{}", run.stderr);
        assert_eq!(place.names(), [""; 0]);
    }
    let place = Place::new();
    let fits = format!("{}.png", "x".repeat(251));
    assert_eq!(place.small(&["-o", &fits]).succeeds().stdout, format!("{fits}\n"));
    place.small(&["-o", &fits]).fails(2, &["257 bytes"]);
    place.small(&["-o", &fits, "--overwrite"]).succeeds();
}

/// As from a disk that was written in Latin-1.
#[test]
fn names_that_are_no_text_are_names() {
    let odd = OsStr::from_bytes(b"lat\xe9");
    let place = Place::new();
    let folder = [odd.as_bytes(), b"/"].concat();
    let folder = OsStr::from_bytes(&folder);
    let expected: Vec<OsString> = ["seed_1", "seed_2"]
        .map(|seed| [folder.as_bytes(), seed.as_bytes(), b"_method_dy_yarn_res_64x64.png"].concat())
        .map(|bytes| OsStr::from_bytes(&bytes).to_os_string())
        .into();
    let flags = ["-o".as_ref(), folder, "--seeds".as_ref(), "1,2".as_ref()];
    let ended = run_of(&place, &flags);
    assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
    let told: Vec<_> = ended.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    assert_eq!(told, expected.iter().map(|path| path.as_bytes()).collect::<Vec<_>>(), "the bytes themselves");
    assert!(expected.iter().all(|path| place.path(path).is_file()));

    let again = run_of(&place, &[&flags[..], &["--resume".as_ref(), "--json".as_ref()]].concat());
    let json = json_lines(&again.stdout);
    assert_eq!(json.len(), 2);
    for (json, path) in json.iter().zip(&expected) {
        assert_eq!((&json["existed"], &json["path"]), (&true.into(), &path.to_string_lossy().into_owned().into()));
        assert_eq!(json["path_bytes"], Value::from(path.as_bytes()));
    }
    let plan = run_of(&place, &[&flags[..], &["--dry-run".as_ref(), "--json".as_ref()]].concat());
    assert_eq!(json_lines(&plan.stdout)[1]["path_bytes"], Value::from(expected[1].as_bytes()));
}

#[test]
fn a_file_whose_name_is_no_text_is_found_again_and_looked_at() {
    let place = Place::new();
    let name = OsStr::from_bytes(b"\xff\xfe.png");
    for (flags, existed) in [(&[][..], false), (&["--resume"][..], true)] {
        let flags: Vec<&OsStr> = flags.iter().map(OsStr::new).collect();
        let ended = run_of(&place, &[&["-o".as_ref(), name, "--json".as_ref()], &flags[..]].concat());
        assert_eq!(json_lines(&ended.stdout)[0]["existed"], existed, "{}", String::from_utf8_lossy(&ended.stderr));
    }
    assert_eq!(fs::read_dir(place.path("")).expect("a folder").count(), 1);
    let args: [&OsStr; 2] = ["info".as_ref(), name];
    assert!(place.command(&args).output().expect("starts").status.success());
    let args: [&OsStr; 4] = ["replay".as_ref(), name, "-o".as_ref(), OsStr::from_bytes(b"\xfd.png")];
    assert!(place.command(&args).output().expect("starts").status.success());
    let lines = OsStr::from_bytes(b"\xfc.txt");
    fs::write(place.path(lines), "a hill\n").expect("written");
    let mut command =
        place.command(&["--steps", "1", "--width", "64", "--height", "64", "--model", "demo", "--prompts"]);
    assert!(command.arg(lines).args(["-o", "y.png"]).output().expect("starts").status.success());
}

#[test]
fn text_that_is_no_text_is_named() {
    let place = Place::new();
    for flag in ["--prompt", "--model"] {
        let ended = run_of(&place, &["-o".as_ref(), "x.png".as_ref(), flag.as_ref(), OsStr::from_bytes(b"lat\xe9/m")]);
        Run::from(ended).fails(2, &["not UTF-8 text", "lat\\xE9/m", "ln -s"]);
    }
    let mut command = place.command(&["-o", "x.png"]);
    let run = Run::from(command.env("DYPE_PROMPT", OsStr::from_bytes(b"\xff")).output().expect("starts"));
    run.fails(2, &["not UTF-8 text", "\\xFF", "iconv"]);
}

fn json_lines(stdout: &[u8]) -> Vec<Value> {
    let lines = stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).expect("JSON")).collect()
}

/// As under cron, systemd and many containers.
#[test]
fn without_home_the_systems_list_of_users_knows_it() {
    // SAFETY: it only tells a number.
    let user = unsafe { libc::geteuid() }.to_string();
    let list = fs::read_to_string("/etc/passwd").expect("the list of users");
    let line = list.lines().find(|line| line.split(':').nth(2) == Some(&user));
    let home = line.map(|line| line.split(':').nth(5).expect("seven fields").to_owned());
    for value in [None, Some("")] {
        let place = Place::new();
        let mut command = place.command(&["--model", "owner/name", "-o", "x.png"]);
        command.env_remove("HOME").env_remove("XDG_CACHE_HOME").env_remove("HF_HOME");
        command.envs(value.map(|value| ("HOME", value)));
        let run = Run::from(command.output().expect("starts"));
        match &home {
            Some(home) => run.fails(1, &["no copy of owner/name", &format!("{home}/.cache/huggingface/hub")]),
            None => run.fails(2, &["nothing says where the cache of the Hub is", "HF_HOME"]),
        };
        assert_eq!(place.names(), [""; 0], "never beside the pictures");
    }
}

#[test]
fn the_demo_needs_no_cache_and_no_name_that_others_may_have_taken() {
    let place = Place::new();
    fs::create_dir(place.path("tmp")).expect("a folder");
    fs::write(place.path("tmp/dype"), "somebody's").expect("written");
    let mut command = place.command(&["--model", "demo", "--width", "64", "--height", "64", "--steps", "1"]);
    command
        .args(["--prompt", "a lake", "-o", "x.png"])
        .env("DYPE_CACHE", "/proc/none")
        .env("TMPDIR", place.path("tmp"));
    Run::from(command.output().expect("starts")).succeeds();
    assert!(place.path("x.png").is_file());
    assert_eq!(fs::read(place.path("tmp/dype")).expect("still there"), b"somebody's");
}
