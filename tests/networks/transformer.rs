//! The transformer against the reference's forward pass, and against itself in other pieces.

use std::{collections::HashMap, sync::Arc};

use crate::plain::exactness;
use crate::support::{fixture, manifest::ManifestSource, values};
use candle_core::{DType, Device, Tensor};
use dype::testing::{
    base::{device::DeviceKind, geometry::TokenGrid},
    methods::{AxisFrequencies, Looks, MethodSpec, Moment, PositionScaler, RotaryAxis, Yarn},
    models::flux1::{
        Block, Compute, FluxConfig, Forward, ForwardOptions, Transformer, WeightsMode, block_stream,
        transformer_tensors,
    },
    nn::{Parameters, RopeTables},
    weights::{TensorFiles, Weights},
};

fn tiny_config() -> FluxConfig {
    FluxConfig::read(&fixture("tiny-flux/transformer/config.json")).expect("config")
}

fn tiny_weights(dtype: DType) -> Weights {
    let shard = |i| fixture(&format!("tiny-flux/transformer/diffusion_pytorch_model-0000{i}-of-00003.safetensors"));
    let store = TensorFiles::open(&[shard(1), shard(2), shard(3)]).expect("shards");
    Weights::new(Arc::new(store), dtype, Device::Cpu)
}

/// DY-YaRN as the reference computes it, written for this test alone: DESIGN.md, "The method in five lines".
struct DyYarn;

impl DyYarn {
    /// Weight of the first of two sets of frequencies over the pairs, 0 below the border of `turns.0`, 1 above that of `turns.1`.
    fn ramp(axis: &RotaryAxis, turns: (f64, f64)) -> Vec<f64> {
        let border = |turns: f64| {
            let length = axis.base_patches as f64 / (turns * 2.0 * std::f64::consts::PI);
            axis.dim as f64 * length.ln() / (2.0 * axis.theta.ln())
        };
        let low = border(turns.0).floor().max(0.0);
        let high = border(turns.1).ceil().min(axis.dim as f64 / 2.0);
        let high = if low == high { high + 0.001 } else { high };
        (0..axis.dim / 2).map(|i| ((i as f64 - low) / (high - low)).clamp(0.0, 1.0)).collect()
    }
}

impl PositionScaler for DyYarn {
    fn spec(&self) -> &'static MethodSpec {
        &Yarn::SPEC
    }

    fn looks(&self) -> Looks {
        Looks::Time
    }

    fn frequencies(&self, axis: &RotaryAxis, at: &Moment) -> AxisFrequencies {
        let dim = axis.dim as f64;
        let powers =
            |theta: f64| -> Vec<f64> { (0..axis.dim / 2).map(|i| theta.powf(-2.0 * i as f64 / dim)).collect() };
        let native = powers(axis.theta);
        if axis.patches <= axis.base_patches {
            return AxisFrequencies { amplitude: vec![1.0; native.len()], inv_freq: native };
        }
        let s = axis.patches as f64 / axis.base_patches as f64;
        let kappa = at.t * at.t;
        let ntk = powers(axis.theta * s.powf(dim / (dim - 2.0)));
        let beta = Self::ramp(axis, (1.25 * kappa, 0.75 * kappa));
        let gamma = Self::ramp(axis, (16.0 * kappa, 2.0 * kappa));
        let blend = |i: usize| {
            let stretched = native[i] / s * beta[i] + ntk[i] * (1.0 - beta[i]);
            stretched * gamma[i] + native[i] * (1.0 - gamma[i])
        };
        let inv_freq: Vec<f64> = (0..native.len()).map(blend).collect();
        AxisFrequencies { amplitude: vec![0.1 * s.ln() + 1.0; inv_freq.len()], inv_freq }
    }
}

/// The reference's forward pass: its inputs, and the velocity it found.
struct Golden {
    tensors: HashMap<String, Tensor>,
    rope: RopeTables,
}

