//! Feature maps in bands of rows: what an autoencoder is made of, exact and in bounded memory.
//!
//! A band is a few whole rows of a map. `Kernels` says what a device does with them; `Cpu` and `Tensors` do it, `Dry`
//! counts what it takes. Layers are streams of bands (`Chain`): bands go in at the top of the picture and come out
//! below, and nothing depends on where one band ends and the next begins.

mod check;
mod cpu;
mod dry;
mod fifo;
mod moments;
mod operations;
mod passes;
mod stream;
mod tensors;
#[cfg(test)]
mod tests;

pub use check::settle_maps;
#[doc(hidden)]
pub use cpu::ConvBand;
pub(crate) use cpu::Cpu;
pub(crate) use dry::Dry;
pub(crate) use fifo::Fifo;
pub(crate) use moments::Moments;
pub(crate) use operations::{Affine, Band, Before, Kernels, Layer, Meter, Norm, Reach, Taps, work};
pub(crate) use stream::{Chain, ConvStream, Map, Node};
pub(crate) use tensors::Tensors;
