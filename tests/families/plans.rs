//! Plans of the real Qwen-Image by its shapes, as those of the other families stand with them: what a machine would be asked for at
//! 4096 px.

use candle_core::{DType, Device};
use dype::testing::{
    base::{device::DeviceKind, geometry::ImageSize, memory::Bytes},
    models::{Model, Registry},
    plan::{Machine, Plan, Task},
};

use super::published;

const CARD: DeviceKind = DeviceKind::Cuda { capability: (8, 6) };
/// What a desktop and the CUDA context leave free of a card: about 0.7 GB are gone before a run starts.
const TAKEN: u64 = 700_000_000;

fn model(repo: &str) -> Box<dyn Model> {
    let (family, known) = published(repo);
    Registry::default().open(&known.request(family).expect("configs")).expect("a model")
}

fn plan(model: &dyn Model, budget: u64, kind: DeviceKind) -> dype::testing::Result<Plan> {
    let recipe = &model.facts().recipe;
    let (size, cfg) = (ImageSize::new(4096, 4096).expect("a size"), recipe.cfg.is_some());
    let prompts = 1 + usize::from(cfg);
    let task = Task { prompts, cfg, ..Task::new(size, recipe.steps, recipe.text_tokens) };
    let dtype = if kind.is_cpu() { DType::F32 } else { DType::BF16 };
    // The device stands for where the files are read.
    let machine = Machine { device: Device::Cpu, dtype, budget: Some(Bytes(budget)), weights: None };
    Plan::on(model, &task, &machine, kind)
}

#[test]
fn qwen_image_takes_4096_px_on_a_cpu_and_on_cards_of_8_to_80_gb() {
    let model = model("Qwen/Qwen-Image");
    let cases = [
        (DeviceKind::Cpu, 8 << 30, "stream"),
        (DeviceKind::Cpu, 64 << 30, "resident"),
        (CARD, (8 << 30) - TAKEN, "part"),
        (CARD, (12 << 30) - TAKEN, "part"),
        (CARD, (24 << 30) - TAKEN, "part"),
        (CARD, (80 << 30) - TAKEN, "resident"),
    ];
    for (kind, budget, weights) in cases {
        let plan = plan(&*model, budget, kind).unwrap_or_else(|e| panic!("{kind:?} {budget}: {e}"));
        assert_eq!((plan.image_tokens, plan.passes), (65_536, 2));
        assert!(plan.peak_bytes.most() <= budget, "{kind:?}: {:?}", plan.peak_bytes);
        assert_eq!(plan.weights, weights, "{kind:?} {budget}: {:?}", plan.peak_bytes);
        // 20.4 B parameters, half of which see the text alone, and attention of 60 blocks of 3072 channels over all tokens.
        let (products, attention) = (2.0 * 6.8e9 * 65_536.0, 4.0 * 60.0 * 3072.0 * 66_048f64.powi(2));
        let ratio = plan.step_flops as f64 / (2.0 * (products + attention));
        assert!((0.9..1.1).contains(&ratio), "{ratio}");
    }
}
