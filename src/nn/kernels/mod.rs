//! What computes: the CPU's own kernels, tensors on any device, and on CUDA attention, what comes between products, products in e4m3,
//! and weights of few bits as numbers.

#[cfg(feature = "cuda")]
mod card;
mod checked;
pub mod columns;
#[cfg(test)]
mod compiled;
pub mod cpu;
pub mod flash;
pub mod fp8;
pub mod fused;
pub mod maps;
mod refused;
pub mod tensors;
pub mod widen;

pub use checked::Checked;

/// The least compute capability that kernels of our own on CUDA are made for: the first whose matrix units take bf16, and are fed by
/// copies that run beside them; conversions to bf16 are instructions of it too. Source: PTX ISA, `mma`, `cp.async`, `cvt`.
const OWN_CAPABILITY: (u32, u32) = (8, 0);
