//! The program's own products in e4m3, as they are compiled, against the same in f64 of the codes that were multiplied.

use crate::{
    device::memory::{BASE, Memory},
    float::{BF16, F16, F32, Format, Rounding, e4m3_to_f32, f32_to_e4m3},
    machine::{Counts, Fault, FaultKind, Launch},
    ptx,
};

const PTX: &str = include_str!("../../../../../../src/nn/kernels/fp8/product.ptx");

const X: u64 = BASE + 0x10_0000;
const CODES: u64 = BASE + 0x200_0000;
const WEIGHT: u64 = BASE + 0x400_0000;
const SCALES: u64 = BASE + 0x600_0000;
const OUT: u64 = BASE + 0x800_0000;
const THREADS: u32 = 256;
/// Rows and outputs of a block.
const SIDE: usize = 128;
/// Bytes behind the codes of a row, which begin with its scale.
const PIECE: usize = 16;

/// One product.
#[derive(Debug, Clone, Copy)]
struct Case {
    word: &'static str,
    rows: usize,
    inputs: usize,
    outputs: usize,
    /// Inputs of a weight that has more, before and behind those that are taken.
    beside: usize,
    /// Whether each output has a scale of its own.
    by_output: bool,
    seed: u64,
}

const PLAIN: Case = Case { word: "bf16", rows: 150, inputs: 208, outputs: 140, beside: 0, by_output: false, seed: 0 };

/// What was multiplied, and what came of it.
struct Found {
    /// The numbers of x.
    x: Vec<f64>,
    /// The same as codes with their scale say them.
    quantised: Vec<f64>,
    /// The weight's numbers, scaled.
    weight: Vec<f64>,
    out: Vec<f64>,
    counts: Counts,
}

struct Random(u64);

impl Random {
    /// In [-1, 1].
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    /// About as a normal distribution has them, of variance 1.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.next()).sum::<f64>() / 2.0
    }
}

impl Case {
    fn format(&self) -> Format {
        match self.word {
            "bf16" => BF16,
            "f16" => F16,
            _ => F32,
        }
    }

    fn width(&self) -> usize {
        if self.word == "f32" { 4 } else { 2 }
    }

    fn numbers(&self, bytes: &[u8]) -> Vec<f64> {
        let bits = |bytes: &[u8]| bytes.iter().rev().fold(0, |bits, byte| bits << 8 | u64::from(*byte));
        bytes.chunks_exact(self.width()).map(|bytes| self.format().widen(bits(bytes))).collect()
    }

    fn bytes(&self, numbers: &[f64]) -> Vec<u8> {
        let bits = numbers.iter().map(|x| self.format().round(*x, Rounding::Nearest));
        bits.flat_map(|bits| bits.to_le_bytes()[..self.width()].to_vec()).collect()
    }

    fn launch(
        &self,
        text: &str,
        name: &str,
        grid: [u32; 3],
        memory: &Memory,
        at: &[u64],
        how: [u8; 24],
    ) -> Result<Counts, Fault> {
        let module = ptx::parse(text).unwrap();
        let kernel = ptx::lower(&module, &format!("{name}_{}", self.word), &ptx::Globals::new()).unwrap();
        let parameters = [at.iter().flat_map(|at| at.to_le_bytes()).collect::<Vec<_>>(), how.to_vec()].concat();
        assert_eq!(parameters.len(), kernel.parameter_bytes());
        let block = [THREADS, 1, 1];
        Launch { kernel: &kernel, grid, block, dynamic_shared: 0, parameters: &parameters, seed: self.seed }.run(memory)
    }

    fn how(&self, row: usize) -> [u8; 24] {
        let numbers =
            [self.rows, self.inputs, self.outputs, usize::from(self.by_output)].map(|n| (n as u32).to_le_bytes());
        let mut how = [0; 24];
        how[..8].copy_from_slice(&(row as u64).to_le_bytes());
        how[8..].copy_from_slice(numbers.as_flattened());
        how
    }

