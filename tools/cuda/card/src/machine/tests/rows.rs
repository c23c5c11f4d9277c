//! The program's own kernels for what comes between products, as they are compiled, against the same in f64.

mod heads;
mod vectors;

use std::sync::OnceLock;

use crate::{
    device::memory::{BASE, Memory},
    float::{BF16, F16, F32, Format, Rounding},
    machine::{Counts, Fault, Launch},
    ptx::{self, Module},
};

const PTX: &str = include_str!("../../../../../../src/nn/kernels/fused/rows.ptx");

/// Threads of a block.
const THREADS: usize = 128;
/// Rows of a block that goes over columns.
const ROWS: usize = 8;
/// Rows of a block that goes over one after another.
const IN_TURN: usize = 4;
/// Within the root of every norm here.
const EPS: f64 = 1e-5;
/// Each number type with its name.
pub(super) const TYPES: [(Format, &str); 3] = [(F32, "f32"), (BF16, "bf16"), (F16, "f16")];
/// Where arrays lie, so far apart.
const APART: u64 = 0x100_0000;

/// Numbers of a type that holds them.
#[derive(Debug, Clone)]
pub(super) struct Numbers {
    pub(super) format: Format,
    pub(super) values: Vec<f64>,
}

impl Numbers {
    /// So many, in [-most, most].
    pub(super) fn new(format: Format, count: usize, most: f64, seed: u64) -> Self {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5eed;
        let values = (0..count).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            most * (2.0 * ((state >> 11) as f64 / (1u64 << 53) as f64) - 1.0)
        });
        Self::of(format, values)
    }

    pub(super) fn of(format: Format, values: impl IntoIterator<Item = f64>) -> Self {
        let rounded = |value| format.widen(format.round(value, Rounding::Nearest));
        Self { format, values: values.into_iter().map(rounded).collect() }
    }

    fn width(&self) -> usize {
        width(self.format)
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let bits = self.values.iter().map(|value| self.format.round(*value, Rounding::Nearest));
        bits.flat_map(|bits| bits.to_le_bytes()[..self.width()].to_vec()).collect()
    }

    pub(super) fn from_bytes(format: Format, bytes: &[u8]) -> Vec<f64> {
        let bits = |bytes: &[u8]| bytes.iter().rev().fold(0, |bits, byte| bits << 8 | u64::from(*byte));
        bytes.chunks_exact(width(format)).map(|bytes| format.widen(bits(bytes))).collect()
    }
}

/// Bytes of a number.
pub(super) fn width(format: Format) -> usize {
    (1 + format.fraction + format.exponent) as usize / 8
}

/// Numbers that travel at once.
pub(super) fn together(format: Format) -> usize {
    16 / width(format)
}

/// What is not an array, as the kernels' struct has it.
#[derive(Debug, Clone, Copy)]
struct How {
    rows: usize,
    columns: usize,
    heads: usize,
    tokens: usize,
    first: usize,
    lanes: usize,
}

impl How {
    fn rows(rows: usize, columns: usize) -> Self {
        Self { rows, columns, heads: 1, tokens: 0, first: 0, lanes: 2 }
    }

    fn bytes(self) -> Vec<u8> {
        let counts = [self.rows, self.columns, self.heads, self.tokens, self.first, self.lanes];
        let counts = counts.into_iter().flat_map(|count| (count as i32).to_le_bytes());
        counts.chain((EPS as f32).to_le_bytes()).collect()
    }
}

/// What a kernel's blocks are.
#[derive(Debug, Clone, Copy)]
enum Blocks {
    /// Rows in turn, with so many bytes of room.
    Rows(usize),
    /// Tiles of rows and columns.
    Tiles,
}

/// A launch.
#[derive(Debug, Clone)]
struct Given<'a> {
    operation: &'a str,
    /// By 16 bytes, or number by number.
    wide: bool,
    /// The output's numbers, where it has any before; its type and how many, else.
    out: Result<Numbers, (Format, usize)>,
    x: Numbers,
    vectors: [Option<Numbers>; 4],
    how: How,
    blocks: Blocks,
    /// Numbers of somebody else's before each array's first.
    offset: usize,
    seed: u64,
}

