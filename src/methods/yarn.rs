//! YaRN, part by part: slow pairs are interpolated, fast pairs stay native, and two ramps lead from one to the other.

use std::f64::consts::PI;

use super::anchor::{self, TEXT_ANCHOR};
use super::base::native;
use super::dype::{DYPE_EXPONENT, DYPE_SCALE, DYPE_THRESHOLDS};
use super::ntk::ntk_frequencies;
use super::scaling::{AMPLITUDE, FADING_START, SCALING};
use super::{
    AxisFrequencies, DypeSchedule, Knobs, Looks, MethodSpec, Moment, PositionScaler, RampSpan, RotaryAxis, TextBias,
    Thresholds, Tuning,
};

/// Rotations over the training length between which position interpolation becomes NTK.
/// Source: `beta_0`, `beta_1` of the reference code.
const BETA: [f64; 2] = [1.25, 0.75];
/// Rotations over the training length between which that becomes native.
/// Source: `gamma_0`, `gamma_1` of the reference code.
const GAMMA: [f64; 2] = [16.0, 2.0];
/// Width of a ramp whose borders coincide. Source: `linear_ramp_mask` of YaRN's and the reference code.
const STEEPEST: f64 = 0.001;

/// YaRN as the reference has it: `native/s` for pairs that turn less than beta times over the training length, NTK's
/// frequency from there, `native` for those that turn more than gamma times; amplitude `0.1 ln(s) + 1`.
///
/// DyPE moves beta and gamma by kappa(t), so that more and more pairs are native as t falls; at t = 0 all are
/// (paper, section 4.2). The amplitude depends on s alone, unless a knob says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Yarn {
    /// DyPE's schedule, or none for the static method.
    pub dype: Option<DypeSchedule>,
    /// How kappa moves the thresholds; the static method moves none.
    pub thresholds: Thresholds,
    /// Which side's length an axis is scaled by, how the amplitude is made, and whether text is anchored, with amplitudes that
    /// follow t instead ([`super::TEXT_ANCHOR`]).
    pub knobs: Knobs,
}

impl Yarn {
    /// DyPE's lambdas for it are the paper's for DY-YaRN (section 4.2).
    pub const SPEC: MethodSpec = MethodSpec {
        name: "yarn",
        help: "slow pairs interpolated, fast ones native, NTK's frequencies between",
        dype: Some(DypeSchedule { scale: 1.0, exponent: 2.0 }),
        knobs: &[DYPE_SCALE, DYPE_EXPONENT, DYPE_THRESHOLDS, SCALING, AMPLITUDE, FADING_START, TEXT_ANCHOR],
        scaler: |Tuning { dype, thresholds, knobs }| Box::new(Self { dype, thresholds, knobs }),
    };
}

impl PositionScaler for Yarn {
    fn spec(&self) -> &'static MethodSpec {
        &Self::SPEC
    }

    fn looks(&self) -> Looks {
        let Knobs { amplitude, text_anchor, .. } = self.knobs;
        let is_moved = self.dype.is_some() || text_anchor || amplitude.follows_time();
        if is_moved { Looks::Time } else { Looks::Nothing }
    }

    fn frequencies(&self, axis: &RotaryAxis, at: &Moment) -> AxisFrequencies {
        let Knobs { scaling, amplitude, fading, text_anchor } = self.knobs;
        let slower = scaling.interpolation(axis);
        let axis = &scaling.scaled(axis);
        if axis.scale() <= 1.0 {
            return native(axis);
        }
        let [to_native, to_ntk] = self.moved_ramps(axis, at);
        let left = fading.left(at.t, self.dype.map(|dype| dype.exponent));
        AxisFrequencies {
            inv_freq: blend(axis, slower, &to_ntk, &to_native),
            amplitude: match text_anchor {
                true => anchor::amplitudes(axis, at.t),
                false => vec![amplitude.of(axis.scale(), left); axis.pairs()],
            },
        }
    }

    fn key_bias(&self, axes: &[RotaryAxis; 2], _at: &Moment) -> Option<TextBias> {
        anchor::text_bias(axes).filter(|_| self.knobs.text_anchor)
    }

    fn ramps(&self, axis: &RotaryAxis, at: &Moment) -> Vec<RampSpan> {
        if self.knobs.scaling.scaled(axis).scale() <= 1.0 {
            return Vec::new();
        }
        let last = axis.pairs() as f64;
        let kinds = ["NTK's", "interpolated"];
        let ramps = self.moved_ramps(axis, at);
        let is_native = ramps[0].starts_after(axis.pairs());
        let span = |(to, ramp): (_, Ramp)| RampSpan {
            to,
            from_pair: ramp.low.min(last),
            to_pair: ramp.high.min(last),
            is_inverted: ramp.is_inverted() && !is_native,
        };
        kinds.into_iter().zip(ramps).map(span).collect()
    }
}

