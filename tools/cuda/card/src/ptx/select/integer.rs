//! Whole numbers, bits and predicates. Registers hold bits, extended with zeros.

use super::{Opcode, lanewise};
use crate::ptx::code::{Carry, Compute, LANES, Lanes};

/// One expression for each of the integer types: `$t` is the type, `$u` the unsigned one of its size.
macro_rules! of_type {
    ($kind:expr, |$a:ident, $b:ident, $c:ident, $t:ident, $u:ident| $value:expr) => {{
        macro_rules! one {
            ($signed:ty, $unsigned:ty) => {
                lanewise!(|a, b, c| {
                    #[allow(dead_code, reason = "not every operation names both")]
                    type $t = $signed;
                    type $u = $unsigned;
                    #[allow(unused_variables, reason = "most operations have fewer operands")]
                    let ($a, $b, $c) = (a as $t, b as $t, c as $t);
                    ($value) as $u as u64
                })
            };
        }
        match $kind {
            "u16" | "b16" => one!(u16, u16),
            "u32" | "b32" => one!(u32, u32),
            "u64" | "b64" => one!(u64, u64),
            "u8" | "b8" => one!(u8, u8),
            "s8" => one!(i8, u8),
            "s16" => one!(i16, u16),
            "s32" => one!(i32, u32),
            "s64" => one!(i64, u64),
            "pred" => lanewise!(|a, b, c| {
                #[allow(dead_code, reason = "not every operation names both")]
                type $t = u8;
                type $u = u8;
                #[allow(unused_variables, reason = "most operations have fewer operands")]
                let ($a, $b, $c) = (a as $t, b as $t, c as $t);
                u64::from(($value) as $u & 1)
            }),
            _ => None,
        }
    }};
}

/// What an instruction on whole numbers, bits or predicates computes.
pub fn integer(opcode: &Opcode<'_>) -> Option<Compute> {
    let kind = opcode.kind();
    if opcode.one_of(&["sat", "cc"]).is_some() {
        return None;
    }
    match opcode.base {
        "mov" | "cvta" => of_type!(kind, |a, b, c, T, U| a),
        "add" => of_type!(kind, |a, b, c, T, U| a.wrapping_add(b)),
        "sub" => of_type!(kind, |a, b, c, T, U| a.wrapping_sub(b)),
        "neg" => of_type!(kind, |a, b, c, T, U| (0 as T).wrapping_sub(a)),
        "abs" => of_type!(kind, |a, b, c, T, U| if (a as i64) < 0 { (0 as T).wrapping_sub(a) } else { a }),
        "mul" | "mad" => product(opcode),
        // The ISA leaves a division by zero unspecified; cards give all ones.
        "div" => of_type!(kind, |a, b, c, T, U| if b == 0 { !0 } else { a.wrapping_div(b) }),
        "rem" => of_type!(kind, |a, b, c, T, U| if b == 0 { a } else { a.wrapping_rem(b) }),
        "min" => of_type!(kind, |a, b, c, T, U| a.min(b)),
        "max" => of_type!(kind, |a, b, c, T, U| a.max(b)),
        "and" => of_type!(kind, |a, b, c, T, U| a & b),
        "or" => of_type!(kind, |a, b, c, T, U| a | b),
        "xor" => of_type!(kind, |a, b, c, T, U| a ^ b),
        "not" => of_type!(kind, |a, b, c, T, U| !a),
        "cnot" => of_type!(kind, |a, b, c, T, U| a == 0),
        "selp" => lanewise!(|a, b, c| if c != 0 { a } else { b }),
        "shl" => shift(kind, true),
        "shr" => shift(kind, false),
        _ => bits(opcode),
    }
}

