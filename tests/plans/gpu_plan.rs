//! What a GPU would be asked for: plans of the real FLUX.1 in bf16, which are arithmetic and need no GPU.

use crate::{
    counting::{allocations_of, alone},
    support::manifest::{ManifestSource, flux1},
};
use candle_core::{DType, Device, Tensor};
use dype::testing::{
    Error,
    base::{device::DeviceKind, geometry::ImageSize, memory::Bytes},
    models::{
        Model, StepShape,
        flux1::{Compute, Flux1, FluxConfig, Forward, ForwardCost, ForwardOptions, WeightsMode},
        parts::ModelPart,
    },
    nn::CodeProducts,
    plan::{Machine, Plan, Task, what_fits},
    weights::{Float8, TensorSource, Weights},
};

/// What a desktop and the CUDA context leave free of a card: about 0.7 GB are gone before a run starts.
const TAKEN: u64 = 700_000_000;

const CARD: DeviceKind = DeviceKind::Cuda { capability: (8, 6) };

/// The largest that are tried.
const PIECES: ForwardOptions = ForwardOptions { token_chunk: 8192, query_rows: 2048, heads: 8 };

fn plan(card_gib: u64, side_px: usize) -> Result<Plan, Error> {
    plan_in((card_gib << 30) - TAKEN, side_px)
}

fn plan_in(budget: u64, side_px: usize) -> Result<Plan, Error> {
    let size = ImageSize::new(side_px, side_px).expect("a size");
    let task = Task::new(size, 28, 512);
    // The device stands for where the files are read; what is planned is a GPU.
    let machine = Machine { device: Device::Cpu, dtype: DType::BF16, budget: Some(Bytes(budget)), weights: None };
    Plan::on(&flux1(), &task, &machine, CARD)
}

#[test]
fn cards_of_8_to_24_gb_take_4096_px_with_streamed_weights() {
    let _alone = alone();
    for gib in [8, 12, 24] {
        let plan = plan(gib, 4096).expect("fits");
        assert!(plan.peak_bytes.most() <= (gib << 30) - TAKEN, "{gib} GiB: {:?}", plan.peak_bytes);
        assert_ne!(plan.choices.weights, WeightsMode::Resident, "{gib} GiB: 23.8 GB of weights");
        assert!(plan.largest_tensor_elements < 1 << 32);
        // Whole panels of tokens, or matrix products would starve.
        assert!(plan.token_chunk >= 2048, "{gib} GiB: {}", plan.token_chunk);
    }
}

/// What a streamed run leaves of a card holds blocks, which then need not travel in each step: the more the larger it is.
#[test]
fn blocks_stay_where_there_is_room_for_them() {
    let _alone = alone();
    let stay = |gib, side_px| match plan(gib, side_px).expect("fits").choices.weights {
        WeightsMode::Part { stay } => stay,
        other => panic!("{gib} GiB, {side_px} px: {other:?}"),
    };
    let found = [8, 12, 20].map(|gib| stay(gib, 1024));
    assert!(found.is_sorted() && found[0] > 5 && found[2] > 35, "{found:?}");
    assert!(stay(8, 4096) < stay(8, 1024));
    // Not all of the budget: a driver takes more than is allocated.
    let plan = plan(20, 1024).expect("fits");
    assert!((0.8..0.9).contains(&(plan.peak_bytes.denoise as f64 / plan.budget_bytes.expect("one") as f64)));
}

#[test]
fn a_card_of_80_gb_keeps_the_weights() {
    let _alone = alone();
    let plan = plan(80, 4096).expect("fits");
    assert_eq!(plan.choices.weights, WeightsMode::Resident);
    assert!(plan.peak_bytes.denoise > 23_800_000_000);
}

#[test]
fn a_card_of_1_gb_is_told_what_the_least_is() {
    let _alone = alone();
    let error = plan(1, 4096).expect_err("too small");
    assert!(matches!(error, Error::Memory { .. }), "{error}");
    assert!(error.hint().expect("advice").contains("--memory"), "{error}");
}

/// Launches are counted in 31 bits, buffers in 32, however much memory there is: pieces are chosen so that both hold.
#[test]
fn no_launch_reaches_what_a_device_can_count() {
    let _alone = alone();
    for (gib, side_px) in [(80, 1024), (80, 4096), (80, 5792), (80, 8192), (1000, 8192)] {
        let plan = plan(gib, side_px).expect("fits");
        assert!(plan.largest_tensor_elements < 1 << 32, "{side_px} px: {}", plan.largest_tensor_elements);
        let cost = cost(side_px, DType::BF16, plan.choices.forward);
        assert!(cost.is_countable, "{gib} GiB, {side_px} px: {:?}", plan.choices.forward);
    }
    // In f32, whose scores are a tensor, 8 heads of 2048 queries over 8192 px are 4.3e9 of them in one launch: refused on a card,
    // nothing to a processor. In bf16 there are none.
    assert!(!cost(8192, DType::F32, PIECES).is_countable);
    assert!(!cost(5792, DType::F32, PIECES).is_countable, "2.2e9 scores: above 2^31, below 2^32");
    assert!(cost(4096, DType::F32, PIECES).is_countable);
    assert!(cost(8192, DType::BF16, PIECES).is_countable);
}

/// One forward pass on a card that holds the weights.
fn cost(side_px: usize, dtype: DType, options: ForwardOptions) -> ForwardCost {
    let forward = Forward {
        config: &FluxConfig::flux1_dev(),
        kind: CARD,
        compute: Compute::on(CARD, dtype),
        weights: Weights::absent(dtype),
        mode: WeightsMode::Resident,
        step: [(side_px / 16).pow(2), 512].into(),
    };
    forward.cost(options).expect("a dry pass")
}