impl Yarn {
    /// The ramp from native to NTK's, and the one from there to interpolated, at a moment.
    fn moved_ramps(&self, axis: &RotaryAxis, at: &Moment) -> [Ramp; 2] {
        let kappa = self.dype.map(|dype| dype.kappa(at.t));
        let moved = |r| kappa.map_or(r, |kappa| self.thresholds.moved(r, kappa));
        let last_start = self.thresholds.last_start(axis.pairs());
        [GAMMA, BETA].map(|rotations| Ramp::between(rotations.map(moved), axis, last_start))
    }
}

/// The frequencies [D/2], of which the slowest are native over `slower`: each ramp is 0 where its second kind (NTK, then native)
/// holds alone.
fn blend(axis: &RotaryAxis, slower: f64, to_ntk: &Ramp, to_native: &Ramp) -> Vec<f64> {
    let native = axis.native();
    // Past the last pair the reference's ramp turns over, and everything would be interpolated again (t < 0.0068 at
    // D = 56: no schedule of less than some 450 steps gets there). The method says native, and so do we.
    if to_native.starts_after(axis.pairs()) {
        return native;
    }
    let ntk = ntk_frequencies(axis, 1.0);
    let pairs = native.iter().zip(&ntk).enumerate();
    pairs
        .map(|(pair, (native, ntk))| {
            let extrapolated = mix(*ntk, native / slower, to_ntk.at(pair));
            mix(*native, extrapolated, to_native.at(pair))
        })
        .collect()
}

/// `from` where `ramp` is 0, `to` where it is 1.
fn mix(from: f64, to: f64, ramp: f64) -> f64 {
    from * (1.0 - ramp) + to * ramp
}

/// A linear ramp over the pairs, from 0 at `low` to 1 at `high`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Ramp {
    low: f64,
    high: f64,
}

impl Ramp {
    /// The ramp between the pairs that turn `rotations` times over the training length, the larger number first; it begins at
    /// `last_start` at the latest.
    fn between(rotations: [f64; 2], axis: &RotaryAxis, last_start: f64) -> Self {
        let [first, second] = rotations.map(|r| pair_turning(r, axis));
        let low = first.floor().max(0.0).min(last_start);
        let high = second.ceil().clamp(0.0, axis.pairs() as f64);
        Self { low, high: if low == high { high + STEEPEST } else { high } }
    }

