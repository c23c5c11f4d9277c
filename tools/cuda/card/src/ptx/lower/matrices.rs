//! Products of a warp's matrices, and copies that run beside it. Source: PTX ISA, "Warp Level Matrix Multiply-Accumulate
//! Instructions", "Data Movement and Conversion Instructions: Asynchronous copy".

use super::{Lowering, instructions::Result};
use crate::{
    float::{bf16_to_f32, e4m3_to_f32, f16_to_f32},
    ptx::{
        Operand, Space,
        code::{MATRIX_ROW_BYTES, Op, Product, Slot, Widen},
        select::Opcode,
    },
};

impl Lowering<'_> {
    /// `mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 d, a, b, c`, of f16, or `.m16n8k32` of e4m3.
    pub(super) fn product(&mut self, opcode: &Opcode<'_>, operands: [&Operand; 4]) -> Result<Option<Op>> {
        let (widen, packed): (Widen, usize) = match opcode.modifiers[..] {
            ["sync", "aligned", "m16n8k16", "row", "col", "f32", "bf16", "bf16", "f32"] => (bf16_to_f32, 2),
            ["sync", "aligned", "m16n8k16", "row", "col", "f32", "f16", "f16", "f32"] => (f16_to_f32, 2),
            ["sync", "aligned", "m16n8k32", "row", "col", "f32", "e4m3", "e4m3", "f32"] => (e4m3_to_f32, 4),
            _ => return Ok(None),
        };
        let [Operand::List(d), Operand::List(a), Operand::List(b), Operand::List(c)] = operands else {
            return Ok(None);
        };
        let (d, a, b, c) = (self.targets(d)?, self.values(a, "b32")?, self.values(b, "b32")?, self.values(c, "f32")?);
        let (Ok(d), Ok(a), Ok(b), Ok(c)) = (d.try_into(), a.try_into(), b.try_into(), c.try_into()) else {
            return Err("fragments of other sizes".into());
        };
        Ok(Some(Op::Product { what: Product { widen, packed, d, a, b, c }, mask: self.constant(u32::MAX.into()) }))
    }

    fn values(&mut self, operands: &[Operand], kind: &str) -> Result<Vec<Slot>> {
        operands.iter().map(|operand| self.value(operand, kind)).collect()
    }

    /// `ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {a, b, c, d}, [address]`
    pub(super) fn load_matrices(
        &mut self,
        opcode: &Opcode<'_>,
        to: &Operand,
        name: &str,
        offset: i64,
    ) -> Result<Option<Op>> {
        let (count, transposed) = match opcode.modifiers[..] {
            ["sync", "aligned", "m8n8", count, "shared" | "shared::cta", "b16"] => (count, false),
            ["sync", "aligned", "m8n8", count, "trans", "shared" | "shared::cta", "b16"] => (count, true),
            _ => return Ok(None),
        };
        let Operand::List(to) = to else { return Ok(None) };
        if !matches!((count, to.len()), ("x1", 1) | ("x2", 2) | ("x4", 4)) {
            return Err(format!("{} registers for {count}", to.len()));
        }
        let at = self.address_in(Space::Shared, name, offset, MATRIX_ROW_BYTES)?;
        Ok(Some(Op::LoadMatrices { to: self.targets(to)?, at, transposed, mask: self.constant(u32::MAX.into()) }))
    }

    /// `cp.async.cg.shared.global [to], [from], 16, bytes`, and what waits for such copies.
    pub(super) fn copy_async(&mut self, opcode: &Opcode<'_>, operands: &[Operand]) -> Result<Option<Op>> {
        let op = match (&opcode.modifiers[..], operands) {
            (["async", "commit_group"], []) => Op::CommitCopies,
            (["async", "wait_all"], []) => Op::WaitCopies { but: None },
            (["async", "wait_group"], [Operand::Integer(but)]) => Op::WaitCopies { but: Some(*but as u64) },
            (
                ["async", cached @ ("ca" | "cg"), "shared" | "shared::cta", "global", ..],
                [
                    Operand::Address(to, to_offset),
                    Operand::Address(from, from_offset),
                    Operand::Integer(width),
                    rest @ ..,
                ],
            ) if opcode.modifiers[4..].iter().all(|modifier| modifier.starts_with("L2::")) => {
                let allowed: &[i64] = if *cached == "cg" { &[16] } else { &[4, 8, 16] };
                if !allowed.contains(width) || rest.len() > 1 {
                    return Ok(None);
                }
                let bytes = rest.first().map(|bytes| self.value(bytes, "b32")).transpose()?;
                let to = self.address_in(Space::Shared, to, *to_offset, *width as usize)?;
                let from = self.address_in(Space::Global, from, *from_offset, *width as usize)?;
                Op::CopyAsync { to, from, bytes }
            }
            _ => return Ok(None),
        };
        Ok(Some(op))
    }
}
