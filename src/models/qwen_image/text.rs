//! Prompts become hidden states of the language part of Qwen2.5-VL, one row a token.

use candle_core::Tensor;

use crate::{
    base::progress::{Event, Observer, Stage},
    error::{Error, Result},
    models::{
        Conditioning, Reading, TextEncoders,
        parts::{ChatTemplate, ChatTokenizer, QwenEncoder, Sequence},
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
/// The most tokens behind those. Source: diffusers, `QwenImagePipeline.check_inputs`.
const MOST_TOKENS: usize = 1024;
/// What messages call the encoder.
const ENCODER: &str = "Qwen2.5-VL";

/// Tokenizer and encoder; they hold no weights.
pub(super) struct Text {
    pub(super) tokenizer: ChatTokenizer,
    pub(super) encoder: QwenEncoder,
}

/// What the transformer is told of one prompt: hidden states [1, T, joint], f32.
pub(super) struct PromptStates(pub(super) Tensor);

impl TextEncoders for Text {
    fn encode(&self, prompts: &[&str], text_tokens: usize, observer: &dyn Observer) -> Result<Vec<Conditioning>> {
        check_sequence_length(text_tokens)?;
        let mut sequences = Vec::new();
        for prompt in prompts {
            let found = self.tokenizer.encode(prompt, DROPPED + text_tokens)?;
            if let Some(lost) = &found.lost {
                observer.on(Event::Warning(cut_warning(lost, text_tokens)));
            }
            sequences.push(Sequence::whole(found.ids));
        }
        let total = self.encoder.layers() as u64;
        observer.on(Event::Begin { stage: Stage::Text, total });
        let states = self.encoder.encode(&sequences, |done| {
            observer.on(Event::Advance { stage: Stage::Text, done: done as u64, detail: ENCODER.into() });
        })?;
        let conditionings = states.iter().map(conditioning).collect::<Result<Vec<_>>>()?;
        let tokens: Vec<String> = conditionings.iter().map(|found| found.text_tokens().to_string()).collect();
        observer.on(Event::End { stage: Stage::Text, detail: format!("{} tokens", tokens.join(" and ")) });
        Ok(conditionings)
    }
}

/// What is left of a prompt's states [1, T, joint].
fn conditioning(states: &Tensor) -> Result<Conditioning> {
    let left = states.dim(1)?.saturating_sub(DROPPED);
    let states = states.narrow(1, DROPPED, left)?.contiguous()?;
    Ok(Conditioning::new(PromptStates(states), left))
}

/// What the encoder reads of a prompt that the transformer sees.
pub(super) fn reading(tokenizer: &ChatTokenizer, prompt: &str, length: usize) -> Result<Reading> {
    check_sequence_length(length)?;
    let found = tokenizer.encode(prompt, DROPPED + length)?;
    let tokens = tokenizer.pieces(&found.ids[DROPPED.min(found.ids.len())..]);
    Ok(Reading { encoder: ENCODER, length, tokens, padding: 0, cut: found.lost })
}

fn cut_warning(lost: &str, tokens: usize) -> String {
    let advice = match tokens < MOST_TOKENS {
        true => format!("raise --max-sequence-length (at most {MOST_TOKENS}) or shorten the prompt"),
        false => "shorten the prompt".into(),
    };
    format!("{ENCODER} reads {tokens} tokens, not these last words of the prompt: {lost:?}; {advice}")
}

/// # Errors
/// [`Error::Request`] unless the encoder is asked for this many tokens.
fn check_sequence_length(tokens: usize) -> Result<()> {
    if (1..=MOST_TOKENS).contains(&tokens) {
        return Ok(());
    }
    let what = format!("--max-sequence-length {tokens}: out of range");
    Err(Error::request(what, format!("{ENCODER} takes 1 to {MOST_TOKENS} tokens")))
}
