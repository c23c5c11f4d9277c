//! The kernel of our own, `attention.cu`: heads of 32, 64 or 128 channels, a bias of runs of keys, causal attention, heads that
//! share keys. Its machine code is made by the driver from `attention.ptx`, which is part of the program; no compiler of CUDA's
//! is needed to build it, and the simulated card runs it in its tests (`tools/cuda/card`).

use candle_core::{Layout, Tensor};

use crate::{
    error::Result,
    nn::{Array, Attention, Bias, KeyBias, array::Launch},
};

/// Channels of the heads there are kernels for.
const WIDTHS: [usize; 3] = [32, 64, 128];
/// Runs of keys that a launch can tell apart.
const RUNS: usize = 8;
/// Threads of a block.
#[cfg(any(test, feature = "cuda"))]
pub(super) const THREADS: usize = 256;
/// Numbers that travel at once; rows begin at multiples of them.
const TOGETHER: usize = 8;

/// Whether there is a kernel for heads of so many channels.
pub fn has_width(channels: usize) -> bool {
    WIDTHS.contains(&channels)
}

/// Attention of q [H, C, D], k and v [K, N, D] as [C, H·D]; `None` for a bias of scores, of more runs of keys than eight, or where
/// rows do not begin where a copy can.
///
/// # Errors
/// When the device fails.
pub fn attention(q: &Array, k: &Array, v: &Array, how: &Attention<'_>) -> Result<Option<Array>> {
    let ((heads, rows, channels), keys) = (q.dims3()?, k.dim(1));
    let Some(given) = How::new([q, k, v], how) else { return Ok(None) };
    q.note(|ledger| ledger.work(4 * (heads * rows * channels) as u64 * keys as u64));
    let shape = [rows, heads * channels];
    q.launch(Launch::Buffers, &shape, q.dtype(), |q| kernel(q, k.real_tensor()?, v.real_tensor()?, given)).map(Some)
}

/// What the kernel is told beside its arrays: the struct of the same name in `attention.cu`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub(super) struct How {
    /// Of q, k and v in turn, between heads and between rows, in numbers.
    strides: [[i64; 2]; 3],
    queries: i32,
    /// Keys that may be looked at.
    keys: i32,
    /// Heads of q that share one of k and v.
    sharing: i32,
    causal: i32,
    /// Before the first key that has no bias.
    biased: i32,
    /// Times log2(e): the softmax is in base 2.
    scale: f32,
    /// Where each run of keys ends; 0 where there is none.
    ends: [i32; RUNS],
    /// What is added to its scores, times log2(e).
    bias: [f32; RUNS],
}

impl How {
    fn new([q, k, v]: [&Array; 3], how: &Attention<'_>) -> Option<Self> {
        let number = |count: usize| i32::try_from(count).ok();
        let (keys, causal, (ends, bias)) = match how.bias {
            Bias::None => (k.dim(1), false, Default::default()),
            Bias::Causal { keys } => (keys, true, Default::default()),
            Bias::Keys(bias) => (k.dim(1), false, runs(bias)?),
            Bias::Scores(_) => return None,
        };
        let scale = in_base_2(how.scale.factor(q.channels()));
        let is_scale = scale.is_finite() && scale > 0.0;
        is_scale.then_some(Self {
            strides: [strides(q.layout())?, strides(k.layout())?, strides(v.layout())?],
            queries: number(q.dim(1))?,
            keys: number(keys)?,
            sharing: number(q.dim(0) / k.dim(0).max(1))?,
            causal: causal.into(),
            biased: ends.iter().copied().max().unwrap_or(0),
            scale,
            ends,
            bias,
        })
    }
}

fn in_base_2(factor: f64) -> f32 {
    (factor * std::f64::consts::LOG2_E) as f32
}

/// Where each run of keys ends, and its bias in base 2; `None` where there are too many.
fn runs(bias: &KeyBias) -> Option<([i32; RUNS], [f32; RUNS])> {
    let (mut ends, mut added, mut end) = ([0; RUNS], [0.0; RUNS], 0);
    for (index, (count, bias)) in bias.runs.iter().enumerate() {
        end += count;
        *ends.get_mut(index)? = i32::try_from(end).ok()?;
        added[index] = Some(in_base_2(f64::from(*bias))).filter(|bias| bias.is_finite())?;
    }
    Some((ends, added))
}

/// Between heads and between rows [_, N, D], where copies of eight numbers can begin at every row.
fn strides(layout: &Layout) -> Option<[i64; 2]> {
    let [head, row, 1] = *layout.stride() else { return None };
    let begins = |numbers: usize| numbers.is_multiple_of(TOGETHER);
    let fits = begins(head) && begins(row) && begins(layout.start_offset());
    fits.then_some([i64::try_from(head).ok()?, i64::try_from(row).ok()?])
}

#[cfg(feature = "cuda")]
fn kernel(q: &Tensor, k: &Tensor, v: &Tensor, given: How) -> candle_core::Result<Tensor> {
    q.apply_op3_no_bwd(k, v, &given)
}