/// `mul` and `mad`: `.lo`, `.hi` or `.wide`.
fn product(opcode: &Opcode<'_>) -> Option<Compute> {
    let kind = opcode.kind();
    if opcode.has("wide") {
        return match kind {
            "u16" => lanewise!(|a, b, c| u64::from((a as u16 as u32 * b as u16 as u32).wrapping_add(c as u32))),
            "s16" => lanewise!(|a, b, c| {
                u64::from((i32::from(a as i16) * i32::from(b as i16)).wrapping_add(c as i32) as u32)
            }),
            "u32" => lanewise!(|a, b, c| (a as u32 as u64 * b as u32 as u64).wrapping_add(c)),
            "s32" => lanewise!(|a, b, c| (i64::from(a as i32) * i64::from(b as i32)).wrapping_add(c as i64) as u64),
            _ => None,
        };
    }
    if opcode.has("hi") {
        return match kind {
            "u32" => {
                lanewise!(|a, b, c| (((a as u32 as u64 * b as u32 as u64) >> 32) as u32).wrapping_add(c as u32) as u64)
            }
            "s32" => lanewise!(|a, b, c| {
                let high = (i64::from(a as i32) * i64::from(b as i32)) >> 32;
                u64::from((high as u32).wrapping_add(c as u32))
            }),
            "u64" => lanewise!(|a, b, c| (((u128::from(a) * u128::from(b)) >> 64) as u64).wrapping_add(c)),
            "s64" => lanewise!(|a, b, c| {
                let high = (i128::from(a as i64) * i128::from(b as i64)) >> 64;
                (high as u64).wrapping_add(c)
            }),
            _ => None,
        };
    }
    // c is zero where there is no third operand.
    of_type!(kind, |a, b, c, T, U| a.wrapping_mul(b).wrapping_add(c))
}

/// Shifts by a 32-bit amount; what is shifted out whole is zero, or the sign.
fn shift(kind: &str, left: bool) -> Option<Compute> {
    match (left, kind) {
        (true, "b16") => lanewise!(|a, b, c| u64::from((a as u16).checked_shl(b as u32).unwrap_or(0))),
        (true, "b32") => lanewise!(|a, b, c| u64::from((a as u32).checked_shl(b as u32).unwrap_or(0))),
        (true, "b64") => lanewise!(|a, b, c| a.checked_shl(b as u32).unwrap_or(0)),
        (false, "b16" | "u16") => lanewise!(|a, b, c| u64::from((a as u16).checked_shr(b as u32).unwrap_or(0))),
        (false, "b32" | "u32") => lanewise!(|a, b, c| u64::from((a as u32).checked_shr(b as u32).unwrap_or(0))),
        (false, "b64" | "u64") => lanewise!(|a, b, c| a.checked_shr(b as u32).unwrap_or(0)),
        (false, "s16") => lanewise!(|a, b, c| u64::from((a as i16 >> (b as u32).min(15)) as u16)),
        (false, "s32") => lanewise!(|a, b, c| u64::from((a as i32 >> (b as u32).min(31)) as u32)),
        (false, "s64") => lanewise!(|a, b, c| (a as i64 >> (b as u32).min(63)) as u64),
        _ => None,
    }
}

fn bits(opcode: &Opcode<'_>) -> Option<Compute> {
    match (opcode.base, opcode.kind()) {
        ("clz", "b32") => lanewise!(|a, b, c| u64::from((a as u32).leading_zeros())),
        ("clz", "b64") => lanewise!(|a, b, c| u64::from(a.leading_zeros())),
        ("popc", "b32") => lanewise!(|a, b, c| u64::from((a as u32).count_ones())),
        ("popc", "b64") => lanewise!(|a, b, c| u64::from(a.count_ones())),
        ("brev", "b32") => lanewise!(|a, b, c| u64::from((a as u32).reverse_bits())),
        ("brev", "b64") => lanewise!(|a, b, c| a.reverse_bits()),
        ("bfe", "u32") => lanewise!(|a, b, c| extract(a & 0xffff_ffff, b, c)),
        ("bfe", "u64") => lanewise!(|a, b, c| extract(a, b, c)),
        ("prmt", "b32") if opcode.modifiers.len() == 1 => lanewise!(|a, b, c| permute(a, b, c)),
        ("shf", "b32") if opcode.has("l") && opcode.has("wrap") => {
            lanewise!(|a, b, c| u64::from(((b << 32 | a & 0xffff_ffff) << (c & 31) >> 32) as u32))
        }
        ("shf", "b32") if opcode.has("r") && opcode.has("wrap") => {
            lanewise!(|a, b, c| u64::from(((b << 32 | a & 0xffff_ffff) >> (c & 31)) as u32))
        }
        _ => None,
    }
}

