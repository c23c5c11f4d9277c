//! The program's own kernels for feature maps, as they are compiled, against the same in f64.

use std::sync::OnceLock;

use super::rows::{Numbers, TYPES, together, width};
use crate::{
    device::memory::{BASE, Memory},
    float::{F32, Format},
    machine::{Counts, Fault, Launch},
    ptx::{self, Module},
};

const PTX: &str = include_str!("../../../../../../src/nn/kernels/maps/maps.ptx");
const THREADS: usize = 256;
/// Pixels of a block that measures them.
const PIXELS: usize = 512;
/// Where arrays lie, so far apart.
const APART: u64 = 0x100_0000;

/// What is not an array, as the kernels' struct has it.
#[derive(Debug, Clone, Copy, Default)]
struct How {
    /// Rows, columns and channels.
    map: [usize; 3],
    out: [usize; 2],
    above: usize,
    left: usize,
    is_given: bool,
    way: usize,
}

impl How {
    fn bytes(self) -> Vec<u8> {
        let [rows, columns, channels] = self.map;
        let all =
            [rows, columns, channels, self.out[0], self.out[1], self.above, self.left, self.is_given.into(), self.way];
        all.into_iter().flat_map(|number| (number as i32).to_le_bytes()).collect()
    }

    fn count(self) -> usize {
        self.map.iter().product()
    }
}

fn module() -> &'static Module {
    static MODULE: OnceLock<Module> = OnceLock::new();
    MODULE.get_or_init(|| ptx::parse(PTX).unwrap())
}

/// Runs a kernel of (name, format, wide) in so many blocks on arrays that follow each other; gives what it wrote of `out`.
fn run(
    (name, format, wide): (&str, Format, bool),
    blocks: usize,
    arrays: &[Option<&Numbers>],
    how: How,
    (out, count): (Format, usize),
) -> Result<(Vec<f64>, Counts), Fault> {
    let word = TYPES
        .into_iter()
        .find(|(known, _)| (known.fraction, known.exponent) == (format.fraction, format.exponent))
        .unwrap()
        .1;
    let full = format!("{name}_{word}_{}", if wide { "wide" } else { "any" });
    let kernel = ptx::lower(module(), &full, &ptx::Globals::new()).unwrap();
    let mut memory = Memory::new(false);
    let mut places = Vec::new();
    for (array, at) in arrays.iter().zip((1..).map(|at| BASE + at * APART)) {
        let Some(array) = array else {
            places.push(0);
            continue;
        };
        let bytes = array.bytes();
        memory.allocate(at, bytes.len());
        memory.upload(at, &bytes)?;
        places.push(at);
    }
    let to = BASE + 9 * APART;
    memory.allocate(to, count * width(out));
    places.push(to);
    let parameters = [places.iter().flat_map(|at| at.to_le_bytes()).collect::<Vec<_>>(), how.bytes()].concat();
    let (grid, block) = ([blocks as u32, 1, 1], [THREADS as u32, 1, 1]);
    let counts =
        Launch { kernel: &kernel, grid, block, dynamic_shared: 0, parameters: &parameters, seed: 3 }.run(&memory)?;
    Ok((Numbers::from_bytes(out, memory.slice(to, count * width(out))?), counts))
}

/// Threads to blocks.
fn blocks(format: Format, wide: bool, numbers: usize) -> usize {
    (numbers / if wide { together(format) } else { 1 }).div_ceil(THREADS)
}

/// Every number type, by 16 bytes and number by number, of these channels each.
fn each(wide: usize, any: usize) -> impl Iterator<Item = (Format, bool, usize)> {
    TYPES.into_iter().flat_map(move |(format, _)| [(format, true, wide), (format, false, any)])
}

/// Half a unit of a number, beside what f32 loses on the way.
fn near(format: Format, found: f64, wanted: f64) -> bool {
    let unit = 0.5f64.powi(format.fraction as i32 + 1);
    (found - wanted).abs() <= unit * wanted.abs() * 1.0001 + 2e-6
}

#[test]
fn a_window_has_what_was_above_then_rows_as_they_are_normed_and_zeros_around_them() {
    for (format, wide, channels) in each(16, 5) {
        for (way, given, below) in [(0, true, 0), (1, true, 1), (2, false, 0), (2, true, 0)] {
            let (rows, columns, above) = (3, 13, 2);
            let out = [above + rows + below, columns + 2];
            let how = How { map: [rows, columns, channels], out, above, left: 1, is_given: given, way };
            let x = Numbers::new(format, how.count(), 3.0, 1);
            let before = Numbers::new(format, above * out[1] * channels, 3.0, 2);
            let affine = Numbers::new(F32, 2 * channels, 1.5, 3);
            let count = out[0] * out[1] * channels;
            let arrays = [Some(&x), Some(&affine), given.then_some(&before)];
            let (found, counts) =
                run(("window", format, wide), blocks(format, wide, count), &arrays, how, (format, count)).unwrap();
            for (at, found) in found.iter().enumerate() {
                let (channel, column, row) = (at % channels, at / channels % out[1], at / channels / out[1]);
                let inside = row >= above && row < above + rows && (1..=columns).contains(&column);
                let wanted = match () {
                    () if row < above && given => before.values[at],
                    () if inside => {
                        let x = x.values[((row - above) * columns + column - 1) * channels + channel];
                        let normed = x * affine.values[channel] + affine.values[channels + channel];
                        [x, normed, normed / (1.0 + (-normed).exp())][way]
                    }
                    () => 0.0,
                };
                assert!(near(format, *found, wanted), "{format:?} {way} at {row} {column} {channel}: {found} {wanted}");
            }
            if wide {
                assert_eq!(counts.stored as usize, count / (4 / width(format)).max(1), "each written once, by words");
            }
        }
    }
}

