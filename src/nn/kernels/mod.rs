//! What computes: the CPU's own kernels, tensors on any device, FlashAttention where it is built in.

pub mod cpu;
pub mod flash;
pub mod tensors;
