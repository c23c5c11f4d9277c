//! What atomic operations leave in memory.

use super::Opcode;
use crate::{
    float::{BF16, F16, Rounding, add_to_odd, bf16_to_f32, f16_to_f32},
    ptx::code::Update,
};

/// `atom` and `red`: of what lies in memory, and of one or two operands (`.cas`: what is expected, and what replaces it).
pub fn update(opcode: &Opcode<'_>) -> Option<Update> {
    let operation = opcode.one_of(&["add", "min", "max", "exch", "cas", "and", "or", "xor", "inc", "dec"])?;
    match (operation, opcode.kind()) {
        ("exch", _) => Some(|_, b, _| b),
        ("cas", _) => Some(|old, expected, new| if old == expected { new } else { old }),
        ("add", "u32" | "s32") => Some(|old, b, _| u64::from((old as u32).wrapping_add(b as u32))),
        ("add", "u64") => Some(|old, b, _| old.wrapping_add(b)),
        ("add", "f32") => Some(|old, b, _| (f32::from_bits(old as u32) + f32::from_bits(b as u32)).to_bits().into()),
        ("add", "f64") => Some(|old, b, _| (f64::from_bits(old) + f64::from_bits(b)).to_bits()),
        ("add", "f16") => Some(|old, b, _| {
            F16.round(add_to_odd(f16_to_f32(old).into(), f16_to_f32(b & 0xffff).into()), Rounding::Nearest)
        }),
        ("add", "bf16") => Some(|old, b, _| {
            BF16.round(add_to_odd(bf16_to_f32(old).into(), bf16_to_f32(b & 0xffff).into()), Rounding::Nearest)
        }),
        ("min", "u32" | "u64") => Some(|old, b, _| old.min(b)),
        ("max", "u32" | "u64") => Some(|old, b, _| old.max(b)),
        ("min", "s32") => Some(|old, b, _| u64::from((old as i32).min(b as i32) as u32)),
        ("max", "s32") => Some(|old, b, _| u64::from((old as i32).max(b as i32) as u32)),
        ("min", "s64") => Some(|old, b, _| (old as i64).min(b as i64) as u64),
        ("max", "s64") => Some(|old, b, _| (old as i64).max(b as i64) as u64),
        ("and", _) => Some(|old, b, _| old & b),
        ("or", _) => Some(|old, b, _| old | b),
        ("xor", _) => Some(|old, b, _| old ^ b),
        ("inc", "u32") => Some(|old, b, _| if old >= b { 0 } else { old + 1 }),
        ("dec", "u32") => Some(|old, b, _| if old == 0 || old > b { b } else { old - 1 }),
        _ => None,
    }
}
