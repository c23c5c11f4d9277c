//! Parts that several families share.

mod clip;
pub mod kl;
mod layers;
mod t5;
pub mod text_names;
mod tokenizer;
mod tokenizer_files;

pub use clip::{ClipActivation, ClipConfig, ClipEncoder, clip_tensors};
pub use t5::{T5Config, T5Encoder, t5_tensors};
pub use tokenizer::{CLIP_TOKENS, PromptTokenizer, Tokenizers, Tokens};
