//! The program's own kernels that make numbers of few bits into numbers, as they are compiled, against what gguf-py reads and what
//! floats of 8 bits are defined as.

use crate::{
    device::memory::{BASE, Memory},
    float::{BF16, F16, Format, Rounding},
    machine::Launch,
    ptx,
};

const PTX: &str = include_str!("../../../../../../src/nn/kernels/widen/widen.ptx");
/// Two rows of 512 numbers in each type.
const MUST: &[u8] = include_bytes!("../../../../../../tests/fixtures/gguf/types/must.gguf");
const OTHERS: &[u8] = include_bytes!("../../../../../../tests/fixtures/gguf/types/others.gguf");
/// The same numbers in f32, as gguf-py reads them.
const EXPECTED: &[u8] = include_bytes!("../../../../../../tests/fixtures/gguf/expected/types.safetensors");

const CODES: u64 = BASE + 0x1_0000;
const SCALES: u64 = BASE + 0x10_0000;
const OUT: u64 = BASE + 0x20_0000;
/// Numbers of a row.
const COLUMNS: usize = 512;
const THREADS: usize = 256;

/// Kinds of blocks: (the name, bytes of a row of 512, its file, the name of the file).
const KINDS: [(&str, usize, &[u8], &str); 12] = [
    ("Q4_0", 288, MUST, "must"),
    ("Q4_1", 320, MUST, "must"),
    ("Q5_0", 352, MUST, "must"),
    ("Q5_1", 384, MUST, "must"),
    ("Q8_0", 544, MUST, "must"),
    ("Q2_K", 168, MUST, "must"),
    ("Q3_K", 220, MUST, "must"),
    ("Q4_K", 288, MUST, "must"),
    ("Q5_K", 352, MUST, "must"),
    ("Q6_K", 420, MUST, "must"),
    ("IQ4_NL", 288, OTHERS, "others"),
    ("IQ4_XS", 272, OTHERS, "others"),
];

fn position(within: &[u8], what: &[u8]) -> usize {
    within.windows(what.len()).position(|window| window == what).unwrap_or_else(|| panic!("no {what:?}"))
}

fn number_at(bytes: &[u8], at: usize) -> usize {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize
}

/// The bytes of the matrix `t.TYPE` [2, 512] of a GGUF file: behind its name stand two dimensions, its type and its offset.
fn blocks<'a>(file: &'a [u8], name: &str, bytes: usize) -> &'a [u8] {
    let names: Vec<usize> = (0..file.len() - 2).filter(|at| &file[*at..at + 2] == b"t.").collect();
    let info = |at: usize| {
        let length = number_at(file, at - 8);
        let offset = at + length + 4 + 2 * 8 + 4;
        (&file[at..at + length], number_at(file, offset), offset + 8)
    };
    // Data begin behind the last of them, at a multiple of 32.
    let named = |at: &usize| *at >= 8 && (3..16).contains(&number_at(file, at - 8));
    let infos: Vec<_> = names.iter().filter(|at| named(at)).map(|at| info(*at)).collect();
    let data = infos.iter().map(|info| info.2).max().unwrap().next_multiple_of(32);
    let offset = infos.iter().find(|info| info.0 == format!("t.{name}").as_bytes()).unwrap().1;
    &file[data + offset..][..bytes]
}

/// All its numbers, as gguf-py reads them.
fn expected(file: &str, name: &str) -> Vec<f32> {
    let at = position(EXPECTED, format!("\"{file}/{name}\"").as_bytes());
    let offsets = at + position(&EXPECTED[at..], b"data_offsets\":[") + 15;
    let digits = EXPECTED[offsets..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let first: usize = std::str::from_utf8(&EXPECTED[offsets..offsets + digits]).unwrap().parse().unwrap();
    let data = &EXPECTED[8 + number_at(EXPECTED, 0) + first..];
    data[..2 * COLUMNS * 4].chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}

/// Numbers `first..first + count` of the rows, as they are written in this type.
struct Widened<'a> {
    kernel: String,
    codes: &'a [u8],
    row_bytes: usize,
    first: usize,
    count: usize,
    scales: &'a [f32],
    scale_step: u32,
}

impl Widened<'_> {
    /// Bytes of numbers [rows, count] of `width` bytes each.
    fn run(&self, width: usize) -> Vec<u8> {
        let rows = self.codes.len() / self.row_bytes;
        let mut memory = Memory::new(false);
        let scales: Vec<u8> = self.scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
        for (at, bytes) in [(CODES, self.codes), (SCALES, &scales)] {
            memory.allocate(at, bytes.len().max(1));
            memory.upload(at, bytes).unwrap();
        }
        let size = rows * self.count * width;
        memory.allocate(OUT, size);
        let module = ptx::parse(PTX).unwrap();
        let kernel = ptx::lower(&module, &self.kernel, &ptx::Globals::new()).unwrap();
        let numbers = [self.first as u32, self.count as u32, self.scale_step, 0].map(u32::to_le_bytes);
        let pointers = [CODES, SCALES, OUT, self.row_bytes as u64].map(u64::to_le_bytes);
        let parameters = [pointers.as_flattened(), numbers.as_flattened()].concat();
        assert_eq!(parameters.len(), kernel.parameter_bytes());
        let launch = Launch {
            kernel: &kernel,
            grid: [self.count.div_ceil(THREADS) as u32, rows as u32, 1],
            block: [THREADS as u32, 1, 1],
            dynamic_shared: 0,
            parameters: &parameters,
            seed: 0,
        };
        launch.run(&memory).unwrap_or_else(|fault| panic!("{}: {fault:?}", self.kernel));
        memory.slice(OUT, size).unwrap().to_vec()
    }
}

