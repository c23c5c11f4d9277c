//! Each kind of change on a layer of any weight, against the weight it amounts to; whole and in halves.

use candle_core::{DType, Device, Tensor};
use dype::testing::{
    base::device::DeviceKind,
    nn::{Adapter, Array, Compute, Dense, Form, Kronecker, Ledger, Linear, LowRank},
};

use super::support::{relative_error, values};

fn random(shape: &[usize]) -> Tensor {
    Tensor::randn(0f32, 1.0, shape, &Device::Cpu).expect("normal numbers")
}

fn a(tensor: &Tensor) -> Array {
    tensor.clone().into()
}

fn narrow(tensor: &Tensor, dim: usize, start: usize, count: usize) -> Tensor {
    tensor.narrow(dim, start, count).and_then(|part| part.contiguous()).expect("a part")
}

/// The Kronecker product, number by number.
fn kronecker(first: &Tensor, second: &Tensor) -> Tensor {
    let ((a, b), (d, e)) = (first.dims2().expect("a matrix"), second.dims2().expect("a matrix"));
    let (first, second) = (values(first), values(second));
    let at = |row: usize, column: usize| first[row / d * b + column / e] * second[row % d * e + column % e];
    let all = (0..a * d).flat_map(|row| (0..b * e).map(move |column| (row, column)));
    let numbers: Vec<f32> = all.map(|(row, column)| at(row, column)).collect();
    Tensor::from_vec(numbers, (a * d, b * e), &Device::Cpu).expect("a matrix")
}

/// Changes of a layer of 48 inputs and 60 outputs, with the matrix each amounts to.
fn changes() -> Vec<(Adapter, Tensor)> {
    let (down, up, whole) = (random(&[5, 48]), random(&[60, 5]), random(&[60, 48]));
    let (first, second) = (random(&[8, 4]), random(&[9, 12]));
    let halved = |tensor: &Tensor| (tensor * 0.5).expect("half");
    let rows = 7..67;
    let product = kronecker(&first, &second).narrow(0, rows.start, rows.len()).expect("rows");
    let low_rank = LowRank { down: a(&down), up: a(&up), strength: 0.5 };
    let kronecker = Kronecker { first: a(&first), second: a(&second), rows, inputs: 0..48 };
    vec![
        (low_rank.into(), halved(&up.matmul(&down).expect("a product"))),
        (Adapter::Kronecker(kronecker), product),
        (Adapter::Dense(Dense { weight: a(&whole), strength: 0.5 }), halved(&whole)),
    ]
}

fn check(dtype: DType, tolerance: f64) {
    let (x, weight, bias, gain) = (random(&[9, 48]), random(&[60, 48]), random(&[60]), random(&[60]));
    let cast = |tensor: &Tensor| a(&tensor.to_dtype(dtype).expect("cast"));
    let back = |y: Array| values(&y.real().expect("real").to_dtype(DType::F32).expect("f32"));
    let plain = Linear::new(Form::Dense(cast(&weight)), Some(cast(&bias)), Compute::on(DeviceKind::Cpu, dtype));
    let plain = plain.expect("a layer");
    let gained = weight.broadcast_mul(&gain.unsqueeze(1).expect("a column")).expect("stretched");
    let stretched = plain.clone().with_gain(a(&gain));
    for (layer, base) in [(plain, weight), (stretched, gained)] {
        for (adapter, change) in changes() {
            let layer = layer.clone().with_adapter(adapter.clone()).expect("fits");
            let changed = (&base + &change).expect("alike");
            let expected = x.matmul(&changed.t().expect("turned")).and_then(|y| y.broadcast_add(&bias)).expect("y");
            let found = layer.forward(&cast(&x)).expect("computes");
            let error = relative_error(&back(found), &values(&expected));
            assert!(error < tolerance, "{dtype:?} {adapter:?}: {error:e}");
            for inputs in [12, 20, 31] {
                let (one, other) = layer.split_inputs(inputs).expect("halves");
                let of = |layer: &Linear, start, count| layer.forward(&cast(&narrow(&x, 1, start, count)));
                let sum = of(&one, 0, inputs).and_then(|y| y.add(&of(&other, inputs, 48 - inputs)?)).expect("y");
                let error = relative_error(&back(sum), &values(&expected));
                assert!(error < 2.0 * tolerance, "{dtype:?} {adapter:?} at {inputs}: {error:e}");
            }
        }
    }
}

#[test]
fn every_kind_is_the_matrix_it_amounts_to() {
    check(DType::F32, 1e-6);
    check(DType::F16, 2e-3);
    check(DType::BF16, 2e-2);
}

#[test]
fn what_does_not_fit_is_refused() {
    let layer = Linear::new(Form::Dense(a(&random(&[60, 47]))), None, Compute::EXACT_F32).expect("a layer");
    for (adapter, _) in changes() {
        assert!(layer.clone().with_adapter(adapter).is_err());
    }
}

/// What a dry pass counts is what the products of a low rank take: 2·C·rank·(in + out) operations beside the weight's.
#[test]
fn a_dry_pass_counts_it() {
    let flops = |rank: Option<usize>| {
        let ledger = Ledger::new(DeviceKind::Cpu);
        let array =
            |shape: &[usize]| dype::testing::nn::Place::Dry(ledger.clone()).zeros(shape, DType::F32).expect("dry");
        let mut layer = Linear::new(Form::Dense(array(&[60, 48])), None, Compute::EXACT_F32).expect("a layer");
        if let Some(rank) = rank {
            let low_rank = LowRank { down: array(&[rank, 48]), up: array(&[60, rank]), strength: 1.0 };
            layer = layer.with_adapter(low_rank).expect("fits");
        }
        layer.forward(&array(&[9, 48])).expect("counted");
        ledger.flops()
    };
    assert_eq!(flops(Some(5)) - flops(None), 2 * 9 * 5 * (48 + 60));
}
