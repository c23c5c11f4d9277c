//! Rotary position embedding: where tokens stand, and the tables of cos and sin that turn them.
//!
//! A token at position p_a on axis a turns its pair i of that axis by `p_a · inv_freq_a[i]`. Where tokens stand is data of a
//! model ([`PositionIds`]): any number of axes, positions of either sign, text anywhere. Angles are f64, tables f32.

use std::ops::RangeInclusive;

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use crate::{
    base::geometry::TokenGrid,
    error::{Error, Result},
    methods::{AxisFrequencies, Base, Moment, PositionScaler, RotaryAxis, Side},
};

/// One axis of a rotary embedding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PositionAxis {
    /// D: rotary channels; pairs are D/2.
    pub dim: usize,
    /// theta: the base of the geometric progression of frequencies.
    pub theta: f64,
    /// The side of the picture that runs along it, which a scaler may stretch; none for an axis of text or of time.
    pub side: Option<Side>,
}

/// Tokens that follow each other in the sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenRun {
    /// Text: token k stands at `origin + k · step`.
    Line {
        /// How many.
        tokens: usize,
        /// Where the first stands, one number an axis.
        origin: Vec<i64>,
        /// From one to the next, one number an axis; all 0 where they stand on one spot.
        step: Vec<i64>,
    },
    /// Text that no picture's size changes: it is turned as it was trained, by native frequencies without amplitude, on the
    /// picture's axes too.
    Native {
        /// How many.
        tokens: usize,
        /// Where the first stands, one number an axis.
        origin: Vec<i64>,
        /// From one to the next, one number an axis.
        step: Vec<i64>,
    },
    /// The tokens of a picture, row by row: row r and column c stand at `origin`, plus r on the axis of the height, plus c
    /// on that of the width.
    Grid {
        /// Rows and columns.
        grid: TokenGrid,
        /// Where the token of the top left corner stands, one number an axis.
        origin: Vec<i64>,
    },
}

/// Where all tokens of a sequence stand.
#[derive(Debug, Clone, PartialEq)]
pub struct PositionIds {
    /// The axes, in the order of a head's channels.
    pub axes: Vec<PositionAxis>,
    /// The tokens, in the order of the sequence.
    pub runs: Vec<TokenRun>,
}

impl TokenRun {
    /// Number of its tokens.
    pub fn tokens(&self) -> usize {
        match self {
            Self::Line { tokens, .. } | Self::Native { tokens, .. } => *tokens,
            Self::Grid { grid, .. } => grid.count(),
        }
    }

    /// Where its token `index` stands on axis number `axis`, which is `side` of the picture.
    fn position(&self, index: usize, axis: usize, side: Option<Side>) -> i64 {
        match self {
            Self::Line { origin, step, .. } | Self::Native { origin, step, .. } => {
                origin[axis] + index as i64 * step[axis]
            }
            Self::Grid { grid, origin } => {
                let along = match side {
                    Some(Side::Height) => index / grid.width_patches,
                    Some(Side::Width) => index % grid.width_patches,
                    None => 0,
                };
                origin[axis] + along as i64
            }
        }
    }

    /// The positions it takes on an axis; none for a run without tokens.
    fn span(&self, axis: usize, side: Option<Side>) -> Option<RangeInclusive<i64>> {
        let last = self.tokens().checked_sub(1)?;
        // Both kinds run from their first to their last token, on every axis.
        let (first, last) = (self.position(0, axis, side), self.position(last, axis, side));
        Some(first.min(last)..=first.max(last))
    }

    fn is_native(&self) -> bool {
        matches!(self, Self::Native { .. })
    }

    fn axes(&self) -> impl Iterator<Item = usize> {
        let (origin, step) = match self {
            Self::Line { origin, step, .. } | Self::Native { origin, step, .. } => (origin.len(), step.len()),
            Self::Grid { origin, .. } => (origin.len(), origin.len()),
        };
        [origin, step].into_iter()
    }
}

