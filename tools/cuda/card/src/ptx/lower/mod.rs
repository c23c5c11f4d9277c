//! From functions as they are written to kernels as they are executed: registers numbered, branches resolved, functions
//! that are called put in their caller's place.

mod instructions;
mod matrices;
mod mentioned;
mod names;

use std::collections::HashMap;

use super::{
    Function, Instruction as Written, Module, Operand, Space, Statement, Variable,
    code::{Instruction, Kernel, Op, Slot, layout},
};
use crate::machine::window;
use mentioned::mentioned;
use names::{Entity, Names};

/// How deep calls may nest; recursion has no end.
const DEEPEST_CALL: usize = 8;

/// Where the variables of a module lie on the device, by name.
pub type Globals = HashMap<String, u64>;

/// A kernel of the module, ready to run.
///
/// # Errors
/// When the kernel names what is not there.
pub fn lower(module: &Module, name: &str, globals: &Globals) -> Result<Kernel, String> {
    let function = module
        .functions
        .iter()
        .find(|function| function.entry && function.name == name)
        .ok_or_else(|| format!("no kernel '{name}' in this module"))?;
    let mut lowering = Lowering::new(module, function, globals);
    let (offsets, _) = layout(&function.parameters, 0);
    for (parameter, offset) in function.parameters.iter().zip(&offsets) {
        lowering.names.declare(&parameter.name, Entity::Parameter(*offset));
    }
    lowering.function(function, None)?;
    lowering.emit(0, None, Op::Exit);
    let parameters = offsets.iter().zip(&function.parameters).map(|(offset, p)| (*offset, p.bytes)).collect();
    Ok(lowering.finish(name, parameters))
}

/// Where the result of a call goes, and where execution goes on.
struct Return {
    end: String,
}

struct Lowering<'a> {
    module: &'a Module,
    names: Names,
    code: Vec<Instruction>,
    labels: HashMap<String, usize>,
    /// Branches whose label was not yet seen: (instruction, label).
    open: Vec<(usize, String)>,
    registers: Slot,
    constants: HashMap<u64, Slot>,
    specials: Vec<(Slot, super::code::Special)>,
    local_bytes: usize,
    shared_bytes: usize,
    ordered: bool,
    /// The condition code, where an instruction uses it.
    carry: Option<Slot>,
    calls: usize,
    depth: usize,
    /// Before each label: which call it belongs to.
    prefix: String,
}

impl<'a> Lowering<'a> {
    fn new(module: &'a Module, function: &Function, globals: &Globals) -> Self {
        let mut lowering = Self {
            module,
            names: Names::default(),
            code: Vec::new(),
            labels: HashMap::new(),
            open: Vec::new(),
            registers: 0,
            constants: HashMap::new(),
            specials: Vec::new(),
            local_bytes: 0,
            shared_bytes: 0,
            ordered: false,
            carry: None,
            calls: 0,
            depth: 0,
            prefix: String::new(),
        };
        let mentioned = mentioned(module, function);
        for variable in module.variables.iter().filter(|variable| mentioned.contains(&*variable.name)) {
            if variable.space == Space::Shared {
                let entity = lowering.shared(variable);
                lowering.names.declare(&variable.name, entity);
            } else if let Some(address) = globals.get(&variable.name) {
                lowering.names.declare(&variable.name, Entity::Global(*address));
            }
        }
        lowering
    }

    fn finish(mut self, name: &str, parameters: Vec<(usize, usize)>) -> Kernel {
        for (at, label) in std::mem::take(&mut self.open) {
            let op = match self.labels.get(&label) {
                Some(target) => Op::Branch(*target),
                None => Op::Fail(format!("a branch to '{label}', which is nowhere")),
            };
            self.code[at].op = op;
        }
        Kernel {
            name: name.to_owned(),
            code: self.code,
            registers: self.registers as usize,
            constants: self.constants.into_iter().map(|(value, slot)| (slot, value)).collect(),
            specials: self.specials,
            parameters,
            local_bytes: self.local_bytes.next_multiple_of(16),
            // What the launch gives is aligned for any access.
            shared_bytes: self.shared_bytes.next_multiple_of(16),
            ordered: self.ordered,
        }
    }

    fn emit(&mut self, line: usize, guard: Option<(Slot, bool)>, op: Op) {
        self.code.push(Instruction { line, guard, op });
    }

    fn register(&mut self) -> Slot {
        self.registers += 1;
        self.registers - 1
    }

