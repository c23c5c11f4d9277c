//! `cvt`: between every two of the integer and floating point types.

use super::{Opcode, lanewise};
use crate::{
    float::{BF16, F16, F32, Rounding, bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_e4m3, flush, integral},
    ptx::code::{Compute, LANES, Lanes},
};

/// What a `cvt` computes.
pub fn convert(opcode: &Opcode<'_>) -> Option<Compute> {
    if opcode.modifiers == ["rn", "satfinite", "e4m3x2", "f32"] {
        // Always clamped; a in the upper half of 16 bits.
        return lanewise!(|a, b, c| e4m3(a) << 8 | e4m3(b));
    }
    let [.., to, from] = opcode.modifiers[..] else { return None };
    if opcode.one_of(&["satfinite", "relu", "rs", "rna"]).is_some() {
        return None;
    }
    match (is_float(to), is_float(from)) {
        _ if to.ends_with("x2") => pair(opcode, to, from),
        (false, false) => integer_to_integer(opcode, to, from),
        (true, false) => integer_to_float(opcode, to, from),
        (false, true) => float_to_integer(opcode, to, from),
        (true, true) => float_to_float(opcode, to, from),
    }
}

fn is_float(kind: &str) -> bool {
    kind.starts_with('f') || kind.starts_with("bf")
}

fn e4m3(bits: u64) -> u64 {
    f32_to_e4m3(f32::from_bits(bits as u32))
}

/// `cvt.rn.bf16x2.f32 d, a, b`: a in the upper half.
fn pair(opcode: &Opcode<'_>, to: &str, from: &str) -> Option<Compute> {
    fn f16(bits: u64) -> u64 {
        F16.round(f32::from_bits(bits as u32).into(), Rounding::Nearest)
    }
    fn bf16(bits: u64) -> u64 {
        f32_to_bf16(f32::from_bits(bits as u32))
    }
    match (to, from, opcode.has("rn")) {
        ("f16x2", "f32", true) => lanewise!(|a, b, c| f16(a) << 16 | f16(b)),
        ("bf16x2", "f32", true) => lanewise!(|a, b, c| bf16(a) << 16 | bf16(b)),
        _ => None,
    }
}

/// Widened by the source's sign, cut to the destination; with `.sat`, clamped to it. A register may be wider than the
/// destination's type: a narrow signed one is extended to 32 bits, as registers are. Source: PTX ISA, "Operand Size Exceeding
/// Instruction-Type Size".
fn integer_to_integer(opcode: &Opcode<'_>, to: &str, from: &str) -> Option<Compute> {
    let sat = opcode.has("sat");
    macro_rules! to_each {
        ($from:ty) => {{
            macro_rules! one {
                ($to:ty, $bits:ty) => {
                    if sat {
                        lanewise!(|a, b, c| {
                            i128::from(a as $from).clamp(i128::from(<$to>::MIN), i128::from(<$to>::MAX)) as $bits as u64
                        })
                    } else {
                        lanewise!(|a, b, c| a as $from as $to as $bits as u64)
                    }
                };
            }
            match to {
                "u8" | "b8" => one!(u8, u8),
                "s8" => one!(i8, u32),
                "u16" | "b16" => one!(u16, u16),
                "s16" => one!(i16, u32),
                "u32" | "b32" => one!(u32, u32),
                "s32" => one!(i32, u32),
                "u64" | "b64" => one!(u64, u64),
                "s64" => one!(i64, u64),
                _ => None,
            }
        }};
    }
    match from {
        "u8" | "b8" => to_each!(u8),
        "s8" => to_each!(i8),
        "u16" | "b16" => to_each!(u16),
        "s16" => to_each!(i16),
        "u32" | "b32" => to_each!(u32),
        "s32" => to_each!(i32),
        "u64" | "b64" => to_each!(u64),
        "s64" => to_each!(i64),
        _ => None,
    }
}

/// Numbers of up to 64 bits to the nearest f64 could be rounded twice on their way to something narrower: they are rounded
/// to odd first.
fn odd(value: i128) -> f64 {
    let nearest = value as f64;
    let error = value - nearest as i128;
    if error == 0 || nearest.to_bits() & 1 == 1 {
        return nearest;
    }
    if (error > 0) == (value > 0) {
        f64::from_bits(nearest.to_bits() + 1)
    } else {
        f64::from_bits(nearest.to_bits() - 1)
    }
}

fn integer_to_float(opcode: &Opcode<'_>, to: &str, from: &str) -> Option<Compute> {
    if !opcode.has("rn") || opcode.has("sat") {
        return None;
    }
    macro_rules! to_each {
        ($from:ty) => {
            match to {
                "f32" => lanewise!(|a, b, c| F32.round(odd((a as $from).into()), Rounding::Nearest)),
                "f64" => lanewise!(|a, b, c| (a as $from as f64).to_bits()),
                "f16" => lanewise!(|a, b, c| F16.round(odd((a as $from).into()), Rounding::Nearest)),
                "bf16" => lanewise!(|a, b, c| BF16.round(odd((a as $from).into()), Rounding::Nearest)),
                _ => None,
            }
        };
    }
    match from {
        "u8" => to_each!(u8),
        "s8" => to_each!(i8),
        "u16" => to_each!(u16),
        "s16" => to_each!(i16),
        "u32" => to_each!(u32),
        "s32" => to_each!(i32),
        "u64" => to_each!(u64),
        "s64" => to_each!(i64),
        _ => None,
    }
}

