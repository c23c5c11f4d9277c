//! Which names a kernel and the functions that it calls speak of.

use std::collections::HashSet;

use crate::ptx::{Function, Module, Operand, Statement};

/// All names in the operands of a function and of those that it names, and of those that they name.
pub fn mentioned<'a>(module: &'a Module, function: &'a Function) -> HashSet<&'a str> {
    let (mut names, mut open) = (HashSet::new(), vec![function]);
    while let Some(function) = open.pop() {
        let mut new = Vec::new();
        for statement in &function.body {
            if let Statement::Instruction(written) = statement {
                written.operands.iter().for_each(|operand| collect(operand, &mut new));
            }
        }
        for name in new {
            if names.insert(name) {
                open.extend(module.functions.iter().find(|function| function.name == name));
            }
        }
    }
    names
}

fn collect<'a>(operand: &'a Operand, names: &mut Vec<&'a str>) {
    match operand {
        Operand::Name(name) | Operand::Not(name) | Operand::Address(name, _) => names.push(name),
        Operand::List(operands) => operands.iter().for_each(|operand| collect(operand, names)),
        Operand::Pair(one, other) => [one, other].into_iter().for_each(|operand| collect(operand, names)),
        Operand::Integer(_) | Operand::Single(_) | Operand::Double(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use crate::ptx::{Globals, lower, parse};

    /// A module's shared variables take room of the kernels alone that use them, by themselves or in what they call.
    #[test]
    fn a_kernel_has_the_shared_memory_that_it_speaks_of() {
        let text = "
.version 8.0
.target sm_90
.address_size 64
.shared .align 4 .b8 few[32];
.shared .align 16 .b8 many[1024];
.func called()
{
    .reg .b32 %r<2>;
    ld.shared.u32 %r1, [many+4];
    ret;
}
.visible .entry none() { ret; }
.visible .entry one() { .reg .b32 %r<2>; mov.u32 %r1, few; ret; }
.visible .entry by_call() { call called, (); ret; }
";
        let module = parse(text).unwrap();
        let bytes = |name| lower(&module, name, &Globals::new()).unwrap().shared_bytes;
        assert_eq!([bytes("none"), bytes("one"), bytes("by_call")], [0, 32, 1024]);
    }
}
