//! Attention against the plain one, by the kernels of the CPU and by tensors.

use candle_core::{D, DType, Device, Tensor};
use dype::testing::nn::{self, Array, Attention, AttentionTiles, Bias, KeyBias, Scale, kernels::tensors};

use crate::plain::{a, exactness, random, real, relative_error};
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

/// Logits of several hundred, where bf16 has steps of 2: rounded before the softmax, weights would be off by a factor.
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
