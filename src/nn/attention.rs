//! Attention for everybody: transformers, text encoders, wide single heads.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use candle_core::{DType, Device, Tensor};

use super::{
    Array, Products,
    kernels::{cpu::attention as cpu, flash, tensors},
    mismatch,
    view::view,
};
use crate::error::Result;

thread_local! {
    static TIME: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// How long this thread has spent in attention so far. Devices that go on computing when a call has returned do not show in it.
pub fn attention_time() -> Duration {
    TIME.get()
}

/// Runs an attention; its time counts in [`attention_time`].
pub(super) fn timed_attention<T>(run: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = run();
    TIME.set(TIME.get() + started.elapsed());
    result
}

/// How attention is cut into pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionTiles {
    /// Queries of one piece.
    pub query_rows: usize,
    /// Heads of one piece, where scores are a tensor; the CPU's kernel takes one head at a time.
    pub heads: usize,
}

/// What scores are multiplied by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scale {
    /// 1/√D.
    InverseRoot,
    /// 1/√D times this: proportional attention.
    InverseRootTimes(f64),
    /// Nothing: the weights were trained for it, as T5's.
    One,
}

impl Scale {
    /// The factor for heads of `dim` channels.
    pub fn factor(self, dim: usize) -> f64 {
        match self {
            Self::InverseRoot => 1.0 / (dim as f64).sqrt(),
            Self::InverseRootTimes(factor) => factor / (dim as f64).sqrt(),
            Self::One => 1.0,
        }
    }

    /// The factor times log2(e), as the CPU's softmax in base 2 takes it.
    fn in_base_2(self, dim: usize) -> f32 {
        match self {
            Self::InverseRoot => std::f32::consts::LOG2_E / (dim as f32).sqrt(),
            Self::InverseRootTimes(factor) => factor as f32 * std::f32::consts::LOG2_E / (dim as f32).sqrt(),
            Self::One => std::f32::consts::LOG2_E,
        }
    }
}

/// A number for each run of keys, the same for all heads and queries: text anchoring. Keys beyond the last run have none.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct KeyBias {
    /// (count of keys, what is added to their scores), from the first key on.
    pub runs: Vec<(usize, f32)>,
}

impl KeyBias {
    /// The number of each of `keys` keys.
    pub(super) fn of_each_key(&self, keys: usize) -> Vec<f32> {
        let runs = self.runs.iter().flat_map(|&(count, bias)| std::iter::repeat_n(bias, count));
        runs.chain(std::iter::repeat(0.0)).take(keys).collect()
    }
}

/// What is added to the scores before the softmax.
#[derive(Debug, Clone, Copy)]
pub enum Bias<'a> {
    /// Nothing.
    None,
    /// A number for each run of keys.
    Keys(&'a KeyBias),
    /// f32 numbers [H, C, N], or [1, C, N] for all heads: relative positions, or minus infinity where a query may not look.
    Scores(&'a Array),
    /// Query i looks at keys 0..=i among the first `keys`, and at no other: a decoder's sequence, whose padding looks at all
    /// that is none.
    Causal {
        /// Keys that may be looked at at all.
        keys: usize,
    },
}

/// What one attention is besides its inputs.
#[derive(Debug, Clone, Copy)]
pub struct Attention<'a> {
    /// What scores are multiplied by.
    pub scale: Scale,
    /// What is then added.
    pub bias: Bias<'a>,
    /// The pieces it is computed in; they change memory and speed, not the result.
    pub tiles: AttentionTiles,
    /// How it multiplies.
    pub products: Products,
}

impl Attention<'_> {
    /// Scaled by 1/√D, without a bias, exact.
    pub fn plain(tiles: AttentionTiles) -> Self {
        Self { scale: Scale::InverseRoot, bias: Bias::None, tiles, products: Products::Exact }
    }
}

/// `softmax(scale·q·kᵀ + bias)·v` for q [H, C, D], k and v [K, N, D], as [C, H·D]; scores never exist all at once, and are
/// f32 on every device. K is H, or divides it: then H/K heads of q that follow each other share one of k and v (Ainslie et
/// al. 2023, arXiv 2305.13245). A bias is added in the tile by the CPU's kernel, and by CUDA's where it is one of keys or causal;
/// to the scores elsewhere.
///
/// # Errors
/// When shapes do not fit or the device fails.
pub fn attention(q: &Array, k: &Array, v: &Array, how: &Attention<'_>) -> Result<Array> {
    let ((heads, queries, dim), (groups, keys, _)) = (q.dims3()?, k.dims3()?);
    let fits = groups > 0 && heads.is_multiple_of(groups);
    if !fits || (k.dims(), v.dims()) != (&[groups, keys, dim][..], &[groups, keys, dim][..]) {
        return Err(mismatch(format!("attention: q {:?}, k {:?}, v {:?}", q.dims(), k.dims(), v.dims())));
    }
    check_bias(how.bias, [heads, queries, keys])?;
    if !q.is_fast() {
        return attention_by_tensors(q, k, v, how);
    }
    attending(q, || own(q, k, v, how))
}

/// The same by a kernel of CUDA's where one takes it, else by tensors; never by the CPU's own kernel.
///
/// # Errors
/// As [`attention()`].
pub fn attention_by_tensors(q: &Array, k: &Array, v: &Array, how: &Attention<'_>) -> Result<Array> {
    attending(q, || match flash::attention(q, k, v, how)? {
        Some(out) => Ok(out), // [C, H·D]
        None => tensors::attention(q, k, v, how),
    })
}

