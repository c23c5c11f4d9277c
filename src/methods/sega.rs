//! SEGA, spectral-energy guided attention: a strong static NTK, and an amplitude for each pair from the spectrum of the latents.

use super::base::{geometric, native};
use super::{AxisFrequencies, Detail, Looks, MethodSpec, Moment, PositionScaler, RotaryAxis, Spectrum};

/// The divisor of theta's factor grows by this times ln(S).
const DIVISOR_SLOPE: f64 = 0.1;
/// B = S to this power.
const AMPLITUDE_POWER: f64 = 0.08;
/// How far the strongest correction moves an amplitude from B, where the spectrum is as uneven as it can be.
const REACH: f64 = 0.15;
/// How fast a bin away from the mean is corrected in full, in standard deviations.
const GAIN: f64 = 1.5;
/// spread = 1 - flatness to this power.
const FLATNESS_POWER: f64 = 1.5;
/// Least energy, and least standard deviation.
const LEAST: f64 = 1e-8;

/// SEGA, for a picture whose longer side is S > 1 times that of training: the frequencies of
/// `theta' = theta · S^(2D/(D-2)) / (1 + 0.1 ln S)` on both axes at every step, and for pair k the amplitude
/// `max(B (1 - 0.15 spread c_k), 1)`, B = S^0.08.
///
/// c_k compares the energy at the frequency that pair k stands for with the axis' mean: what is strong already is turned down,
/// what is weak turned up. How much of that is done follows the spread, near 0 for noise and near 1 for a picture. Without
/// latents to look at, amplitudes are B.
///
/// Source: SEGA (arXiv 2605.22668) and its authors' transformer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sega;

impl Sega {
    /// The spectrum says what time says elsewhere: DyPE has nothing to move here.
    pub const SPEC: MethodSpec = MethodSpec {
        name: "sega",
        help: "a larger theta for both axes, and amplitudes that follow the spectrum of the latents at each step",
        dype: None,
        knobs: &[],
        scaler: |_| Box::new(Self),
    };
}

impl PositionScaler for Sega {
    fn spec(&self) -> &'static MethodSpec {
        &Self::SPEC
    }

    fn looks(&self) -> Looks {
        Looks::Spectrum
    }

    fn frequencies(&self, axis: &RotaryAxis, at: &Moment) -> AxisFrequencies {
        let scale = axis.longest();
        if scale <= 1.0 {
            return native(axis);
        }
        let theta = axis.theta * theta_factor(axis.dim, scale);
        let amplitude = match at.spectrum {
            Some(spectrum) => {
                amplitudes(scale, spread(spectrum), &corrections(spectrum.along(axis.side), axis.pairs()))
            }
            None => vec![scale.powf(AMPLITUDE_POWER); axis.pairs()],
        };
        AxisFrequencies { inv_freq: geometric(axis.dim, theta), amplitude }
    }

    /// The energies along the axis, the spread, and each pair's correction c_k.
    fn details(&self, axis: &RotaryAxis, at: &Moment) -> Vec<(&'static str, Detail)> {
        let Some(spectrum) = at.spectrum.filter(|_| axis.longest() > 1.0) else { return Vec::new() };
        let profile = spectrum.along(axis.side);
        vec![
            ("profile", Detail::Many(profile.to_vec())),
            ("spread", Detail::One(spread(spectrum))),
            ("correction", Detail::Many(corrections(profile, axis.pairs()))),
        ]
    }
}

/// f = S^(2D/(D-2)) / (1 + 0.1 ln S), twice NTK's power of S.
fn theta_factor(dim: usize, scale: f64) -> f64 {
    let dim = dim as f64;
    scale.powf(2.0 * dim / (dim - 2.0)) / (1.0 + DIVISOR_SLOPE * scale.ln())
}

/// max(B (1 - 0.15 spread c_k), 1) for each pair [D/2].
fn amplitudes(scale: f64, spread: f64, corrections: &[f64]) -> Vec<f64> {
    let base = scale.powf(AMPLITUDE_POWER);
    corrections.iter().map(|correction| (base * (1.0 - REACH * spread * correction)).max(1.0)).collect()
}

/// How unevenly the energy lies over the rings, in [0, 1]: 1 - F^1.5, where F, the flatness, is their geometric mean over their
/// arithmetic one.
fn spread(spectrum: &Spectrum) -> f64 {
    let energies = spectrum.rings.iter().map(|energy| energy.max(LEAST));
    let count = spectrum.rings.len() as f64;
    let (logs, sum) = energies.fold((0.0, 0.0), |(logs, sum), energy| (logs + energy.ln(), sum + energy));
    let flatness = ((logs / count).exp() / (sum / count + LEAST)).clamp(0.0, 1.0);
    1.0 - flatness.powf(FLATNESS_POWER)
}

