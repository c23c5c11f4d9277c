//! Every fast operation against the plain one, on the CPU.

use candle_core::{D, DType, Device, Tensor};
use dype::testing::{
    base::{device::DeviceKind, geometry::TokenGrid},
    methods::{AxisFrequencies, Looks, MethodSpec, Moment, PositionScaler, RotaryAxis},
    models::flux1::FluxConfig,
    nn::{
        self, Activation, Array, Attention, AttentionTiles, Bias, Compute, Form, KeyBias, Linear, LowRank, NORM_EPS,
        Place, Products, Quantised, RopeTables, Rotation, Scale,
        kernels::{cpu, tensors},
    },
    weights::{BlockType, Float8},
};
use proptest::prelude::*;

/// Reproducible numbers, roughly normal.
fn random(shape: &[usize], seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(1);
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    let values: Vec<f32> =
        (0..shape.iter().product()).map(|_| (uniform() + uniform() + uniform() + uniform()) * 1.7).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).expect("tensor")
}

/// The same numbers as the networks' parts take them.
fn a(tensor: &Tensor) -> Array {
    tensor.clone().into()
}

/// The numbers of what a part gives.
fn real(found: dype::testing::Result<Array>) -> Tensor {
    found.and_then(|found| found.real().cloned()).expect("numbers")
}

/// Them one after another.
fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().and_then(|tensor| tensor.to_vec1()).expect("numbers")
}

/// ‖a - b‖ / ‖b‖, in f64.
fn relative_error(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let values = |x: &Tensor| {
        x.to_dtype(DType::F64).and_then(|x| x.flatten_all()).and_then(|x| x.to_vec1::<f64>()).expect("values")
    };
    let (a, b) = (values(a), values(b));
    let difference: f64 = a.iter().zip(&b).map(|(a, b)| (a - b).powi(2)).sum();
    (difference / b.iter().map(|b| b * b).sum::<f64>()).sqrt()
}

/// `softmax(q·kᵀ/√D)·v` in f64 with all scores at once, as [C, H·D].
fn plain_attention(q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
    let wide = |x: &Tensor| x.to_dtype(DType::F64).expect("f64");
    let (heads, rows, dim) = q.dims3().expect("[H, C, D]");
    let scores = (wide(q).matmul(&wide(k).t().expect("t")).expect("scores") / (dim as f64).sqrt()).expect("scale");
    let out = candle_nn::ops::softmax(&scores, D::Minus1).and_then(|w| w.matmul(&wide(v))).expect("values");
    out.transpose(0, 1).and_then(|x| x.reshape((rows, heads * dim))).expect("[C, H·D]")
}

/// One head at a time, so many queries.
fn plain(query_rows: usize) -> Attention<'static> {
    Attention::plain(AttentionTiles { query_rows, heads: 1 })
}

/// `activation(x·weightᵀ + bias)` with exact products.
fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, activation: Activation) -> Tensor {
    real(nn::product(Products::Exact, &a(x), &a(weight), bias.map(a).as_ref(), activation))
}

#[test]
fn attention_is_plain_attention_at_any_size() {
    for (heads, queries, keys, dim) in [(3, 200, 1100, 32), (2, 64, 512, 128), (1, 65, 513, 16), (4, 1, 1, 8)] {
        let (q, k, v) =
            (random(&[heads, queries, dim], 1), random(&[heads, keys, dim], 2), random(&[heads, keys, dim], 3));
        let expected = plain_attention(&q, &k, &v);
        let (q, k, v) = (a(&q), a(&k), a(&v));
        for query_rows in [1, 64, 100, 1000] {
            let how = Attention::plain(AttentionTiles { query_rows, heads: 2 });
            for out in [nn::attention(&q, &k, &v, &how), tensors::attention(&q, &k, &v, &how)] {
                let error = relative_error(&real(out), &expected);
                assert!(error < exactness(), "{heads} x {queries} x {keys} x {dim}, {query_rows}: {error:e}");
            }
        }
    }
}