/// After a full device: the same picture in less where that can be planned, a smaller one where not.
#[test]
fn a_full_card_is_told_what_would_fit() {
    let _alone = alone();
    let machine = |weights| Machine { device: Device::Cpu, dtype: DType::BF16, budget: None, weights };
    let advice = |plan: &Plan, weights| what_fits(&flux1(), plan, &machine(weights), CARD);
    // The smallest card that keeps the weights: in less of it they must be streamed.
    let kept = |gib| plan(gib, 4096).ok().filter(|plan| plan.choices.weights == WeightsMode::Resident);
    let resident = advice(&(24..80).find_map(kept).expect("a card"), Some(WeightsMode::Resident));
    assert!(resident.contains("--memory") && resident.contains("--weights stream"), "{resident}");
    let streamed = advice(&plan(12, 4096).expect("fits"), None);
    assert!(streamed.contains("--memory") && !streamed.contains("--weights"), "{streamed}");
    // The least that 4096 px can be planned in, to 0.1 GB: four fifths of it are too little.
    let least = (1..).find_map(|tenth| plan_in(tenth * 100_000_000, 4096).ok()).expect("some budget");
    let smaller = advice(&least, None);
    assert!(smaller.contains("--height 2560 --width 2560 (with --memory 2.8GB)"), "{smaller}");
    assert!(plan_in(2_800_000_000, 2560).is_ok(), "what is advised can be planned");
    assert!(plan_in(2_800_000_000, 2816).is_err(), "the next larger cannot");
}

/// Attention in bf16 is a kernel's, which keeps no scores and does not care for their pieces; in f32, made of tensors, it holds a piece
/// of them before the softmax and after it, beside streams, keys and values of twice the size.
#[test]
fn only_f32_holds_scores_on_a_card() {
    let _alone = alone();
    let need = |dtype, options| cost(4096, dtype, options).working_bytes;
    let (tokens, channels) = (65_536 + 512, 3072);
    let (scores, streams) = (8 * 2048 * tokens * 4, 3 * tokens * channels * 2);
    let one_head = ForwardOptions { query_rows: 128, heads: 1, ..PIECES };
    assert_eq!(need(DType::BF16, PIECES), need(DType::BF16, one_head));
    assert!(need(DType::F32, PIECES) > need(DType::BF16, PIECES) + 2 * scores + streams / 2);
    assert!(need(DType::BF16, PIECES) < scores, "{} {scores}", need(DType::BF16, PIECES));
}

/// A plan tries many sizes of pieces, so that each try must be a dry pass of few blocks and few pieces, however small those are: what
/// it asks of the allocator says how many. Every piece of every block would ask for millions.
#[test]
fn a_dry_pass_visits_few_blocks_and_few_pieces() {
    let _alone = alone();
    let asked = |options| allocations_of(|| assert!(cost(4096, DType::BF16, options).flops > 0));
    let (few, most) = (asked(ForwardOptions::default()), asked(ForwardOptions::LEAST));
    assert!(few > 100 && few < 50_000, "{few}");
    assert!(most < 2 * few, "{few} in the largest pieces, {most} in the smallest");
}

/// The real transformer as a file of e4m3, but for what is no matrix.
struct InFloat8(ManifestSource);

impl TensorSource for InFloat8 {
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.0.shape(name)
    }

    fn load(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor, Error> {
        self.0.load(name, dtype, device)
    }

    fn describe(&self) -> String {
        self.0.describe()
    }

    fn inner(&self) -> Option<&dyn TensorSource> {
        Some(&self.0)
    }

    fn file_dtype(&self, name: &str) -> Option<DType> {
        self.float8(name).map_or_else(|| self.0.file_dtype(name), |_| Some(DType::F8E4M3))
    }

    fn float8(&self, name: &str) -> Option<Float8> {
        self.shape(name).filter(|shape| shape.len() == 2).map(|_| Float8::E4M3)
    }
}

/// Where they are asked for and a card has them, products in e4m3 take no widened weights but rows of codes; elsewhere a plan is what it
/// is without them.
#[test]
fn products_in_e4m3_are_planned_where_a_card_has_them() {
    let _alone = alone();
    let transformer = ModelPart {
        config: FluxConfig::flux1_dev(),
        source: std::sync::Arc::new(InFloat8(ManifestSource::diffusers("transformer"))),
    };
    let model = Flux1 { transformer, ..flux1() };
    let asking = |fp8| CodeProducts { fp8, ..CodeProducts::NONE };
    let step = |capability, fp8| {
        let shape = StepShape { products: asking(fp8), ..[65_536, 512].into() };
        let on = (DeviceKind::Cuda { capability }, DType::BF16);
        model.step_cost(on, WeightsMode::Resident, shape, PIECES).expect("a dry pass")
    };
    let (asked, usual) = (step((8, 9), true), step((8, 9), false));
    assert_eq!((asked.flops, asked.weights_bytes), (usual.flops, usual.weights_bytes));
    // A widened panel, its product and a copy of that are three launches, and codes and their product two for all panels.
    assert!(asked.launches < usual.launches, "{} {}", asked.launches, usual.launches);
    assert_eq!(step((8, 6), true), usual);
    let task = |fp8| Task { products: asking(fp8), ..Task::new(ImageSize::new(4096, 4096).expect("a size"), 28, 512) };
    let machine =
        Machine { device: Device::Cpu, dtype: DType::BF16, budget: Some(Bytes((24 << 30) - TAKEN)), weights: None };
    let kind = DeviceKind::Cuda { capability: (8, 9) };
    let peak = |fp8| Plan::on(&model, &task(fp8), &machine, kind).expect("fits").peak_bytes.denoise;
    assert_ne!(peak(true), peak(false), "a plan knows what is asked for");
}
