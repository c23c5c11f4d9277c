//! Requests that make no sense, and runs that cannot be done here: refused with one error before any weight is loaded.

use std::fs;

use crate::support::program::{Place, Run};

/// Nothing was computed, and nothing was left behind.
#[track_caller]
fn refused(args: &[&str], code: i32, words: &[&str]) -> Run {
    let place = Place::new();
    let run = place.small(&[&["-o", "x.png"], args].concat());
    run.fails(code, words);
    assert!(!run.stderr.contains("text  "), "{}", run.stderr);
    assert_eq!(place.names(), [""; 0]);
    run
}

#[test]
fn sizes_that_no_picture_has() {
    for flag in ["--height", "--width"] {
        for size in ["0", "15", "-5", "1e9", "1000000000", "65537", "wide", ""] {
            refused(&[flag, size], 2, &[flag, size, "from 16 to 65536"]);
        }
    }
}

#[test]
fn numbers_out_of_range() {
    refused(&["--steps", "0"], 2, &["--steps", "from 1 to 10000", "28"]);
    refused(&["--steps", "-1"], 2, &["--steps", "from 1 to 10000"]);
    refused(&["--seed", "-2"], 2, &["--seed", "from 0 to 18446744073709551615", "random"]);
    for guidance in ["nan", "1e38", "-1e38", "inf"] {
        refused(&["--guidance", guidance], 2, &["--guidance", "finite", "from -1000000 to 1000000"]);
    }
    refused(&["--max-sequence-length", "513"], 2, &["--max-sequence-length", "2 to 512"]);
    refused(&["--max-sequence-length", "1"], 2, &["--max-sequence-length", "2 to 1024"]);
    refused(&["--dype-scale", "-1"], 2, &["--dype-scale", "0 or more"]);
    refused(&["--dype-exponent", "inf"], 2, &["--dype-exponent", "0 or more"]);
    refused(&["--base-resolution", "8"], 2, &["--base-resolution", "from 16"]);
    refused(&["--mu", "big"], 2, &["--mu", "1.15", "stock"]);
    refused(&["--memory", "lots"], 2, &["--memory", "6GB"]);
}

#[test]
fn unknown_names_name_the_nearest() {
    refused(&["--method", "yarm"], 2, &["yarm", "base, ntk, yarn", "hint: a similar value exists: 'yarn'"]);
    refused(&["--dype-thresholds", "powr"], 2, &["powr", "'power'"]);
    refused(&["--dtype", "bf61"], 2, &["bf61", "'bf16'"]);
    refused(&["--hieght", "64"], 2, &["--hieght", "hint: a similar argument exists: '--height'"]);
    refused(&["--rng", "torch-cuda:h10"], 2, &["unknown card", "h100"]);
    refused(&["--rng", "numpy"], 2, &["unknown noise source", "torch-cpu"]);
    refused(&["a castle"], 2, &["'a castle'", "--prompt", "dype --help"]);
    Place::new().dype(&["a castle"]).fails(2, &["'a castle'", "--prompt", "dype --help"]);
    Place::new().dype(&["inspekt"]).fails(2, &["'inspekt'", "'inspect'"]);
}

#[test]
fn flags_that_contradict_each_other() {
    refused(&["--no-dype", "--dype-scale", "2"], 2, &["--no-dype", "--dype-scale"]);
    refused(&["-q", "-v"], 2, &["--quiet", "--verbose"]);
}

/// Neither the device nor the model inside the program has what they are made of.
#[test]
fn products_in_fp8_where_there_are_none() {
    let words = ["--fp8-products", "8.9 and newer", "the device is cpu", "leave it out"];
    refused(&["--fp8-products"], 2, &words);
    refused(&["--fp8-products", "--dry-run"], 2, &words);
    let place = Place::new();
    fs::write(place.path("all.jsonl"), "{\"prompt\": \"a\"}\n{\"prompt\": \"b\", \"fp8_products\": true}\n")
        .expect("written");
    let run = place.dype(&["--model", "demo", "--device", "cpu", "--prompts", "all.jsonl"]);
    run.fails(2, &[&words[..], &["all.jsonl line 2"]].concat());
    assert_eq!(place.names(), ["all.jsonl"]);
}

#[test]
fn outputs_that_are_no_pictures() {
    for name in ["x.tiff", "x.gif", "x", "x.png.txt"] {
        refused(&["-o", name], 2, &[name, ".png, .jpg or .webp"]);
    }
    refused(&["-o", "x.webp", "--width", "16400"], 2, &["WebP", "16384", ".png"]);
}

#[test]
fn folders_that_cannot_be_written() {
    let place = Place::new();
    fs::write(place.path("file"), "mine").expect("written");
    for output in ["file/x.png", "file/below/x.png", "file/", "file/below/"] {
        place.small(&["-o", output]).fails(1, &["cannot create the folder file", "a file is where a folder should be"]);
    }
    place.small(&["-o", "x.png", "--save-latents", "file/x.safetensors"]).fails(1, &["cannot create the folder file"]);
    place.small(&["-o", "x.png", "--save-latents", "."]).fails(2, &["--save-latents . is a folder"]);
    assert_eq!(place.names(), ["file"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_folder_of_the_system_that_takes_no_files() {
    let run = Place::new().small(&["-o", "/proc/x.png"]);
    run.fails(1, &["cannot write to the folder /proc"]);
}

#[test]
fn too_little_memory_says_the_least() {
    let run = Place::new().small(&["--memory", "1MB"]);
    run.fails(1, &["takes at least", "may take 1 MB", "allow --memory", "smaller picture"]);
}

#[test]
fn models_that_are_not_there() {
    refused(&["--model", "no/such/folder"], 2, &["no file or folder \"no/such/folder\"", "black-forest-labs/"]);
    refused(&["--model", "flux"], 2, &["\"flux\"", "OWNER/NAME"]);
    refused(&["--vae", "no.safetensors"], 1, &["--vae: there is no file or folder no.safetensors", "check the path"]);
}

#[test]
fn offline_an_empty_cache_has_no_model() {
    let place = Place::new();
    let mut command = place.command(&["--model", "owner/name", "--height", "64", "--width", "64", "-o", "x.png"]);
    let home = place.path("hf");
    let run = Run::from(command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", &home).output().expect("the program starts"));
    run.fails(1, &["HF_HUB_OFFLINE is set", "no copy of owner/name", "unset HF_HUB_OFFLINE"]);
    assert_eq!(place.names(), [""; 0]);
}

/// A disk of 64 kB, where this system lets us have one.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_nothing_behind() {
    let place = Place::new();
    let disk = place.path("disk");
    fs::create_dir(&disk).expect("a folder");
    let mount =
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&disk).output();
    if !mount.is_ok_and(|output| output.status.success()) {
        return; // not allowed to mount: the writer's own tests cover a failing write
    }
    let run = place.small(&["--height", "256", "--width", "256", "-o", "disk/x.png"]);
    let left = fs::read_dir(&disk).expect("a folder").count();
    let unmounted = std::process::Command::new("umount").arg(&disk).status().expect("umount starts");
    assert!(unmounted.success());
    run.fails(1, &["cannot write disk/x.png", "No space left", "free some space"]);
    assert_eq!(left, 0);
}
