//! What computes: the CPU's own kernels, tensors on any device; on CUDA FlashAttention, and weights of few bits as numbers.

pub mod cpu;
pub mod flash;
pub mod tensors;
pub mod widen;
