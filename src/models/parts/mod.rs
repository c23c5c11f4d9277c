//! Parts that several families share.

mod autoencoder;
mod chat;
mod chat_files;
mod clip;
pub(crate) mod config;
pub(crate) mod fits;
pub(crate) mod infer;
pub mod kl;
mod kl16;
mod layers;
pub(crate) mod modulation;
pub(crate) mod open;
mod qwen;
mod sentencepiece;
mod sinusoid;
pub mod streams;
mod t5;
pub mod text_names;
mod text_part;
mod tokenizer;
mod tokenizer_files;
pub mod vae_names;
pub mod wan;

pub use autoencoder::Autoencoder;
pub(crate) use autoencoder::{AutoencoderKind, KlConfig};
pub use chat::{ChatTemplate, ChatTokenizer, ChatTokens};
pub(crate) use clip::clip_layers;
pub use clip::{ClipConfig, ClipEncoder, clip_tensors};
pub use kl16::{KL16_RGB, kl16};
pub use open::ModelPart;
pub use qwen::{HiddenStates, Qwen3Config, Qwen25VlConfig, QwenConfig, QwenEncoder, Sequence, qwen_tensors};
pub(crate) use sinusoid::{SINUSOID_CHANNELS, sinusoid};
pub(crate) use t5::t5_layers;
pub use t5::{T5Config, T5Encoder, t5_tensors};
pub(crate) use text_part::{CLIP, T5};
#[allow(unused_imports, reason = "for the families that are being written")]
pub(crate) use text_part::{TextEncoderKind, qwen3, qwen25_vl};
pub use tokenizer::{CLIP_TOKENS, Piece, PromptTokenizer, Tokenizers};
