//! One convolution alone: the way in for benches, which see no kernels.

use super::{Cpu, Filter, Window};
use crate::{
    base::progress::{Silent, Stage},
    error::Result,
    nn::bands::{Before, Kernels, Layer, Meter, Reach},
    weights::Weights,
};

/// A 3 x 3 convolution and the input rows of one band.
#[doc(hidden)]
pub struct ConvBand {
    kernels: Cpu<'static>,
    filter: Filter,
    window: Window,
}

impl ConvBand {
    /// The convolution `name`, and numbers for the first `rows` rows of a map: what it gives is [rows, width, outputs].
    ///
    /// # Errors
    /// [`crate::Error::Model`] when the weights have no such convolution.
    pub fn new(
        weights: &Weights,
        name: &str,
        [inputs, outputs]: [usize; 2],
        [rows, width]: [usize; 2],
        plain: bool,
    ) -> Result<Self> {
        let kernels = Cpu::new(weights, Meter::new(Stage::Decode, &Silent), plain);
        let filter = kernels.filter(Layer { name, inputs, outputs }, Reach::Same)?;
        // One more row: the last row's lower neighbour.
        let numbers: Vec<f32> = (0..(rows + 1) * width * inputs).map(|i| (i as f32 * 0.37).sin()).collect();
        let band = kernels.upload([rows + 1, width, inputs], numbers)?;
        let window = kernels.window(Reach::Same, None, Some(&band), Before::Nothing)?;
        Ok(Self { kernels, filter, window })
    }

    /// Computes the rows, and gives one of their numbers.
    ///
    /// # Errors
    /// None on the CPU.
    pub fn convolve(&self) -> Result<f32> {
        let rows = self.kernels.convolve(&self.filter, &self.window, None, None)?;
        Ok(rows.data[0])
    }
}