/// Runs an attention of `q`, as what it is: its time counts here, its operations in the ledger of a dry pass.
fn attending(q: &Array, run: impl FnOnce() -> Result<Array>) -> Result<Array> {
    match q.ledger() {
        Some(ledger) => ledger.attending(run),
        None => timed_attention(run),
    }
}

fn check_bias(bias: Bias<'_>, [heads, queries, keys]: [usize; 3]) -> Result<()> {
    let fits = match bias {
        Bias::None => true,
        Bias::Keys(bias) => bias.runs.iter().map(|run| run.0).sum::<usize>() <= keys,
        Bias::Causal { keys: seen } => (1..=keys).contains(&seen) && queries <= keys,
        Bias::Scores(scores) => {
            scores.dtype() == DType::F32
                && [[heads, queries, keys], [1, queries, keys]].iter().any(|shape| scores.dims() == shape)
        }
    };
    if fits { Ok(()) } else { Err(mismatch(format!("attention: a bias for {heads} x {queries} x {keys}: {bias:?}"))) }
}

/// By the CPU's own kernel.
fn own(q: &Array, k: &Array, v: &Array, how: &Attention<'_>) -> Result<Array> {
    let ((heads, queries, dim), keys) = (q.dims3()?, k.dim(1));
    let (shape, rounds) = (cpu::Shape { heads, dim, queries, keys }, how.products.rounds());
    let out = q.computed(&[queries, heads * dim], |out| {
        let (q, k, v) = (view(q.real()?), view(k.real()?), view(v.real()?));
        let scores = match how.bias {
            Bias::Scores(scores) => Some(view(scores.real()?)),
            Bias::None | Bias::Keys(_) | Bias::Causal { .. } => None,
        };
        let bias = match (how.bias, &scores) {
            (Bias::Keys(bias), _) => cpu::Bias::Runs(&bias.runs),
            (Bias::Causal { keys }, _) => cpu::Bias::Causal(keys),
            (_, Some(scores)) => cpu::Bias::Scores(scores.f32()?),
            (_, None) => cpu::Bias::None,
        };
        let (scale, query_rows) = (how.scale.in_base_2(dim), how.tiles.query_rows);
        let how = cpu::Attention { shape, scale, bias, query_rows, rounds };
        cpu::attention(q.f32()?, &[cpu::Piece { k: k.f32()?, v: v.f32()? }], &how, out);
        Ok(())
    })?;
    q.note(|ledger| {
        ledger.pass(shape.working_bytes(how.tiles.query_rows, rounds));
        ledger.work(4 * (heads * queries * dim) as u64 * keys as u64);
    });
    Ok(out) // [C, H·D]
}

/// How far the attention of this device is from the plain one made of tensors: ‖a - b‖ / ‖b‖ on a small slice of numbers,
/// `heads` of `dim` channels in `dtype`.
///
/// # Errors
/// When the device fails.
pub fn attention_error(heads: usize, dim: usize, dtype: DType, device: &Device) -> Result<f64> {
    let run = |q: &Array, k: &Array, v: &Array, how: &Attention<'_>| attention(q, k, v, how).map(Some);
    Ok(error_of(run, (heads, dim), Bias::None, dtype, device)?.unwrap_or(f64::NAN))
}

/// The same of `run`, with a bias of 300 keys; `None` where it does not take such an attention.
///
/// # Errors
/// What `run` says, or when the device fails.
pub(super) fn error_of(
    run: impl Fn(&Array, &Array, &Array, &Attention<'_>) -> Result<Option<Array>>,
    (heads, dim): (usize, usize),
    bias: Bias<'_>,
    dtype: DType,
    device: &Device,
) -> Result<Option<f64>> {
    /// Neither is a multiple of a kernel's tile: its edges are part of what is compared.
    const SLICE: (usize, usize) = (100, 300);
    let (queries, keys) = SLICE;
    // Not random, but without any order that a kernel could profit from: the fractional parts of multiples.
    let numbers = |rows: usize, step: f32| -> Result<Array> {
        let values = (0..heads * rows * dim).map(|i| 4.0 * (i as f32 * step).fract() - 2.0).collect();
        Ok(Tensor::from_vec::<_, f32>(values, (heads, rows, dim), device)?.to_dtype(dtype)?.into()) // [H, N, D]
    };
    let (q, k, v) = (numbers(queries, 0.618_034)?, numbers(keys, 0.414_214)?, numbers(keys, 0.732_051)?);
    let how = Attention { bias, ..Attention::plain(AttentionTiles { query_rows: 64, heads }) };
    let Some(found) = run(&q, &k, &v, &how)? else { return Ok(None) };
    let wide = |x: Array| x.real()?.to_dtype(DType::F32).map_err(crate::Error::from);
    let (found, plain) = (wide(found)?, wide(tensors::attention(&q, &k, &v, &how)?)?);
    let squares = |x: &Tensor| -> Result<f64> { Ok(f64::from(x.sqr()?.sum_all()?.to_scalar::<f32>()?)) };
    // Where all numbers are zeros, as on a device that is asked about sizes alone, they are alike.
    let off = squares(&(found - &plain)?)?;
    Ok(Some(if off == 0.0 { 0.0 } else { (off / squares(&plain)?).sqrt() }))
}
