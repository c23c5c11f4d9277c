//! What a scaler may read from the latents that enter a step.

use super::Side;

/// How the power of the latents is spread over frequencies, of one number a token: mean |FFT|^2, coarse to fine.
///
/// Bin j holds j cycles over the side; the last one, at the Nyquist frequency, is the mean of the last two.
/// `sampling::spectrum` computes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Spectrum {
    /// Over frequencies along the height [max(rows/2, 1)], averaged over the columns.
    pub height: Vec<f64>,
    /// Over frequencies along the width [max(columns/2, 1)], averaged over the rows.
    pub width: Vec<f64>,
    /// Over rings of the plane of both frequencies [max(longer side/2, 1)].
    pub rings: Vec<f64>,
}

impl Spectrum {
    /// The power along one axis.
    pub fn along(&self, side: Side) -> &[f64] {
        match side {
            Side::Height => &self.height,
            Side::Width => &self.width,
        }
    }
}
