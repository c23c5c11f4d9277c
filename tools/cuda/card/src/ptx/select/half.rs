//! f16 and bf16, one at a time and in pairs. Sums and products of two such numbers are exact in f64, so that rounding once
//! to the format is the ISA's rounding.

use super::{Opcode, lanewise};
use crate::{
    float::{BF16, F16, Format, Rounding, add_to_odd, bf16_to_f32, f16_to_f32},
    ptx::code::{Compute, LANES, Lanes},
};

/// f16 as the ISA computes with it.
struct Half;
/// bf16 likewise.
struct Brain;

/// A 16-bit format.
trait Sixteen {
    const FORMAT: Format;
    fn wide(bits: u64) -> f64;
    fn narrow(value: f64) -> u64 {
        Self::FORMAT.round(value, Rounding::Nearest)
    }
}

impl Sixteen for Half {
    const FORMAT: Format = F16;
    fn wide(bits: u64) -> f64 {
        f16_to_f32(bits & 0xffff).into()
    }
}

impl Sixteen for Brain {
    const FORMAT: Format = BF16;
    fn wide(bits: u64) -> f64 {
        bf16_to_f32(bits & 0xffff).into()
    }
}

fn add<F: Sixteen>(a: u64, b: u64, _: u64) -> u64 {
    F::narrow(add_to_odd(F::wide(a), F::wide(b)))
}

fn sub<F: Sixteen>(a: u64, b: u64, _: u64) -> u64 {
    F::narrow(add_to_odd(F::wide(a), -F::wide(b)))
}

fn mul<F: Sixteen>(a: u64, b: u64, _: u64) -> u64 {
    F::narrow(F::wide(a) * F::wide(b))
}

fn fma<F: Sixteen>(a: u64, b: u64, c: u64) -> u64 {
    F::narrow(add_to_odd(F::wide(a) * F::wide(b), F::wide(c)))
}

fn relu_fma<F: Sixteen>(a: u64, b: u64, c: u64) -> u64 {
    let value = add_to_odd(F::wide(a) * F::wide(b), F::wide(c));
    F::narrow(if value < 0.0 { 0.0 } else { value })
}

fn neg<F: Sixteen>(a: u64, _: u64, _: u64) -> u64 {
    (a ^ 0x8000) & 0xffff
}

fn abs<F: Sixteen>(a: u64, _: u64, _: u64) -> u64 {
    a & 0x7fff
}

/// The one operand that is a number where only one is; else the least, -0 below +0.
fn min<F: Sixteen>(a: u64, b: u64, _: u64) -> u64 {
    let (x, y) = (F::wide(a), F::wide(b));
    match (x.is_nan(), y.is_nan()) {
        (true, true) => 0x7fff,
        (true, _) => b & 0xffff,
        (_, true) => a & 0xffff,
        _ if x < y || (x == y && x.is_sign_negative()) => a & 0xffff,
        _ => b & 0xffff,
    }
}

fn max<F: Sixteen>(a: u64, b: u64, c: u64) -> u64 {
    match F::wide(a).is_nan() || F::wide(b).is_nan() {
        true => min::<F>(a, b, c),
        false => min::<F>(a ^ 0x8000, b ^ 0x8000, c) ^ 0x8000,
    }
}

fn min_nan<F: Sixteen>(a: u64, b: u64, c: u64) -> u64 {
    if F::wide(a).is_nan() || F::wide(b).is_nan() { 0x7fff } else { min::<F>(a, b, c) }
}

fn max_nan<F: Sixteen>(a: u64, b: u64, c: u64) -> u64 {
    if F::wide(a).is_nan() || F::wide(b).is_nan() { 0x7fff } else { max::<F>(a, b, c) }
}

fn ex2<F: Sixteen>(a: u64, _: u64, _: u64) -> u64 {
    F::narrow(F::wide(a).exp2())
}

fn tanh<F: Sixteen>(a: u64, _: u64, _: u64) -> u64 {
    F::narrow(F::wide(a).tanh())
}

/// Both halves of a 32-bit register.
fn both(f: fn(u64, u64, u64) -> u64, a: u64, b: u64, c: u64) -> u64 {
    f(a & 0xffff, b & 0xffff, c & 0xffff) | f(a >> 16 & 0xffff, b >> 16 & 0xffff, c >> 16 & 0xffff) << 16
}

/// What an instruction on 16-bit floats computes.
pub fn half(opcode: &Opcode<'_>) -> Option<Compute> {
    macro_rules! of_type {
        ($f:ident) => {
            match opcode.kind() {
                "f16" => lanewise!(|a, b, c| $f::<Half>(a, b, c)),
                "bf16" => lanewise!(|a, b, c| $f::<Brain>(a, b, c)),
                "f16x2" => lanewise!(|a, b, c| both($f::<Half>, a, b, c)),
                "bf16x2" => lanewise!(|a, b, c| both($f::<Brain>, a, b, c)),
                _ => None,
            }
        };
    }
    if opcode.one_of(&["sat", "ftz", "xorsign", "oob"]).is_some() {
        return None;
    }
    match opcode.base {
        "add" => of_type!(add),
        "sub" => of_type!(sub),
        "mul" => of_type!(mul),
        "fma" if opcode.has("relu") => of_type!(relu_fma),
        "fma" => of_type!(fma),
        "neg" => of_type!(neg),
        "abs" => of_type!(abs),
        "min" if opcode.has("NaN") => of_type!(min_nan),
        "max" if opcode.has("NaN") => of_type!(max_nan),
        "min" => of_type!(min),
        "max" => of_type!(max),
        "ex2" => of_type!(ex2),
        "tanh" => of_type!(tanh),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rounding_is_that_of_one_operation() {
        let bf = |value: f64| BF16.round(value, Rounding::Nearest);
        assert_eq!(add::<Brain>(bf(256.0), bf(1.0), 0), bf(256.0));
        assert_eq!(add::<Brain>(bf(256.0), bf(3.0), 0), bf(260.0));
        assert_eq!(mul::<Brain>(bf(1.0078125), bf(1.0078125), 0), bf(1.015625));
        // 1.0078125² = 1.01568..; less 1.015625 is 2^-14, which a product rounded by itself would lose.
        assert_eq!(fma::<Brain>(bf(1.0078125), bf(1.0078125), bf(-1.015625)), bf(1.0 / 16384.0));
        let h = |value: f64| F16.round(value, Rounding::Nearest);
        assert_eq!(fma::<Half>(h(3.0), h(4.0), h(0.5)), h(12.5));
        assert_eq!(sub::<Half>(h(65504.0), h(-65504.0), 0), 0x7c00);
    }

    #[test]
    fn nan_and_signs_follow_the_isa() {
        let nan = 0x7fff;
        assert_eq!(max::<Half>(nan, 0x3c00, 0), 0x3c00);
        assert_eq!(max_nan::<Half>(nan, 0x3c00, 0), nan);
        assert_eq!(min::<Brain>(0x0000, 0x8000, 0), 0x8000);
        assert_eq!(max::<Brain>(0x8000, 0x0000, 0), 0x0000);
        assert_eq!(both(neg::<Half>, 0x3c00_bc00, 0, 0), 0xbc00_3c00);
        assert_eq!(abs::<Half>(0xbc00, 0, 0), 0x3c00);
    }
}