impl PositionIds {
    /// Number of all tokens.
    pub fn tokens(&self) -> usize {
        self.runs.iter().map(TokenRun::tokens).sum()
    }

    /// Pairs of all axes: half a head's channels.
    pub fn pairs(&self) -> usize {
        self.axes.iter().map(|axis| axis.dim / 2).sum()
    }

    /// The two sides of the picture as axes of a scaler; `None` where positions have not both of them.
    pub fn picture_axes(&self, base_patches: usize) -> Option<[RotaryAxis; 2]> {
        let of = |side| self.axes.iter().find(|axis| axis.side == Some(side));
        let (height, width) = (of(Side::Height)?, of(Side::Width)?);
        Some(RotaryAxis::of_picture([height.dim, width.dim], height.theta, base_patches, self.patches()))
    }

    /// The sides of the picture a scaler looks at: the first grid's.
    fn patches(&self) -> [usize; 2] {
        let grids = self.runs.iter().filter_map(|run| match run {
            TokenRun::Grid { grid, .. } => Some([grid.height_patches, grid.width_patches]),
            TokenRun::Line { .. } | TokenRun::Native { .. } => None,
        });
        grids.into_iter().next().unwrap_or([1, 1])
    }
}

/// cos and sin for every token in the order of the sequence: [N, D/2], f32.
#[derive(Debug, Clone)]
pub struct RopeTables {
    /// Cosines times each axis' amplitude.
    pub cos: Tensor,
    /// Sines times each axis' amplitude.
    pub sin: Tensor,
}

/// (cos, sin) of one axis for each position from `first` on: `[positions][D/2]`.
struct AxisTable {
    first: i64,
    turns: Vec<Vec<(f32, f32)>>,
}

impl RopeTables {
    /// The tables at one moment for tokens that stand at `ids`, with a training resolution of `base_patches` a side.
    ///
    /// # Errors
    /// [`Error::Model`] when positions or the scaler's answer do not fit the axes; [`Error::Tensor`] when the device fails.
    pub fn new(
        ids: &PositionIds,
        base_patches: usize,
        scaler: &dyn PositionScaler,
        at: &Moment,
        device: &Device,
    ) -> Result<Self> {
        let axes = ids.axes.len();
        if let Some(found) = ids.runs.iter().flat_map(TokenRun::axes).find(|found| *found != axes) {
            return Err(Error::model(format!("positions on {found} axes for a rotary embedding of {axes}"), ""));
        }
        let table = |axis, is_native| {
            let spec = &ids.axes[axis];
            let frequencies = match is_native {
                true => native(spec),
                false => frequencies(spec, ids.patches(), base_patches, scaler, at)?,
            };
            Ok(AxisTable::new(ids, axis, is_native, &frequencies))
        };
        let of_all = |is_native| (0..axes).map(|axis| table(axis, is_native)).collect::<Result<Vec<_>>>();
        let (scaled, native) = (of_all(false)?, of_all(true)?);
        let (tokens, pairs) = (ids.tokens(), ids.pairs());
        let (mut cos, mut sin) = (vec![0f32; tokens * pairs], vec![0f32; tokens * pairs]);
        let mut first = 0;
        for run in &ids.runs {
            let tables = if run.is_native() { &native } else { &scaled };
            let numbers = first * pairs..(first + run.tokens()) * pairs;
            let rows = cos[numbers.clone()].par_chunks_mut(pairs).zip(sin[numbers].par_chunks_mut(pairs));
            rows.enumerate().with_min_len(64).for_each(|(token, (cos, sin))| {
                let turns = tables.iter().enumerate().flat_map(|(axis, table)| {
                    let position = run.position(token, axis, ids.axes[axis].side);
                    &table.turns[(position - table.first) as usize]
                });
                for ((cos, sin), turn) in cos.iter_mut().zip(sin).zip(turns) {
                    (*cos, *sin) = *turn;
                }
            });
            first += run.tokens();
        }
        let shape = (tokens, pairs);
        Ok(Self { cos: Tensor::from_vec(cos, shape, device)?, sin: Tensor::from_vec(sin, shape, device)? })
    }