#[test]
fn attention_survives_large_scores() {
    // Scores of several thousand: a softmax that forgets to subtract the maximum is infinite here. Late keys are
    // the largest, so that every tile changes the maximum.
    let (heads, rows, keys, dim) = (2, 70, 1300, 32);
    let growth = Tensor::arange(0u32, keys as u32, &Device::Cpu)
        .and_then(|x| x.to_dtype(DType::F32)?.affine(1.0 / 100.0, 1.0)?.reshape((1, keys, 1)))
        .expect("growth");
    let q = (random(&[heads, rows, dim], 4) * 100.0).expect("q");
    let k = random(&[heads, keys, dim], 5).broadcast_mul(&growth).expect("k");
    let v = random(&[heads, keys, dim], 6);
    let out = real(nn::attention(&a(&q), &a(&k), &a(&v), &plain(256)));
    // f32 scores of 10^4 are known to 1e-3 absolute, and the weights to as much.
    let error = relative_error(&out, &plain_attention(&q, &k, &v));
    assert!(error < 1e-3, "{error:e}");
    let same = random(&[heads, rows, dim], 4);
    let flat = nn::attention(&a(&(&same * 0.0).expect("zeros")), &a(&k), &a(&v), &plain(64));
    let mean = v.mean_keepdim(1).and_then(|v| v.broadcast_as((heads, rows, dim))).expect("mean");
    let mean = mean.transpose(0, 1).and_then(|x| x.reshape((rows, heads * dim))).expect("[C, H·D]");
    assert!(relative_error(&real(flat), &mean) < 1e-5);
}

#[test]
fn attention_does_not_hide_what_is_not_a_number() {
    let q = random(&[1, 3, 8], 1);
    let k = (random(&[1, 5, 8], 2) * f64::NAN).expect("nan");
    let out = real(nn::attention(&a(&q), &a(&k), &a(&random(&[1, 5, 8], 3)), &plain(64)));
    let values = out.flatten_all().and_then(|x| x.to_vec1::<f32>()).expect("values");
    assert!(values.iter().all(|x| x.is_nan()), "{values:?}");
}

#[test]
fn linear_is_the_plain_one_in_both_widths() {
    for (rows, inputs, outputs) in [(1, 64, 700), (1300, 48, 385), (70, 129, 33)] {
        let (x, weight, bias) = (random(&[rows, inputs], 1), random(&[outputs, inputs], 2), random(&[outputs], 3));
        let half = weight.to_dtype(DType::BF16).expect("bf16");
        for weight in [weight, half.to_dtype(DType::F32).expect("f32"), half] {
            for activation in [Activation::None, Activation::Gelu] {
                let fast = linear(&x, &weight, Some(&bias), activation);
                let plain = real(
                    tensors::product(&a(&x), &a(&weight))
                        .and_then(|rows| tensors::after_product(rows, Some(&a(&bias)), activation)),
                );
                let error = relative_error(&fast, &plain);
                assert!(error < exactness(), "{rows} x {inputs} x {outputs} {activation:?}: {error:e}");
            }
        }
    }
}

/// What a product of f32 may be off by: vectors round each sum, a matrix unit takes numbers of f32 as two of bf16.
pub fn exactness() -> f64 {
    if nn::matrix_unit().is_some() { 1e-5 } else { 1e-6 }
}

#[test]
fn rounded_products_are_the_exact_ones_of_rounded_inputs() {
    for (rows, inputs, outputs) in [(1, 64, 700), (1300, 48, 385), (70, 600, 33), (11, 258, 64), (5, 129, 20)] {
        let weight = random(&[outputs, inputs], 2).to_dtype(DType::BF16).expect("bf16");
        let (x, bias) = (random(&[rows, inputs], 1), random(&[outputs], 3));
        let rounded_x = x.to_dtype(DType::BF16).and_then(|x| x.to_dtype(DType::F32)).expect("rounded");
        let found = nn::product(Products::Rounded, &a(&x), &a(&weight), Some(&a(&bias)), Activation::None);
        // An odd number of inputs, or a processor without such products, takes the exact path; so does what fills no tile.
        let in_tiles = nn::matrix_unit().is_some() && rows >= 16 && inputs >= 32;
        let pairs = in_tiles || cpu::pairs::pay() && inputs % 2 == 0;
        let exact = linear(if pairs { &rounded_x } else { &x }, &weight, Some(&bias), Activation::None);
        let error = relative_error(&real(found), &exact);
        assert!(error < exactness(), "{rows} x {inputs} x {outputs}: {error:e}");
    }
}

