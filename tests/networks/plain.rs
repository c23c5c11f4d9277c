//! What fast operations are held against, and numbers for them.

use candle_core::{DType, Device, Tensor};
use dype::testing::nn::{self, Array};
/// Reproducible numbers, roughly normal.
pub fn random(shape: &[usize], seed: u64) -> Tensor {
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
pub fn a(tensor: &Tensor) -> Array {
    tensor.clone().into()
}

/// The numbers of what a part gives.
pub fn real(found: dype::testing::Result<Array>) -> Tensor {
    found.and_then(|found| found.real().cloned()).expect("numbers")
}

/// Them one after another.
pub fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().and_then(|tensor| tensor.to_vec1()).expect("numbers")
}

/// ‖a - b‖ / ‖b‖, in f64.
pub fn relative_error(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let values = |x: &Tensor| {
        x.to_dtype(DType::F64).and_then(|x| x.flatten_all()).and_then(|x| x.to_vec1::<f64>()).expect("values")
    };
    let (a, b) = (values(a), values(b));
    let difference: f64 = a.iter().zip(&b).map(|(a, b)| (a - b).powi(2)).sum();
    (difference / b.iter().map(|b| b * b).sum::<f64>()).sqrt()
}

/// What a product of f32 may be off by: vectors round each sum, a matrix unit takes numbers of f32 as two of bf16.
pub fn exactness() -> f64 {
    if nn::matrix_unit().is_some() { 1e-5 } else { 1e-6 }
}