/// Which pixel of a window [rows, columns] an output looks at by a tap.
fn looked_at(way: usize, [row, column]: [usize; 2], tap: usize) -> [usize; 2] {
    [(row, tap / 3), (column, tap % 3)].map(|(at, by)| match way {
        0 => at + by,
        // Of a doubled map without the outer half of its border.
        1 => (at + by).div_ceil(2),
        _ => 2 * at + by,
    })
}

#[test]
fn every_tap_is_the_pixel_that_an_output_looks_at() {
    for (format, wide, channels) in each(8, 3) {
        for (way, map, out) in
            [(0, [5, 9], [3, 7]), (1, [4, 7], [4, 10]), (2, [5, 9], [2, 4]), (2, [6, 10], [2, 4]), (0, [3, 3], [1, 1])]
        {
            let how = How { map: [map[0], map[1], channels], out, way, ..How::default() };
            let x = Numbers::new(format, how.count(), 100.0, 7);
            let count = out[0] * out[1] * 9 * channels;
            let (found, counts) =
                run(("taps", format, wide), blocks(format, wide, how.count()), &[Some(&x)], how, (format, count))
                    .unwrap();
            for (at, found) in found.iter().enumerate() {
                let (channel, tap) = (at % channels, at / channels % 9);
                let pixel = at / channels / 9;
                let [y, x_] = looked_at(way, [pixel / out[1], pixel % out[1]], tap);
                let wanted = x.values[(y * map[1] + x_) * channels + channel];
                assert_eq!(*found, wanted, "{format:?}, way {way}, {map:?} at {pixel} tap {tap}");
            }
            if wide {
                assert_eq!(counts.stored as usize * 4, count * width(format), "each written once");
            }
        }
    }
}

#[test]
fn moments_of_each_block_are_those_of_its_pixels() {
    for (format, wide, channels) in each(24, 7).chain(each(128, 200)).chain(each(512, 1)) {
        let (rows, columns) = (3, 211);
        let how = How { map: [rows, columns, channels], way: PIXELS, ..How::default() };
        let blocks = (rows * columns).div_ceil(PIXELS);
        // Far from zero, where sums of squares would lose what is looked for.
        let noise = Numbers::new(format, how.count(), 1.0, 11);
        let x = Numbers::of(
            format,
            noise.values.iter().enumerate().map(|(i, x)| x + 30.0 * f64::from(i as u32 % channels as u32 % 3)),
        );
        let count = blocks * 2 * channels;
        let (found, counts) = run(("moments", format, wide), blocks, &[Some(&x)], how, (F32, count)).unwrap();
        for (part, pixels) in found.chunks(2 * channels).zip(x.values.chunks(PIXELS * channels)) {
            for channel in 0..channels {
                let values: Vec<f64> = pixels.iter().skip(channel).step_by(channels).copied().collect();
                let mean = values.iter().sum::<f64>() / values.len() as f64;
                let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
                let [found_mean, found_squares] = [part[channel], part[channels + channel]];
                assert!(
                    (found_mean - mean).abs() < 2e-6 * mean.abs().max(1.0),
                    "{format:?} {channels}: {found_mean} {mean}"
                );
                assert!(
                    (found_squares - squares).abs() < 2e-5 * squares.max(1e-3),
                    "{format:?} {channels}: {found_squares} {squares}"
                );
            }
        }
        // The first pixel of a block is read once more by each that goes over it, and at the end.
        assert!(counts.read < 2 * (how.count() * width(format)) as u64, "{format:?} {channels}: {}", counts.read);
    }
}

#[test]
fn one_pixel_deviates_by_nothing() {
    let how = How { map: [1, 1, 8], way: PIXELS, ..How::default() };
    let x = Numbers::new(F32, 8, 1000.0, 5);
    let (found, _) = run(("moments", F32, true), 1, &[Some(&x)], how, (F32, 16)).unwrap();
    assert_eq!(&found[..8], &x.values[..]);
    assert_eq!(&found[8..], &[0.0; 8]);
}