/// `bfe`: c bits of a from bit b on.
fn extract(a: u64, b: u64, c: u64) -> u64 {
    let (start, length) = ((b & 0xff) as u32, (c & 0xff) as u32);
    let mask = 1u64.checked_shl(length).map_or(!0, |bit| bit - 1);
    a.checked_shr(start).unwrap_or(0) & mask
}

/// `bfi d, a, b, start, length`: the lowest bits of a put into b.
pub fn insert(a: u64, b: u64, start: u64, length: u64) -> u64 {
    let (start, length) = ((start & 0xff) as u32, (length & 0xff) as u32);
    let ones = 1u64.checked_shl(length).map_or(!0, |bit| bit - 1);
    let mask = ones.checked_shl(start).unwrap_or(0);
    (b & !mask) | (a.checked_shl(start).unwrap_or(0) & mask)
}

/// `lop3`: bit i of the table is the result where the bits of a, b, c spell i.
pub fn lookup(a: u64, b: u64, c: u64, table: u64) -> u64 {
    let term = |index: u64| {
        let of = |x: u64, bit: u64| if index & bit != 0 { x } else { !x };
        if table >> index & 1 == 1 { of(a, 4) & of(b, 2) & of(c, 1) } else { 0 }
    };
    (0..8).fold(0, |out, index| out | term(index)) & 0xffff_ffff
}

/// `prmt`: each of four selectors names one of the eight bytes of {b, a}, or its sign.
fn permute(a: u64, b: u64, c: u64) -> u64 {
    let bytes = (a & 0xffff_ffff) | b << 32;
    (0..4).fold(0, |out, at| {
        let selector = c >> (4 * at) & 0xf;
        let byte = bytes >> (8 * (selector & 7)) & 0xff;
        let byte = if selector & 8 == 0 { byte } else { (byte >> 7) * 0xff };
        out | byte << (8 * at)
    })
}

/// `add.cc`, `addc`, `sub.cc`, `subc`, `mad.cc`, `madc`.
pub fn carry(opcode: &Opcode<'_>) -> Option<Carry> {
    let high = opcode.has("hi");
    match (opcode.base, opcode.kind()) {
        ("add", "u32" | "s32") => Some(|a, b, _, _| sum32(a, b, 0)),
        ("addc", "u32" | "s32") => Some(|a, b, _, carry| sum32(a, b, carry)),
        ("sub", "u32" | "s32") => Some(|a, b, _, _| less32(a, b, 0)),
        ("subc", "u32" | "s32") => Some(|a, b, _, borrow| less32(a, b, borrow)),
        ("add", "u64" | "s64") => Some(|a, b, _, _| sum64(a, b, 0)),
        ("addc", "u64" | "s64") => Some(|a, b, _, carry| sum64(a, b, carry)),
        ("mad", "u32") if high => Some(|a, b, c, _| sum32(high32(a, b), c, 0)),
        ("madc", "u32") if high => Some(|a, b, c, carry| sum32(high32(a, b), c, carry)),
        ("mad", "u32" | "s32") if opcode.has("lo") => Some(|a, b, c, _| sum32(a.wrapping_mul(b) & 0xffff_ffff, c, 0)),
        ("madc", "u32" | "s32") if opcode.has("lo") => {
            Some(|a, b, c, carry| sum32(a.wrapping_mul(b) & 0xffff_ffff, c, carry))
        }
        _ => None,
    }
}

fn high32(a: u64, b: u64) -> u64 {
    ((a & 0xffff_ffff) * (b & 0xffff_ffff)) >> 32
}

fn sum32(a: u64, b: u64, carry: u64) -> (u64, u64) {
    let sum = (a & 0xffff_ffff) + (b & 0xffff_ffff) + carry;
    (sum & 0xffff_ffff, sum >> 32)
}

fn less32(a: u64, b: u64, borrow: u64) -> (u64, u64) {
    let rest = (a & 0xffff_ffff).wrapping_sub(b & 0xffff_ffff).wrapping_sub(borrow);
    (rest & 0xffff_ffff, rest >> 63)
}

fn sum64(a: u64, b: u64, carry: u64) -> (u64, u64) {
    let sum = u128::from(a) + u128::from(b) + u128::from(carry);
    (sum as u64, (sum >> 64) as u64)
}
