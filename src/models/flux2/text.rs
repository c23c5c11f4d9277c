//! Prompts become embeddings: three hidden states of Qwen3 beside each other, padding included.

use candle_core::Tensor;

use super::config::TEXT_TOKENS;
use crate::{
    base::progress::{Event, Observer, Stage},
    error::{Error, Result},
    models::parts::{ChatTemplate, ChatTokenizer, HiddenStates, Qwen3Config, QwenEncoder, Sequence, qwen_tensors},
    weights::Expected,
};

/// A turn of the user, and the beginning of an answer that thinks nothing. Source: diffusers, `Flux2KleinPipeline`
/// (`enable_thinking=False`).
pub(super) const TEMPLATE: ChatTemplate =
    ChatTemplate { before: "<|im_start|>user\n", after: "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n" };
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
/// [`Error::Model`] when the configuration makes no sense.
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
    /// [`Error::Request`] when the number of tokens is out of range; [`Error::Model`] when weights, configs and tokenizer do
    /// not fit together; [`Error::Tensor`] when the device fails.
    pub fn encode<S: AsRef<str>>(&self, prompts: &[S], tokens: usize, observer: &dyn Observer) -> Result<Vec<Tensor>> {
        check_tokens(tokens)?;
        let sequences = prompts.iter().map(|prompt| self.sequence(prompt.as_ref(), tokens, observer));
        let sequences = sequences.collect::<Result<Vec<_>>>()?;
        let stage = Stage::Text;
        observer.on(Event::Begin { stage, total: self.qwen.layers() as u64 });
        let embeds = self.qwen.encode(&sequences, |done| {
            observer.on(Event::Advance { stage, done: done as u64, detail: "Qwen3".to_owned() });
        })?;
        let detail = match prompts.len() {
            1 => format!("{tokens} tokens"),
            count => format!("{count} prompts of {tokens} tokens"),
        };
        observer.on(Event::End { stage, detail });
        Ok(embeds)
    }

    fn sequence(&self, prompt: &str, tokens: usize, observer: &dyn Observer) -> Result<Sequence> {
        let found = self.tokenizer.encode(prompt, tokens)?;
        if let Some(lost) = &found.lost {
            observer.on(Event::Warning(format!(
                "Qwen3 reads {tokens} tokens, its template's included, not these last words of the prompt: {lost:?}; shorten the prompt"
            )));
        }
        Ok(Sequence::padded(found.ids, tokens, self.tokenizer.pad()))
    }
}

/// # Errors
/// [`Error::Request`] unless the transformer can take this many tokens of text.
pub(super) fn check_tokens(tokens: usize) -> Result<()> {
    if (1..=TEXT_TOKENS).contains(&tokens) {
        return Ok(());
    }
    let what = format!("--max-sequence-length {tokens}: out of range");
    Err(Error::request(what, format!("FLUX.2 takes 1 to {TEXT_TOKENS} tokens of text")))
}