    /// The register that holds this constant.
    fn constant(&mut self, bits: u64) -> Slot {
        if let Some(slot) = self.constants.get(&bits) {
            return *slot;
        }
        let slot = self.register();
        self.constants.insert(bits, slot);
        slot
    }

    fn local(&mut self, variable: &Variable) -> Entity {
        let (offsets, end) = layout(std::slice::from_ref(variable), self.local_bytes);
        self.local_bytes = end;
        Entity::Local(offsets[0])
    }

    /// An `extern` array has no bytes of its own: all of them are what the launch gives.
    fn shared(&mut self, variable: &Variable) -> Entity {
        if variable.bytes == 0 {
            return Entity::Shared(window::DYNAMIC as usize);
        }
        let (offsets, end) = layout(std::slice::from_ref(variable), self.shared_bytes);
        self.shared_bytes = end;
        Entity::Shared(offsets[0])
    }

    fn function(&mut self, function: &Function, to: Option<&Return>) -> Result<(), String> {
        for statement in &function.body {
            match statement {
                Statement::Open => self.names.open(),
                Statement::Close => self.names.close(),
                Statement::Registers(name, count) => {
                    let first = self.registers;
                    self.registers += count.unwrap_or(1) as Slot;
                    match count {
                        Some(count) => self.names.declare_family(name, first, *count as Slot),
                        None => self.names.declare(name, Entity::Register(first)),
                    }
                }
                Statement::Variable(variable) => {
                    let entity = match variable.space {
                        Space::Shared => self.shared(variable),
                        Space::Local | Space::Param => self.local(variable),
                        _ => return Err(format!("variable '{}' of a function in global memory", variable.name)),
                    };
                    self.names.declare(&variable.name, entity);
                }
                Statement::Label(name) => {
                    self.labels.insert(format!("{}{name}", self.prefix), self.code.len());
                }
                Statement::Instruction(written) => self.instruction(written, to)?,
            }
        }
        Ok(())
    }

    fn branch(&mut self, line: usize, guard: Option<(Slot, bool)>, label: String) {
        self.open.push((self.code.len(), label));
        self.emit(line, guard, Op::Nothing);
    }

    /// `call (results), function, (arguments)`
    fn call(&mut self, written: &Written, guard: Option<(Slot, bool)>) -> Result<(), String> {
        let (results, rest) = match &written.operands[..] {
            [Operand::List(results), rest @ ..] => (&results[..], rest),
            rest => (&[][..], rest),
        };
        let (name, arguments) = match rest {
            [Operand::Name(name)] => (name, &[][..]),
            [Operand::Name(name), Operand::List(arguments), ..] => (name, &arguments[..]),
            _ => return Err(format!("line {}: a call of this form is not known", written.line)),
        };
        let module = self.module;
        let Some(function) = module.functions.iter().find(|function| function.name == *name) else {
            let what = if name == "__assertfail" {
                "an assertion of the kernel failed".to_owned()
            } else {
                format!("a call of '{name}', which is not in the module")
            };
            self.emit(written.line, guard, Op::Fail(what));
            return Ok(());
        };
        if guard.is_some() || self.depth == DEEPEST_CALL {
            return Err(format!("line {}: a call of '{name}' behind a predicate, or of itself", written.line));
        }
        self.inlined(function, results, arguments)
    }

    fn inlined(&mut self, function: &Function, results: &[Operand], arguments: &[Operand]) -> Result<(), String> {
        self.calls += 1;
        let prefix = std::mem::replace(&mut self.prefix, format!("call {} ", self.calls));
        let end = format!("{}end", self.prefix);
        let pairs = function.results.iter().zip(results).chain(function.parameters.iter().zip(arguments));
        let bound: Result<Vec<_>, String> = pairs
            .map(|(variable, operand)| match operand {
                Operand::Name(name) => match self.names.find(name) {
                    Some(entity @ Entity::Local(_)) => Ok((variable.name.clone(), entity)),
                    _ => Err(format!("'{name}' is no parameter of a call")),
                },
                other => Err(format!("{other:?} is no parameter of a call")),
            })
            .collect();
        self.names.open();
        for (name, entity) in bound? {
            self.names.declare(&name, entity);
        }
        self.depth += 1;
        self.function(function, Some(&Return { end: end.clone() }))?;
        self.depth -= 1;
        self.names.close();
        self.labels.insert(end, self.code.len());
        self.prefix = prefix;
        Ok(())
    }
}
