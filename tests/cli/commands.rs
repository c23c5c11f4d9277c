//! What the program does besides making pictures: help, version, plans, inspections.

use serde_json::Value;

use crate::support::{
    fixture,
    program::{Place, Run, small},
};

fn json(run: &Run) -> Value {
    assert_eq!(run.only_notes().stdout.lines().count(), 1);
    serde_json::from_str(&run.stdout).expect("JSON")
}

#[test]
fn help_fits_80_columns_and_groups_its_flags() {
    let place = Place::new();
    for args in [&["--help"][..], &["-h"], &["inspect", "--help"]] {
        let output = place.command(args).env("COLUMNS", "80").output().expect("the program starts");
        let run = Run::from(output);
        assert_eq!(run.succeeds().stderr, "");
        let widest = run.stdout.lines().max_by_key(|line| line.chars().count()).expect("help");
        assert!(widest.chars().count() <= 80, "{widest}");
        assert!(run.stdout.contains("\nPosition:\n"), "{}", run.stdout);
        if args[0] != "inspect" {
            for heading in ["Picture:", "Model:", "Machine:", "Output:", "Examples:", "Exit codes:"] {
                assert!(run.stdout.contains(&format!("\n{heading}")), "{heading}");
            }
        }
        assert!(!run.stdout.contains('\u{1b}'));
    }
}

#[test]
fn help_holds_no_gap_but_the_one_behind_a_flag() {
    let place = Place::new();
    for command in [&[][..], &["compare"], &["convert"], &["decode"], &["info"], &["inspect"], &["models"], &["replay"]]
    {
        let help = place.dype(&[command, &["--help"]].concat()).succeeds().stdout.clone();
        let options = help.split("\nOptions:\n").nth(1).expect("options").split("\nExamples:").next().expect("a part");
        for line in options.lines().map(str::trim_start) {
            let gaps = line.split("  ").filter(|part| !part.is_empty()).count() - usize::from(!line.is_empty());
            assert!(gaps <= usize::from(line.starts_with('-')), "{command:?}: {line}");
        }
    }
}

#[test]
fn help_has_every_flag() {
    let help = Place::new().dype(&["--help"]).stdout;
    let flags = "prompt height width steps seed method no-dype dype-scale dype-exponent dype-thresholds base-resolution \
                 model vae text-encoder text-encoder-2 tokenizer tokenizer-2 guidance max-sequence-length mu rng device \
                 dtype output overwrite save-latents quiet verbose memory weights dry-run json version help";
    for flag in flags.split_whitespace() {
        assert!(help.contains(&format!("--{flag}")), "--{flag}");
    }
}

#[test]
fn version_names_features_and_devices_when_asked() {
    let place = Place::new();
    let line = concat!("dype ", env!("CARGO_PKG_VERSION"), "\n");
    for flag in ["--version", "-V"] {
        assert_eq!(place.dype(&[flag]).succeeds().stdout, line);
    }
    let run = place.dype(&["--version", "-v"]);
    assert!(run.succeeds().stdout.starts_with(line), "{}", run.stdout);
    assert!(run.stdout.contains("features: ") && run.stdout.contains("device: cpu ("), "{}", run.stdout);
}

#[test]
fn a_dry_run_plans_and_touches_nothing() {
    let place = Place::new();
    let run = place.small(&["--dry-run", "--save-latents", "new/x.safetensors"]);
    run.only_notes().tells(&["DyPE has no effect at this size"]);
    for row in [
        "picture    64 x 64 px, 1 step",
        "tokens     16 image + 32 text",
        "shift      mu 1.15 at every size",
        "weights",
        "memory",
        "budget",
        "time",
    ] {
        assert!(run.stdout.contains(row), "{row}: {}", run.stdout);
    }
    assert!(run.stdout.lines().all(|line| line.len() <= 80), "{}", run.stdout);
    place.small(&["--dry-run", "-o", "new/x.png"]).succeeds();
    assert_eq!(place.names(), [""; 0]);
}

#[test]
fn a_dry_run_as_json() {
    let place = Place::new();
    let plan = json(&place.small(&["--dry-run", "--json", "--memory", "1GB", "--steps", "3"]));
    assert_eq!(plan["plan"]["image_tokens"], 16);
    assert_eq!(plan["plan"]["budget_bytes"], 1_000_000_000);
    assert_eq!(plan["shift"]["mu"], 1.15);
    assert_eq!(plan["settings"]["steps"], 3);
    let peaks = &plan["plan"]["peak_bytes"];
    for stage in ["text", "denoise", "decode"] {
        assert!(peaks[stage].as_u64().is_some_and(|bytes| bytes < 1_000_000_000), "{peaks}");
    }
}

/// The real model's size needs no real model: 4096 x 4096 px are 65,536 tokens.
#[test]
fn a_dry_run_counts_the_tokens_of_a_large_picture() {
    let place = Place::new();
    let plan = json(&place.small(&["--dry-run", "--json", "--height", "4096", "--width", "4096"]));
    assert_eq!(plan["plan"]["image_tokens"], 65_536);
    assert!(plan["plan"]["largest_tensor_elements"].as_u64().is_some_and(|elements| elements < 1 << 32));
}

