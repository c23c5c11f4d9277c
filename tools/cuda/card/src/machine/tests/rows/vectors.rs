//! Norms, gated sums and activations.

use super::*;

/// Sizes of x, none of them a multiple of a block's: (rows, columns) in pieces of what travels at once.
const SIZES: [(usize, usize); 5] = [(1, 1), (3, 5), (8, 16), (9, 33), (17, 130)];

/// Runs `check` with each type, each way and each size.
fn everywhere(check: impl Fn(Format, bool, How)) {
    for (format, _) in TYPES {
        for (rows, pieces) in SIZES {
            check(format, true, How::rows(rows, pieces * together(format)));
            check(format, false, How::rows(rows, pieces));
        }
    }
}

fn over_columns<'a>(
    operation: &'a str,
    wide: bool,
    out: Numbers,
    x: Numbers,
    vectors: [Option<Numbers>; 4],
    how: How,
) -> Given<'a> {
    // Behind rows of others, whole pieces of them where pieces travel.
    let offset = if wide { 2 * together(x.format) } else { 3 };
    Given { operation, wide, out: Ok(out), x, vectors, how, blocks: Blocks::Tiles, offset, seed: 0 }
}

fn over_rows<'a>(operation: &'a str, wide: bool, x: Numbers, vectors: [Option<Numbers>; 4], how: How) -> Given<'a> {
    let first = vectors[0].as_ref().map_or(0, Numbers::width);
    let blocks = Blocks::Rows(how.columns * (first + 2 * x.width()));
    let out = Err((x.format, x.values.len()));
    Given { blocks, out, ..over_columns(operation, wide, x.clone(), x, vectors, how) }
}

/// Mean and mean square of each row's difference from it, or from zero.
fn moments(x: &Numbers, columns: usize, centred: bool) -> Vec<(f64, f64)> {
    let of = |row: &[f64]| {
        let mean = if centred { row.iter().sum::<f64>() / columns as f64 } else { 0.0 };
        (mean, row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / columns as f64)
    };
    x.values.chunks_exact(columns).map(of).collect()
}

fn layer_norm(format: Format, wide: bool, how: How, mean: f64) {
    let x = Numbers::new(format, how.rows * how.columns, 3.0, 1);
    let x = Numbers::of(format, x.values.iter().map(|x| x + mean));
    let [scale, shift] = [2, 3].map(|seed| Numbers::new(format, how.columns, 2.0, seed));
    let rows = moments(&x, how.columns, true);
    let want = each(how).map(|(row, column)| {
        let ((mean, square), x) = (rows[row], x.values[row * how.columns + column]);
        let (factor, scale, shift) = (1.0 / (square + EPS).sqrt(), 1.0 + scale.values[column], shift.values[column]);
        ((x - mean) * factor * scale + shift, (x.abs() + mean.abs()) * factor * scale.abs() + shift.abs())
    });
    let want: Vec<_> = want.collect();
    over_rows("layer_norm", wide, x, [Some(scale), Some(shift), None, None], how).holds(want);
}

#[test]
fn a_layer_norm_is_scaled_and_shifted_on_the_way() {
    everywhere(|format, wide, how| layer_norm(format, wide, how, 0.5));
    layer_norm(BF16, true, How::rows(2, 3072), 0.0);
    layer_norm(BF16, true, How::rows(5, 6144), 0.0);
    layer_norm(F32, true, How::rows(2, 3072), 0.0);
}

#[test]
fn a_mean_far_from_zero_does_not_cancel() {
    layer_norm(F32, true, How::rows(3, 640), 1000.0);
    layer_norm(F16, false, How::rows(3, 77), 200.0);
}

/// `x / rms(x) weight`, and what it is of before the weight: (value, size).
fn rms_normed(x: &Numbers, weight: &Numbers, how: How) -> Vec<f64> {
    let rows = moments(x, how.columns, false);
    let at = |(row, column): (usize, usize)| {
        x.values[row * how.columns + column] / (rows[row].1 + EPS).sqrt() * weight.values[column]
    };
    each(how).map(at).collect()
}

#[test]
fn a_root_mean_square_norm_has_its_weight_in_f32() {
    everywhere(|format, wide, how| {
        let x = Numbers::new(format, how.rows * how.columns, 3.0, 1);
        let weight = Numbers::new(F32, how.columns, 2.0, 2);
        let want: Vec<_> = rms_normed(&x, &weight, how).into_iter().map(|x| (x, x.abs())).collect();
        over_rows("rms_norm", wide, x, [Some(weight), None, None, None], how).holds(want);
    });
}

#[test]
fn what_is_normed_is_gated_and_added_in_one_pass() {
    everywhere(|format, wide, how| {
        let [x, out] = [1, 4].map(|seed| Numbers::new(format, how.rows * how.columns, 3.0, seed));
        let (weight, gate) = (Numbers::new(F32, how.columns, 2.0, 2), Numbers::new(format, how.columns, 2.0, 3));
        let normed = rms_normed(&x, &weight, how);
        let want = each(how).zip(normed).zip(&out.values).map(|(((_, column), x), out)| {
            let added = gate.values[column] * x;
            (out + added, out.abs() + added.abs())
        });
        let want: Vec<_> = want.collect();
        let given = over_rows("rms_norm", wide, x, [Some(weight), Some(gate), None, None], how);
        Given { out: Ok(out), ..given }.holds(want);
    });
}