#[test]
fn rounding_to_pairs_is_to_the_nearest_even() {
    let x: Vec<f32> = random(&[1000], 7).to_vec1().expect("x").into_iter().chain([1.001_953_1, 1.005_859_4]).collect();
    let pairs = cpu::pairs::round(&x);
    for (pair, x) in pairs.iter().zip(x.chunks_exact(2)) {
        let expected = cpu::pairs::pair(half::bf16::from_f32(x[0]), half::bf16::from_f32(x[1]));
        assert_eq!(*pair, expected, "{x:?}");
    }
    let odd = cpu::pairs::round(&[f32::NAN, f32::NEG_INFINITY])[0];
    assert!(half::bf16::from_bits(odd as u16).is_nan());
    assert_eq!(half::bf16::from_bits((odd >> 16) as u16), half::bf16::NEG_INFINITY);
}

#[test]
fn linear_takes_a_part_of_a_weight() {
    let (x, weight) = (random(&[9, 40], 1), random(&[50, 100], 2));
    for start in [0, 60] {
        let part = weight.narrow(1, start, 40).expect("part");
        let fast = linear(&x, &part, None, Activation::None);
        let plain = x.matmul(&part.t().expect("t").contiguous().expect("c")).expect("plain");
        assert!(relative_error(&fast, &plain) < 1e-6);
    }
}

#[test]
fn linear_refuses_what_does_not_fit() {
    let (x, weight) = (a(&random(&[2, 3], 1)), a(&random(&[4, 5], 2)));
    let error = nn::product(Products::Exact, &x, &weight, None, Activation::None).expect_err("3 is not 5");
    assert!(error.to_string().contains("weight of 5"), "{error}");
}

#[test]
fn linear_takes_a_weight_of_any_number_type() {
    let (x, weight) = (random(&[9, 40], 1), random(&[50, 40], 2));
    let expected = linear(&x, &weight, None, Activation::Gelu);
    for (dtype, tolerance) in [(DType::F16, 1e-3), (DType::F64, 1e-6)] {
        let held = weight.to_dtype(dtype).expect("converted");
        let found = linear(&x, &held, None, Activation::Gelu);
        assert!(relative_error(&found, &expected) < tolerance, "{dtype:?}");
    }
}

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

#[test]
fn the_check_of_a_device_s_attention_passes_here() {
    let error = nn::attention_error(3, 32, DType::F32, &Device::Cpu).expect("attention");
    assert!(error < exactness(), "{error:e}");
}

#[test]
fn a_bias_is_added_alike_by_both_kernels() {
    let (heads, queries, keys, dim) = (4, 70, 600, 16);
    let [q, k, v] = [(queries, 1), (keys, 2), (keys, 3)].map(|(rows, seed)| random(&[heads, rows, dim], seed));
    let runs = KeyBias { runs: vec![(100, 0.7), (50, -1.5)] };
    let of_key = |key: usize| {
        if key < 100 {
            0.7f32
        } else if key < 150 {
            -1.5
        } else {
            0.0
        }
    };
    let as_scores: Vec<f32> = (0..queries).flat_map(|_| (0..keys).map(of_key)).collect();
    let as_scores = a(&Tensor::from_vec(as_scores, (1, queries, keys), &Device::Cpu).expect("scores"));
    let each = a(&random(&[heads, queries, keys], 4));
    let tiles = AttentionTiles { query_rows: 33, heads: 3 };
    let expected = |bias: &Array| {
        let wide = |x: &Tensor| x.to_dtype(DType::F64).expect("f64");
        let scores = wide(&q).matmul(&wide(&k).t().expect("t")).and_then(|x| x * 0.25).expect("scores"); // 1/√16
        let scores = scores.broadcast_add(&wide(bias.real().expect("real"))).expect("biased");
        let out = candle_nn::ops::softmax(&scores, D::Minus1).and_then(|w| w.matmul(&wide(&v))).expect("values");
        out.transpose(0, 1).and_then(|x| x.reshape((queries, heads * dim))).expect("[C, H·D]")
    };
    for (bias, expected) in [
        (Bias::Keys(&runs), expected(&as_scores)),
        (Bias::Scores(&as_scores), expected(&as_scores)),
        (Bias::Scores(&each), expected(&each)),
    ] {
        let how = Attention { bias, ..Attention::plain(tiles) };
        for found in [nn::attention(&a(&q), &a(&k), &a(&v), &how), tensors::attention(&a(&q), &a(&k), &a(&v), &how)] {
            let error = relative_error(&real(found), &expected);
            assert!(error < 1e-6, "{bias:?}: {error:e}");
        }
    }
    let too_long = KeyBias { runs: vec![(601, 1.0)] };
    let how = Attention { scale: Scale::One, bias: Bias::Keys(&too_long), ..Attention::plain(tiles) };
    assert!(nn::attention(&a(&q), &a(&k), &a(&v), &how).is_err());
}

