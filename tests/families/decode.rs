//! `dype decode` with autoencoders alone, and of single files: of which family one is, it says itself.

use std::{collections::BTreeMap, fs, path::Path};

use candle_core::{DType, Device, Tensor};
use dype::testing::{
    models::{ModelRequest, Registry},
    output::LatentsFile,
};

use super::{
    command,
    hub_server::HubServerBuilder,
    run,
    support::{fixture, program::Place},
};

fn copy(from: &str, to: &Path) {
    fs::create_dir_all(to.parent().expect("a folder")).expect("folders");
    fs::copy(fixture(from), to).expect("copied");
}

/// Puts the autoencoder of a tiny model as a file under a name that says nothing, with its config beside it, whose numbers its
/// shapes do not tell.
fn bare(place: &Place, family: &str) -> String {
    copy(&format!("{family}/tiny/vae/config.json"), &place.path(family).join("config.json"));
    let file = place.path(family).join("x.safetensors");
    copy(&format!("{family}/tiny/vae/diffusion_pytorch_model.safetensors"), &file);
    file.display().to_string()
}

#[test]
fn autoencoders_are_known_by_what_they_hold() {
    let place = Place::new();
    let cases = [
        ("z-image", "AutoencoderKL", 64),
        ("flux2-klein", "AutoencoderKLFlux2", 128),
        ("qwen-image", "AutoencoderKLQwenImage", 64),
    ];
    for (family, class, channels) in cases {
        let folder = fixture(family).join("tiny/vae").display().to_string();
        for path in [bare(&place, family), folder] {
            let found = Registry::default().autoencoder(&ModelRequest::new(&path)).expect(&path);
            assert_eq!((found.class(), found.geometry().token_channels()), (Some(class), channels), "{path}");
        }
    }
}

/// Latents of 2 x 2 tokens that say this of themselves.
fn latents(place: &Place, channels: usize, class: &str) {
    let latents = Tensor::zeros((1, 4, channels), DType::F32, &Device::Cpu).expect("zeros");
    let metadata = BTreeMap::from([("autoencoder".to_owned(), class.to_owned())]);
    let file = LatentsFile { latents, beside: BTreeMap::new(), metadata };
    file.write(&place.path("l.safetensors"), true).expect("written");
}

#[test]
fn latents_go_with_the_autoencoder_they_name() {
    let place = Place::new();
    let decode =
        |vae: &str| run(command(&place, &["decode", "l.safetensors", "--vae", vae, "-o", "x.png", "--overwrite"]));
    latents(&place, 128, "AutoencoderKLFlux2");
    decode(&bare(&place, "flux2-klein")).succeeds();
    latents(&place, 64, "AutoencoderKLQwenImage");
    decode(&bare(&place, "qwen-image")).succeeds();
    let words = ["l.safetensors holds latents of an AutoencoderKLQwenImage", "is an AutoencoderKL", "--vae"];
    decode(&fixture("tiny-bfl/ae.safetensors").display().to_string()).fails(1, &words);
    decode(&bare(&place, "flux2-klein")).fails(1, &["AutoencoderKLQwenImage"]);
    let other = fixture("tiny-flux/text_encoder/model.safetensors").display().to_string();
    decode(&other).fails(1, &["is not an autoencoder", "CLIP"]);
}

#[test]
fn what_is_saved_names_its_autoencoder() {
    let place = Place::new();
    place.small(&["--save-latents", "l.safetensors", "-o", "x.png"]).succeeds();
    let said = LatentsFile::read(&place.path("l.safetensors")).expect("latents").metadata;
    assert_eq!(said.get("autoencoder").map(String::as_str), Some("AutoencoderKL"));
}

#[test]
fn of_a_single_file_that_lacks_one_only_the_autoencoder_is_fetched() {
    let place = Place::new();
    let read = |path: &str| fs::read(fixture(path)).expect("a file");
    let transformer = read("tiny-bfl/flux1-tiny.safetensors");
    let length = transformer.len() as u64;
    let server = HubServerBuilder::default().repo("somebody/fine-tune").large("flux.safetensors", transformer);
    let server = server.repo("Comfy-Org/Lumina_Image_2.0_Repackaged");
    let server = server.large("split_files/vae/ae.safetensors", read("tiny-bfl/ae.safetensors")).start();
    latents(&place, 64, "AutoencoderKL");
    let args = ["decode", "l.safetensors", "--model", "somebody/fine-tune:flux.safetensors", "-o", "x.png"];
    let mut decode = command(&place, &args);
    decode.env("HF_ENDPOINT", &server.endpoint).env_remove("HF_HUB_OFFLINE");
    run(decode).succeeds();
    let blobs = |repo: &str| {
        let folder = place.path("hf/hub").join(repo).join("blobs");
        fs::read_dir(folder)
            .into_iter()
            .flatten()
            .map(|blob| blob.expect("a blob").metadata().expect("a file").len())
            .max()
    };
    assert_eq!(blobs("models--somebody--fine-tune"), None, "a transformer of {length} bytes");
    assert!(blobs("models--Comfy-Org--Lumina_Image_2.0_Repackaged").is_some());
    // Where nobody lends it, what is lacking is told.
    copy("tiny-bfl/flux1-tiny.safetensors", &place.path("alone/flux.safetensors"));
    let alone = ["decode", "l.safetensors", "--model", "alone/flux.safetensors", "-o", "y.png"];
    place.dype(&alone).fails(1, &["lacks vae", "nothing is fetched"]);
}