#[test]
fn inspect_is_a_table_of_the_schedule() {
    let run = Place::new().dype(&["inspect", "--height", "1280", "--width", "256", "--steps", "4"]);
    assert_eq!(run.succeeds().stderr, "");
    let lines: Vec<_> = run.stdout.lines().collect();
    assert_eq!(lines[0], "yarn, DyPE kappa = 1 t^2, 1280 x 256 px, mu 1.15");
    assert_eq!(lines[1], "  height    80 patches, scale 1.2500, amplitude 1.0223");
    assert_eq!(lines[2], "  width     16 patches, scale 0.2500, amplitude 1.0000");
    assert_eq!(lines.len(), 8 + 4 + 3, "a heading, four steps, and that they are few");
    assert!(lines[13].contains("still extrapolates (kappa 0.26)"), "{}", lines[13]);
    // The wide side moves from step to step, the narrow one is as it was trained.
    assert_eq!(lines[8], "   1  1.0000  1.0000   1   7  20     0-5     6-8  28   0   0       -       -");
    assert_eq!(lines[11], "   4  0.5128  0.2630   3   9  16    2-10   10-12  28   0   0       -       -");
    assert!(lines.iter().all(|line| line.len() <= 80));
    let fixed = Place::new().dype(&["inspect", "--no-dype", "--method", "ntk", "--steps", "1"]);
    assert!(fixed.succeeds().stdout.starts_with("ntk, static, 4096 x 4096 px"), "{}", fixed.stdout);
}

#[test]
fn inspect_as_json_has_the_promised_layout() {
    let run = Place::new().dype(&["inspect", "--json", "--height", "2048", "--width", "1024", "--steps", "3"]);
    let start = r#"{"method":"yarn","dype":true,"height":2048,"width":1024,"mu":1.15,"steps":[{"step":1,"t":1.0,"kappa":1.0,"axes":[{"axis":"height","patches":128,"scale":2.0,"inv_freq":[1.0,"#;
    assert!(run.stdout.starts_with(start), "{}", &run.stdout[..start.len()]);
    let found = json(&run);
    let keys = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>().join(" ");
    let sorted = |text: &str| {
        let mut words: Vec<_> = text.split(' ').collect();
        words.sort_unstable();
        words.join(" ")
    };
    assert_eq!(sorted(&keys(&found)), sorted("method dype height width mu steps"));
    let steps = found["steps"].as_array().expect("a list");
    assert_eq!(steps.len(), 3);
    for (index, step) in steps.iter().enumerate() {
        assert_eq!(sorted(&keys(step)), sorted("step t kappa axes"));
        assert_eq!(step["step"], index + 1);
        let axes = step["axes"].as_array().expect("a list");
        assert_eq!(axes.iter().map(|axis| axis["axis"].as_str()).collect::<Vec<_>>(), [Some("height"), Some("width")]);
        for axis in axes {
            assert_eq!(sorted(&keys(axis)), sorted("axis patches scale inv_freq amplitude"));
            assert_eq!(axis["inv_freq"].as_array().map(Vec::len), Some(28));
            assert_eq!(axis["amplitude"].as_array().map(Vec::len), Some(28));
        }
    }
}

#[test]
fn inspect_one_moment() {
    let found = json(&Place::new().dype(&["inspect", "--json", "--t", "0.5", "--dype-scale", "2"]));
    let steps = found["steps"].as_array().expect("a list");
    assert_eq!(steps.len(), 1);
    assert_eq!((&steps[0]["t"], &steps[0]["kappa"]), (&0.5.into(), &0.5.into()));
    Place::new()
        .dype(&["inspect", "--t", "1.5"])
        .fails(2, &["1.5", "0 (the picture) to 1 (pure noise)", "dype inspect --help"]);
}

#[test]
fn inspect_takes_axes_and_schedule_from_a_model() {
    let model = fixture("tiny-flux").display().to_string();
    let found = json(&Place::new().dype(&["inspect", "--json", "--model", &model, "--steps", "2"]));
    assert_eq!(found["steps"][0]["axes"][0]["inv_freq"].as_array().map(Vec::len), Some(7), "axes (4, 14, 14)");
    Place::new().dype(&["inspect", "--model", "no/such/folder"]).fails(2, &["no/such/folder"]);
}

#[test]
fn inspect_draws_a_plot() {
    let place = Place::new();
    let run = place.dype(&["inspect", "--plot", "x.png"]);
    assert_eq!(run.succeeds().stdout, "x.png\n");
    let plot = image::open(place.path("x.png")).expect("a picture").to_rgb8();
    let inks: std::collections::HashSet<_> = plot.pixels().collect();
    assert!(plot.width() > 600 && inks.len() > 10, "curves in several colours");
    place.dype(&["inspect", "--plot", "x.jpg"]).fails(2, &["x.jpg", ".png"]);
}

#[test]
fn flags_of_a_picture_stand_behind_the_subcommand() {
    let args = small(&[]);
    let args: Vec<&str> = args.iter().map(String::as_str).chain(["inspect"]).collect();
    Place::new().dype(&args).fails(2, &["inspect", "behind the subcommand"]);
}
