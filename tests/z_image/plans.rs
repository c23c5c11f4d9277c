//! Plans of the real model by its shapes: what a machine would be asked for at 4096 px.

use std::sync::Arc;

use candle_core::{DType, Device};
use dype::testing::{
    base::{device::DeviceKind, geometry::ImageSize, memory::Bytes},
    models::{
        flux1::{LATENTS, autoencoder},
        parts::{Autoencoder, ModelPart},
        z_image::{ZImage, ZImageConfig},
    },
    nn::WeightsMode,
    plan::{Machine, Plan, Task},
};

use super::{
    loading::{real_text_config, real_text_encoder},
    support::manifest::ManifestSource,
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
    let task = Task { size, steps: 8, text_tokens: 512, prompts: 1 + usize::from(cfg), cfg };
    // The device stands for where the files are read.
    let machine = Machine { device: Device::Cpu, dtype, budget: Some(Bytes(budget)), weights: None };
    let plan = Plan::on(model, &task, &machine, kind).expect("fits");
    assert!(plan.peak_bytes.most() <= budget, "{:?}", plan.peak_bytes);
    plan
}

#[test]
fn cards_of_8_to_80_gb_take_4096_px() {
    let model = real();
    for (gib, weights) in
        [(8, WeightsMode::Stream), (12, WeightsMode::Stream), (24, WeightsMode::Resident), (80, WeightsMode::Resident)]
    {
        let plan = plan(&model, (gib << 30) - TAKEN, CARD, DType::BF16, false);
        assert_eq!(plan.choices.weights, weights, "{gib} GiB: {:?}", plan.peak_bytes);
        assert!(plan.largest_tensor_elements < 1 << 32);
        assert!(plan.token_chunk >= 2048, "{gib} GiB: {}", plan.token_chunk);
    }
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
