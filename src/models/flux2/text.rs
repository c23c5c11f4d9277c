//! Prompts become embeddings: three hidden states of Qwen3 beside each other, padding included.

use candle_core::Tensor;

use super::config::TEXT_TOKENS;
use crate::{
    base::progress::Observer,
    error::Result,
    models::parts::{ChatReader, ChatTemplate, ChatTokenizer, HiddenStates, Qwen3Config, QwenEncoder, qwen_tensors},
    weights::Expected,
};

/// A turn of the user, and the beginning of an answer that thinks nothing. Source: diffusers, `Flux2KleinPipeline`
/// (`enable_thinking=False`).
pub(super) const TEMPLATE: ChatTemplate =
    ChatTemplate { before: "<|im_start|>user\n", after: "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n" };
/// The transformer sees the padding too.
pub(super) const READER: ChatReader =
    ChatReader { encoder: "Qwen3", most_tokens: TEXT_TOKENS, dropped: 0, is_padded: true };
/// The layers whose outputs are read. Source: diffusers, `Flux2KleinPipeline.__call__`, `text_encoder_out_layers`.
const LAYERS: [usize; 3] = [9, 18, 27];

/// What is read of the encoder.
pub(super) fn reads() -> HiddenStates {
    HiddenStates::After(LAYERS.to_vec())
}

/// Width of the embeddings that an encoder gives.
pub(super) fn width(config: &Qwen3Config) -> usize {
    STATES * config.0.hidden_size
}

/// States of the text encoder that make a row.
pub(super) const STATES: usize = LAYERS.len();

/// Names and shapes of all tensors the text encoder's loader asks for: nothing behind layer 27.
///
/// # Errors
/// [`crate::Error::Model`] when the configuration makes no sense.
pub fn encoder_tensors(config: &Qwen3Config) -> Result<Vec<Expected>> {
    qwen_tensors(&config.0, &reads())
}

/// What the transformer is told of one prompt: [1, T, joint_attention_dim] f32.
pub(super) struct PromptEmbeds(pub(super) Tensor);

/// Tokenizer and encoder. It holds no weights: a call of [`TextEncoder::encode`] reads each layer once and drops it.
pub struct TextEncoder {
    /// The tokenizer.
    pub tokenizer: ChatTokenizer,
    /// The encoder.
    pub qwen: QwenEncoder,
}

impl TextEncoder {
    /// Embeds several prompts in one pass over the weights, padded to so many tokens each: [1, tokens, joint_attention_dim] f32.
    /// Padding sees the prompt and no padding, and the transformer sees it too.
    ///
    /// # Errors
    /// [`crate::Error::Request`] when the number of tokens is out of range; [`crate::Error::Model`] when weights, configs and tokenizer do
    /// not fit together; [`crate::Error::Tensor`] when the device fails.
    pub fn encode<S: AsRef<str>>(&self, prompts: &[S], tokens: usize, observer: &dyn Observer) -> Result<Vec<Tensor>> {
        READER.states((&self.tokenizer, &self.qwen), prompts, tokens, observer)
    }
}