fn f16(bits: u64) -> f64 {
    f16_to_f32(bits & 0xffff).into()
}

fn bf16(bits: u64) -> f64 {
    bf16_to_f32(bits & 0xffff).into()
}

fn f32(bits: u64) -> f64 {
    f32::from_bits(bits as u32).into()
}

fn f32_flushed(bits: u64) -> f64 {
    flush(f32::from_bits(bits as u32)).into()
}

/// Out of range, the nearest number of the type. NaN is 0, but the highest bit alone from f64 and to 64 bits. Source: PTX ISA,
/// `cvt`.
fn float_to_integer(opcode: &Opcode<'_>, to: &str, from: &str) -> Option<Compute> {
    let ftz = opcode.has("ftz");
    macro_rules! to_each {
        ($read:expr, $rounding:expr, $double:expr) => {{
            macro_rules! one {
                ($to:ty, $bits:ty) => {
                    lanewise!(|a, b, c| match integral($read(a), $rounding) {
                        value if !value.is_nan() => value as $to as $bits as u64,
                        _ if $double || <$to>::BITS == 64 => (1u64 << (<$to>::BITS - 1)) as $to as $bits as u64,
                        _ => 0,
                    })
                };
            }
            match to {
                "u8" => one!(u8, u8),
                "s8" => one!(i8, u32),
                "u16" => one!(u16, u16),
                "s16" => one!(i16, u32),
                "u32" => one!(u32, u32),
                "s32" => one!(i32, u32),
                "u64" => one!(u64, u64),
                "s64" => one!(i64, u64),
                _ => None,
            }
        }};
    }
    macro_rules! rounded {
        ($read:expr, $double:expr) => {
            match opcode.one_of(&["rni", "rzi", "rmi", "rpi"])? {
                "rni" => to_each!($read, Rounding::Nearest, $double),
                "rzi" => to_each!($read, Rounding::Zero, $double),
                "rmi" => to_each!($read, Rounding::Down, $double),
                _ => to_each!($read, Rounding::Up, $double),
            }
        };
    }
    match from {
        "f32" if ftz => rounded!(f32_flushed, false),
        "f32" => rounded!(f32, false),
        "f64" => rounded!(f64::from_bits, true),
        "f16" => rounded!(f16, false),
        "bf16" => rounded!(bf16, false),
        _ => None,
    }
}

fn float_to_float(opcode: &Opcode<'_>, to: &str, from: &str) -> Option<Compute> {
    let integral_too = opcode.one_of(&["rni", "rzi", "rmi", "rpi"]).is_some();
    if opcode.has("ftz") || (integral_too && opcode.has("sat")) {
        return None;
    }
    macro_rules! to_each {
        ($value:expr) => {
            match (to, opcode.one_of(&["rz", "rm", "rp"])) {
                ("f64", _) => lanewise!(|a, b, c| $value(a).to_bits()),
                ("f32", None) => lanewise!(|a, b, c| F32.round($value(a), Rounding::Nearest)),
                ("f32", Some("rz")) => lanewise!(|a, b, c| F32.round($value(a), Rounding::Zero)),
                ("f32", Some("rm")) => lanewise!(|a, b, c| F32.round($value(a), Rounding::Down)),
                ("f32", _) => lanewise!(|a, b, c| F32.round($value(a), Rounding::Up)),
                ("f16", None) => lanewise!(|a, b, c| F16.round($value(a), Rounding::Nearest)),
                ("f16", Some("rz")) => lanewise!(|a, b, c| F16.round($value(a), Rounding::Zero)),
                ("bf16", None) => lanewise!(|a, b, c| BF16.round($value(a), Rounding::Nearest)),
                ("bf16", Some("rz")) => lanewise!(|a, b, c| BF16.round($value(a), Rounding::Zero)),
                _ => None,
            }
        };
    }
    fn clamped(value: f64) -> f64 {
        if value > 0.0 { value.min(1.0) } else { 0.0 }
    }
    macro_rules! kinds {
        ($read:expr) => {
            match opcode.one_of(&["rni", "rzi", "rmi", "rpi", "sat"]) {
                None => to_each!($read),
                Some("sat") => to_each!((|a| clamped($read(a)))),
                Some("rni") => to_each!((|a| integral($read(a), Rounding::Nearest))),
                Some("rzi") => to_each!((|a| integral($read(a), Rounding::Zero))),
                Some("rmi") => to_each!((|a| integral($read(a), Rounding::Down))),
                _ => to_each!((|a| integral($read(a), Rounding::Up))),
            }
        };
    }
    match (to, from) {
        ("f32", "f16") => lanewise!(|a, b, c| u64::from(f16_to_f32(a & 0xffff).to_bits())),
        ("f32", "bf16") => lanewise!(|a, b, c| u64::from(bf16_to_f32(a & 0xffff).to_bits())),
        ("bf16", "f32") if opcode.modifiers == ["rn", "bf16", "f32"] => {
            lanewise!(|a, b, c| f32_to_bf16(f32::from_bits(a as u32)))
        }
        (_, "f32") => kinds!(f32),
        (_, "f64") => kinds!(f64::from_bits),
        (_, "f16") => kinds!(f16),
        (_, "bf16") => kinds!(bf16),
        _ => None,
    }
}
