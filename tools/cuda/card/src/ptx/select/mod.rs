//! What each instruction computes, by its opcode: one function over the lanes of a warp for every (operation, type).
//! Source of the definitions: PTX ISA, "Instruction Set".

mod compare;
mod convert;
mod float;
mod half;
mod integer;
#[cfg(test)]
mod tests;
mod update;

use super::code::{Carry, Compute, Four};
pub use compare::{Combine, combine};
pub use update::update;

/// A function over lanes, of an expression in bits.
macro_rules! lanewise {
    (|$a:ident, $b:ident, $c:ident| $value:expr) => {{
        fn lanes(a: &Lanes, b: &Lanes, c: &Lanes, out: &mut Lanes) {
            for lane in 0..LANES {
                #[allow(unused_variables, reason = "most operations have fewer operands")]
                let ($a, $b, $c) = (a[lane], b[lane], c[lane]);
                out[lane] = $value;
            }
        }
        Some(lanes as Compute)
    }};
}
use lanewise;

/// An opcode in parts: `setp.lt.u64` is `setp` with `lt` and `u64`.
#[derive(Debug, Clone)]
pub struct Opcode<'a> {
    /// The operation.
    pub base: &'a str,
    /// Everything behind it.
    pub modifiers: Vec<&'a str>,
}

impl<'a> Opcode<'a> {
    /// The parts of `text`.
    pub fn new(text: &'a str) -> Self {
        let mut parts = text.split('.');
        Self { base: parts.next().unwrap_or_default(), modifiers: parts.collect() }
    }

    /// The last part: the type.
    pub fn kind(&self) -> &'a str {
        self.modifiers.last().copied().unwrap_or_default()
    }

    /// Whether a part is there.
    pub fn has(&self, modifier: &str) -> bool {
        self.modifiers.contains(&modifier)
    }

    /// The first of `words` that is there.
    pub fn one_of(&self, words: &[&'a str]) -> Option<&'a str> {
        self.modifiers.iter().copied().find(|modifier| words.contains(modifier))
    }
}

/// What an instruction of at most three operands computes; `None` where it is not known.
pub fn compute(opcode: &Opcode<'_>) -> Option<Compute> {
    match opcode.base {
        "cvt" => convert::convert(opcode),
        "setp" | "set" => compare::compare(opcode),
        _ => match opcode.kind() {
            "f32" | "f64" => float::float(opcode),
            "f16" | "bf16" | "f16x2" | "bf16x2" => half::half(opcode),
            _ => integer::integer(opcode),
        },
    }
}

/// What an instruction of four operands computes.
pub fn four(opcode: &Opcode<'_>) -> Option<Four> {
    match (opcode.base, opcode.kind()) {
        ("bfi", "b32") => Some(|a, b, start, length| integer::insert(a, b, start, length) & 0xffff_ffff),
        ("bfi", "b64") => Some(integer::insert),
        ("lop3", "b32") => Some(integer::lookup),
        _ => None,
    }
}

/// What an instruction computes that reads or leaves a carry.
pub fn carry(opcode: &Opcode<'_>) -> Option<Carry> {
    (opcode.base.ends_with('c') || opcode.has("cc")).then(|| integer::carry(opcode))?
}

/// Floating point operations of one thread.
pub fn flops(opcode: &Opcode<'_>) -> u8 {
    let floats = opcode.kind().contains('f') && opcode.kind().len() > 2;
    let pairs = if opcode.kind().ends_with("x2") { 2 } else { 1 };
    match opcode.base {
        _ if !floats => 0,
        "fma" | "mad" => 2 * pairs,
        "add" | "sub" | "mul" | "div" | "rcp" | "sqrt" | "rsqrt" | "ex2" | "lg2" | "sin" | "cos" | "tanh" => pairs,
        _ => 0,
    }
}
