//! Products with some of a weight's columns on CUDA, where they lie: cuBLAS takes rows that are apart, candle's call of it does not,
//! and would be given a copy of them for every product.

#[cfg(feature = "cuda")]
mod call;

use candle_core::{DType, Tensor};

use super::refused::Refused;
use crate::{
    error::Result,
    nn::{Array, array::Launch},
};

/// Number types whose products failed their check on this machine ([`crate::nn::settle_weights`]).
static REFUSED: Refused<DType> = Refused::new();

/// Says that such products are not to be made of numbers of this type.
pub(in crate::nn) fn refuse(dtype: DType) {
    REFUSED.add(dtype);
}

/// `x·weightᵀ` for x [C, in] and weight [out, in], whose rows are apart; `None` on other devices, where they are not, and where x
/// has another number type.
///
/// # Errors
/// When the device fails.
pub fn product(x: &Array, weight: &Array) -> Result<Option<Array>> {
    let Some(apart) = apart(x, weight) else { return Ok(None) };
    let ((rows, inputs), outputs) = (x.dims2()?, weight.dim(0));
    x.note(|ledger| ledger.work(2 * (rows * inputs) as u64 * outputs as u64));
    let product = x.launch(Launch::Buffers, &[rows, outputs], x.dtype(), |x| call(x, weight.real_tensor()?, apart))?;
    Ok(Some(product)) // [C, out]
}

/// How far apart the weight's rows are, in numbers, where they are taken as they are.
fn apart(x: &Array, weight: &Array) -> Option<usize> {
    let is_cuda = !x.is_cpu() && x.place().kind().is_cuda();
    let is_known = matches!(x.dtype(), DType::F32 | DType::BF16 | DType::F16) && !REFUSED.has(&x.dtype());
    let is_known = is_known && weight.dtype() == x.dtype();
    let &[apart, 1] = weight.layout().stride() else { return None };
    let fits = is_cuda && is_known && x.is_contiguous() && x.elem_count() > 0 && x.dim(1) == weight.dim(1);
    (fits && apart > weight.dim(1)).then_some(apart)
}

#[cfg(feature = "cuda")]
fn call(x: &Tensor, weight: &Tensor, apart: usize) -> candle_core::Result<Tensor> {
    x.apply_op2_no_bwd(weight, &call::Columns { apart })
}

#[cfg(not(feature = "cuda"))]
fn call(_x: &Tensor, _weight: &Tensor, apart: usize) -> candle_core::Result<Tensor> {
    Err(candle_core::Error::msg(format!("a program without CUDA multiplies by rows that are {apart} apart")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::device::DeviceKind,
        nn::{Activation, Ledger, Place, Products},
    };

    const CARD: DeviceKind = DeviceKind::Cuda { capability: (8, 0) };

    fn zeros(kind: DeviceKind, shape: &[usize], dtype: DType) -> (Ledger, Array) {
        let ledger = Ledger::new(kind);
        let array = Place::Dry(ledger.clone()).zeros(shape, dtype).expect("counted");
        (ledger, array)
    }

    /// Bytes and launches of a product with columns 8..40 of a weight [24, 100].
    fn taken(kind: DeviceKind) -> (u64, u64, u128) {
        let (ledger, x) = zeros(kind, &[10, 32], DType::BF16);
        let weight =
            x.place().zeros(&[24, 100], DType::BF16).and_then(|weight| weight.narrow(1, 8, 32)).expect("a view");
        let before = ledger.now_bytes();
        let out = crate::nn::product(Products::Exact, &x, &weight, None, Activation::None).expect("counted");
        assert_eq!(out.dims(), [10, 24]);
        (ledger.peak_bytes() - before, ledger.launches(), ledger.flops())
    }

    #[test]
    fn no_copy_of_the_weight_is_held_on_a_card() {
        let flops = 2 * 10 * 32 * 24;
        assert_eq!(taken(CARD), (2 * 10 * 24, 1, flops));
        assert_eq!(taken(DeviceKind::Metal), (2 * (10 * 24 + 24 * 32), 2, flops));
    }

    #[test]
    fn rows_that_lie_side_by_side_are_left_to_others() {
        let (_, x) = zeros(CARD, &[10, 32], DType::BF16);
        let weight = |dtype| x.place().zeros(&[24, 100], dtype).expect("counted");
        let columns = |weight: &Array, count| weight.narrow(1, 0, count).expect("a view");
        assert_eq!(apart(&x, &columns(&weight(DType::BF16), 32)), Some(100));
        assert!(apart(&x, &x.place().zeros(&[24, 32], DType::BF16).expect("counted")).is_none());
        assert!(apart(&x, &columns(&weight(DType::F32), 32)).is_none(), "it is converted, and a copy then");
        assert!(apart(&x, &columns(&weight(DType::BF16), 31)).is_none());
        assert!(apart(&columns(&x, 16), &columns(&weight(DType::BF16), 16)).is_none());
    }
}