impl Golden {
    fn load() -> Self {
        let file = fixture("expected/transformer.safetensors");
        let tensors = candle_core::safetensors::load(file, &Device::Cpu).expect("golden");
        let t = scalar(&tensors["timestep"]);
        let grid = TokenGrid { height_patches: 20, width_patches: 80 };
        let rope = RopeTables::new(
            &tiny_config().position_ids(grid, 512),
            tiny_config().base_patches(),
            &DyYarn,
            &Moment::at(t),
            &Device::Cpu,
        )
        .expect("tables");
        Self { tensors, rope }
    }

    fn velocity(&self, model: &Transformer) -> Tensor {
        let of = |name: &str| &self.tensors[name];
        let (t, guidance) = (scalar(of("timestep")), scalar(of("guidance")));
        model.forward(of("img"), of("prompt_embeds"), of("pooled"), t, Some(guidance), &self.rope).expect("forward")
    }

    fn expected(&self) -> &Tensor {
        &self.tensors["velocity"]
    }
}

fn scalar(tensor: &Tensor) -> f64 {
    f64::from(tensor.to_vec1::<f32>().expect("one number")[0])
}

/// ‖a - b‖ / ‖b‖
fn relative_error(a: &Tensor, b: &Tensor) -> f64 {
    crate::support::relative_error(&values(a), &values(b))
}

fn load(mode: WeightsMode, dtype: DType) -> Transformer {
    Transformer::load(&tiny_config(), &tiny_weights(dtype), mode, Compute::on(DeviceKind::Cpu, DType::F32))
        .expect("tiny-flux")
}

#[test]
fn velocity_is_the_references() {
    let golden = Golden::load();
    let velocity = golden.velocity(&load(WeightsMode::Resident, DType::F32));
    assert_eq!(velocity.dims(), golden.expected().dims());
    let error = relative_error(&velocity, golden.expected());
    assert!(error < 1e-4, "relative error {error:e}");
}

#[test]
fn pieces_of_any_size_give_the_same_velocity() {
    let golden = Golden::load();
    let model = load(WeightsMode::Resident, DType::F32);
    let whole = golden.velocity(&model);
    let mut model = model;
    for (token_chunk, query_rows) in [(100_000, 100_000), (1000, 64), (513, 100), (77, 1)] {
        model = model.with_options(ForwardOptions { token_chunk, query_rows, heads: 3 });
        let error = relative_error(&golden.velocity(&model), &whole);
        // What is left of a chunk may be too small for a matrix unit.
        assert!(error < exactness(), "chunks of {token_chunk}, queries by {query_rows}: {error:e}");
    }
}

#[test]
fn streamed_and_half_width_weights_are_the_resident_ones_exactly() {
    let golden = Golden::load();
    let resident = golden.velocity(&load(WeightsMode::Resident, DType::F32));
    let part = WeightsMode::Part { stay: 2 };
    for (mode, dtype) in [
        (WeightsMode::Stream, DType::F32),
        (part, DType::F32),
        (WeightsMode::Resident, DType::BF16),
        (WeightsMode::Stream, DType::BF16),
        (part, DType::BF16),
    ] {
        let velocity = golden.velocity(&load(mode, dtype));
        assert_eq!(bits(&velocity), bits(&resident), "{mode:?} {dtype:?}");
    }
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    values(tensor).iter().map(|x| x.to_bits()).collect()
}

#[test]
fn half_width_streams_as_on_a_gpu_stay_near_the_reference() {
    // The path of candle's tensors that every other device takes, whole. f16 because bf16 means something else on the
    // CPU; its 11 bits of mantissa leave about 0.1%.
    let golden = Golden::load();
    let weights = tiny_weights(DType::F16);
    let model =
        Transformer::load(&tiny_config(), &weights, WeightsMode::Resident, Compute::on(DeviceKind::Cpu, DType::F16))
            .expect("tiny-flux");
    let error = relative_error(&golden.velocity(&model), golden.expected());
    assert!(error < 2e-3, "relative error {error:e}");
}

#[test]
fn products_rounded_to_bf16_stay_near_the_reference() {
    // 8 bits of mantissa in the inputs of the large products, f32 everywhere else. Where the processor has no such
    // products, they are exact.
    let golden = Golden::load();
    let weights = tiny_weights(DType::BF16);
    let model =
        Transformer::load(&tiny_config(), &weights, WeightsMode::Resident, Compute::on(DeviceKind::Cpu, DType::BF16))
            .expect("tiny-flux");
    let error = relative_error(&golden.velocity(&model), golden.expected());
    assert!(error < 1e-2, "relative error {error:e}");
}

