//! Products with weights of e4m3 in e4m3, on CUDA: rows of x become codes with a scale each, and both sides are multiplied as they
//! are, with sums in f32. Twice the rate of bf16, a panel of the weight less to write, and another result: three bits of each number
//! of x are kept.
//!
//! The kernels are our own (`product.cu`); their text, `product.ptx`, is part of the program as that of [`super::flash`] is. Where they
//! are asked for they are held against the codes' products in f32 before a model is loaded ([`crate::nn::settle_fp8`]).

#[cfg(feature = "cuda")]
mod launch;

use candle_core::{DType, Tensor};

use crate::{
    base::device::DeviceKind,
    error::Result,
    nn::{Array, array::Launch, kernels::checked::word},
    weights::Float8,
};

/// The least compute capability whose matrix units take e4m3. Source: PTX ISA, `mma`.
const CAPABILITY: (u32, u32) = (8, 9);
/// Numbers that travel at once, and bytes behind the codes of a row, which begin with its scale.
const PIECE: usize = 16;
/// Threads of a block, and what a block of the product makes.
#[cfg(any(test, feature = "cuda"))]
const THREADS: usize = 256;
#[cfg(any(test, feature = "cuda"))]
const ROWS: usize = 128;
#[cfg(any(test, feature = "cuda"))]
const OUTPUTS: usize = 128;

/// Whether a device of this kind multiplies in e4m3 at all.
pub fn is_on(kind: DeviceKind) -> bool {
    matches!(kind, DeviceKind::Cuda { capability } if capability >= CAPABILITY)
}

/// `x·(codes ∘ scale)ᵀ` for x [C, in] and codes [out, in], in the number type of x; `scale` is f32: one number \[1\], or one of each
/// output \[out, 1\]. `None` where the kernels do not take them.
///
/// # Errors
/// When the device fails.
pub fn product(x: &Array, codes: &Array, kind: Float8, scale: &Array) -> Result<Option<Array>> {
    let Some([of_x, of_codes]) = distances(x, codes, kind) else { return Ok(None) };
    let ((rows, inputs), outputs) = (x.dims2()?, codes.dim(0));
    let how = |row| How::new(row, [rows, inputs, outputs], scale.dim(0) > 1);
    let (to_codes, multiply) = (how(of_x)?, how(of_codes)?);
    let quantised = x.launch(Launch::Buffers, &[rows, inputs + PIECE], DType::U8, |x| to_e4m3(x, to_codes))?;
    x.note(|ledger| ledger.work(2 * (rows * inputs) as u64 * outputs as u64));
    let out = quantised.launch(Launch::Buffers, &[rows, outputs], x.dtype(), |quantised| {
        multiplied([quantised, codes.real_tensor()?, scale.real_tensor()?], multiply, x.dtype())
    })?;
    Ok(Some(out)) // [C, out]
}

/// How far apart rows of x and of the codes are, where the kernels take both.
fn distances(x: &Array, codes: &Array, kind: Float8) -> Option<[usize; 2]> {
    let is_known = is_on(x.place().kind()) && kind == Float8::E4M3 && word(x.dtype()).is_some();
    let fits = x.elem_count() > 0 && x.dim(1) == codes.dim(1) && x.dim(1).is_multiple_of(PIECE);
    if !is_known || !fits || x.is_cpu() {
        return None;
    }
    // Pieces begin where they can be read at once.
    let in_pieces = |array: &Array| match *array.layout().stride() {
        [row, 1] if row.is_multiple_of(PIECE) && array.layout().start_offset().is_multiple_of(PIECE) => Some(row),
        _ => None,
    };
    Some([in_pieces(x)?, in_pieces(codes)?])
}

/// What the kernels are told beside their arrays: the struct of the same name in `product.cu`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
struct How {
    /// Between rows of the weight, or of the numbers that become codes: in bytes, or in numbers.
    row: i64,
    rows: i32,
    inputs: i32,
    outputs: i32,
    /// Between the scales of two outputs: 0 where one is for all.
    scale_step: i32,
}

impl How {
    fn new(row: usize, [rows, inputs, outputs]: [usize; 3], by_output: bool) -> Result<Self> {
        let number = |count: usize| {
            i32::try_from(count).map_err(|_| crate::nn::mismatch(format!("{count} rows or columns in e4m3")))
        };
        let (rows, inputs, outputs) = (number(rows)?, number(inputs)?, number(outputs)?);
        Ok(Self { row: row as i64, rows, inputs, outputs, scale_step: i32::from(by_output) })
    }
}

#[cfg(feature = "cuda")]
fn to_e4m3(x: &Tensor, how: How) -> candle_core::Result<Tensor> {
    x.apply_op1_no_bwd(&launch::ToCodes(how))
}

