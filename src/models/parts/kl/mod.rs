//! The KL autoencoder: encoder and decoder, exact, in bands of rows, in bounded memory.
//!
//! A convolution needs a neighbouring row, a group norm the statistics of the whole map. So the picture is walked in passes
//! over bands (`walk`), each layer a stream of rows ([`crate::nn::bands`]); what is kept between passes is a choice between
//! memory and time ([`Keep`]) that never changes the result. No tile is blended with another, because none overlaps.

mod config;
mod decoder;
mod encoder;
mod plan;
mod walk;

use candle_core::Device;

pub(crate) use config::{DOWN_BLOCK, UP_BLOCK};
pub use config::{Design, LatentStatistics, VaeConfig};
pub use decoder::{Decoder, RowSink};
pub use encoder::{Encoder, Posterior, RowSource};
pub(crate) use plan::tensors_of_both;
pub use plan::{Banding, Cost, Keep, Side, Way, Ways, cost, cost_of_tensors, tensors};

/// Channels of the picture: red, green, blue.
const PICTURE_CHANNELS: usize = 3;

/// Which kernels compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    /// The CPU's own; plain ones are what the fast ones are held against.
    Cpu { plain: bool },
    /// Those made of tensors.
    Device,
}

impl Path {
    /// The fast way on this device.
    fn on(device: &Device) -> Self {
        if device.is_cpu() { Self::Cpu { plain: false } } else { Self::Device }
    }
}