    /// The ramp's value at a pair. A ramp whose `high` was held at D/2 below its `low` is 1 everywhere, as the
    /// reference's is: it is reached at small t, and its tables have it ([`Thresholds::Settled`] begins no ramp there).
    fn at(&self, pair: usize) -> f64 {
        ((pair as f64 - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    /// Whether its end was held at D/2 and its beginning lies behind that.
    fn is_inverted(&self) -> bool {
        self.low > self.high
    }

    /// Whether even the last of the pairs lies before the ramp.
    fn starts_after(&self, pairs: usize) -> bool {
        self.low >= pairs as f64
    }
}

/// The (fractional) pair that turns `r` times over the training length:
/// `D ln(L / (2 pi r)) / (2 ln theta)` (YaRN's `find_correction_dim`); infinite for r = 0.
fn pair_turning(r: f64, axis: &RotaryAxis) -> f64 {
    axis.dim as f64 * (axis.base_patches as f64 / (r * 2.0 * PI)).ln() / (2.0 * axis.theta.ln())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::Side;

    const AXIS: RotaryAxis = RotaryAxis {
        side: Side::Height,
        dim: 56,
        theta: 10_000.0,
        base_patches: 64,
        patches: 256,
        longest_patches: 256,
    };

    #[test]
    fn the_borders_are_whole_pairs_inside_the_axis() {
        // D ln(64 / 2 pi r) / (2 ln theta): 6.38 and 7.93 for beta, -1.37 and 4.95 for gamma.
        assert_eq!(Ramp::between(BETA, &AXIS, f64::INFINITY), Ramp { low: 6.0, high: 8.0 });
        assert_eq!(Ramp::between(GAMMA, &AXIS, f64::INFINITY), Ramp { low: 0.0, high: 5.0 });
        assert_eq!(Ramp::between([1.0, 1e-9], &AXIS, f64::INFINITY).high, 28.0);
    }

    #[test]
    fn settled_borders_stay_inside_the_table() {
        // theta 256 and 24 pairs, as one family has them: beta leaves the table below t = 0.159.
        let axis = RotaryAxis { dim: 48, theta: 256.0, ..AXIS };
        let at = |thresholds, t| {
            let yarn = Yarn { dype: Yarn::SPEC.dype, thresholds, ..Yarn::default() };
            yarn.frequencies(&axis, &Moment::at(t)).inv_freq
        };
        // At t = 0.15 pair 18 stands at 0.4 of the ramp from native to what is blended of NTK's frequency, here
        // native / s^(36/46), and of native / s: all of the latter where beta's ramp has turned round.
        let native = axis.native()[18];
        let found = |thresholds| at(thresholds, 0.15)[18] / native;
        assert!((found(Thresholds::Product) - (0.6 + 0.4 / 4.0)).abs() < 1e-12);
        assert!((found(Thresholds::Settled) - (0.6 + 0.4 / 4f64.powf(36.0 / 46.0))).abs() < 1e-12);
        for t in [1.0, 0.5, 0.3, 0.17] {
            assert_eq!(at(Thresholds::Settled, t), at(Thresholds::Product, t), "t = {t}");
        }
        // The beginning of beta's ramp leaves the table at t = 0.159; behind gamma's, below 0.04, everything is native.
        let inverted = |thresholds, t| {
            let yarn = Yarn { dype: Yarn::SPEC.dype, thresholds, ..Yarn::default() };
            yarn.ramps(&axis, &Moment::at(t)).iter().map(|ramp| ramp.is_inverted).collect::<Vec<_>>()
        };
        for (t, beta) in [(1.0, false), (0.17, false), (0.15, true), (0.05, true), (0.01, false)] {
            assert_eq!(inverted(Thresholds::Product, t), [false, beta], "t = {t}");
            assert_eq!(inverted(Thresholds::Settled, t), [false, false], "t = {t}");
        }
    }

    #[test]
    fn a_ramp_without_width_is_a_step() {
        let step = Ramp::between([1e3, 1e3], &AXIS, f64::INFINITY);
        assert_eq!(step, Ramp { low: 0.0, high: STEEPEST });
        assert_eq!([step.at(0), step.at(1)], [0.0, 1.0]);
    }

    #[test]
    fn thresholds_far_above_every_pair_interpolate() {
        // lambda_s = 50: a border far below 0 must not turn the ramp over.
        let yarn = Yarn { dype: Some(DypeSchedule { scale: 50.0, exponent: 2.0 }), ..Yarn::default() };
        let found = yarn.frequencies(&AXIS, &Moment::at(1.0));
        for (found, native) in found.inv_freq.iter().zip(AXIS.native()).skip(1) {
            assert_eq!(*found, native / 4.0);
        }
    }

    #[test]
    fn dy_yarn_is_native_near_the_end_and_not_only_at_it() {
        let yarn = Yarn { dype: Yarn::SPEC.dype, ..Yarn::default() };
        for t in [0.0, 1e-300, 1e-9, 0.001, 0.006, 0.0079] {
            assert_eq!(yarn.frequencies(&AXIS, &Moment::at(t)).inv_freq, AXIS.native(), "t = {t}");
        }
        assert_ne!(yarn.frequencies(&AXIS, &Moment::at(0.02)).inv_freq, AXIS.native());
    }
}
