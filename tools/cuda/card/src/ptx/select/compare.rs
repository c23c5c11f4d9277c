//! `setp` and `set`.

use super::{Opcode, lanewise};
use crate::{
    float::{bf16_to_f32, f16_to_f32},
    ptx::code::{Compute, LANES, Lanes},
};

/// How `setp` combines what it found with a predicate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combine {
    /// `.and`
    And,
    /// `.or`
    Or,
    /// `.xor`
    Xor,
}

/// `setp.lt.and.f32`: the word between comparison and type.
pub fn combine(opcode: &Opcode<'_>) -> Option<Combine> {
    match opcode.one_of(&["and", "or", "xor"])? {
        "and" => Some(Combine::And),
        "or" => Some(Combine::Or),
        _ => Some(Combine::Xor),
    }
}

macro_rules! comparisons {
    ($comparison:expr, $read:expr, $true:expr, [$($name:pat => $op:tt),*]) => {
        match $comparison {
            $($name => lanewise!(|a, b, c| if $read(a) $op $read(b) { $true } else { 0 }),)*
            _ => None,
        }
    };
}

/// Comparisons of floats: the plain ones are false where an operand is NaN, those with a `u` true.
macro_rules! float_comparisons {
    ($comparison:expr, $read:expr, $true:expr) => {
        match $comparison {
            "eq" => lanewise!(|a, b, c| if $read(a) == $read(b) { $true } else { 0 }),
            "ne" => lanewise!(|a, b, c| if $read(a) < $read(b) || $read(a) > $read(b) { $true } else { 0 }),
            "lt" => lanewise!(|a, b, c| if $read(a) < $read(b) { $true } else { 0 }),
            "le" => lanewise!(|a, b, c| if $read(a) <= $read(b) { $true } else { 0 }),
            "gt" => lanewise!(|a, b, c| if $read(a) > $read(b) { $true } else { 0 }),
            "ge" => lanewise!(|a, b, c| if $read(a) >= $read(b) { $true } else { 0 }),
            "neu" => lanewise!(|a, b, c| if $read(a) == $read(b) { 0 } else { $true }),
            "equ" => lanewise!(|a, b, c| if $read(a) < $read(b) || $read(a) > $read(b) { 0 } else { $true }),
            "ltu" => lanewise!(|a, b, c| if $read(a) >= $read(b) { 0 } else { $true }),
            "leu" => lanewise!(|a, b, c| if $read(a) > $read(b) { 0 } else { $true }),
            "gtu" => lanewise!(|a, b, c| if $read(a) <= $read(b) { 0 } else { $true }),
            "geu" => lanewise!(|a, b, c| if $read(a) < $read(b) { 0 } else { $true }),
            "num" => lanewise!(|a, b, c| if $read(a).is_nan() || $read(b).is_nan() { 0 } else { $true }),
            "nan" => lanewise!(|a, b, c| if $read(a).is_nan() || $read(b).is_nan() { $true } else { 0 }),
            _ => None,
        }
    };
}

fn f16(bits: u64) -> f32 {
    f16_to_f32(bits & 0xffff)
}

fn bf16(bits: u64) -> f32 {
    bf16_to_f32(bits & 0xffff)
}

fn f32(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

/// Whether the comparison holds: 1 or 0 for `setp`, the ISA's word for true in the first type of `set`.
pub fn compare(opcode: &Opcode<'_>) -> Option<Compute> {
    if opcode.has("ftz") {
        return None;
    }
    let comparison = opcode.modifiers.first().copied()?;
    if opcode.base == "set" {
        return set(opcode, comparison);
    }
    match opcode.kind() {
        "f32" => float_comparisons!(comparison, f32, 1),
        "f64" => float_comparisons!(comparison, f64::from_bits, 1),
        "f16" => float_comparisons!(comparison, f16, 1),
        "bf16" => float_comparisons!(comparison, bf16, 1),
        kind => integers(kind, comparison),
    }
}

fn integers(kind: &str, comparison: &str) -> Option<Compute> {
    macro_rules! of {
        ($t:ty) => {
            comparisons!(comparison, (|x: u64| x as $t), 1, [
                "eq" => ==, "ne" => !=, "lt" | "lo" => <, "le" | "ls" => <=, "gt" | "hi" => >, "ge" | "hs" => >=
            ])
        };
    }
    match kind {
        "u16" | "b16" => of!(u16),
        "u32" | "b32" => of!(u32),
        "u64" | "b64" => of!(u64),
        "s16" => of!(i16),
        "s32" => of!(i32),
        "s64" => of!(i64),
        _ => None,
    }
}

/// `set.eq.f16.f16`: 1.0 where true; integer results have all bits set.
fn set(opcode: &Opcode<'_>, comparison: &str) -> Option<Compute> {
    if combine(opcode).is_some() {
        return None;
    }
    let [.., result, operand] = opcode.modifiers[..] else { return None };
    match (result, operand) {
        ("f16", "f16") => float_comparisons!(comparison, f16, 0x3c00),
        ("bf16", "bf16") => float_comparisons!(comparison, bf16, 0x3f80),
        ("f32", "f32") => float_comparisons!(comparison, f32, 0x3f80_0000),
        ("u32" | "s32", "f32") => float_comparisons!(comparison, f32, 0xffff_ffff),
        _ => None,
    }
}
