//! Norms, modulation, heads and rotary tables against plain ones.

use candle_core::{D, DType, Device, Tensor};
use dype::testing::{
    base::geometry::TokenGrid,
    methods::{AxisFrequencies, Looks, MethodSpec, Moment, PositionScaler, RotaryAxis},
    models::flux1::FluxConfig,
    nn::{self, NORM_EPS, RopeTables, Rotation, kernels::tensors},
};
use proptest::prelude::*;

use crate::plain::{a, random, real, relative_error};
#[test]
fn norm_and_modulation_are_the_plain_ones() {
    let (x, shift, scale) = (random(&[50, 100], 1), random(&[100], 2), random(&[100], 3));
    let x = (x * 30.0).and_then(|x| x + 7.0).expect("x");
    let (x, shift, scale) = (a(&x), a(&shift), a(&scale));
    let fast = nn::norm_modulate(&x, 10, 33, &shift, &scale);
    let plain = tensors::norm_modulate(&x.narrow(0, 10, 33).expect("rows"), &shift, &scale);
    assert!(relative_error(&real(fast), &real(plain)) < 1e-6);
}

#[test]
fn gated_addition_changes_its_rows_only() {
    let (gate, y) = (random(&[40], 2), random(&[7, 40], 3));
    let (fast, plain, before) = (random(&[20, 40], 1), random(&[20, 40], 1), random(&[20, 40], 1));
    nn::add_gated(&a(&fast), 5, &a(&gate), &a(&y)).expect("fast");
    tensors::add_gated(&a(&plain), 5, &a(&gate), &a(&y)).expect("plain");
    assert!(relative_error(&fast, &plain) < 1e-7);
    let rows = |x: &Tensor, start, count| x.narrow(0, start, count).and_then(|x| x.to_vec2::<f32>()).expect("rows");
    assert_eq!(rows(&fast, 0, 5), rows(&before, 0, 5));
    assert_eq!(rows(&fast, 12, 8), rows(&before, 12, 8));
    assert_ne!(rows(&fast, 5, 7), rows(&before, 5, 7));
}

#[test]
fn heads_are_split_normed_and_turned_as_by_the_plain_one() {
    let (heads, tokens, dim, rows, start) = (3, 20, 32, 11, 4);
    let x = a(&random(&[rows, heads * dim], 1));
    let (weight, cos, sin) = (a(&random(&[dim], 2)), a(&random(&[rows, dim / 2], 3)), a(&random(&[rows, dim / 2], 4)));
    let turned = Some(Rotation { weight: &weight, eps: NORM_EPS, cos: &cos, sin: &sin });
    for rotation in [None, turned] {
        let out = || random(&[heads, tokens, dim], 5);
        let (fast, plain) = (out(), out());
        nn::split_heads(&x, rotation, &a(&fast), start).expect("fast");
        tensors::split_heads(&x, rotation, &a(&plain), start).expect("plain");
        assert!(relative_error(&fast, &plain) < 1e-6);
    }
}

/// Native frequencies with a fixed amplitude on the axis that is 3 patches long.
struct Native;

impl PositionScaler for Native {
    fn spec(&self) -> &'static MethodSpec {
        &dype::testing::methods::Base::SPEC
    }

    fn looks(&self) -> Looks {
        Looks::Nothing
    }

    fn frequencies(&self, axis: &RotaryAxis, _at: &Moment) -> AxisFrequencies {
        let power = |i: usize| axis.theta.powf(-2.0 * i as f64 / axis.dim as f64);
        let amplitude = if axis.patches == 3 { 1.5 } else { 1.0 };
        AxisFrequencies { inv_freq: (0..axis.dim / 2).map(power).collect(), amplitude: vec![amplitude; axis.dim / 2] }
    }
}

#[test]
fn tables_hold_rows_then_columns_and_the_amplitude_of_each_axis() {
    let config = FluxConfig::flux1_dev();
    let grid = TokenGrid { height_patches: 3, width_patches: 5 };
    let rope =
        RopeTables::new(&config.position_ids(grid, 2), config.base_patches(), &Native, &Moment::at(1.0), &Device::Cpu)
            .expect("tables");
    assert_eq!((rope.tokens(), rope.cos.dims()), (17, &[17, 64][..]));
    let (cos, sin) = (rope.cos.to_vec2::<f32>().expect("cos"), rope.sin.to_vec2::<f32>().expect("sin"));
    let near = |a: f32, b: f64| assert!((f64::from(a) - b).abs() < 1e-6, "{a} {b}");
    for token in 0..17 {
        assert_eq!((cos[token][0], sin[token][7]), (1.0, 0.0), "axis 0 stands still");
    }
    // Text stands at the origin, and yet has the amplitude: queries and keys are scaled alike for all tokens.
    near(cos[1][8], 1.5);
    near(cos[1][36], 1.0);
    near(sin[1][8], 0.0);
    // The image token in row 2, column 4.
    let token = 2 + 2 * 5 + 4;
    near(cos[token][8], 1.5 * 2f64.cos());
    near(sin[token][36], 4f64.sin());
    let slow = 10_000f64.powf(-54.0 / 56.0);
    near(sin[token][35], 1.5 * (2.0 * slow).sin());
}

proptest! {
    #[test]
    fn turning_keeps_norms(seed: u64, height in 1usize..20, width in 1usize..20) {
        let config = FluxConfig::flux1_dev();
        let grid = TokenGrid { height_patches: height + 3, width_patches: width + 3 };
        let rope = RopeTables::new(&config.position_ids(grid, 3), config.base_patches(), &Native, &Moment::at(1.0), &Device::Cpu).expect("tables");
        let x = random(&[rope.tokens(), 128], seed);
        let weight = Tensor::ones(128, DType::F32, &Device::Cpu).expect("ones");
        let out = Tensor::zeros((1, rope.tokens(), 128), DType::F32, &Device::Cpu).expect("zeros");
        let (weight, cos, sin) = (a(&weight), a(&rope.cos), a(&rope.sin));
        let rotation = Rotation { weight: &weight, eps: NORM_EPS, cos: &cos, sin: &sin };
        nn::split_heads(&a(&x), Some(rotation), &a(&out), 0).expect("split");
        // An RMS norm of weight 1 makes every token's squared norm D; turning must leave it.
        let norms = out.sqr().and_then(|x| x.sum(D::Minus1)?.flatten_all()?.to_vec1::<f32>()).expect("norms");
        for norm in norms {
            prop_assert!((norm - 128.0).abs() < 1e-2, "{norm}");
        }
    }
}
