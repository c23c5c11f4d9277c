//! Plans of the real model by its shapes: what a machine would be asked for at 4096 px.

use std::{fs, sync::Arc};

use candle_core::{DType, Device};
use dype::testing::{
    base::{device::DeviceKind, geometry::ImageSize, json::read_json, memory::Bytes},
    models::{
        flux1::{LATENTS, autoencoder},
        parts::{Autoencoder, ModelPart},
        z_image::{ZImage, ZImageConfig},
    },
    nn::WeightsMode,
    plan::{Machine, Plan, Task},
};
use serde_json::Value;

use super::{
    golden,
    loading::{real_text_config, real_text_encoder},
    support::{copy_folder, manifest::ManifestSource, program::Place, write_hollow},
    tiny,
};

const CARD: DeviceKind = DeviceKind::Cuda { capability: (8, 6) };
/// What a desktop and the CUDA context leave free of a card: about 0.7 GB are gone before a run starts.
const TAKEN: u64 = 700_000_000;

/// The real Z-Image-Turbo by its dimensions, names and shapes.
fn real() -> ZImage {
    let source = |key| Arc::new(ManifestSource::fixture("z-image/real_tensors.json", key));
    let text = Arc::new(real_text_encoder());
    let part = ModelPart { config: autoencoder(), source: source("vae") };
    ZImage {
        transformer: ModelPart { config: ZImageConfig::z_image(), source: source("transformer") },
        vae: Autoencoder { part, latent_rgb: None, geometry: LATENTS },
        text_encoder: ModelPart { config: real_text_config(), source: text },
        ..tiny()
    }
}

fn plan(model: &ZImage, budget: u64, kind: DeviceKind, dtype: DType, cfg: bool) -> Plan {
    let size = ImageSize::new(4096, 4096).expect("a size");
    let task = Task { prompts: 1 + usize::from(cfg), cfg, ..Task::new(size, 8, 512) };
    // The device stands for where the files are read.
    let machine = Machine { device: Device::Cpu, dtype, budget: Some(Bytes(budget)), weights: None };
    let plan = Plan::on(model, &task, &machine, kind).expect("fits");
    assert!(plan.peak_bytes.most() <= budget, "{:?}", plan.peak_bytes);
    plan
}

#[test]
fn cards_of_8_to_80_gb_take_4096_px() {
    let model = real();
    for (gib, weights) in [(8, "part"), (12, "part"), (24, "resident"), (80, "resident")] {
        let plan = plan(&model, (gib << 30) - TAKEN, CARD, DType::BF16, false);
        assert_eq!(plan.weights, weights, "{gib} GiB: {:?}", plan.peak_bytes);
        assert!(plan.largest_tensor_elements < 1 << 32);
        assert!(plan.token_chunk >= 2048, "{gib} GiB: {}", plan.token_chunk);
    }
}

/// The program itself, on a folder of the published configs and of files with the real names and shapes and no numbers.
#[test]
fn a_dry_run_plans_the_real_model_by_headers() {
    let place = Place::new();
    copy_folder(&golden("tiny"), &place.path("real"));
    let configs: Value = read_json(&golden("real_configs.json")).expect("fixture");
    for (path, config) in configs["turbo"].as_object().expect("configs") {
        fs::write(place.path("real").join(path), config.to_string()).expect("written");
    }
    let parts = [
        ("transformer", ManifestSource::fixture("z-image/real_tensors.json", "transformer")),
        ("vae", ManifestSource::fixture("z-image/real_tensors.json", "vae")),
        ("text_encoder", real_text_encoder()),
    ];
    for (part, source) in parts {
        let folder = place.path("real").join(part);
        for file in fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if !file.ends_with("config.json") {
                fs::remove_file(file).expect("removed");
            }
        }
        let name = if part == "text_encoder" { "model" } else { "diffusion_pytorch_model" };
        write_hollow(&folder.join(format!("{name}.safetensors")), source.shapes().clone());
    }
    let plan = |more: &[&str]| -> Value {
        let args = ["--model", "real", "--dry-run", "--json", "-p", "a cat", "--device", "cpu"];
        let run = place.dype(&[&args[..], more].concat());
        run.succeeds();
        serde_json::from_str(&run.stdout).expect("JSON")
    };
    let planned = plan(&["--memory", "8GB"]);
    let (settings, planned) = (&planned["settings"], &planned["plan"]);
    assert_eq!(
        (settings["steps"].as_u64(), settings["height"].as_u64(), settings.get("cfg")),
        (Some(8), Some(4096), None)
    );
    assert_eq!((planned["image_tokens"].as_u64(), planned["weights"].as_str()), (Some(65_536), Some("stream")));
    // 6.15 B parameters in bf16, and Qwen3 without its last layer.
    let bytes = |part: &str| planned["weights_bytes"][part].as_f64().expect("bytes") / 1e9;
    assert!((12.2..12.4).contains(&bytes("transformer")) && (7.8..7.9).contains(&bytes("text_encoder")));
}

#[test]
fn a_cpu_takes_4096_px_streamed_in_8_gb_and_resident_in_16() {
    let model = real();
    let cpu = |gib: u64, cfg| plan(&model, gib << 30, DeviceKind::Cpu, DType::F32, cfg);
    let once = cpu(8, false);
    assert_eq!((once.image_tokens, once.choices.weights), (65_536, WeightsMode::Stream));
    // 6.15 B parameters, of which the embedders and the text's own layers see few tokens, and attention of 32 layers of 3840
    // channels over all of them.
    let (products, attention) = (2.0 * 5.9e9 * 66_048.0, 4.0 * 32.0 * 3840.0 * 66_048f64.powi(2));
    let ratio = once.step_flops as f64 / (products + attention);
    assert!((0.95..1.05).contains(&ratio), "{ratio}");
    let twice = cpu(16, true);
    assert_eq!(twice.choices.weights, WeightsMode::Resident, "{:?}", twice.peak_bytes);
    assert_eq!((twice.passes, twice.step_flops), (2, 2 * once.step_flops));
}
