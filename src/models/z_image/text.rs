//! Prompts become hidden states: Qwen3 reads a chat of one turn, and its next to last state is handed on, of real tokens alone.

use std::sync::{Mutex, PoisonError};

use candle_core::Tensor;

use super::{
    Transformer,
    config::{TEXT_TOKENS, padded},
};
use crate::{
    base::progress::Observer,
    error::Result,
    models::{
        self, Conditioning,
        parts::{ChatReader, ChatTemplate, ChatTokenizer, HiddenStates, Qwen3Config, QwenEncoder, qwen_tensors},
    },
    nn::{Array, RopeTables},
    weights::Expected,
};

/// What stands around a prompt. Source: Qwen3's chat template with `enable_thinking`, as diffusers' `ZImagePipeline` applies it.
pub const TEMPLATE: ChatTemplate =
    ChatTemplate { before: "<|im_start|>user\n", after: "<|im_end|>\n<|im_start|>assistant\n" };

/// Only real tokens are handed on.
pub(super) const READER: ChatReader =
    ChatReader { encoder: "Qwen3", most_tokens: TEXT_TOKENS, dropped: 0, is_padded: false };

/// What is read of a Qwen3: the state before its last layer. Source: diffusers, `hidden_states[-2]`.
pub fn reads(config: &Qwen3Config) -> HiddenStates {
    HiddenStates::After(vec![config.0.num_hidden_layers.saturating_sub(1)])
}

/// Names and shapes of all tensors that are read of a Qwen3.
///
/// # Errors
/// [`crate::Error::Model`] when the configuration makes no sense.
pub fn text_tensors(config: &Qwen3Config) -> Result<Vec<Expected>> {
    qwen_tensors(&config.0, &reads(config))
}

/// What the transformer is told about one prompt.
pub struct Prompt {
    /// Qwen3's hidden states, [1, T, F] f32.
    pub hidden_states: Tensor,
    /// What the transformer's first layers made of them the last time.
    refined: Mutex<Option<Refined>>,
}

/// Text tokens as they enter the layers that see all, and the tables they were made with: the same at every step, unless a method
/// turns text from step to step.
struct Refined {
    tables: [Vec<f32>; 2],
    text: Array,
}

impl Prompt {
    /// A prompt of these hidden states [1, T, F].
    pub fn new(hidden_states: Tensor) -> Self {
        Self { hidden_states, refined: Mutex::default() }
    }

    /// Its tokens after the layers that see the text alone, computed where they are not known for these tables, of the tokens of
    /// the text.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn refined(&self, transformer: &Transformer, tables: &RopeTables) -> Result<Array> {
        let numbers = |tensor: &Tensor| -> Result<Vec<f32>> { Ok(tensor.flatten_all()?.to_vec1()?) };
        let key = [numbers(&tables.cos)?, numbers(&tables.sin)?];
        let mut known = self.refined.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Refined { text, .. }) = known.as_ref().filter(|known| known.tables == key) {
            return Ok(text.clone());
        }
        let hidden_states = Array::from(self.hidden_states.squeeze(0)?); // [T, F]
        let arrays = [&tables.cos, &tables.sin].map(|tensor| Array::from(tensor.clone()));
        let text = transformer.refine(&hidden_states, arrays)?;
        *known = Some(Refined { tables: key, text: text.clone() });
        Ok(text)
    }
}

/// The tokenizer and the encoder of a Z-Image. It holds no weights: a call of encode reads each layer once and drops it.
pub struct TextEncoder {
    /// The tokenizer.
    pub tokenizer: ChatTokenizer,
    /// Qwen3.
    pub encoder: QwenEncoder,
}

impl models::TextEncoders for TextEncoder {
    fn encode(&self, prompts: &[&str], text_tokens: usize, observer: &dyn Observer) -> Result<Vec<Conditioning>> {
        let states = READER.states((&self.tokenizer, &self.encoder), prompts, text_tokens, observer)?;
        let told = |states: Tensor| {
            let tokens = states.dim(1)?;
            Ok(Conditioning::new(Prompt::new(states), padded(tokens)))
        };
        states.into_iter().map(told).collect()
    }
}
