//! What computes: the CPU's own kernels, tensors on any device, FlashAttention on CUDA.

pub mod cpu;
pub mod flash;
pub mod tensors;
