//! Prompts become hidden states of the language part of Qwen2.5-VL, one row a token.

use candle_core::Tensor;

use super::config::MOST_TEXT_TOKENS;
use crate::{
    base::progress::Observer,
    error::Result,
    models::{
        Conditioning, TextEncoders,
        parts::{ChatReader, ChatTemplate, ChatTokenizer, QwenEncoder},
    },
};

/// What stands around a prompt. Source: diffusers, `QwenImagePipeline.prompt_template_encode`.
pub(super) const TEMPLATE: ChatTemplate = ChatTemplate {
    before: "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial \
             relationships of the objects and background:<|im_end|>\n<|im_start|>user\n",
    after: "<|im_end|>\n<|im_start|>assistant\n",
};
/// Tokens at the start that the transformer does not see. A constant, whatever a prompt's beginning merges with. Source:
/// diffusers, `QwenImagePipeline.prompt_template_encode_start_idx`.
pub(super) const DROPPED: usize = 34;
/// The most tokens are those behind the dropped ones.
pub(super) const READER: ChatReader =
    ChatReader { encoder: "Qwen2.5-VL", most_tokens: MOST_TEXT_TOKENS, dropped: DROPPED, is_padded: false };

/// Tokenizer and encoder; they hold no weights.
pub(super) struct Text {
    pub(super) tokenizer: ChatTokenizer,
    pub(super) encoder: QwenEncoder,
}

/// What the transformer is told of one prompt: hidden states [1, T, joint], f32.
pub(super) struct PromptStates(pub(super) Tensor);

impl TextEncoders for Text {
    fn encode(&self, prompts: &[&str], text_tokens: usize, observer: &dyn Observer) -> Result<Vec<Conditioning>> {
        let states = READER.states((&self.tokenizer, &self.encoder), prompts, text_tokens, observer)?;
        states.iter().map(conditioning).collect()
    }
}

/// What is left of a prompt's states [1, T, joint].
fn conditioning(states: &Tensor) -> Result<Conditioning> {
    let left = states.dim(1)?.saturating_sub(DROPPED);
    let states = states.narrow(1, DROPPED, left)?.contiguous()?;
    Ok(Conditioning::new(PromptStates(states), left))
}
