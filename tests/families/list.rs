//! `dype models`.

use std::fs;

use serde_json::Value;

use super::{
    cached, command, put, run,
    support::{copy_folder, fixture, program::Place},
};

#[test]
fn the_list_says_what_each_model_is_and_what_of_it_is_here() {
    let place = Place::new();
    copy_folder(&fixture("z-image/tiny"), &cached(&place, "Tongyi-MAI/Z-Image-Turbo"));
    put(&cached(&place, "Qwen/Qwen-Image"), "model_index.json", "{}");
    copy_folder(&fixture("flux2-klein/tiny"), &place.path("folders/somebody/klein"));
    let unet = place.path("ComfyUI/models/unet/mine");
    fs::create_dir_all(&unet).expect("folders");
    fs::copy(fixture("tiny-bfl/flux1-tiny.safetensors"), unet.join("flux.safetensors")).expect("copied");
    // No model, and nothing that could be read.
    put(&unet, "notes.safetensors", "x");
    fs::copy(fixture("tiny-bfl/ae.safetensors"), unet.join("ae.safetensors")).expect("copied");
    let list = run(command(&place, &["models", "--json", "--model-dir", "ComfyUI", "--model-dir", "folders"]));
    let said: Value = serde_json::from_str(&list.succeeds().stdout).expect("JSON");
    let models = said["models"].as_array().expect("models");
    let of = |repo: &str| models.iter().find(|model| model["model"] == repo).expect("listed");
    let krea = of("black-forest-labs/FLUX.1-Krea-dev");
    assert_eq!((krea["family"].as_str(), krea["is_default"].as_bool()), (Some("FLUX.1"), Some(true)));
    assert_eq!((krea["licence"]["is_gated"].as_bool(), krea["copy"].as_str()), (Some(true), Some("none")));
    let turbo = of("Tongyi-MAI/Z-Image-Turbo");
    assert_eq!((turbo["copy"].as_str(), turbo["steps"].as_u64()), (Some("complete"), Some(8)));
    assert_eq!(turbo["licence"]["name"], "Apache-2.0");
    let qwen = of("Qwen/Qwen-Image");
    assert_eq!((qwen["copy"].as_str(), qwen["passes"].as_u64()), (Some("partly"), Some(2)));
    // Weights that stay are all in memory, in bf16 on a card and as they are stored on the CPU.
    for model in models {
        let needs = model["needs"].as_array().expect("needs");
        assert_eq!(needs.len(), 4, "{model}");
        for need in needs {
            let peak = |mode: &str| need["peak_bytes"][mode].as_u64().expect("bytes");
            assert!(peak("stream") <= peak("resident"), "{model}");
        }
        let at = |side, device: &str| {
            let is_it = |need: &&Value| need["side_px"] == side && need["device"] == device;
            needs.iter().find(is_it).expect("a need")["peak_bytes"]["resident"].as_u64().expect("bytes")
        };
        let transformer = model["weights_bytes"]["transformer"].as_u64().expect("bytes");
        assert!(at(1024, "cpu") > transformer && at(4096, "cpu") > at(1024, "cpu"), "{model}");
        let is_f32 = model["model"] == "Tongyi-MAI/Z-Image-Turbo";
        assert!(at(1024, "cuda") > if is_f32 { transformer / 2 } else { transformer }, "{model}");
    }
    let files = said["files"].as_array().expect("files");
    let files: Vec<_> = files.iter().map(|file| (file["family"].as_str(), file["path"].as_str())).collect();
    let here = [
        (Some("FLUX.1"), Some("ComfyUI/models/unet/mine/flux.safetensors")),
        (Some("FLUX.2 [klein]"), Some("folders/somebody/klein")),
    ];
    assert_eq!(files, here);
}

#[test]
fn the_table_fits_wide_and_narrow_terminals() {
    let place = Place::new();
    for (columns, lines) in [(80, 20..40), (40, 60..120)] {
        let mut list = command(&place, &["models"]);
        list.env("COLUMNS", columns.to_string());
        let list = run(list);
        let text = &list.succeeds().stdout;
        assert!(text.lines().all(|line| line.chars().count() <= columns), "{text}");
        assert!(lines.contains(&text.lines().count()), "{text}");
        for words in
            ["black-forest-labs/FLUX.1-Krea-dev", "Qwen/Qwen-Image", "Apache-2.0", "non-commercial *", "2 x 50"]
        {
            assert!(text.contains(words), "{words}: {text}");
        }
    }
}

#[test]
fn a_folder_that_is_not_there_is_told_of() {
    run(command(&Place::new(), &["models", "--model-dir", "nowhere"])).fails(1, &["--model-dir nowhere"]);
}
