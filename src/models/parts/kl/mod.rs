//! The autoencoder's decoder: exact, in bands of rows, in bounded memory.
//!
//! A convolution needs a neighbouring row, a group norm the statistics of the whole map. So the picture is walked in passes
//! over bands (`walk`), each layer a stream of rows (`stream`); what is kept between passes is a choice between
//! memory and time ([`Keep`]) that never changes the picture. No tile is blended with another, because none overlaps.

mod attention;
mod config;
mod cpu;
mod decoder;
mod device;
mod dry;
mod kernels;
mod plan;
mod stream;
mod walk;

pub use config::VaeConfig;
#[doc(hidden)]
pub use cpu::ConvBand;
pub use decoder::{Decoder, RowSink};
pub use plan::{
    DecodeCost, DecodeKernels, DecodeOptions, DecodeWay, DecodeWays, Keep, best_options, decode_cost, decode_flops,
    decode_memory_bytes, least_options,
};
