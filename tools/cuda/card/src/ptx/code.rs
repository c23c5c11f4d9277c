//! Kernels as they are executed: flat, with numbered registers and resolved branches.

use super::{Space, Variable};

/// Threads that execute together.
pub const LANES: usize = 32;
/// A register of every thread of a warp, as bits.
pub type Lanes = [u64; LANES];
/// What an instruction computes of three operands, for each thread.
pub type Compute = fn(&Lanes, &Lanes, &Lanes, &mut Lanes);
/// The same of one thread, with the carry before and after it: `add.cc` and its like.
pub type Carry = fn(u64, u64, u64, u64) -> (u64, u64);
/// What an instruction of four operands computes of one thread.
pub type Four = fn(u64, u64, u64, u64) -> u64;
/// The f32 that a number of 16 or 8 bits is.
pub type Widen = fn(u64) -> f32;
/// What an atomic operation leaves in memory: of what lies there, and of one or two operands.
pub type Update = fn(u64, u64, u64) -> u64;
/// A register's number.
pub type Slot = u32;

/// A kernel ready to run.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Its name.
    pub name: String,
    /// Its instructions.
    pub code: Vec<Instruction>,
    /// Registers of a thread.
    pub registers: usize,
    /// Registers that hold a constant from the start.
    pub constants: Vec<(Slot, u64)>,
    /// Registers that say which thread, block and grid this is.
    pub specials: Vec<(Slot, Special)>,
    /// Where each parameter begins, and its bytes.
    pub parameters: Vec<(usize, usize)>,
    /// Bytes of local memory of a thread.
    pub local_bytes: usize,
    /// Bytes of shared memory that it declares itself.
    pub shared_bytes: usize,
    /// Whether the order of its blocks can be seen in floats that it adds atomically.
    pub ordered: bool,
}

/// Special registers. Source: PTX ISA, "Special Registers".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// `%tid`, by axis
    Thread(usize),
    /// `%ntid`
    Threads(usize),
    /// `%ctaid`
    Block(usize),
    /// `%nctaid`
    Blocks(usize),
    /// `%laneid`
    Lane,
    /// `%warpid`
    Warp,
    /// `%lanemask_lt`
    LanesBelow,
}

/// An instruction of a kernel.
#[derive(Debug, Clone)]
pub struct Instruction {
    /// Its line in the text.
    pub line: usize,
    /// The predicate it depends on, and whether it is negated.
    pub guard: Option<(Slot, bool)>,
    /// What it does.
    pub op: Op,
}

/// Where an instruction reaches into memory.
#[derive(Debug, Clone, Copy)]
pub struct Address {
    /// The state space.
    pub space: Space,
    /// The register that holds an address.
    pub base: Option<Slot>,
    /// What is added to it.
    pub offset: i64,
    /// Bytes of one element.
    pub width: usize,
}

/// Bytes of a row of the matrices that `ldmatrix` loads: eight 16-bit numbers.
pub const MATRIX_ROW_BYTES: usize = 16;

/// d = a b + c of floats of 16 or 8 bits, for a [16, 8P], b [8P, 8] and f32 c, in the registers of a warp, where P numbers of a and
/// b share a register.
#[derive(Debug, Clone, Copy)]
pub struct Product {
    /// The f32 of a number of a or b.
    pub widen: Widen,
    /// Numbers in a register of a or b: 2 or 4.
    pub packed: usize,
    /// The result.
    pub d: [Slot; 4],
    /// The left side, row by row, packed.
    pub a: [Slot; 4],
    /// The right side, column by column, packed.
    pub b: [Slot; 2],
    /// What is added.
    pub c: [Slot; 4],
}

/// Which lanes a shuffle reads. Source: PTX ISA, `shfl.sync`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shuffle {
    /// `.up`
    Up,
    /// `.down`
    Down,
    /// `.bfly`
    Butterfly,
    /// `.idx`
    Index,
}

/// What a vote says. Source: PTX ISA, `vote.sync`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vote {
    /// `.all`
    All,
    /// `.any`
    Any,
    /// `.uni`
    Uniform,
    /// `.ballot`
    Ballot,
    /// `activemask`: the lanes that are here.
    Active,
}

/// What instructions do.
#[derive(Debug, Clone)]
pub enum Op {
    /// d = f(a, b, c), and how many floating point operations that is.
    Compute { f: Compute, d: Slot, from: [Slot; 3], flops: u8 },
    /// d = f(a, b, c, carry), and the new carry.
    Carry { f: Carry, d: Slot, from: [Slot; 3], carry: Slot },
    /// d = f(a, b, c, e)
    Four { f: Four, d: Slot, from: [Slot; 4] },
    /// `mov.b64 {lo, hi}, a`: parts of so many bits.
    Unpack { parts: Vec<Slot>, bits: u32, from: Slot },
    /// `mov.b64 d, {lo, hi}`
    Pack { d: Slot, parts: Vec<Slot>, bits: u32 },
    /// Loads, and whether the sign is extended.
    Load { to: Vec<Slot>, at: Address, signed: bool },
    /// Stores.
    Store { from: Vec<Slot>, at: Address },
    /// An atomic update; `d` is what was there.
    Atomic { f: Update, d: Option<Slot>, at: Address, from: [Slot; 2] },
    /// `shfl.sync d|p, a, b, c, mask`
    Shuffle { how: Shuffle, d: Slot, p: Option<Slot>, from: [Slot; 3], mask: Slot },
    /// `vote.sync d, a, mask`
    Vote { how: Vote, d: Slot, from: (Slot, bool), mask: Slot },
    /// `mma.sync.m16n8k16`, `.m16n8k32`: a product of matrices that the warp holds.
    Product { what: Product, mask: Slot },
    /// `ldmatrix.m8n8`: matrices of 16-bit numbers, whose rows the lanes name.
    LoadMatrices { to: Vec<Slot>, at: Address, transposed: bool, mask: Slot },
    /// `cp.async`: a copy from global into shared memory that nobody may read before it was waited for; of so many bytes of the
    /// source, or all, and zeros.
    CopyAsync { to: Address, from: Address, bytes: Option<Slot> },
    /// `cp.async.commit_group`
    CommitCopies,
    /// `cp.async.wait_group N`, or `.wait_all`: all but so many of the latest groups.
    WaitCopies { but: Option<u64> },
    /// `bar.sync a`: all threads of the block meet.
    Barrier(Slot),
    /// `bar.warp.sync`: the lanes of the mask meet.
    WarpBarrier(Slot),
    /// `bra`
    Branch(usize),
    /// `ret`, `exit`
    Exit,
    /// Nothing that an interpreter would see.
    Nothing,
    /// What is not known, or `__assertfail`: said when it is reached, not before.
    Fail(String),
}

impl Kernel {
    /// Bytes of all parameters.
    pub fn parameter_bytes(&self) -> usize {
        self.parameters.last().map_or(0, |(offset, bytes)| offset + bytes)
    }
}

/// Offsets for variables laid one behind the other from `start` on, and where they end.
pub fn layout(variables: &[Variable], start: usize) -> (Vec<usize>, usize) {
    let mut end = start;
    let offsets = variables.iter().map(|variable| {
        let offset = end.next_multiple_of(variable.align.max(1));
        end = offset + variable.bytes;
        offset
    });
    (offsets.collect(), end)
}
