//! What the real models need at 4096 px, by their shapes alone.

use std::sync::Arc;

use candle_core::{DType, Device};
use dype::testing::{
    base::{device::DeviceKind, geometry::ImageSize, json::read_json, memory::Bytes},
    models::{
        flux2::{Flux2, Flux2Config, transformer_names},
        parts::{Autoencoder, ModelPart, Qwen3Config},
    },
    plan::{Machine, Plan, Task},
};
use serde_json::Value;

use super::{fixture, tiny};
use crate::support::manifest::ManifestSource;

const CARD: DeviceKind = DeviceKind::Cuda { capability: (8, 9) };

/// A real model by its dimensions, names and shapes.
fn real(size: &str) -> Flux2 {
    let lists: Value = read_json(&fixture("real_tensors.json")).expect("lists");
    let source = |list: &Value| {
        let shapes: std::collections::BTreeMap<String, Vec<usize>> =
            serde_json::from_value(list.clone()).expect("names and shapes");
        Arc::new(ManifestSource::new(shapes))
    };
    let (mut model, real) = (tiny(), &lists[size]);
    let config = |key: &str| real[key].to_string();
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    let transformer = Flux2Config::read(&write("t.json", config("config"))).expect("a config");
    let qwen = Qwen3Config::read(&write("q.json", config("text_config"))).expect("a config");
    let named = transformer_names(source(&real["transformer"])).expect("a transformer");
    model.transformer = ModelPart { config: transformer, source: Arc::new(named) };
    model.text_encoder = ModelPart { config: qwen, source: source(&real["text_encoder"]) };
    let vae: dype::testing::models::flux2::Flux2VaeConfig =
        serde_json::from_value(lists["vae"]["config"].clone()).expect("a config");
    model.vae.inner =
        Autoencoder { part: ModelPart { config: vae.kl, source: source(&lists["vae"]["tensors"]) }, ..model.vae.inner };
    model
}

fn plan(model: &Flux2, kind: DeviceKind, gigabytes: u64) -> dype::testing::Result<Plan> {
    let size = ImageSize { height_px: 4096, width_px: 4096 };
    let task = Task::new(size, 4, 512);
    let dtype = if kind.is_cpu() { DType::F32 } else { DType::BF16 };
    // The device stands for where the files are read; what is planned is this kind.
    let budget = Some(Bytes(gigabytes * 1_000_000_000));
    let machine = Machine { device: Device::Cpu, dtype, budget, weights: None };
    Plan::on(model, &task, &machine, kind)
}

#[test]
fn klein_4b_at_4096_px_fits_into_small_and_large_memory() {
    let model = real("4B");
    for (kind, gigabytes, weights) in [
        (DeviceKind::Cpu, 8, "stream"),
        (DeviceKind::Cpu, 24, "resident"),
        (CARD, 8, "part"),
        (CARD, 12, "resident"),
        (CARD, 24, "resident"),
        (CARD, 80, "resident"),
    ] {
        let plan = plan(&model, kind, gigabytes).unwrap_or_else(|e| panic!("{kind:?} {gigabytes} GB: {e}"));
        assert_eq!(plan.image_tokens, 65_536);
        assert!(plan.peak_bytes.most() <= gigabytes * 1_000_000_000, "{kind:?} {gigabytes} GB");
        assert_eq!(plan.weights, weights, "{kind:?} {gigabytes} GB: {:?}", plan.peak_bytes);
        // 3.9 billion weights of which each token meets half or all, and attention of 66,048 tokens in 25 blocks.
        let petaflops = plan.total_flops as f64 / 1e15;
        assert!((4.0..12.0).contains(&petaflops), "{petaflops} PFLOP");
    }
}

#[test]
fn klein_9b_at_4096_px_is_planned() {
    let model = real("9B");
    for gigabytes in [12, 24, 80] {
        let plan = plan(&model, CARD, gigabytes).unwrap_or_else(|e| panic!("{gigabytes} GB: {e}"));
        assert!(plan.peak_bytes.most() <= gigabytes * 1_000_000_000, "{gigabytes} GB");
    }
}