#[cfg(not(feature = "cuda"))]
fn kernel(_q: &Tensor, _k: &Tensor, _v: &Tensor, given: How) -> candle_core::Result<Tensor> {
    Err(candle_core::Error::msg(format!("a program without CUDA launched {given:?}")))
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;
    use crate::{
        base::device::DeviceKind,
        nn::{
            AttentionTiles, Ledger, Place, Scale,
            kernels::{compiled, flash},
        },
    };

    const SOURCE: &str = include_str!("attention.cu");
    const COMPILED: &str = include_str!("attention.ptx");
    const CARD: DeviceKind = DeviceKind::Cuda { capability: (8, 0) };

    #[test]
    fn what_is_launched_is_what_the_source_compiles_to() {
        compiled::check("attention.cu", SOURCE, COMPILED, &[("THREADS", THREADS), ("RUNS", RUNS)]);
        assert!(SOURCE.contains("constexpr int QUERIES = THREADS / 32 * 16;"));
        for width in WIDTHS {
            for word in ["bf16", "f16"] {
                assert!(COMPILED.contains(&format!(".entry attention_{word}_{width}(")), "{word} {width}");
            }
        }
        assert!(COMPILED.contains(&format!("_param_4[{}]", size_of::<How>())));
    }

    /// Arrays of a dry pass: q [4, 100, 64], k and v [2, 300, 64].
    fn arrays(ledger: &Ledger) -> [Array; 3] {
        let of = |shape: [usize; 3]| Place::Dry(ledger.clone()).zeros(&shape, DType::BF16).expect("counted");
        [of([4, 100, 64]), of([2, 300, 64]), of([2, 300, 64])]
    }

    fn asked(bias: Bias<'_>) -> Attention<'_> {
        Attention { bias, ..Attention::plain(AttentionTiles { query_rows: 16, heads: 1 }) }
    }

    #[test]
    fn the_kernel_is_told_what_is_asked() {
        let ledger = Ledger::new(CARD);
        let [q, k, v] = &arrays(&ledger);
        let keys = KeyBias { runs: vec![(70, 1.0), (5, -2.0)] };
        let given = How::new([q, k, v], &asked(Bias::Keys(&keys))).expect("taken");
        assert_eq!(given.strides, [[6400, 64], [19200, 64], [19200, 64]]);
        assert_eq!((given.queries, given.keys, given.sharing, given.causal, given.biased), (100, 300, 2, 0, 75));
        assert_eq!((given.ends, given.bias[1]), ([70, 75, 0, 0, 0, 0, 0, 0], -2.0 * std::f32::consts::LOG2_E));
        assert_eq!(given.scale, std::f32::consts::LOG2_E / 8.0);
        let given = How::new([q, k, v], &asked(Bias::Causal { keys: 40 })).expect("taken");
        assert_eq!((given.keys, given.causal, given.biased), (40, 1, 0));
    }

    #[test]
    fn what_it_does_not_take_is_left_to_others() {
        let ledger = Ledger::new(CARD);
        let [q, k, v] = &arrays(&ledger);
        let taken = |k: &Array, how: &Attention<'_>| How::new([q, k, v], how).is_some();
        let scores = Place::Dry(ledger.clone()).zeros(&[1, 100, 300], DType::F32).expect("counted");
        assert!(taken(k, &asked(Bias::None)));
        assert!(!taken(k, &asked(Bias::Scores(&scores))));
        assert!(!taken(k, &asked(Bias::Keys(&KeyBias { runs: vec![(1, 1.0); 9] }))));
        assert!(!taken(k, &asked(Bias::Keys(&KeyBias { runs: vec![(1, f32::NEG_INFINITY)] }))));
        assert!(!taken(k, &Attention { scale: Scale::InverseRootTimes(0.0), ..asked(Bias::None) }));
        // Rows that begin anywhere, and channels that do not lie side by side.
        let wide = Place::Dry(ledger.clone()).zeros(&[2, 300, 68], DType::BF16).expect("counted");
        assert!(!taken(&wide.narrow(2, 4, 64).expect("a view"), &asked(Bias::None)));
        let turned = Place::Dry(ledger.clone()).zeros(&[2, 64, 300], DType::BF16).expect("counted");
        assert!(!taken(&turned.transpose(1, 2).expect("a view"), &asked(Bias::None)));
    }

    #[test]
    fn it_holds_its_output_and_nothing_else() {
        let ledger = Ledger::new(CARD);
        let [q, k, v] = &arrays(&ledger);
        let before = ledger.now_bytes();
        let out = flash::attention(q, k, v, &asked(Bias::None)).expect("counted").expect("taken");
        assert_eq!(out.dims(), [100, 256]);
        assert_eq!((ledger.peak_bytes() - before, ledger.launches()), (2 * 100 * 256, 1));
        assert_eq!(ledger.flops(), 4 * 4 * 100 * 300 * 64);
    }
}