#[test]
fn flux1_dev_is_asked_for_exactly_its_tensors() {
    let manifest = Arc::new(ManifestSource::diffusers("transformer"));
    let weights = Weights::new(manifest.clone(), DType::BF16, Device::Cpu);
    let config = FluxConfig::flux1_dev();
    Transformer::load(&config, &weights, WeightsMode::Stream, Compute::on(DeviceKind::Cpu, DType::F32))
        .expect("all but the blocks");
    let parameters = Parameters::real(&weights);
    let blocks = block_stream(&config, &parameters, WeightsMode::Stream, Compute::EXACT_F32).expect("blocks");
    let mut doubles = 0;
    blocks
        .for_each(|index, block| {
            assert_eq!(matches!(block, Block::Double(_)), index < 19, "block {index}");
            doubles += usize::from(index < 19);
            Ok(())
        })
        .expect("every block");
    assert_eq!(doubles, 19);
    manifest.assert_each_asked_once();
    // A dry pass lists the same.
    let listed = transformer_tensors(&config).expect("a configuration");
    assert_eq!(listed.into_iter().collect::<std::collections::BTreeMap<_, _>>(), *manifest.shapes());
}

#[test]
fn a_failing_visit_ends_the_stream() {
    let parameters = Parameters::real(&tiny_weights(DType::F32));
    let blocks = block_stream(&tiny_config(), &parameters, WeightsMode::Stream, Compute::EXACT_F32);
    let mut visits = 0;
    let result = blocks.expect("blocks").for_each(|_, _| {
        visits += 1;
        Err(dype::testing::Error::request("enough", ""))
    });
    assert_eq!(result.expect_err("the visit's error").to_string(), "enough");
    assert_eq!(visits, 1);
}

#[test]
fn a_guidance_model_wants_guidance() {
    let golden = Golden::load();
    let of = |name: &str| &golden.tensors[name];
    let error = load(WeightsMode::Stream, DType::F32)
        .forward(of("img"), of("prompt_embeds"), of("pooled"), 1.0, None, &golden.rope)
        .expect_err("no guidance");
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("guidance"), "{error}");
}

#[test]
fn tables_that_do_not_fit_the_picture_are_an_error() {
    let golden = Golden::load();
    let of = |name: &str| &golden.tensors[name];
    let short = of("img").narrow(1, 0, 1599).expect("narrow");
    let result = load(WeightsMode::Stream, DType::F32).forward(
        &short,
        of("prompt_embeds"),
        of("pooled"),
        1.0,
        Some(1.0),
        &golden.rope,
    );
    assert!(result.expect_err("tables").to_string().contains("2112"));
}

/// The kernels of tensors are launched as often as a dry pass of the same forward pass says, in pieces of any size.
#[test]
fn a_dry_pass_launches_what_a_real_one_launches() {
    let golden = Golden::load();
    let config = tiny_config();
    let f16 = Compute::on(DeviceKind::Cpu, DType::F16);
    for mode in [WeightsMode::Resident, WeightsMode::Stream] {
        let mut model =
            Transformer::load(&config, &tiny_weights(DType::F16), mode, Compute::on(DeviceKind::Cpu, DType::F16))
                .expect("tiny-flux");
        for (token_chunk, query_rows, heads) in [(100_000, 100_000, 100), (1000, 300, 2), (513, 100, 1)] {
            let options = ForwardOptions { token_chunk, query_rows, heads };
            model = model.with_options(options);
            let before = dype::testing::nn::launches();
            golden.velocity(&model);
            let launched = dype::testing::nn::launches() - before;
            let forward = Forward {
                config: &config,
                kind: DeviceKind::Cpu,
                compute: f16,
                weights: Weights::absent(DType::F16),
                mode,
                step: [1600, 512].into(),
            };
            let foretold = forward.cost(options).expect("a dry pass").launches;
            assert!(launched > 100, "{launched}");
            assert_eq!(launched, foretold, "{mode:?} {options:?}");
        }
    }
}