    /// The tables of tokens `start..start + count`.
    ///
    /// # Errors
    /// When there are not that many tokens.
    pub fn rows(&self, start: usize, count: usize) -> Result<Self> {
        Ok(Self { cos: self.cos.narrow(0, start, count)?, sin: self.sin.narrow(0, start, count)? })
    }

    /// Number of tokens.
    pub fn tokens(&self) -> usize {
        self.cos.dims()[0]
    }
}

impl AxisTable {
    /// Every position that some token of native runs, or of the others, takes on axis number `axis`, and those between.
    fn new(ids: &PositionIds, axis: usize, is_native: bool, frequencies: &AxisFrequencies) -> Self {
        let side = ids.axes[axis].side;
        let runs = || ids.runs.iter().filter(|run| run.is_native() == is_native);
        let spans = || runs().filter_map(|run| run.span(axis, side));
        let first = spans().map(|span| *span.start()).min().unwrap_or(0);
        let last = spans().map(|span| *span.end()).max().unwrap_or(-1);
        let turned = |position: i64| {
            let turns = frequencies.inv_freq.iter().zip(&frequencies.amplitude);
            turns
                .map(|(inv_freq, amplitude)| {
                    let (sin, cos) = (position as f64 * inv_freq).sin_cos();
                    ((amplitude * cos) as f32, (amplitude * sin) as f32)
                })
                .collect()
        };
        Self { first, turns: (first..=last).map(turned).collect() }
    }
}

/// The frequencies of training.
fn native(axis: &PositionAxis) -> AxisFrequencies {
    Base.frequencies(&RotaryAxis::of_picture([axis.dim; 2], axis.theta, 1, [1, 1])[0], &Moment::at(1.0))
}