/// TIDE's attention with a bias on the text's keys, by both kernels.
#[test]
fn anchored_attention_is_the_references() {
    let tensors = candle_core::safetensors::load(crate::support::fixture("expected/tide.safetensors"), &Device::Cpu);
    let tensors = tensors.expect("golden");
    let [q, k, v] = ["q", "k", "v"].map(|name| a(&tensors[&format!("attention/{name}")])); // [H, C, D]
    for (case, bias) in [("0.00", 0.0), ("2.77", 16f32.ln()), ("-0.50", -0.5)] {
        let expected = &tensors[&format!("attention_{case}/out")];
        let expected = expected.transpose(0, 1).and_then(|x| x.reshape((40, 2 * 8))).expect("[C, H·D]");
        let runs = KeyBias { runs: vec![(12, bias)] };
        let tiles = AttentionTiles { query_rows: 33, heads: 1 };
        let how = Attention { bias: Bias::Keys(&runs), ..Attention::plain(tiles) };
        for found in [nn::attention(&q, &k, &v, &how), tensors::attention(&q, &k, &v, &how)] {
            let error = relative_error(&real(found), &expected);
            assert!(error < 1e-6, "{case}: {error:e}");
        }
    }
}

#[test]
fn scores_grow_by_a_factor_alike_by_both_kernels() {
    let [q, k, v] = [(70, 1), (600, 2), (600, 3)].map(|(rows, seed)| random(&[3, rows, 16], seed));
    let tiles = AttentionTiles { query_rows: 33, heads: 2 };
    let of = |scale| {
        let how = Attention { scale, ..Attention::plain(tiles) };
        let (q, k, v) = (a(&q), a(&k), a(&v));
        [nn::attention(&q, &k, &v, &how), tensors::attention(&q, &k, &v, &how)].map(real)
    };
    let expected = plain_attention(&(&q * 1.147).expect("scaled"), &k, &v);
    for found in of(Scale::InverseRootTimes(1.147)) {
        assert!(relative_error(&found, &expected) < 1e-6);
    }
    for (once, plain) in of(Scale::InverseRootTimes(1.0)).iter().zip(of(Scale::InverseRoot)) {
        assert_eq!(relative_error(once, &plain), 0.0, "1 is nothing, to the bit");
    }
}

/// Logits of several hundred, where bf16 has steps of 2: rounded before the softmax, weights would be off by a factor.
/// Heads that share keys, and look back only, alike by both kernels; the heads of one piece need not be whole groups.
#[test]
fn grouped_causal_heads_are_alike_by_both_kernels() {
    for (queries, seen, heads, groups) in [(70, 70, 6, 2), (70, 41, 4, 4), (5, 1, 8, 1), (130, 129, 6, 3)] {
        let q = random(&[heads, queries, 16], 1);
        let [k, v] = [2, 3].map(|seed| random(&[groups, queries, 16], seed));
        let mask = |query, key| if key <= query && key < seen { 0.0 } else { f32::NEG_INFINITY };
        let mask: Vec<f32> = (0..queries).flat_map(|query| (0..queries).map(move |key| mask(query, key))).collect();
        let mask = a(&Tensor::from_vec(mask, (1, queries, queries), &Device::Cpu).expect("mask"));
        let each = |x: &Tensor| {
            let stretched = x.unsqueeze(1).and_then(|x| x.broadcast_as((groups, heads / groups, queries, 16)));
            a(&stretched.and_then(|x| x.reshape((heads, queries, 16))).expect("[H, N, D]"))
        };
        let tiles = AttentionTiles { query_rows: 64, heads: 3 };
        let plain = Attention { bias: Bias::Scores(&mask), ..Attention::plain(tiles) };
        let expected = real(tensors::attention(&a(&q), &each(&k), &each(&v), &plain));
        let how = Attention { bias: Bias::Causal { keys: seen }, ..Attention::plain(tiles) };
        for found in [nn::attention(&a(&q), &a(&k), &a(&v), &how), tensors::attention(&a(&q), &a(&k), &a(&v), &how)] {
            let error = relative_error(&real(found), &expected);
            assert!(error < 2e-6, "{queries} {seen} {heads} {groups}: {error:e}");
        }
    }
    let (q, k) = (a(&random(&[6, 5, 8], 1)), a(&random(&[4, 5, 8], 2)));
    assert!(nn::attention(&q, &k, &k, &plain(64)).is_err(), "6 heads do not share 4");
    let k = a(&random(&[3, 5, 8], 2));
    for keys in [0, 6] {
        let how = Attention { bias: Bias::Causal { keys }, ..plain(64) };
        assert!(nn::attention(&q, &k, &k, &how).is_err(), "{keys} of 5 keys");
    }
}

