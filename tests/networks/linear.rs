//! Linear layers against plain products, in every form of weight.

use candle_core::{DType, Device, Tensor};
use dype::testing::{
    base::device::DeviceKind,
    nn::{
        self, Activation, Compute, Form, Linear, LowRank, Place, Products, Quantised,
        kernels::{cpu, tensors},
    },
    weights::{BlockType, Float8},
};

use crate::plain::{a, exactness, random, real, relative_error, values};
/// `activation(x·weightᵀ + bias)` with exact products.
fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, activation: Activation) -> Tensor {
    real(nn::product(Products::Exact, &a(x), &a(weight), bias.map(a).as_ref(), activation))
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