    fn run(&self) -> Result<Found, Fault> {
        let mut random = Random(self.seed ^ 0x5eed);
        // Rows of very different size, one of zeros, one with a number that is much larger than its others.
        let x: Vec<f64> = (0..self.rows)
            .flat_map(|row| {
                let size = [1.0, 0.0, 100.0, 1e-3][row % 4];
                let mut numbers: Vec<f64> = (0..self.inputs).map(|_| size * random.normal()).collect();
                if row % 5 == 2 {
                    numbers[row % self.inputs] = 60.0 * size;
                }
                numbers
            })
            .collect();
        self.run_of(PTX, &x)
    }

    fn run_of(&self, text: &str, x: &[f64]) -> Result<Found, Fault> {
        let Self { rows, inputs, outputs, beside, .. } = *self;
        let mut random = Random(self.seed ^ 0xfeed);
        let mut memory = Memory::new(false);
        let x_bytes = self.bytes(x);
        let stored = inputs + 2 * beside;
        let codes: Vec<u8> = (0..outputs * stored).map(|_| f32_to_e4m3(448.0 * random.next() as f32) as u8).collect();
        let scale = |output: usize| if self.by_output { 2e-4 / (output + 1) as f32 } else { 2e-4 };
        let scales: Vec<f32> = (0..if self.by_output { outputs } else { 1 }).map(scale).collect();
        let scale_bytes: Vec<u8> = scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
        for (at, bytes) in [(X, &x_bytes), (WEIGHT, &codes), (SCALES, &scale_bytes)] {
            memory.allocate(at, bytes.len());
            memory.upload(at, bytes)?;
        }
        let row_bytes = inputs + PIECE;
        memory.allocate(CODES, rows * row_bytes);
        memory.allocate(OUT, rows * outputs * self.width());
        self.launch(text, "to_e4m3", [rows as u32, 1, 1], &memory, &[X, CODES], self.how(inputs))?;
        let grid = [rows.div_ceil(SIDE) as u32, outputs.div_ceil(SIDE) as u32, 1];
        let at = [CODES, WEIGHT + beside as u64, SCALES, OUT];
        let counts = self.launch(text, "product_e4m3", grid, &memory, &at, self.how(stored))?;
        let number = |code: u8| f64::from(e4m3_to_f32(code.into()));
        let quantised = memory.slice(CODES, rows * row_bytes)?.chunks_exact(row_bytes).flat_map(|row| {
            let scale = f32::from_le_bytes(row[inputs..inputs + 4].try_into().unwrap());
            row[..inputs].iter().map(|code| number(*code) * f64::from(scale)).collect::<Vec<_>>()
        });
        let quantised = quantised.collect();
        let weight = (0..outputs).flat_map(|output| {
            let row = &codes[output * stored + beside..][..inputs];
            row.iter().map(move |code| number(*code) * f64::from(scale(output))).collect::<Vec<_>>()
        });
        let weight = weight.collect();
        let out = self.numbers(memory.slice(OUT, rows * outputs * self.width())?);
        Ok(Found { x: self.numbers(&x_bytes), quantised, weight, out, counts })
    }

    /// Codes are the nearest to their numbers, and the product is that of the codes: sums are of f32, what is written is rounded once.
    fn holds(&self) -> Found {
        let found = self.run().unwrap_or_else(|fault| panic!("{self:?}: {fault}"));
        let Self { inputs, outputs, .. } = *self;
        for (row, quantised) in found.x.chunks(inputs).zip(found.quantised.chunks(inputs)) {
            let most = row.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
            for (x, quantised) in row.iter().zip(quantised) {
                // Half a unit of three bits; of the smallest numbers half of 2^-9 of 448ths.
                let allowed = (x.abs() / 16.0).max(most / 448.0 / 1024.0) * (1.0 + 1e-5);
                assert!((x - quantised).abs() <= allowed, "{self:?}: {quantised} for {x} of {most}");
            }
        }
        let unit = 0.5f64.powi(self.format().fraction as i32 + 1);
        for (row, (quantised, out)) in found.quantised.chunks(inputs).zip(found.out.chunks(outputs)).enumerate() {
            for (output, (weight, found)) in found.weight.chunks(inputs).zip(out).enumerate() {
                let products = quantised.iter().zip(weight).map(|(x, w)| x * w);
                let (want, size) = products.fold((0.0, 0.0), |(sum, size), x: f64| (sum + x, size + x.abs()));
                let allowed = unit * want.abs() + 2e-6 * size + 1e-7 * f64::from(self.word == "f16");
                assert!((found - want).abs() <= allowed, "{self:?}: {found} for {want} at {row} {output}");
            }
        }
        found
    }
}

