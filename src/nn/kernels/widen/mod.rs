//! Weights of few bits as numbers, on CUDA: blocks of GGUF files and floats of 8 bits are read where they lie and written once, in
//! the number type of the product they are for.
//!
//! The kernel is our own (`widen.cu`); its machine code is made by the driver from `widen.ptx`, which is part of the program, and the
//! simulated card runs it in its tests (`tools/cuda/card`). Its numbers are those of [`BlockType::decode`], rounded once.

#[cfg(feature = "cuda")]
mod launch;

use candle_core::{DType, Tensor};

use crate::{
    base::device::DeviceKind,
    error::Result,
    nn::{Array, array::Launch, mismatch},
    weights::{BlockType, Float8},
};

/// Threads of a block.
#[cfg(any(test, feature = "cuda"))]
const THREADS: usize = 256;

/// What codes stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codes {
    /// Blocks of quantised numbers.
    Blocks(BlockType),
    /// Floats of 8 bits, to be multiplied by a scale.
    Float8(Float8),
}

impl Codes {
    /// Its part of a kernel's name.
    pub fn word(self) -> String {
        match self {
            Self::Blocks(kind) => kind.name().to_lowercase(),
            Self::Float8(Float8::E4M3) => "f8_e4m3".into(),
            Self::Float8(Float8::E5M2) => "f8_e5m2".into(),
        }
    }
}

/// Whether such a device has the kernel.
pub fn is_on(kind: DeviceKind) -> bool {
    kind.is_cuda()
}

/// Numbers `inputs` = (first, count) of each row of `codes` [rows, bytes of a row], in `dtype`: [rows, count]. `scale` is f32: one number
/// \[1\], or one of each row [rows, 1]; blocks have none.
///
/// # Errors
/// When the rows do not lie side by side, or the device fails.
pub fn widened(
    codes: &Array,
    kind: Codes,
    inputs: (usize, usize),
    scale: Option<&Array>,
    dtype: DType,
) -> Result<Array> {
    let how = How::new(codes, inputs, scale)?;
    codes.launch(Launch::Elements, &[codes.dim(0), inputs.1], dtype, |codes| {
        kernel(codes, scale.map(Array::real_tensor).transpose()?, Widen { kind, how, dtype })
    })
}

/// One launch.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Widen {
    kind: Codes,
    how: How,
    dtype: DType,
}

/// What the kernel is told beside its arrays: the struct of the same name in `widen.cu`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
struct How {
    /// Between rows of codes, in bytes.
    row_bytes: i64,
    /// The first of the numbers of a row that are wanted.
    first: i32,
    /// How many are.
    count: i32,
    /// Between the scales of two rows: 0 where one is for all.
    scale_step: i32,
}

impl How {
    fn new(codes: &Array, (first, count): (usize, usize), scale: Option<&Array>) -> Result<Self> {
        let layout = codes.layout();
        let [row, 1] = *layout.stride() else {
            return Err(mismatch(format!("codes {:?} that do not lie side by side", layout.dims())));
        };
        let number = |count: usize| i32::try_from(count).map_err(|_| mismatch(format!("{count} numbers of a row")));
        let scale_step = i32::from(scale.is_some_and(|scale| scale.dim(0) > 1));
        let row_bytes = i64::try_from(row).map_err(|_| mismatch(format!("rows of {row} bytes")))?;
        Ok(Self { row_bytes, first: number(first)?, count: number(count)?, scale_step })
    }
}

#[cfg(feature = "cuda")]
fn kernel(codes: &Tensor, scale: Option<&Tensor>, widen: Widen) -> candle_core::Result<Tensor> {
    match scale {
        Some(scale) => codes.apply_op2_no_bwd(scale, &widen),
        None => codes.apply_op1_no_bwd(&widen),
    }
}

#[cfg(not(feature = "cuda"))]
fn kernel(_codes: &Tensor, _scale: Option<&Tensor>, widen: Widen) -> candle_core::Result<Tensor> {
    Err(candle_core::Error::msg(format!("a program without CUDA launched {widen:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Ledger, Place, kernels::compiled};

    const SOURCE: &str = include_str!("widen.cu");
    const COMPILED: &str = include_str!("widen.ptx");
    const CARD: DeviceKind = DeviceKind::Cuda { capability: (7, 5) };

    #[test]
    fn what_is_launched_is_what_the_source_compiles_to() {
        compiled::check("widen.cu", SOURCE, COMPILED, &[("THREADS", THREADS)]);
        assert!(COMPILED.contains(&format!("_param_3[{}]", size_of::<How>())));
        let blocks = BlockType::ALL.map(Codes::Blocks);
        for kind in blocks.into_iter().chain([Float8::E4M3, Float8::E5M2].map(Codes::Float8)) {
            for word in ["bf16", "f16", "f32"] {
                assert!(COMPILED.contains(&format!(".entry widen_{}_{word}(", kind.word())), "{kind:?} {word}");
            }
            let Codes::Blocks(kind) = kind else { continue };
            let sizes = format!("BYTES = {}, NUMBERS = {};", kind.bytes(), kind.numbers());
            assert!(
                SOURCE.contains(&format!("struct {} {{\n    static constexpr int {sizes}", kind.name())),
                "{kind:?}"
            );
        }
    }

    fn zeros(ledger: &Ledger, shape: &[usize], dtype: DType) -> Array {
        Place::Dry(ledger.clone()).zeros(shape, dtype).expect("counted")
    }

    #[test]
    fn the_kernel_is_told_where_rows_lie() {
        let ledger = Ledger::new(CARD);
        let codes = zeros(&ledger, &[8, 300], DType::U8);
        let some = codes.narrow(0, 2, 4).and_then(|rows| rows.narrow(1, 100, 50)).expect("a view");
        let scales = zeros(&ledger, &[4, 1], DType::F32);
        let how = How { row_bytes: 300, first: 0, count: 50, scale_step: 1 };
        assert_eq!(How::new(&some, (0, 50), Some(&scales)).expect("told"), how);
        let one = scales.narrow(0, 0, 1).expect("a view");
        assert_eq!(
            How::new(&some, (7, 9), Some(&one)).expect("told"),
            How { first: 7, count: 9, scale_step: 0, ..how }
        );
        assert!(How::new(&codes.transpose(0, 1).expect("a view"), (0, 1), None).is_err());
    }

    #[test]
    fn it_holds_its_numbers_and_nothing_else() {
        let ledger = Ledger::new(CARD);
        let codes = zeros(&ledger, &[5, 2 * 144], DType::U8);
        let before = ledger.now_bytes();
        let out = widened(&codes, Codes::Blocks(BlockType::Q4K), (16, 400), None, DType::BF16).expect("counted");
        assert_eq!((out.dims(), out.dtype()), (&[5, 400][..], DType::BF16));
        assert_eq!((ledger.peak_bytes() - before, ledger.launches()), (2 * 5 * 400, 1));
    }
}