#[test]
fn what_a_gate_lets_through_is_added_in_place() {
    everywhere(|format, wide, how| {
        let [x, y] = [1, 2].map(|seed| Numbers::new(format, how.rows * how.columns, 3.0, seed));
        let [gate, bias] = [3, 4].map(|seed| Numbers::new(format, how.columns, 2.0, seed));
        for bias in [Some(bias), None] {
            let want = each(how).map(|(row, column)| {
                let (at, bias) = (row * how.columns + column, bias.as_ref().map_or(0.0, |bias| bias.values[column]));
                let gate = gate.values[column];
                let size = x.values[at].abs() + (gate * y.values[at]).abs() + (gate * bias).abs();
                (x.values[at] + gate * (y.values[at] + bias), size)
            });
            let want: Vec<_> = want.collect();
            over_columns("add_gated", wide, x.clone(), y.clone(), [Some(gate.clone()), bias, None, None], how)
                .holds(want);
        }
    });
}

/// An activation of x + bias, in place.
fn activation(operation: &str, f: impl Fn(f64) -> f64) {
    everywhere(|format, wide, how| {
        // As far out as where nothing, or everything, is let through.
        let x = Numbers::new(format, how.rows * how.columns, 14.0, 1);
        let bias = Numbers::new(format, how.columns, 2.0, 2);
        for bias in [Some(bias), None] {
            let want = each(how).zip(&x.values).map(|((_, column), x)| {
                let bias = bias.as_ref().map_or(0.0, |bias| bias.values[column]);
                // What f32 loses of the sum an activation keeps.
                (
                    f(x + bias),
                    f(x + bias).abs() * (1.0 + x.abs() + bias.abs()) + if bias == 0.0 { 0.0 } else { 0.1 * x.abs() },
                )
            });
            let want: Vec<_> = want.collect();
            over_columns(operation, wide, x.clone(), x.clone(), [bias, None, None, None], how).holds(want);
        }
    });
}

/// gelu in its tanh form. Source: PyTorch, `gelu(approximate="tanh")`.
fn gelu(x: f64) -> f64 {
    let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
    // x (1 + tanh(u)) / 2, which would cancel.
    x / (1.0 + (-2.0 * u).exp())
}

#[test]
fn a_bias_is_added_in_place() {
    activation("add_bias", |x| x);
}

#[test]
fn gelu_is_computed_in_f32_whatever_the_type() {
    activation("add_bias_gelu", gelu);
}

#[test]
fn gelu_of_what_is_far_out_is_nothing_or_all() {
    for (format, _) in TYPES {
        let far = Numbers::of(format, [-60000.0, -300.0, 0.0, 300.0, 60000.0]);
        let want: Vec<_> = far.values.iter().map(|x| (x.max(0.0), 0.0)).collect();
        over_columns("add_bias_gelu", false, far.clone(), far, [const { None }; 4], How::rows(1, 5)).holds(want);
    }
}

#[test]
fn a_gate_s_silu_is_multiplied_in_place() {
    everywhere(|format, wide, how| {
        let gate = Numbers::new(format, how.rows * how.columns, 12.0, 1);
        let x = Numbers::new(format, how.rows * how.columns, 3.0, 2);
        let want = gate.values.iter().zip(&x.values).map(|(gate, x)| {
            let silu = gate / (1.0 + (-gate).exp());
            (silu * x, (silu * x).abs() * (1.0 + gate.abs()))
        });
        let want: Vec<_> = want.collect();
        over_columns("silu_gated", wide, gate, x, [const { None }; 4], how).holds(want);
    });
}

#[test]
fn every_number_is_read_once_and_written_once() {
    let (how, bytes) = (How::rows(16, 2048), 2 * 16 * 2048);
    let vector = || Some(Numbers::new(BF16, 2048, 1.0, 3));
    let x = Numbers::new(BF16, 16 * 2048, 1.0, 1);
    let counts = over_rows("layer_norm", true, x.clone(), [vector(), vector(), None, None], how).run().unwrap().1;
    assert_eq!((counts.read, counts.written), (bytes + 4 * 2 * 2 * 2048, bytes), "the vectors once for each four rows");
    let given = over_columns("add_gated", true, x.clone(), x.clone(), [vector(), None, None, None], how);
    let counts = given.run().unwrap().1;
    assert_eq!((counts.read, counts.written), (2 * bytes + 2 * 2 * 2048, bytes), "the gate once for each eight rows");
    let counts = over_columns("add_bias_gelu", true, x.clone(), x, [const { None }; 4], how).run().unwrap().1;
    assert_eq!((counts.read, counts.written), (bytes, bytes));
}

#[test]
fn a_norm_without_its_barriers_is_caught() {
    let without = ptx::parse(&PTX.replace("bar.sync", "membar.cta; //")).unwrap();
    let x = Numbers::new(BF16, 2 * 1024, 1.0, 1);
    let vectors = [Some(Numbers::new(F32, 1024, 1.0, 3)), None, None, None];
    assert!(over_rows("rms_norm", true, x, vectors, How::rows(2, 1024)).run_of(&without).is_err());
}