fn halves(bytes: &[u8]) -> Vec<u16> {
    bytes.chunks_exact(2).map(|two| u16::from_le_bytes([two[0], two[1]])).collect()
}

fn singles(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|four| u32::from_le_bytes(four.try_into().unwrap())).collect()
}

fn rounded(format: Format, numbers: &[f32]) -> Vec<u16> {
    numbers.iter().map(|x| format.round(f64::from(*x), Rounding::Nearest) as u16).collect()
}

#[test]
fn every_kind_of_block_is_what_gguf_py_reads() {
    for (name, row_bytes, file, file_name) in KINDS {
        let all = expected(file_name, name);
        // Whole rows, and as a layer takes them that has some of the inputs only.
        for (first, count) in [(0, COLUMNS), (96, 300), (500, 12)] {
            let wanted: Vec<f32> = all.chunks(COLUMNS).flat_map(|row| row[first..first + count].to_vec()).collect();
            let of = |word: &str| Widened {
                kernel: format!("widen_{}_{word}", name.to_lowercase()),
                codes: blocks(file, name, 2 * row_bytes),
                row_bytes,
                first,
                count,
                scales: &[],
                scale_step: 0,
            };
            let found: Vec<f32> = singles(&of("f32").run(4)).iter().map(|bits| f32::from_bits(*bits)).collect();
            for (found, wanted) in found.iter().zip(&wanted) {
                assert!((found - wanted).abs() <= 1e-6 * wanted.abs(), "{name}: {found} for {wanted}");
            }
            // Rounded once.
            assert_eq!(halves(&of("bf16").run(2)), rounded(BF16, &found), "{name}");
            assert_eq!(halves(&of("f16").run(2)), rounded(F16, &found), "{name}");
        }
    }
}

/// The number of a code, by the definition (arXiv 2209.05433, table 1).
fn float8(code: u8, exponent_bits: u32, bias: i32) -> f64 {
    let mantissa_bits = 7 - exponent_bits;
    let exponent = i32::from(code >> mantissa_bits & ((1 << exponent_bits) - 1));
    let mantissa = f64::from(code & ((1 << mantissa_bits) - 1)) / f64::from(1 << mantissa_bits);
    let magnitude = match (exponent, exponent_bits, code & 0x7f) {
        (15, 4, 0x7f) => f64::NAN,
        (31, 5, 0x7c) => f64::INFINITY,
        (31, 5, _) => f64::NAN,
        (0, ..) => mantissa * 2f64.powi(1 - bias),
        _ => (1.0 + mantissa) * 2f64.powi(exponent - bias),
    };
    if code >= 128 { -magnitude } else { magnitude }
}

#[test]
fn every_float_of_8_bits_is_its_number_times_its_scale_rounded_once() {
    let codes: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
    for (kind, exponent_bits, bias) in [("f8_e4m3", 4, 7), ("f8_e5m2", 5, 15)] {
        for (scales, scale_step) in [(&[0.037_f32][..], 0), (&[0.5, 1.0 / 3.0], 1)] {
            let of = |word: &str| Widened {
                kernel: format!("widen_{kind}_{word}"),
                codes: &codes,
                row_bytes: 256,
                first: 3,
                count: 253,
                scales,
                scale_step,
            };
            let wanted: Vec<f32> = (0..2 * 253)
                .map(|i| {
                    let (row, column) = (i / 253, 3 + i % 253);
                    let scale = scales[row * scale_step as usize];
                    float8(codes[256 * row + column], exponent_bits, bias) as f32 * scale
                })
                .collect();
            let is_same = |found: f32, wanted: f32| found == wanted || (found.is_nan() && wanted.is_nan());
            let found = singles(&of("f32").run(4));
            assert!(found.iter().zip(&wanted).all(|(bits, wanted)| is_same(f32::from_bits(*bits), *wanted)), "{kind}");
            for (word, format) in [("bf16", BF16), ("f16", F16)] {
                for (bits, wanted) in halves(&of(word).run(2)).into_iter().zip(&wanted) {
                    let wanted = format.widen(format.round(f64::from(*wanted), Rounding::Nearest));
                    assert!(
                        is_same(format.widen(bits.into()) as f32, wanted as f32),
                        "{kind} {word}: {bits:#x} {wanted}"
                    );
                }
            }
        }
    }
}
