//! What everybody speaks of: amounts of memory, progress, sizes, frequencies, where files are kept.

pub mod allocator;
pub mod cache;
pub mod device;
pub(crate) mod disk;
pub(crate) mod excerpt;
pub mod fourier;
pub mod geometry;
pub(crate) mod guard;
pub(crate) mod hex;
pub mod home;
pub(crate) mod jpeg_end;
pub mod json;
pub mod limits;
pub mod memory;
#[cfg(target_os = "linux")]
pub(crate) mod nodes;
pub(crate) mod paths;
pub mod printable;
pub(crate) mod processor;
pub mod progress;
pub(crate) mod safetensors;
pub(crate) mod shown;
pub(crate) mod simd;
