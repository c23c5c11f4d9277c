use super::{unit::Tile, *};
use crate::nn::kernels::cpu::pairs;
use half::bf16;

fn wave(count: usize, phase: f32) -> Vec<f32> {
    (0..count).map(|i| 3.0 * (i as f32 * 0.37 + phase).sin() * (i as f32 * 0.011).cos()).collect()
}

/// A product of one tile by the unit: [16, 16 pairs] · [16 pairs, 16] on top of `sums`.
struct OneTile<'a> {
    a: &'a Tile,
    b: &'a Tile,
    sums: &'a mut [[f32; 16]; 16],
}

impl Task for OneTile<'_> {
    fn on<U: MatrixUnit>(self, unit: &mut U) {
        let sums = self.sums.as_mut_ptr().cast::<u32>();
        // SAFETY: all three are 16 rows of 64 bytes.
        unsafe {
            unit.load::<0>(sums, 64);
            unit.load::<4>(self.a.0.as_ptr().cast(), 64);
            unit.load::<6>(self.b.0.as_ptr().cast(), 64);
            unit.multiply::<0, 4, 6>();
            unit.store::<0>(sums, 64);
        }
    }
}

/// Units that are here.
fn units() -> Vec<Unit> {
    [Some(Unit::Model), choice::found()].into_iter().flatten().collect()
}

fn pair(low: f32, high: f32) -> u32 {
    pairs::pair(bf16::from_f32(low), bf16::from_f32(high))
}

/// Source: Intel's manual, volume 2, TDPBF16PS: even and odd products have sums of their own, which meet at the end.
#[test]
fn a_tile_s_product_is_the_manual_s() {
    let mut a = Tile([[0; 16]; 16]);
    let mut b = Tile([[0; 16]; 16]);
    // Row 0: pairs 0 and 1 are (2^30, 1) and (-2^30, 1). One sum for both would have lost the first 1.
    (a.0[0][0], a.0[0][1], a.0[3][2]) = (pair(1_073_741_824.0, 1.0), pair(-1_073_741_824.0, 1.0), pair(2.0, 3.0));
    for (k, row) in b.0.iter_mut().enumerate() {
        for (n, value) in row.iter_mut().enumerate() {
            *value = if k < 2 { pair(1.0, 1.0) } else { pair(n as f32, 0.5) };
        }
    }
    for unit in units() {
        let mut sums = [[0.25; 16]; 16];
        unit.run(OneTile { a: &a, b: &b, sums: &mut sums });
        assert_eq!(sums[0], [2.25; 16], "{unit:?}");
        assert_eq!(sums[3], std::array::from_fn(|n| 0.25 + 2.0 * n as f32 + 1.5), "{unit:?}");
        assert_eq!(sums[1], [0.25; 16], "{unit:?}");
    }
}

/// left [rows, depth] · right [columns, depth]ᵀ on top of `out`.
struct Whole<'a> {
    left: &'a [f32],
    right: &'a [f32],
    size: [usize; 3],
    terms: Terms,
    out: (&'a mut [f32], usize),
    adds: bool,
}

impl Task for Whole<'_> {
    fn on<U: MatrixUnit>(self, unit: &mut U) {
        let [rows, columns, depth] = self.size;
        let left = Operand::left(self.left, (rows, depth), 0, depth, self.terms);
        let right = Operand::right(columns, depth, self.terms.right(), |column, from, out| {
            out.copy_from_slice(&self.right[column * depth + from..][..out.len()]);
        });
        // In two parts, the first of whole pairs of strips.
        for part in [0..rows.min(32), 32..rows.max(32)] {
            let (out, stride) = (&mut *self.out.0, self.out.1);
            if part.is_empty() {
                continue;
            }
            let start = out[part.start * stride..].as_mut_ptr();
            let target = Target { start, stride, rows: part.len(), columns };
            // SAFETY: out has rows of `stride` numbers, more than `columns`.
            unsafe { product(unit, (&left, part), &right, self.terms, (target, self.adds)) };
        }
    }
}

/// Sizes that are no whole tiles, deeper than what is multiplied at a time.
const SIZES: [[usize; 3]; 5] = [[1, 1, 1], [16, 16, 32], [33, 47, 70], [64, 96, 512], [50, 31, 1100]];

#[test]
fn products_are_as_near_as_their_terms() {
    for size in SIZES {
        let [rows, columns, depth] = size;
        let (left, right) = (wave(rows * depth, 0.1), wave(columns * depth, 1.3));
        let narrow: Vec<f32> = right.iter().map(|value| bf16::from_f32(*value).to_f32()).collect();
        for (terms, right, tolerance) in
            [(Terms::One, &right, 8e-3), (Terms::Two, &narrow, 8e-6), (Terms::Three, &right, 2e-5)]
        {
            for (unit, adds) in units().into_iter().flat_map(|unit| [(unit, false), (unit, true)]) {
                let stride = columns + 3;
                let mut out = vec![7.0; rows * stride];
                unit.run(Whole { left: &left, right, size, terms, out: (&mut out, stride), adds });
                for row in 0..rows {
                    for column in 0..stride {
                        let found = f64::from(out[row * stride + column]);
                        if column >= columns {
                            assert_eq!(found, 7.0, "beyond what was asked");
                            continue;
                        }
                        let numbers = left[row * depth..][..depth].iter().zip(&right[column * depth..][..depth]);
                        let products = numbers.map(|(a, b)| f64::from(*a) * f64::from(*b));
                        let before = if adds { 7.0 } else { 0.0 };
                        let (exact, most) = products
                            .fold((before, before), |(sum, most), product| (sum + product, most + product.abs()));
                        let off = (found - exact).abs();
                        assert!(off <= tolerance * most, "{size:?} {terms:?} {unit:?}: {off:e} of {most}");
                    }
                }
            }
        }
    }
}

#[test]
fn halves_hold_sixteen_bits_and_what_is_no_number() {
    let numbers = [1.0, -3.141_601_7, 65_537.0, 1e-20, f32::MAX, f32::INFINITY, 0.0, 1.003_9];
    let mut tiles = [Tile([[0; 16]; 16]); 2];
    operand::split(&numbers, &mut tiles, 5);
    for (index, number) in numbers.iter().enumerate() {
        let half = |tile: &Tile| f32::from_bits(tile.0[5][index / 2] >> (16 * (index % 2)) << 16);
        let sum = half(&tiles[0]) + half(&tiles[1]);
        assert!(sum == *number || (sum / number - 1.0).abs() < 8e-6 || *number == f32::MAX, "{number}: {sum}");
    }
    assert!(tiles[0].0[5][4..].iter().all(|pair| *pair == 0), "what is missing is zero");
    operand::split(&[f32::NAN], &mut tiles, 0);
    assert!(f32::from_bits(tiles[0].0[0][0] << 16).is_nan());
}

#[test]
fn a_unit_that_is_slow_is_right_and_not_used() {
    let trial = choice::Trial::of(Unit::Model);
    assert!(trial.is_right && !trial.is_faster, "a model of a unit is slower than vectors: {trial:?}");
}
