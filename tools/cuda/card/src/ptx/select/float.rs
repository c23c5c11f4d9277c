//! f32 and f64. Where the ISA only bounds an error (`.approx`), the result is the exact one, rounded.

use super::{Opcode, lanewise};
use crate::{
    float::{Rounding, add_f32, add_f64, flush, fma_f32, mul_f32, mul_f64},
    ptx::code::{Compute, LANES, Lanes},
};

fn single(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

fn double(bits: u64) -> f64 {
    f64::from_bits(bits)
}

/// The bits of a result; every NaN is the canonical one. Source: PTX ISA, "Floating Point Instructions": 0x7fffffff.
fn bits(value: f32) -> u64 {
    if value.is_nan() { 0x7fff_ffff } else { value.to_bits().into() }
}

/// `min` and `max` give the operand that is a number; -0 lies below +0.
fn least_double(a: f64, b: f64) -> f64 {
    let takes_a = b.is_nan() || a < b || (a == b && a.is_sign_negative());
    if takes_a { a } else { b }
}

fn least(a: f32, b: f32) -> f32 {
    least_double(a.into(), b.into()) as f32
}

fn most(a: f32, b: f32) -> f32 {
    -least(-a, -b)
}

/// The same function with and without `.ftz`, which flushes operands and result.
macro_rules! f32_compute {
    ($ftz:expr, |$a:ident, $b:ident, $c:ident| $value:expr) => {
        if $ftz {
            lanewise!(|$a, $b, $c| {
                #[allow(unused_variables, reason = "most operations have fewer operands")]
                let ($a, $b, $c) = (flush(single($a)), flush(single($b)), flush(single($c)));
                bits(flush($value))
            })
        } else {
            lanewise!(|$a, $b, $c| {
                #[allow(unused_variables, reason = "most operations have fewer operands")]
                let ($a, $b, $c) = (single($a), single($b), single($c));
                bits($value)
            })
        }
    };
}

macro_rules! f64_compute {
    (|$a:ident, $b:ident, $c:ident| $value:expr) => {
        lanewise!(|$a, $b, $c| {
            #[allow(unused_variables, reason = "most operations have fewer operands")]
            let ($a, $b, $c) = (double($a), double($b), double($c));
            ($value).to_bits()
        })
    };
}

/// What an instruction on floats computes.
pub fn float(opcode: &Opcode<'_>) -> Option<Compute> {
    match opcode.base {
        "mov" => lanewise!(|a, b, c| a),
        "selp" => lanewise!(|a, b, c| if c != 0 { a } else { b }),
        _ if opcode.has("xorsign") => None,
        _ if opcode.kind() == "f64" => f64_op(opcode),
        _ => f32_op(opcode),
    }
}

fn f32_op(opcode: &Opcode<'_>) -> Option<Compute> {
    let ftz = opcode.has("ftz");
    if opcode.has("sat") {
        return f32_saturated(opcode);
    }
    match opcode.base {
        _ if opcode.one_of(&["rz", "rm", "rp"]).is_some() => f32_directed(opcode),
        "add" => f32_compute!(ftz, |a, b, c| a + b),
        "sub" => f32_compute!(ftz, |a, b, c| a - b),
        "mul" => f32_compute!(ftz, |a, b, c| a * b),
        "fma" | "mad" => f32_compute!(ftz, |a, b, c| a.mul_add(b, c)),
        "div" => f32_compute!(ftz, |a, b, c| a / b),
        "rcp" => f32_compute!(ftz, |a, b, c| 1.0 / a),
        "sqrt" => f32_compute!(ftz, |a, b, c| a.sqrt()),
        "rsqrt" => f32_compute!(ftz, |a, b, c| (1.0 / f64::from(a).sqrt()) as f32),
        "ex2" => f32_compute!(ftz, |a, b, c| f64::from(a).exp2() as f32),
        "lg2" => f32_compute!(ftz, |a, b, c| f64::from(a).log2() as f32),
        "sin" => f32_compute!(ftz, |a, b, c| f64::from(a).sin() as f32),
        "cos" => f32_compute!(ftz, |a, b, c| f64::from(a).cos() as f32),
        "tanh" => f32_compute!(ftz, |a, b, c| f64::from(a).tanh() as f32),
        "neg" => f32_compute!(ftz, |a, b, c| -a),
        "abs" => f32_compute!(ftz, |a, b, c| a.abs()),
        "min" if opcode.has("NaN") => f32_compute!(ftz, |a, b, c| if a.is_nan() {
            a
        } else if b.is_nan() {
            b
        } else {
            least(a, b)
        }),
        "max" if opcode.has("NaN") => f32_compute!(ftz, |a, b, c| if a.is_nan() {
            a
        } else if b.is_nan() {
            b
        } else {
            most(a, b)
        }),
        "min" => f32_compute!(ftz, |a, b, c| least(a, b)),
        "max" => f32_compute!(ftz, |a, b, c| most(a, b)),
        // The sign of a, the rest of b.
        "copysign" => f32_compute!(ftz, |a, b, c| b.copysign(a)),
        _ => None,
    }
}

/// `.sat`: into [0, 1], NaN to 0.
fn f32_saturated(opcode: &Opcode<'_>) -> Option<Compute> {
    fn sat(value: f32) -> f32 {
        if value > 0.0 { value.min(1.0) } else { 0.0 }
    }
    let ftz = opcode.has("ftz");
    match opcode.base {
        _ if opcode.one_of(&["rz", "rm", "rp"]).is_some() => None,
        "add" => f32_compute!(ftz, |a, b, c| sat(a + b)),
        "sub" => f32_compute!(ftz, |a, b, c| sat(a - b)),
        "mul" => f32_compute!(ftz, |a, b, c| sat(a * b)),
        "fma" => f32_compute!(ftz, |a, b, c| sat(a.mul_add(b, c))),
        _ => None,
    }
}

fn f32_directed(opcode: &Opcode<'_>) -> Option<Compute> {
    use Rounding::{Down, Up, Zero};
    let ftz = opcode.has("ftz");
    match (opcode.base, opcode.one_of(&["rz", "rm", "rp"])?) {
        ("add", "rz") => f32_compute!(ftz, |a, b, c| add_f32(a, b, Zero)),
        ("add", "rm") => f32_compute!(ftz, |a, b, c| add_f32(a, b, Down)),
        ("add", _) => f32_compute!(ftz, |a, b, c| add_f32(a, b, Up)),
        ("sub", "rz") => f32_compute!(ftz, |a, b, c| add_f32(a, -b, Zero)),
        ("sub", "rm") => f32_compute!(ftz, |a, b, c| add_f32(a, -b, Down)),
        ("sub", _) => f32_compute!(ftz, |a, b, c| add_f32(a, -b, Up)),
        ("mul", "rz") => f32_compute!(ftz, |a, b, c| mul_f32(a, b, Zero)),
        ("mul", "rm") => f32_compute!(ftz, |a, b, c| mul_f32(a, b, Down)),
        ("mul", _) => f32_compute!(ftz, |a, b, c| mul_f32(a, b, Up)),
        ("fma" | "mad", "rz") => f32_compute!(ftz, |a, b, c| fma_f32(a, b, c, Zero)),
        ("fma" | "mad", "rm") => f32_compute!(ftz, |a, b, c| fma_f32(a, b, c, Down)),
        ("fma" | "mad", _) => f32_compute!(ftz, |a, b, c| fma_f32(a, b, c, Up)),
        _ => None,
    }
}

fn f64_op(opcode: &Opcode<'_>) -> Option<Compute> {
    use Rounding::{Down, Up, Zero};
    match (opcode.base, opcode.one_of(&["rz", "rm", "rp"])) {
        ("add", None) => f64_compute!(|a, b, c| a + b),
        ("add", Some("rz")) => f64_compute!(|a, b, c| add_f64(a, b, Zero)),
        ("add", Some("rm")) => f64_compute!(|a, b, c| add_f64(a, b, Down)),
        ("add", Some("rp")) => f64_compute!(|a, b, c| add_f64(a, b, Up)),
        ("sub", None) => f64_compute!(|a, b, c| a - b),
        ("mul", None) => f64_compute!(|a, b, c| a * b),
        ("mul", Some("rz")) => f64_compute!(|a, b, c| mul_f64(a, b, Zero)),
        ("mul", Some("rm")) => f64_compute!(|a, b, c| mul_f64(a, b, Down)),
        ("mul", Some("rp")) => f64_compute!(|a, b, c| mul_f64(a, b, Up)),
        ("fma" | "mad", None) => f64_compute!(|a, b, c| a.mul_add(b, c)),
        ("div", None) => f64_compute!(|a, b, c| a / b),
        ("rcp", None) => f64_compute!(|a, b, c| 1.0 / a),
        ("rsqrt", None) => f64_compute!(|a, b, c| 1.0 / a.sqrt()),
        ("sqrt", None) => f64_compute!(|a, b, c| a.sqrt()),
        ("neg", None) => f64_compute!(|a, b, c| -a),
        ("abs", None) => f64_compute!(|a, b, c| a.abs()),
        ("min", None) => f64_compute!(|a, b, c| least_double(a, b)),
        ("max", None) => f64_compute!(|a, b, c| -least_double(-a, -b)),
        ("copysign", None) => f64_compute!(|a, b, c| b.copysign(a)),
        _ => None,
    }
}
