//! A CUDA device made of software: what a program opens as `libcuda.so.1` and `libcublas.so.13`, whose kernels this
//! processor executes from their PTX.
//!
//! - [`ptx`]: the text of a module, lowered to kernels of numbered registers;
//! - [`machine`]: kernels executed, warp by warp, every access checked;
//! - [`device`]: memory, streams, events and what is counted;
//! - `driver`, `libraries`: the functions a program calls, by NVIDIA's names.
//!
//! What is not implemented is an error that names it, never a guess.

mod device;

mod driver;
mod float;

mod libraries;
mod machine;
mod ptx;
