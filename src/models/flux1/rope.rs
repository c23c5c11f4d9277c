//! The rotary position embedding as tables: cos and sin of every token's angles.
//!
//! Token n at position p_a on axis a turns its pair i of that axis by `p_a · inv_freq_a[i]`. Text tokens stand at
//! (0, 0, 0), image tokens at (0, row, column). Angles are f64, tables f32.

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::FluxConfig;
use crate::{
    base::geometry::TokenGrid,
    error::{Error, Result},
    methods::{Moment, PositionScaler, RotaryAxis},
};

/// cos and sin for every token, text first: [N_txt + N_img, D/2], f32.
#[derive(Debug, Clone)]
pub struct RopeTables {
    /// Cosines times each axis' amplitude.
    pub cos: Tensor,
    /// Sines times each axis' amplitude.
    pub sin: Tensor,
}

/// (cos, sin) of one axis by position: [patches][D/2].
type AxisTable = Vec<Vec<(f32, f32)>>;

impl RopeTables {
    /// The tables of one denoising step for `text_tokens` and a grid of image tokens.
    ///
    /// # Errors
    /// [`Error::Model`] when the scaler's answer does not fit the axis; [`Error::Tensor`] when the device fails.
    pub fn new(
        config: &FluxConfig,
        grid: TokenGrid,
        text_tokens: usize,
        scaler: &dyn PositionScaler,
        at: &Moment,
        device: &Device,
    ) -> Result<Self> {
        let [text_dim, height_dim, width_dim] = config.axes_dims_rope;
        let patches = [grid.height_patches, grid.width_patches];
        let axes = RotaryAxis::of_picture([height_dim, width_dim], config.rope_theta, config.base_patches(), patches);
        let rows = axis_table(&axes[0], scaler, at)?;
        let columns = axis_table(&axes[1], scaler, at)?;
        // Axis 0 stands at 0 for every token: it never turns.
        let still = vec![(1.0, 0.0); text_dim / 2];
        let pairs = (text_dim + height_dim + width_dim) / 2;
        let tokens = text_tokens + grid.count();
        let (mut cos, mut sin) = (vec![0f32; tokens * pairs], vec![0f32; tokens * pairs]);
        cos.par_chunks_mut(pairs).zip(sin.par_chunks_mut(pairs)).enumerate().with_min_len(64).for_each(
            |(token, (cos, sin))| {
                let (row, column) = match token.checked_sub(text_tokens) {
                    None => (0, 0),
                    Some(image) => (image / grid.width_patches, image % grid.width_patches),
                };
                let angles = still.iter().chain(&rows[row]).chain(&columns[column]);
                for ((cos, sin), angle) in cos.iter_mut().zip(sin).zip(angles) {
                    (*cos, *sin) = *angle;
                }
            },
        );
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

    /// Number of tokens, N_txt + N_img.
    pub fn tokens(&self) -> usize {
        self.cos.dims()[0]
    }
}

/// cos and sin of one axis at each of its positions, from f64 angles.
fn axis_table(axis: &RotaryAxis, scaler: &dyn PositionScaler, at: &Moment) -> Result<AxisTable> {
    let frequencies = scaler.frequencies(axis, at);
    if (frequencies.inv_freq.len(), frequencies.amplitude.len()) != (axis.pairs(), axis.pairs()) {
        let found = frequencies.inv_freq.len();
        return Err(Error::model(format!("{found} frequencies for an axis of {} channels", axis.dim), ""));
    }
    let turned = |position: usize| {
        let turns = frequencies.inv_freq.iter().zip(&frequencies.amplitude);
        turns
            .map(|(inv_freq, amplitude)| {
                let (sin, cos) = (position as f64 * inv_freq).sin_cos();
                ((amplitude * cos) as f32, (amplitude * sin) as f32)
            })
            .collect()
    };
    Ok((0..axis.patches).map(turned).collect())
}