#[cfg(feature = "cuda")]
fn multiplied([x, codes, scale]: [&Tensor; 3], how: How, dtype: DType) -> candle_core::Result<Tensor> {
    x.apply_op3_no_bwd(codes, scale, &launch::Product(how, dtype))
}

#[cfg(not(feature = "cuda"))]
fn to_e4m3(_x: &Tensor, how: How) -> candle_core::Result<Tensor> {
    Err(candle_core::Error::msg(format!("a program without CUDA launched {how:?}")))
}

#[cfg(not(feature = "cuda"))]
fn multiplied(_arrays: [&Tensor; 3], how: How, dtype: DType) -> candle_core::Result<Tensor> {
    Err(candle_core::Error::msg(format!("a program without CUDA launched {how:?} in {dtype:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Compute, Form, Ledger, Linear, Place, Products, kernels::compiled};

    const SOURCE: &str = include_str!("product.cu");
    const COMPILED: &str = include_str!("product.ptx");
    const CARD: DeviceKind = DeviceKind::Cuda { capability: (8, 9) };

    #[test]
    fn what_is_launched_is_what_the_source_compiles_to() {
        let constants = [("THREADS", THREADS), ("ROWS", ROWS), ("OUTPUTS", OUTPUTS), ("PIECE", PIECE)];
        compiled::check("product.cu", SOURCE, COMPILED, &constants);
        for (param, kernel) in [(2, "to_e4m3"), (4, "product_e4m3")] {
            for word in ["bf16", "f16", "f32"] {
                assert!(COMPILED.contains(&format!(".entry {kernel}_{word}(")), "{kernel} {word}");
                assert!(COMPILED.contains(&format!("{kernel}_{word}_param_{param}[{}]", size_of::<How>())));
            }
        }
        let (major, minor) = CAPABILITY;
        assert!(COMPILED.contains(&format!(".target sm_{major}{minor}\n")));
    }

    fn zeros(ledger: &Ledger, shape: &[usize], dtype: DType) -> Array {
        Place::Dry(ledger.clone()).zeros(shape, dtype).expect("counted")
    }

    /// What a layer of e4m3 takes on such a card: (bytes at most beyond what is there, launches).
    fn taken(kind: DeviceKind, products: Products, float8: Float8, inputs: usize) -> (u64, u64) {
        let ledger = Ledger::new(kind);
        let (x, codes) = (zeros(&ledger, &[10, inputs], DType::BF16), zeros(&ledger, &[24, inputs], DType::U8));
        let form = Form::Scaled { codes, kind: float8, scale: zeros(&ledger, &[24, 1], DType::F32) };
        let compute = Compute { dtype: DType::BF16, products };
        let layer = Linear::new(form, None, compute).expect("fits");
        let (before, launches) = (ledger.now_bytes(), ledger.launches());
        let out = layer.forward(&x).expect("counted");
        assert_eq!((out.dims(), out.dtype()), (&[10, 24][..], DType::BF16));
        assert_eq!(ledger.flops(), 2 * 10 * 24 * inputs as u128);
        (ledger.peak_bytes() - before, ledger.launches() - launches)
    }

    #[test]
    fn a_dry_pass_counts_codes_of_rows_where_they_are_asked_for_and_a_widened_weight_where_not() {
        let (in_codes, widened) = ((10 * (64 + 16) + 2 * 10 * 24, 2), (2 * 24 * 64 + 2 * 10 * 24, 2));
        assert_eq!(taken(CARD, Products::Float8, Float8::E4M3, 64), in_codes);
        assert_eq!(taken(CARD, Products::Exact, Float8::E4M3, 64), widened);
        assert_eq!(taken(CARD, Products::Float8, Float8::E5M2, 64), widened);
        assert_eq!(taken(DeviceKind::Cuda { capability: (8, 6) }, Products::Float8, Float8::E4M3, 64), widened);
        assert_eq!(taken(CARD, Products::Float8, Float8::E4M3, 72), (2 * 24 * 72 + 2 * 10 * 24, 2), "no whole pieces");
    }

    #[test]
    fn rows_are_taken_where_they_lie_in_whole_pieces() {
        let ledger = Ledger::new(CARD);
        let (x, codes) = (zeros(&ledger, &[10, 96], DType::F32), zeros(&ledger, &[24, 128], DType::U8));
        let columns = |array: &Array, first| array.narrow(1, first, 32).expect("a view");
        let found = |first| distances(&columns(&x, 0), &columns(&codes, first), Float8::E4M3);
        assert_eq!(found(48), Some([96, 128]));
        assert_eq!(found(8), None);
        assert!(distances(&x, &codes, Float8::E4M3).is_none(), "other inputs");
        let how = How { row: 128, rows: 10, inputs: 32, outputs: 24, scale_step: 1 };
        assert_eq!(How::new(128, [10, 32, 24], true).expect("told"), how);
    }
}