#[test]
fn logits_of_half_precision_streams_are_not_rounded() {
    let (heads, rows, dim) = (2, 40, 32);
    let half = |seed| (random(&[heads, rows, dim], seed) * 12.0).and_then(|x| x.to_dtype(DType::BF16)).expect("bf16");
    let (q, k, v) = (half(1), half(2), half(3));
    let found = real(nn::attention(&a(&q), &a(&k), &a(&v), &plain(16)));
    // What is left is the rounding of weights and outputs.
    let error = relative_error(&found, &plain_attention(&q, &k, &v));
    assert!(error < 5e-3, "{error:e}");
}

/// A matrix in blocks of this kind, and its numbers. Any bytes are blocks, but for exponents of all ones.
fn quantised(kind: BlockType, rows: usize, columns: usize) -> (Tensor, Tensor) {
    let mut state = 11_u32;
    let mut byte = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Below 64, so that no half is one of them; and some negative.
        (state >> 24) as u8 & 0xbf
    };
    let bytes: Vec<u8> = (0..rows * kind.bytes_of(columns)).map(|_| byte()).collect();
    let mut numbers = vec![0.0; rows * columns];
    kind.decode(&bytes, &mut numbers);
    let tensor = |numbers| Tensor::from_vec(numbers, (rows, columns), &Device::Cpu).expect("numbers");
    (Tensor::from_vec(bytes, (rows, kind.bytes_of(columns)), &Device::Cpu).expect("bytes"), tensor(numbers))
}

/// A matrix of floats of 8 bits, up to 2 in magnitude, and its numbers.
fn codes(kind: Float8, rows: usize, columns: usize) -> (Tensor, Tensor) {
    let codes: Vec<u8> = (0..rows * columns).map(|i| (i * 37 % 251) as u8 & 0xbf).collect();
    let numbers: Vec<f32> = codes.iter().map(|code| kind.numbers()[usize::from(*code)]).collect();
    let tensor = |numbers| Tensor::from_vec(numbers, (rows, columns), &Device::Cpu).expect("numbers");
    (Tensor::from_vec(codes, (rows, columns), &Device::Cpu).expect("codes"), tensor(numbers))
}

