//! cuBLAS, cuRAND and NVRTC, as far as programs call them.

mod cublas;
mod curand;
pub mod gemm;