fn module() -> &'static Module {
    static MODULE: OnceLock<Module> = OnceLock::new();
    MODULE.get_or_init(|| ptx::parse(PTX).unwrap())
}

impl Given<'_> {
    fn format(&self) -> Format {
        self.x.format
    }

    /// The kernel's name.
    fn name(&self) -> String {
        let (_, name) = TYPES
            .into_iter()
            .find(|(format, _)| width(*format) == width(self.format()) && format.fraction == self.format().fraction)
            .unwrap();
        format!("{}_{name}_{}", self.operation, if self.wide { "wide" } else { "any" })
    }

    fn grid(&self) -> [u32; 3] {
        let How { rows, columns, .. } = self.how;
        let at_once = if self.wide { together(self.format()) } else { 1 };
        match self.blocks {
            Blocks::Rows(_) => [rows.div_ceil(IN_TURN) as u32, 1, 1],
            Blocks::Tiles => [rows.div_ceil(ROWS) as u32, columns.div_ceil(at_once * THREADS) as u32, 1],
        }
    }

    /// The output's numbers after it ran, and what it took.
    fn run(&self) -> Result<(Vec<f64>, Counts), Fault> {
        self.run_of(module())
    }

    fn run_of(&self, module: &Module) -> Result<(Vec<f64>, Counts), Fault> {
        let mut memory = Memory::new(false);
        let mut place = 0;
        let mut address = |memory: &mut Memory, format: Format, count: usize| {
            place += 1;
            let start = BASE + place * APART;
            memory.allocate(start, (self.offset + count) * width(format));
            start + (self.offset * width(format)) as u64
        };
        let (format, count) = self.out.as_ref().map_or_else(|shape| *shape, |out| (out.format, out.values.len()));
        let out = address(&mut memory, format, count);
        if let Ok(numbers) = &self.out {
            memory.upload(out, &numbers.bytes())?;
        }
        let mut pointers = vec![out];
        for numbers in [Some(&self.x)].into_iter().chain(self.vectors.iter().map(Option::as_ref)) {
            let Some(numbers) = numbers else {
                pointers.push(0);
                continue;
            };
            let at = address(&mut memory, numbers.format, numbers.values.len());
            memory.upload(at, &numbers.bytes())?;
            pointers.push(at);
        }
        let kernel = ptx::lower(module, &self.name(), &ptx::Globals::new()).unwrap();
        let parameters: Vec<u8> = pointers.iter().flat_map(|at| at.to_le_bytes()).chain(self.how.bytes()).collect();
        assert_eq!(parameters.len(), kernel.parameter_bytes());
        let dynamic_shared = if let Blocks::Rows(bytes) = self.blocks { bytes } else { 0 };
        let launch = Launch {
            kernel: &kernel,
            grid: self.grid(),
            block: [THREADS as u32, 1, 1],
            dynamic_shared,
            parameters: &parameters,
            seed: self.seed,
        };
        let counts = launch.run(&memory)?;
        Ok((Numbers::from_bytes(format, memory.slice(out, count * width(format))?), counts))
    }

    /// Holds the output against what is wanted: for each number what it is, and the size of what it is a sum of. It may be off by
    /// one rounding to its type, and by what f32 loses of the size; numbers below f32's normal ones may be zeros.
    fn holds(&self, want: impl IntoIterator<Item = (f64, f64)>) {
        let (found, _) = self.run().unwrap_or_else(|fault| panic!("{}, {:?}: {fault}", self.name(), self.how));
        let (half_unit, least) = (0.5f64.powi(self.format().fraction as i32 + 1), self.format().widen(1).max(1e-37));
        let mut compared = 0;
        for (at, (found, (want, size))) in found.iter().zip(want).enumerate() {
            let allowed = half_unit * want.abs() + 2e-6 * size + least;
            let off = (found - want).abs();
            assert!(off <= allowed, "{}, {:?}, number {at}: {found}, not {want}", self.name(), self.how);
            compared += 1;
        }
        assert_eq!(compared, found.len());
    }
}

/// Row and column of each number of rows of so many columns.
fn each(how: How) -> impl Iterator<Item = (usize, usize)> {
    (0..how.rows).flat_map(move |row| (0..how.columns).map(move |column| (row, column)))
}