#[test]
fn a_linear_layer_holds_its_weight_in_any_form() {
    let (rows, inputs, outputs) = (5, 512, 600);
    let (x, bias) = (random(&[rows, inputs], 1), random(&[outputs], 3));
    let per_row = (random(&[outputs, 1], 4).abs().expect("abs") + 0.1).expect("scales");
    let per_tensor = Tensor::from_vec(vec![0.03f32], 1, &Device::Cpu).expect("scale");
    let dense = random(&[outputs, inputs], 6).to_dtype(DType::BF16).expect("bf16");
    let halves = random(&[outputs, inputs], 7).to_dtype(DType::F16).expect("f16");
    let mut forms = vec![
        (Form::Dense(a(&dense)), dense.to_dtype(DType::F32).expect("f32")),
        (Form::Dense(a(&halves)), halves.to_dtype(DType::F32).expect("f32")),
    ];
    for (kind, scale) in
        [Float8::E4M3, Float8::E5M2].into_iter().flat_map(|kind| [(kind, &per_row), (kind, &per_tensor)])
    {
        let (codes, numbers) = codes(kind, outputs, inputs);
        let numbers = numbers.broadcast_mul(scale).expect("scaled");
        forms.push((Form::Scaled { codes: a(&codes), kind, scale: a(scale) }, numbers));
    }
    for kind in BlockType::ALL {
        let (bytes, numbers) = quantised(kind, outputs, inputs);
        let blocks = Quantised::new(kind, &bytes, &Place::Real(Device::Cpu)).expect("whole blocks");
        forms.push((Form::Quantised { blocks, inputs: (0, inputs) }, numbers));
    }
    for (form, weight) in forms {
        let layer = Linear::new(form.clone(), Some(a(&bias)), Compute::EXACT_F32).expect("a layer");
        let error =
            relative_error(&real(layer.forward_gelu(&a(&x))), &linear(&x, &weight, Some(&bias), Activation::Gelu));
        assert!(error < 1e-6, "{layer:?}: {error:e}");
        // Both parts of the inputs, one after the other, are the whole, wherever blocks begin.
        for cut in [32, 40, 300] {
            let (first, second) = layer.split_inputs(cut).expect("parts");
            let part = |start, count| a(&x.narrow(1, start, count).and_then(|x| x.contiguous()).expect("part"));
            let sum = first.forward(&part(0, cut)).and_then(|y| y.add(&second.forward(&part(cut, inputs - cut))?));
            let error = relative_error(&real(sum), &real(layer.forward(&a(&x))));
            assert!(error < 1e-6, "{layer:?} cut at {cut}: {error:e}");
        }
        // In another number type a panel is widened at a time, as on other devices.
        let short = |x: &Tensor| a(&x.to_dtype(DType::BF16).expect("bf16"));
        let layer = Linear::new(form, Some(short(&bias)), Compute::EXACT_F32).expect("a layer");
        let expected = linear(&x, &weight, Some(&bias), Activation::None);
        let error = relative_error(&real(layer.forward(&short(&x))), &expected);
        assert!(error < 1e-2, "{layer:?} in bf16: {error:e}");
    }
    assert!(Linear::new(Form::Dense(a(&dense)), Some(a(&x)), Compute::EXACT_F32).is_err(), "a bias of another shape");
}

/// Where the processor multiplies pairs of bf16, a weight in any narrow form is rounded to them as it is packed.
#[test]
fn rounded_products_round_a_weight_once() {
    let (rows, inputs, outputs) = (70, 512, 130);
    let x = random(&[rows, inputs], 1);
    let compute = Compute { products: Products::Rounded, ..Compute::EXACT_F32 };
    for kind in BlockType::ALL {
        let (bytes, numbers) = quantised(kind, outputs, inputs);
        let blocks = Quantised::new(kind, &bytes, &Place::Real(Device::Cpu)).expect("whole blocks");
        let found = Linear::new(Form::Quantised { blocks, inputs: (0, inputs) }, None, compute).expect("a layer");
        let rounded = Form::Dense(a(&numbers.to_dtype(DType::BF16).expect("bf16")));
        let plain = Linear::new(rounded, None, compute).expect("a layer");
        let error = relative_error(&real(found.forward(&a(&x))), &real(plain.forward(&a(&x))));
        // Without such an instruction the blocks are not rounded at all.
        assert!(error < if cpu::pairs::pay() { 1e-6 } else { 1e-2 }, "{kind:?}: {error:e}");
    }
    let scale = (random(&[outputs, 1], 4).abs().expect("abs") + 0.1).expect("scales");
    for kind in [Float8::E4M3, Float8::E5M2] {
        let (codes, numbers) = codes(kind, outputs, inputs);
        let found = Form::Scaled { codes: a(&codes), kind, scale: a(&scale) };
        let rounded = numbers.broadcast_mul(&scale).and_then(|numbers| numbers.to_dtype(DType::BF16)).expect("bf16");
        let layer = |form| Linear::new(form, None, compute).expect("a layer");
        let (found, plain) = (layer(found).forward(&a(&x)), layer(Form::Dense(a(&rounded))).forward(&a(&x)));
        let error = relative_error(&real(found), &real(plain));
        assert!(error < if cpu::pairs::pay() { 1e-6 } else { 1e-2 }, "{kind:?}: {error:e}");
    }
}

