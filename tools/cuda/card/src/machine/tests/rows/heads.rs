//! Heads that are split, normed and turned.

use super::*;

/// x [rows, H·D] that goes to rows `first..` of [H, tokens, D].
#[derive(Debug, Clone, Copy)]
struct Case {
    format: Format,
    wide: bool,
    rows: usize,
    heads: usize,
    dim: usize,
    biased: bool,
    seed: u64,
}

/// Rows of each head of the output beyond those that are written, before and behind them.
const BEFORE: usize = 2;
const BEHIND: usize = 1;

impl Case {
    fn how(self) -> How {
        let Self { rows, heads, dim, .. } = self;
        let at_once = if self.wide { together(self.format) } else { 2 };
        let lanes = dim.div_ceil(at_once).next_power_of_two().clamp(2, 32);
        How { rows, columns: heads * dim, heads, tokens: BEFORE + rows + BEHIND, first: BEFORE, lanes }
    }

    fn x(self) -> (Numbers, Option<Numbers>) {
        let columns = self.heads * self.dim;
        let x = Numbers::new(self.format, self.rows * columns, 3.0, self.seed + 1);
        (x, self.biased.then(|| Numbers::new(self.format, columns, 1.0, self.seed + 2)))
    }

    /// The output before: rows that nobody may touch have numbers.
    fn out(self) -> Numbers {
        let How { tokens, columns, .. } = self.how();
        Numbers::new(self.format, tokens * columns, 9.0, self.seed + 3)
    }

    /// x + bias of a head of a row.
    fn head(self, (x, bias): &(Numbers, Option<Numbers>), row: usize, head: usize) -> Vec<f64> {
        let first = head * self.dim;
        let bias = |channel: usize| bias.as_ref().map_or(0.0, |bias| bias.values[first + channel]);
        (0..self.dim).map(|channel| x.values[row * self.heads * self.dim + first + channel] + bias(channel)).collect()
    }

    /// What is wanted of the whole output, where `f` gives (number, size) for each channel of a head of a row.
    fn want(self, f: impl Fn(usize, usize) -> Vec<(f64, f64)>) -> Vec<(f64, f64)> {
        let (out, How { tokens, .. }) = (self.out(), self.how());
        let rows = (0..self.heads).flat_map(|head| (0..tokens).map(move |token| (head, token)));
        rows.flat_map(|(head, token)| match token.checked_sub(BEFORE).filter(|row| *row < self.rows) {
            Some(row) => f(row, head),
            None => out.values[(head * tokens + token) * self.dim..][..self.dim].iter().map(|x| (*x, 0.0)).collect(),
        })
        .collect()
    }

    fn given(self, operation: &str, (x, bias): (Numbers, Option<Numbers>), tables: [Option<Numbers>; 3]) -> Given<'_> {
        let [weight, cos, sin] = tables;
        let vectors = [bias, weight, cos, sin];
        let blocks = Blocks::Rows((1 + IN_TURN) * self.dim * width(F32));
        let offset = if self.wide { together(self.format) } else { 3 };
        let (out, how, wide, seed) = (Ok(self.out()), self.how(), self.wide, self.seed);
        Given { operation, wide, out, x, vectors, how, blocks, offset, seed }
    }

    fn splits(self) {
        let x = self.x();
        let want = self.want(|row, head| self.head(&x, row, head).into_iter().map(|x| (x, x.abs())).collect());
        self.given("split_heads", x, [const { None }; 3]).holds(want);
    }

    fn turned(self) -> Given<'static> {
        let half = self.dim / 2;
        let angle = |at: usize| 0.7 * at as f64;
        let table = |f: fn(f64) -> f64| Numbers::of(F32, (0..self.rows * half).map(|at| 1.1 * f(angle(at))));
        let weight = Numbers::new(F32, self.dim, 2.0, self.seed + 4);
        self.given("rotate_heads", self.x(), [Some(weight), Some(table(f64::cos)), Some(table(f64::sin))])
    }

    fn turns(self) {
        let (given, x, half) = (self.turned(), self.x(), self.dim / 2);
        let [_, Some(weight), Some(cos), Some(sin)] = &given.vectors else { panic!("tables") };
        let want = self.want(|row, head| {
            let x = self.head(&x, row, head);
            let factor = 1.0 / (x.iter().map(|x| x * x).sum::<f64>() / self.dim as f64 + EPS).sqrt();
            let normed: Vec<_> = x.iter().zip(&weight.values).map(|(x, weight)| x * factor * weight).collect();
            let turned = normed.chunks_exact(2).enumerate().flat_map(|(pair, ab)| {
                let (a, b, c, s) = (ab[0], ab[1], cos.values[row * half + pair], sin.values[row * half + pair]);
                let size = a.abs() + b.abs();
                [(a * c - b * s, size), (a * s + b * c, size)]
            });
            turned.collect()
        });
        given.holds(want);
    }
}

/// Runs `check` with every type in both ways over widths that occur and others: `any` of an even width alone, where pairs are turned.
fn everywhere(check: impl Fn(Case), step: usize) {
    for (format, _) in TYPES {
        for (index, pieces) in [1, 3, 4, 8, 16, 24, 33].into_iter().enumerate() {
            let (heads, rows, biased) = ([1, 3, 9][index % 3], [1, 5, 2][index % 3], index % 2 == 1);
            let case = Case { format, wide: true, rows, heads, dim: pieces * together(format), biased, seed: 0 };
            check(case);
            check(Case { wide: false, dim: pieces * step, biased: !biased, ..case });
        }
    }
}

const FLUX: Case = Case { format: BF16, wide: true, rows: 3, heads: 24, dim: 128, biased: true, seed: 0 };

#[test]
fn heads_are_split_and_others_rows_left_alone() {
    everywhere(Case::splits, 1);
    FLUX.splits();
}

#[test]
fn heads_are_normed_and_turned_on_the_way() {
    everywhere(Case::turns, 2);
    FLUX.turns();
    Case { format: F32, ..FLUX }.turns();
    Case { dim: 130, wide: false, ..FLUX }.turns();
}

#[test]
fn the_order_of_warps_changes_nothing() {
    for seed in 1..6 {
        Case { seed, ..FLUX }.turns();
    }
}

#[test]
fn a_head_is_read_once_and_tables_once_for_all_heads() {
    // From the beginning of a sector on.
    let counts = Given { offset: 16, ..FLUX.turned() }.run().unwrap().1;
    let (numbers, tables) = (2 * 3 * 24 * 128, 4 * (128 + 3 * 128));
    let bias = 2 * 24 * 128;
    assert_eq!(counts.written, numbers);
    assert_eq!(counts.read, numbers + bias + tables);
}

#[test]
fn tables_that_are_not_waited_for_are_caught() {
    let without = ptx::parse(&PTX.replace("bar.sync", "membar.cta; //")).unwrap();
    assert!(FLUX.turned().run_of(&without).is_err());
}
