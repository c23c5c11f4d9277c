//! The low-pass filter that parts the large shapes of latents from their detail.

use crate::base::fourier::filtered;

/// Frequencies above this are damped, in parts of the Nyquist frequency of a side. Source: HiFlow's code; its paper says 0.4.
const CUTOFF: f64 = 0.2;
/// Twice the order of the Butterworth filter. Source: HiFlow's code.
const EXPONENT: i32 = 8;

/// A Butterworth low-pass for maps of one size.
#[derive(Debug, Clone, PartialEq)]
pub struct LowPass {
    width: usize,
    /// Of each frequency, as the transform lays them out: [width, rows].
    gains: Vec<f64>,
}

impl LowPass {
    /// For maps [rows, width].
    pub fn new(rows: usize, width: usize) -> Self {
        let gains = (0..width).flat_map(|x| (0..rows).map(move |y| gain(of_nyquist(y, rows), of_nyquist(x, width))));
        Self { width, gains: gains.collect() }
    }

    /// What stays of a map [rows, width].
    pub fn of(&self, map: &[f64]) -> Vec<f64> {
        filtered(map, self.width, &self.gains)
    }

    /// What stays of each frequency, [width, rows].
    pub fn gains(&self) -> &[f64] {
        &self.gains
    }
}

/// The frequency of so many cycles over a side, in parts of its Nyquist frequency.
fn of_nyquist(cycles: usize, side: usize) -> f64 {
    2.0 * cycles.min(side - cycles) as f64 / side as f64
}

/// 1 / (1 + (d / cutoff)^8), d the distance from frequency 0.
fn gain(y: f64, x: f64) -> f64 {
    1.0 / (1.0 + (y.hypot(x) / CUTOFF).powi(EXPONENT))
}