/// Both sides rounded to blocks of 8 bits are off by less than a hundredth, and by more than pairs of bf16 are; what has other blocks,
/// or begins within one, is rounded as ever.
#[test]
fn products_of_8_bits_are_near_those_of_more() {
    let (rows, inputs, outputs) = (70, 512, 130);
    let (x, bias) = (random(&[rows, inputs], 1), random(&[outputs], 2));
    for kind in BlockType::ALL {
        let (bytes, numbers) = quantised(kind, outputs, inputs);
        let of = |products| {
            let blocks = Quantised::new(kind, &bytes, &Place::Real(Device::Cpu)).expect("whole blocks");
            let compute = Compute { products, ..Compute::EXACT_F32 };
            Linear::new(Form::Quantised { blocks, inputs: (0, inputs) }, Some(a(&bias)), compute).expect("a layer")
        };
        let [int8, rounded] = [Products::Int8, Products::Rounded].map(of);
        for (activation, expected) in [Activation::None, Activation::Gelu]
            .map(|activation| (activation, linear(&x, &numbers, Some(&bias), activation)))
        {
            let forward = |layer: &Linear| match activation {
                Activation::Gelu => real(layer.forward_gelu(&a(&x))),
                Activation::None => real(layer.forward(&a(&x))),
            };
            let found = forward(&int8);
            if kind == BlockType::Q8_0 {
                let error = relative_error(&found, &expected);
                assert!((1e-3..1e-2).contains(&error), "{activation:?}: {error:e}");
            } else {
                assert!(values(&found) == values(&forward(&rounded)), "{kind:?} has no products of 8 bits");
            }
        }
        let part = |layer: &Linear, start, count| {
            let (first, second) = layer.split_inputs(start).expect("parts");
            let x = x.narrow(1, 0, start).and_then(|x| x.contiguous()).expect("part");
            assert_eq!(second.forward(&a(&random(&[1, count], 3))).expect("forward").dims(), [1, outputs]);
            values(&real(first.forward(&a(&x))))
        };
        let alike = |start| part(&int8, start, inputs - start) == part(&rounded, start, inputs - start);
        assert!(alike(40), "{kind:?} cut within a block");
        assert_eq!(alike(256), kind != BlockType::Q8_0, "{kind:?} cut between blocks");
    }
}

#[test]
fn an_adapter_adds_its_product_whatever_the_weight_is_held_in() {
    let (rows, inputs, outputs, rank) = (9, 48, 70, 4);
    let (x, down, up) = (random(&[rows, inputs], 1), random(&[rank, inputs], 2), random(&[outputs, rank], 3));
    let (weight, bias) = (random(&[outputs, inputs], 4), random(&[outputs], 5));
    let change = up.matmul(&down).and_then(|change| change * 0.5).expect("change");
    let merged = (&weight + change).expect("merged");
    let expected = linear(&x, &merged, Some(&bias), Activation::Gelu);
    for (dtype, tolerance) in [(DType::F32, 1e-6), (DType::F16, 2e-3)] {
        let cast = |tensor: &Tensor| a(&tensor.to_dtype(dtype).expect("cast"));
        let compute = Compute::on(DeviceKind::Cpu, dtype);
        let layer = Linear::new(Form::Dense(cast(&weight)), Some(cast(&bias)), compute).expect("a layer");
        let adapter = LowRank { down: a(&down), up: a(&up), strength: 0.5 };
        let layer = layer.with_adapter(adapter.clone()).expect("fits");
        let error = relative_error(&real(layer.forward_gelu(&cast(&x))), &expected);
        assert!(error < tolerance, "{dtype:?}: {error:e}");
        let (first, second) = layer.split_inputs(20).expect("halves");
        let part = |start, count| a(&x.narrow(1, start, count).and_then(|x| x.contiguous()).expect("part"));
        let cast_part = |start, count| part(start, count).to_dtype(dtype).expect("cast");
        let sum = first.forward(&cast_part(0, 20)).and_then(|y| y.add(&second.forward(&cast_part(20, 28))?));
        let plain = linear(&x, &merged, Some(&bias), Activation::None);
        assert!(relative_error(&real(sum), &plain) < 2.0 * tolerance, "{dtype:?} in halves");
        let wide = LowRank { up: a(&down), ..adapter };
        assert!(layer.with_adapter(wide).is_err(), "an adapter of another shape");
    }
}
