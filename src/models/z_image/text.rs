//! Prompts become hidden states: Qwen3 reads a chat of one turn, and its next to last state is handed on, of real tokens alone.

use std::sync::{Mutex, PoisonError};

use candle_core::Tensor;

use super::{
    Transformer,
    config::{TEXT_TOKENS, padded},
};
use crate::{
    base::progress::{Event, Observer, Stage},
    error::{Error, Result},
    models::{
        self, Conditioning,
        parts::{ChatTemplate, ChatTokenizer, HiddenStates, Qwen3Config, QwenEncoder, Sequence, qwen_tensors},
    },
    nn::{Array, RopeTables},
    weights::Expected,
};

/// What stands around a prompt. Source: Qwen3's chat template with `enable_thinking`, as diffusers' `ZImagePipeline` applies it.
pub const TEMPLATE: ChatTemplate =
    ChatTemplate { before: "<|im_start|>user\n", after: "<|im_end|>\n<|im_start|>assistant\n" };

/// What is read of a Qwen3: the state before its last layer. Source: diffusers, `hidden_states[-2]`.
pub fn reads(config: &Qwen3Config) -> HiddenStates {
    HiddenStates::After(vec![config.0.num_hidden_layers.saturating_sub(1)])
}

/// Names and shapes of all tensors that are read of a Qwen3.
///
/// # Errors
/// [`Error::Model`] when the configuration makes no sense.
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
        check_sequence_length(text_tokens)?;
        observer.on(Event::Begin { stage: Stage::Text, total: self.encoder.layers() as u64 });
        let mut sequences = Vec::with_capacity(prompts.len());
        for prompt in prompts {
            let read = self.tokenizer.encode(prompt, text_tokens)?;
            if let Some(lost) = &read.lost {
                observer.on(Event::Warning(warning(lost, text_tokens)));
            }
            sequences.push(Sequence::whole(read.ids));
        }
        let advance = |done: usize| {
            observer.on(Event::Advance { stage: Stage::Text, done: done as u64, detail: "Qwen3".to_owned() });
        };
        let states = self.encoder.encode(&sequences, advance)?;
        let tokens: Vec<_> = sequences.iter().map(|sequence| sequence.ids.len()).collect();
        let detail = match tokens.as_slice() {
            [tokens] => format!("{tokens} tokens"),
            several => format!("{} prompts of up to {} tokens", several.len(), several.iter().max().unwrap_or(&0)),
        };
        observer.on(Event::End { stage: Stage::Text, detail });
        let told = |(states, tokens): (Tensor, usize)| Conditioning::new(Prompt::new(states), padded(tokens));
        Ok(states.into_iter().zip(tokens).map(told).collect())
    }
}

fn warning(lost: &str, text_tokens: usize) -> String {
    let advice = if text_tokens < TEXT_TOKENS {
        format!("raise --max-sequence-length (at most {TEXT_TOKENS}) or shorten the prompt")
    } else {
        "shorten the prompt".into()
    };
    format!("Qwen3 reads {text_tokens} tokens, not these last words of the prompt: {lost:?}; {advice}")
}

/// # Errors
/// [`Error::Request`] unless a prompt may have this many tokens.
pub fn check_sequence_length(tokens: usize) -> Result<()> {
    if (1..=TEXT_TOKENS).contains(&tokens) {
        return Ok(());
    }
    let what = format!("--max-sequence-length {tokens}: out of range");
    Err(Error::request(what, format!("Z-Image takes 1 to {TEXT_TOKENS} tokens")))
}
