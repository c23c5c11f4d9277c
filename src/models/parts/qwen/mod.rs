//! Qwen's language models as text encoders: Qwen3 (arXiv 2505.09388) and the language part of Qwen2.5-VL (arXiv 2502.13923).
//!
//! They are decoders: token i sees those before it. What a picture's model reads of one are hidden states between its layers,
//! so no token is predicted, and what comes after the last state that is read is neither loaded nor run.

mod config;
mod encoder;
mod layer;

pub use config::{Qwen3Config, Qwen25VlConfig, QwenConfig};
pub(crate) use encoder::qwen_layers;
pub use encoder::{HiddenStates, QwenEncoder, Sequence, qwen_tensors};
