//! Parts that several families share.

mod autoencoder;
mod clip;
pub(crate) mod config;
pub(crate) mod infer;
pub mod kl;
mod layers;
pub(crate) mod open;
mod sentencepiece;
mod t5;
pub mod text_names;
mod text_part;
mod tokenizer;
mod tokenizer_files;
pub mod vae_names;

pub use autoencoder::Autoencoder;
pub(crate) use autoencoder::AutoencoderKind;
pub use clip::{ClipConfig, ClipEncoder, clip_tensors};
pub use open::ModelPart;
pub use t5::{T5Config, T5Encoder, t5_tensors};
pub(crate) use text_part::{CLIP, T5};
pub use tokenizer::{CLIP_TOKENS, Piece, PromptTokenizer, Tokenizers};
