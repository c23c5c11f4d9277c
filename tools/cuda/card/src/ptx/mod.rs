//! PTX, the text in which kernels arrive: what a module declares and what its functions say.
//! Source: NVIDIA, "Parallel Thread Execution ISA", whose words are used throughout.

pub mod code;
mod lexer;
mod lower;
mod operands;
mod parser;
mod select;

pub use lower::{Globals, lower};
pub use parser::parse;

/// A module as it is written.
#[derive(Debug, Default)]
pub struct Module {
    /// `.target sm_90`: 90.
    pub target: u32,
    /// Variables of the module: `.global`, `.const` and `.shared`.
    pub variables: Vec<Variable>,
    /// Functions that have a body.
    pub functions: Vec<Function>,
}

impl Module {
    /// Takes in what another module declares.
    pub fn extend(&mut self, other: Self) {
        self.target = self.target.max(other.target);
        self.variables.extend(other.variables);
        self.functions.extend(other.functions);
    }
}

/// State spaces that variables lie in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// Any of global, shared and local memory, told apart by the address.
    Generic,
    /// Memory of the device.
    Global,
    /// Memory of a thread block.
    Shared,
    /// Memory of a thread.
    Local,
    /// Parameters of a kernel, or of a call.
    Param,
}

/// A variable in memory.
#[derive(Debug, Clone)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Where it lies.
    pub space: Space,
    /// Its alignment in bytes.
    pub align: usize,
    /// Its size in bytes; 0 for an `extern` array, whose size the launch gives.
    pub bytes: usize,
    /// What it holds at first.
    pub initial: Vec<u8>,
}

/// A function or kernel.
#[derive(Debug)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Whether it is a kernel.
    pub entry: bool,
    /// What it is given.
    pub parameters: Vec<Variable>,
    /// What it gives back.
    pub results: Vec<Variable>,
    /// What it does.
    pub body: Vec<Statement>,
}

/// A line of a function.
#[derive(Debug)]
pub enum Statement {
    /// `.reg .b32 %r<5>` or `.reg .pred p`: a name, and how many are made of it.
    Registers(String, Option<usize>),
    /// A variable of the function or of a call.
    Variable(Variable),
    /// A place to branch to.
    Label(String),
    /// Names declared from here on end with `Close`.
    Open,
    /// The end of an inner block.
    Close,
    /// What is executed.
    Instruction(Instruction),
}

/// An instruction as it is written.
#[derive(Debug, Clone)]
pub struct Instruction {
    /// The line it stands in.
    pub line: usize,
    /// `@p` or `@!p`: the predicate, and whether it is negated.
    pub guard: Option<(String, bool)>,
    /// `setp.lt.u64`
    pub opcode: String,
    /// What stands behind it.
    pub operands: Vec<Operand>,
}

/// An operand as it is written.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// A register, variable, label or function.
    Name(String),
    /// `!p`
    Not(String),
    /// A whole number.
    Integer(i64),
    /// The bits of an f32.
    Single(u32),
    /// An f64.
    Double(f64),
    /// `[name + offset]`
    Address(String, i64),
    /// `{a, b}` or, in calls, `(a, b)`
    List(Vec<Operand>),
    /// `d|p`
    Pair(Box<Operand>, Box<Operand>),
}
