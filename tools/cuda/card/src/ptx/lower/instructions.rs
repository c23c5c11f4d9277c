//! Single instructions.

use super::{Entity, Lowering, Return, names};
use crate::{
    machine::window,
    ptx::{
        Instruction as Written, Operand, Space,
        code::{Address, Op, Shuffle, Slot, Vote},
        parser::type_bytes,
        select::{self, Combine, Opcode},
    },
};

pub(super) type Result<T> = std::result::Result<T, String>;
type Guard = Option<(Slot, bool)>;

impl Lowering<'_> {
    /// Lowers one instruction; one that is not known fails when it is reached, so that the rest of a module can be used.
    pub(super) fn instruction(&mut self, written: &Written, to: Option<&Return>) -> Result<()> {
        let guard = match &written.guard {
            None => None,
            Some((name, negated)) => Some((self.named_register(name)?, *negated)),
        };
        let opcode = Opcode::new(&written.opcode);
        let label = |name: &str| format!("{}{name}", self.prefix);
        match (opcode.base, &written.operands[..]) {
            ("bra", [Operand::Name(name)]) => {
                let label = label(name);
                self.branch(written.line, guard, label);
            }
            ("ret", _) if to.is_some() => {
                let end = to.map(|to| to.end.clone()).unwrap_or_default();
                self.branch(written.line, guard, end);
            }
            ("ret" | "exit", _) => self.emit(written.line, guard, Op::Exit),
            ("call", _) => self.call(written, guard)?,
            _ => {
                let unknown = match self.plain(written, &opcode, guard) {
                    Ok(Some(())) => return Ok(()),
                    Ok(None) => String::new(),
                    Err(why) => format!(": {why}"),
                };
                let what = format!("the instruction '{}' is not known to this card{unknown}", written.opcode);
                self.emit(written.line, guard, Op::Fail(what));
            }
        }
        Ok(())
    }

    fn plain(&mut self, written: &Written, opcode: &Opcode<'_>, guard: Guard) -> Result<Option<()>> {
        let operands = &written.operands[..];
        let op = match (opcode.base, operands) {
            ("membar" | "fence" | "prefetch" | "nanosleep" | "discard" | "applypriority", _) => Some(Op::Nothing),
            ("ld" | "ldu", [to, Operand::Address(name, offset)]) => self.load(opcode, to, name, *offset)?,
            ("st", [Operand::Address(name, offset), from]) => self.store(opcode, name, *offset, from)?,
            ("atom" | "red", _) => self.atomic(opcode, operands)?,
            ("bar" | "barrier", _) => self.barrier(opcode, operands)?,
            ("shfl", [d, a, b, c, mask]) if opcode.has("sync") => self.shuffle(opcode, d, [a, b, c], mask)?,
            ("vote", [d, a, mask]) if opcode.has("sync") => self.vote(opcode, d, a, mask)?,
            ("mma", [d, a, b, c]) if opcode.has("sync") => self.product(opcode, [d, a, b, c])?,
            ("ldmatrix", [to, Operand::Address(name, offset)]) => self.load_matrices(opcode, to, name, *offset)?,
            ("cp", _) if opcode.has("async") => self.copy_async(opcode, operands)?,
            ("activemask", [d]) => {
                let (d, zero) = (self.target(d)?, self.constant(0));
                Some(Op::Vote { how: Vote::Active, d, from: (zero, false), mask: zero })
            }
            ("mov", [Operand::List(parts), from]) => {
                let Some(bits) = bits_of_part(opcode, parts) else { return Ok(None) };
                Some(Op::Unpack { parts: self.targets(parts)?, bits, from: self.value(from, opcode.kind())? })
            }
            ("mov", [d, Operand::List(parts)]) => {
                let Some(bits) = bits_of_part(opcode, parts) else { return Ok(None) };
                let parts: Result<Vec<_>> = parts.iter().map(|part| self.value(part, "b64")).collect();
                Some(Op::Pack { d: self.target(d)?, parts: parts?, bits })
            }
            ("cvta", [d, a]) => self.convert_address(opcode, d, a)?,
            ("setp", [d, a, b, rest @ ..]) => return self.set_predicate(written.line, opcode, guard, d, [a, b], rest),
            _ => self.computed(opcode, operands)?,
        };
        Ok(op.map(|op| self.emit(written.line, guard, op)))
    }

    /// d = f(a, b, c)
    fn computed(&mut self, opcode: &Opcode<'_>, operands: &[Operand]) -> Result<Option<Op>> {
        let [d, from @ ..] = operands else { return Ok(None) };
        if let (Some(f), [a, b, c, e]) = (select::four(opcode), from) {
            let kind = opcode.kind();
            let from = [self.value(a, kind)?, self.value(b, kind)?, self.value(c, "u32")?, self.value(e, "u32")?];
            return Ok(Some(Op::Four { f, d: self.target(d)?, from }));
        }
        if from.len() > 3 || matches!(d, Operand::Pair(..)) {
            return Ok(None);
        }
        let mut slots = [self.constant(0); 3];
        for (at, (slot, operand)) in slots.iter_mut().zip(from).enumerate() {
            // What is added to a `.wide` product is as wide as that.
            let kind = if at == 2 && opcode.has("wide") { "b64" } else { opcode.kind() };
            *slot = self.value(operand, kind)?;
        }
        if let Some(f) = select::carry(opcode) {
            let carry = self.carry_register();
            return Ok(Some(Op::Carry { f, d: self.target(d)?, from: slots, carry }));
        }
        let Some(f) = select::compute(opcode) else { return Ok(None) };
        Ok(Some(Op::Compute { f, d: self.target(d)?, from: slots, flops: select::flops(opcode) }))
    }

    fn carry_register(&mut self) -> Slot {
        match self.carry {
            Some(slot) => slot,
            None => {
                let slot = self.register();
                self.carry = Some(slot);
                slot
            }
        }
    }

    /// `setp.lt.and.f32 p|q, a, b, c`: p = (a < b) and c, q = not (a < b) and c.
    fn set_predicate(
        &mut self,
        line: usize,
        opcode: &Opcode<'_>,
        guard: Guard,
        d: &Operand,
        from: [&Operand; 2],
        rest: &[Operand],
    ) -> Result<Option<()>> {
        let Some(f) = select::compute(opcode) else { return Ok(None) };
        let kind = opcode.kind();
        let zero = self.constant(0);
        let slots = [self.value(from[0], kind)?, self.value(from[1], kind)?, zero];
        let (p, q) = match d {
            Operand::Pair(p, q) => (self.target(p)?, Some(self.target(q)?)),
            d => (self.target(d)?, None),
        };
        let combine = select::combine(opcode);
        let (Some(combine), [other]) = (combine, rest) else {
            if combine.is_some() || q.is_some() {
                return Ok(None);
            }
            self.emit(line, guard, Op::Compute { f, d: p, from: slots, flops: 0 });
            return Ok(Some(()));
        };
        let other = self.predicate(other)?;
        let found = self.register();
        self.emit(line, guard, Op::Compute { f, d: found, from: slots, flops: 0 });
        let word = match combine {
            Combine::And => "and.pred",
            Combine::Or => "or.pred",
            Combine::Xor => "xor.pred",
        };
        let (Some(combined), Some(not)) =
            (select::compute(&Opcode::new(word)), select::compute(&Opcode::new("not.pred")))
        else {
            return Ok(None);
        };
        let opposite = self.register();
        if let Some(q) = q {
            self.emit(line, guard, Op::Compute { f: not, d: opposite, from: [found, zero, zero], flops: 0 });
            self.emit(line, guard, Op::Compute { f: combined, d: opposite, from: [opposite, other, zero], flops: 0 });
            self.emit(line, guard, Op::Compute { f: combined, d: p, from: [found, other, zero], flops: 0 });
            self.emit(line, guard, Op::Compute { f: combined, d: q, from: [opposite, opposite, zero], flops: 0 });
        } else {
            self.emit(line, guard, Op::Compute { f: combined, d: p, from: [found, other, zero], flops: 0 });
        }
        Ok(Some(()))
    }

    fn predicate(&mut self, operand: &Operand) -> Result<Slot> {
        self.value(operand, "pred")
    }

    /// Generic addresses of shared and local memory lie in windows of their own.
    fn convert_address(&mut self, opcode: &Opcode<'_>, d: &Operand, a: &Operand) -> Result<Option<Op>> {
        let base = if opcode.has("shared") {
            window::SHARED
        } else if opcode.has("local") {
            window::LOCAL
        } else {
            0
        };
        let word = if opcode.has("to") { "sub.u64" } else { "add.u64" };
        let from = [self.value(a, "u64")?, self.constant(base), self.constant(0)];
        let d = self.target(d)?;
        Ok(select::compute(&Opcode::new(word)).map(|f| Op::Compute { f, d, from, flops: 0 }))
    }

    fn address(&mut self, opcode: &Opcode<'_>, name: &str, offset: i64) -> Result<Option<Address>> {
        let Some(width) = type_bytes(opcode.kind()) else { return Ok(None) };
        let said = opcode.modifiers.iter().find_map(|modifier| match modifier.split("::").next()? {
            "global" | "const" => Some(Space::Global),
            "shared" => Some(Space::Shared),
            "local" => Some(Space::Local),
            "param" => Some(Space::Param),
            _ => None,
        });
        self.address_in(said.unwrap_or(Space::Generic), name, offset, width).map(Some)
    }

    /// `[name + offset]` of so many bytes, in the space that is said where a register holds it, else where the variable lies.
    pub(super) fn address_in(&self, said: Space, name: &str, offset: i64, width: usize) -> Result<Address> {
        let (space, base, start) = match self.names.find(name) {
            Some(Entity::Register(slot)) => (said, Some(slot), 0),
            Some(Entity::Parameter(start)) => (Space::Param, None, start as i64),
            Some(Entity::Local(start)) => (Space::Local, None, start as i64),
            Some(Entity::Shared(start)) => (Space::Shared, None, start as i64),
            Some(Entity::Global(start)) => (Space::Global, None, start as i64),
            None => return Err(format!("an address of '{name}', which is nowhere")),
        };
        Ok(Address { space, base, offset: start.wrapping_add(offset), width })
    }

    fn load(&mut self, opcode: &Opcode<'_>, to: &Operand, name: &str, offset: i64) -> Result<Option<Op>> {
        let Some(at) = self.address(opcode, name, offset)? else { return Ok(None) };
        let to = match to {
            Operand::List(parts) => self.targets(parts)?,
            one => vec![self.target(one)?],
        };
        Ok(Some(Op::Load { to, at, signed: opcode.kind().starts_with('s') }))
    }

    fn store(&mut self, opcode: &Opcode<'_>, name: &str, offset: i64, from: &Operand) -> Result<Option<Op>> {
        let Some(at) = self.address(opcode, name, offset)? else { return Ok(None) };
        let parts = match from {
            Operand::List(parts) => &parts[..],
            one => std::slice::from_ref(one),
        };
        let from: Result<Vec<_>> = parts.iter().map(|part| self.value(part, opcode.kind())).collect();
        Ok(Some(Op::Store { from: from?, at }))
    }

    fn atomic(&mut self, opcode: &Opcode<'_>, operands: &[Operand]) -> Result<Option<Op>> {
        let (d, rest) = match operands {
            [Operand::Address(..), ..] => (None, operands),
            [d, rest @ ..] => (Some(self.target(d)?), rest),
            [] => return Ok(None),
        };
        let [Operand::Address(name, offset), b, more @ ..] = rest else { return Ok(None) };
        let Some(f) = select::update(opcode) else { return Ok(None) };
        let Some(at) = self.address(opcode, name, *offset)? else { return Ok(None) };
        let c = match more {
            [c] => self.value(c, opcode.kind())?,
            _ => self.constant(0),
        };
        self.ordered |= opcode.kind().contains('f');
        Ok(Some(Op::Atomic { f, d, at, from: [self.value(b, opcode.kind())?, c] }))
    }

    fn barrier(&mut self, opcode: &Opcode<'_>, operands: &[Operand]) -> Result<Option<Op>> {
        match operands {
            [mask] if opcode.has("warp") => Ok(Some(Op::WarpBarrier(self.value(mask, "b32")?))),
            [name] if opcode.has("sync") && !opcode.has("warp") => Ok(Some(Op::Barrier(self.value(name, "b32")?))),
            _ => Ok(None),
        }
    }

    fn shuffle(&mut self, opcode: &Opcode<'_>, d: &Operand, from: [&Operand; 3], mask: &Operand) -> Result<Option<Op>> {
        let how = match opcode.one_of(&["up", "down", "bfly", "idx"]) {
            Some("up") => Shuffle::Up,
            Some("down") => Shuffle::Down,
            Some("bfly") => Shuffle::Butterfly,
            Some(_) => Shuffle::Index,
            None => return Ok(None),
        };
        let (d, p) = match d {
            Operand::Pair(d, p) => (self.target(d)?, Some(self.target(p)?)),
            d => (self.target(d)?, None),
        };
        let from = [self.value(from[0], "b32")?, self.value(from[1], "b32")?, self.value(from[2], "b32")?];
        Ok(Some(Op::Shuffle { how, d, p, from, mask: self.value(mask, "b32")? }))
    }

    fn vote(&mut self, opcode: &Opcode<'_>, d: &Operand, a: &Operand, mask: &Operand) -> Result<Option<Op>> {
        let how = match opcode.one_of(&["all", "any", "uni", "ballot"]) {
            Some("all") => Vote::All,
            Some("any") => Vote::Any,
            Some("uni") => Vote::Uniform,
            Some(_) => Vote::Ballot,
            None => return Ok(None),
        };
        let from = match a {
            Operand::Not(name) => (self.named_register(name)?, true),
            a => (self.value(a, "pred")?, false),
        };
        Ok(Some(Op::Vote { how, d: self.target(d)?, from, mask: self.value(mask, "b32")? }))
    }

    fn named_register(&self, name: &str) -> Result<Slot> {
        match self.names.find(name) {
            Some(Entity::Register(slot)) => Ok(slot),
            _ => Err(format!("'{name}' is no register")),
        }
    }

    /// The register that an instruction writes; `_` is one nobody reads.
    fn target(&mut self, operand: &Operand) -> Result<Slot> {
        match operand {
            Operand::Name(name) if name == "_" => Ok(self.register()),
            Operand::Name(name) => self.named_register(name),
            other => Err(format!("{other:?} is no register")),
        }
    }

    pub(super) fn targets(&mut self, operands: &[Operand]) -> Result<Vec<Slot>> {
        operands.iter().map(|operand| self.target(operand)).collect()
    }

    /// The register that holds an operand of this type.
    pub(super) fn value(&mut self, operand: &Operand, kind: &str) -> Result<Slot> {
        let bytes = type_bytes(kind).unwrap_or(8);
        let cut = |bits: u64| if bytes < 8 { bits & ((1 << (8 * bytes)) - 1) } else { bits };
        match operand {
            Operand::Name(name) if name == "WARP_SZ" => Ok(self.constant(32)),
            Operand::Name(name) => match self.names.find(name) {
                Some(Entity::Register(slot)) => Ok(slot),
                Some(Entity::Local(offset) | Entity::Shared(offset)) => Ok(self.constant(offset as u64)),
                Some(Entity::Global(address)) => Ok(self.constant(address)),
                // What `ld.param` takes.
                Some(Entity::Parameter(offset)) => Ok(self.constant(offset as u64)),
                None => self.special(name),
            },
            Operand::Integer(value) => Ok(self.constant(cut(*value as u64))),
            Operand::Single(bits) if kind == "f64" => Ok(self.constant(f64::from(f32::from_bits(*bits)).to_bits())),
            Operand::Single(bits) => Ok(self.constant((*bits).into())),
            Operand::Double(value) if kind == "f32" => Ok(self.constant((*value as f32).to_bits().into())),
            Operand::Double(value) => Ok(self.constant(value.to_bits())),
            other => Err(format!("{other:?} where a value should be")),
        }
    }

    fn special(&mut self, name: &str) -> Result<Slot> {
        let special = names::special(name).ok_or_else(|| format!("'{name}' is not known to this card"))?;
        if let Some((slot, _)) = self.specials.iter().find(|(_, known)| *known == special) {
            return Ok(*slot);
        }
        let slot = self.register();
        self.specials.push((slot, special));
        Ok(slot)
    }
}

/// Bits of each of the parts that a register is made of or taken apart into.
fn bits_of_part(opcode: &Opcode<'_>, parts: &[Operand]) -> Option<u32> {
    Some((8 * type_bytes(opcode.kind())?).checked_div(parts.len())? as u32)
}