/// What an axis turns by: what the scaler says where a side of the picture runs along it, else the frequencies of training.
fn frequencies(
    axis: &PositionAxis,
    patches: [usize; 2],
    base_patches: usize,
    scaler: &dyn PositionScaler,
    at: &Moment,
) -> Result<AxisFrequencies> {
    let [height, width] = RotaryAxis::of_picture([axis.dim; 2], axis.theta, base_patches, patches);
    let found = match axis.side {
        Some(Side::Height) => scaler.frequencies(&height, at),
        Some(Side::Width) => scaler.frequencies(&width, at),
        None => native(axis),
    };
    if (found.inv_freq.len(), found.amplitude.len()) != (height.pairs(), height.pairs()) {
        let found = found.inv_freq.len();
        return Err(Error::model(format!("{found} frequencies for an axis of {} channels", axis.dim), ""));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::{Looks, MethodSpec};

    fn axis(dim: usize, side: Option<Side>) -> PositionAxis {
        PositionAxis { dim, theta: 100.0, side }
    }

    /// The angle of each token's slowest turn of each axis: its position there, since pair 0 turns by 1 a position.
    fn positions(ids: &PositionIds) -> Vec<Vec<i64>> {
        let tables = RopeTables::new(ids, 8, &Base, &Moment::at(1.0), &Device::Cpu).expect("tables");
        let (cos, sin): (Vec<Vec<f32>>, Vec<Vec<f32>>) =
            (tables.cos.to_vec2().expect("cos"), tables.sin.to_vec2().expect("sin"));
        let firsts: Vec<usize> = ids
            .axes
            .iter()
            .scan(0, |at, axis| {
                let first = *at;
                *at += axis.dim / 2;
                Some(first)
            })
            .collect();
        let angle = |token: usize, pair: usize| f64::from(sin[token][pair]).atan2(f64::from(cos[token][pair]));
        let of_token = |token| firsts.iter().map(|&pair| angle(token, pair).round() as i64).collect();
        (0..tables.tokens()).map(of_token).collect()
    }

    #[test]
    fn text_may_stand_anywhere_and_positions_have_either_sign() {
        let grid = TokenGrid { height_patches: 2, width_patches: 3 };
        let ids = PositionIds {
            axes: vec![axis(4, None), axis(2, Some(Side::Height)), axis(6, Some(Side::Width))],
            runs: vec![
                TokenRun::Grid { grid, origin: vec![0, -1, -1] },
                TokenRun::Line { tokens: 2, origin: vec![1, 2, 2], step: vec![1, 0, -1] },
            ],
        };
        assert_eq!((ids.tokens(), ids.pairs()), (8, 6));
        let expected: [[i64; 3]; 8] =
            [[0, -1, -1], [0, -1, 0], [0, -1, 1], [0, 0, -1], [0, 0, 0], [0, 0, 1], [1, 2, 2], [2, 2, 1]];
        assert_eq!(positions(&ids), expected);
    }

    /// A scaler that tells what it was asked for: the axis' patches as frequency.
    struct Patches;

    impl PositionScaler for Patches {
        fn frequencies(&self, axis: &RotaryAxis, _: &Moment) -> AxisFrequencies {
            AxisFrequencies { inv_freq: vec![axis.patches as f64 / 100.0], amplitude: vec![2.0] }
        }

        fn spec(&self) -> &'static MethodSpec {
            Base.spec()
        }

        fn looks(&self) -> Looks {
            Looks::Nothing
        }
    }

    #[test]
    fn only_the_sides_of_the_picture_are_scaled_each_by_its_own_length() {
        let grid = TokenGrid { height_patches: 2, width_patches: 3 };
        let axes = vec![axis(2, None), axis(2, Some(Side::Height)), axis(2, Some(Side::Width))];
        let ids = PositionIds { axes, runs: vec![TokenRun::Grid { grid, origin: vec![5, 0, 0] }] };
        let tables = RopeTables::new(&ids, 8, &Patches, &Moment::at(1.0), &Device::Cpu).expect("tables");
        let last: Vec<f32> = tables.sin.get(5).and_then(|row| row.to_vec1()).expect("a row");
        assert_eq!(last, [5f64.sin() as f32, (2.0 * 0.02f64.sin()) as f32, (2.0 * 0.06f64.sin()) as f32]);
    }

    #[test]
    fn native_text_is_turned_as_it_was_trained_on_the_picture_s_axes_too() {
        let grid = TokenGrid { height_patches: 2, width_patches: 3 };
        let axes = vec![axis(2, None), axis(2, Some(Side::Height)), axis(2, Some(Side::Width))];
        let text = TokenRun::Native { tokens: 2, origin: vec![1; 3], step: vec![1; 3] };
        let ids = PositionIds { axes, runs: vec![text, TokenRun::Grid { grid, origin: vec![0, -1, -2] }] };
        let tables = RopeTables::new(&ids, 8, &Patches, &Moment::at(1.0), &Device::Cpu).expect("tables");
        let row = |row| -> Vec<f32> { tables.sin.get(row).and_then(|row| row.to_vec1()).expect("a row") };
        assert_eq!(row(1), [2f64.sin() as f32; 3]);
        assert_eq!(row(2), [0.0, (2.0 * (-0.02f64).sin()) as f32, (2.0 * (-0.06f64).sin()) as f32]);
    }

    #[test]
    fn positions_on_other_axes_and_scalers_of_other_pairs_are_refused() {
        let refused = |ids: &PositionIds| RopeTables::new(ids, 8, &Patches, &Moment::at(1.0), &Device::Cpu).is_err();
        let grid = TokenGrid { height_patches: 1, width_patches: 1 };
        let run = TokenRun::Grid { grid, origin: vec![0, 0] };
        assert!(refused(&PositionIds { axes: vec![axis(2, None)], runs: vec![run] }));
        let run = TokenRun::Grid { grid, origin: vec![0] };
        assert!(refused(&PositionIds { axes: vec![axis(4, Some(Side::Height))], runs: vec![run] }));
    }
}