/// c_k for each pair [D/2]: how far the log energy it reads lies above the mean of all pairs, between -2 and 2, with mean 0.
fn corrections(energies: &[f64], pairs: usize) -> Vec<f64> {
    let logs: Vec<f64> = energies.iter().map(|energy| energy.max(LEAST).ln()).collect();
    let read: Vec<f64> = (0..pairs).map(|pair| read_at(&logs, pair, pairs)).collect();
    let mean = mean_of(&read);
    let squares: f64 = read.iter().map(|value| (value - mean).powi(2)).sum();
    let deviation = (squares / pairs.saturating_sub(1).max(1) as f64).sqrt().max(LEAST);
    let bent: Vec<f64> = read.iter().map(|value| (GAIN * (value - mean) / deviation).tanh()).collect();
    let mean = mean_of(&bent);
    bent.into_iter().map(|value| value - mean).collect()
}

/// What a pair reads of the bins: the fastest the last one, the slowest the first, and between bins a line. Periods of pairs lie
/// evenly on a logarithmic scale, so theta plays no part.
fn read_at(bins: &[f64], pair: usize, pairs: usize) -> f64 {
    let slowness = pair as f64 / pairs.saturating_sub(1).max(1) as f64;
    let place = (1.0 - slowness) * bins.len().saturating_sub(1) as f64;
    let below = place.floor() as usize;
    let (first, second) = (bins[below], bins[(below + 1).min(bins.len() - 1)]);
    first + (second - first) * (place - below as f64)
}

fn mean_of(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::Side;

    fn axis(dim: usize) -> RotaryAxis {
        let [height, _] = RotaryAxis::of_picture([dim; 2], 10_000.0, 64, [256, 128]);
        height
    }

    fn at(spectrum: &Spectrum) -> Moment<'_> {
        Moment { spectrum: Some(spectrum), ..Moment::at(0.5) }
    }

    #[test]
    fn without_latents_and_with_even_ones_every_pair_has_the_same_amplitude() {
        let even = Spectrum { height: vec![0.0; 128], width: vec![0.0; 64], rings: vec![0.0; 128] };
        let found = Sega.frequencies(&axis(56), &Moment::at(0.5));
        assert_eq!(found.amplitude, vec![4f64.powf(0.08); 28]);
        assert_eq!(Sega.frequencies(&axis(56), &at(&even)), found);
    }

    #[test]
    fn strong_frequencies_are_turned_down_and_weak_ones_up() {
        let falling: Vec<f64> = (0..128).map(|bin| f64::from(bin + 1).powi(-4)).collect();
        let spectrum = Spectrum { height: falling.clone(), width: vec![1.0], rings: falling };
        let found = Sega.frequencies(&axis(56), &at(&spectrum)).amplitude;
        assert!(found.windows(2).all(|pair| pair[0] >= pair[1]), "slow pairs read strong bins: {found:?}");
        assert!(found[0] > 4f64.powf(0.08) && found[27] < 4f64.powf(0.08) && found[27] >= 1.0, "{found:?}");
    }

    #[test]
    fn an_axis_of_one_bin_or_one_pair_is_answered() {
        let one = Spectrum { height: vec![3.0], width: vec![3.0], rings: vec![3.0, 1.0] };
        assert_eq!(Sega.frequencies(&axis(56), &at(&one)).amplitude, vec![4f64.powf(0.08); 28]);
        let found = Sega.frequencies(&axis(2), &at(&one));
        assert_eq!((found.inv_freq, found.amplitude), (vec![1.0], vec![4f64.powf(0.08)]));
    }

    #[test]
    fn both_axes_follow_the_longer_side() {
        let axes = RotaryAxis::of_picture([56, 56], 10_000.0, 64, [256, 32]);
        let [height, width] = axes.each_ref().map(|axis| Sega.frequencies(axis, &Moment::at(1.0)));
        assert_eq!(axes[1].side, Side::Width);
        assert_eq!(height, width, "also the one that needs nothing");
        let small = RotaryAxis::of_picture([56, 56], 10_000.0, 64, [64, 32]);
        assert!(small.iter().all(|axis| Sega.frequencies(axis, &Moment::at(1.0)) == native(axis)));
    }
}