#[test]
fn every_type_is_the_product_of_its_codes() {
    for word in ["bf16", "f16", "f32"] {
        for by_output in [false, true] {
            Case { word, by_output, ..PLAIN }.holds();
        }
    }
}

#[test]
fn any_number_of_rows_and_outputs_and_multiples_of_16_inputs() {
    for (rows, inputs, outputs) in [(1, 16, 1), (1, 64, 3), (3, 48, 2), (128, 128, 128), (129, 144, 127), (20, 4112, 9)]
    {
        Case { rows, inputs, outputs, word: "f32", ..PLAIN }.holds();
        Case { rows, inputs, outputs, by_output: true, ..PLAIN }.holds();
    }
}

#[test]
fn some_of_the_inputs_of_a_weight_are_taken_where_they_lie() {
    Case { beside: 48, ..PLAIN }.holds();
}

#[test]
fn the_order_of_warps_changes_nothing() {
    for seed in 1..5 {
        Case { seed, inputs: 400, ..PLAIN }.holds();
    }
}

#[test]
fn a_number_that_is_none_stays_none_and_spoils_its_row_alone() {
    let case = Case { rows: 3, inputs: 32, outputs: 4, ..PLAIN };
    for odd in [f64::NAN, f64::INFINITY] {
        let mut x = vec![1.0; 3 * 32];
        x[40] = odd;
        let out = case.run_of(PTX, &x).unwrap().out;
        for (row, numbers) in out.chunks(4).enumerate() {
            assert!(numbers.iter().all(|x| x.is_nan() == (row == 1)), "{odd}: {out:?}");
        }
    }
}

/// What rounding x to e4m3 costs, of numbers as a normal distribution has them: the relative error of a whole product.
#[test]
fn a_product_is_within_three_hundredths_of_one_of_unrounded_numbers() {
    let case = Case { word: "f32", rows: 64, inputs: 512, outputs: 64, ..PLAIN };
    let mut random = Random(7);
    let x: Vec<f64> = (0..64 * 512).map(|_| random.normal()).collect();
    let found = case.run_of(PTX, &x).unwrap();
    let (mut off, mut all) = (0.0, 0.0);
    for (x, out) in found.x.chunks(512).zip(found.out.chunks(64)) {
        for (weight, found) in found.weight.chunks(512).zip(out) {
            let want: f64 = x.iter().zip(weight).map(|(x, w)| x * w).sum();
            off += (found - want) * (found - want);
            all += want * want;
        }
    }
    let error = (off / all).sqrt();
    assert!((0.02..0.03).contains(&error), "{error}");
}

#[test]
fn sums_never_leave_the_chip_and_a_tile_is_read_once_by_a_block() {
    let case = Case { rows: 256, inputs: 1024, outputs: 256, ..PLAIN };
    let counts = case.holds().counts;
    assert_eq!(counts.stored, (256 * 256 / 2) as u64, "the output, in pairs");
    assert_eq!((counts.float8_flops, counts.product_flops), (2 * 256 * 1024 * 256, 0));
    // Both sides twice, by two blocks each; scales beside.
    assert!((4 * 256 * 1024..5 * 256 * 1024).contains(&counts.read), "{}", counts.read);
}

#[test]
fn a_kernel_without_its_barriers_is_caught() {
    let without = PTX.replace("bar.sync", "membar.cta; //");
    assert_ne!(PTX, without);
    let fault = PLAIN.run_of(&without, &[1.0; 150 * 208]).err().map(|fault| fault.kind);
    assert_eq!(fault, Some(FaultKind::Uninitialised));
}
