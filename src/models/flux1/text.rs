//! Prompts become embeddings: CLIP-L gives one pooled vector, T5 one row per token.

use candle_core::Tensor;

use crate::{
    base::progress::{Event, Observer, Stage},
    error::{Error, Result},
    models::parts::{CLIP_TOKENS, ClipEncoder, T5Encoder, Tokenizers},
};

/// The most T5 tokens FLUX.1 was trained with (diffusers, `FluxPipeline`).
pub const MAX_T5_TOKENS: usize = 512;

/// What the transformer is told about one prompt.
#[derive(Debug, Clone)]
pub struct PromptEmbeddings {
    /// T5's last hidden states, [1, T, joint_attention_dim] f32.
    pub prompt_embeds: Tensor,
    /// CLIP's pooled hidden state, [1, pooled_projection_dim] f32.
    pub pooled: Tensor,
}

/// Both tokenizers and both encoders of a FLUX.1. It holds no weights: a call of [`TextEncoders::encode`] reads each
/// layer once and drops it.
pub struct TextEncoders {
    /// The tokenizers.
    pub tokenizers: Tokenizers,
    /// CLIP's text encoder.
    pub clip: ClipEncoder,
    /// T5's encoder.
    pub t5: T5Encoder,
}

impl TextEncoders {
    /// Embeds several prompts in one pass over the weights, T5 with `text_tokens` tokens each (2 to 512).
    ///
    /// Tells `observer` of [`Stage::Text`] in layers, and which words of which prompt were not read.
    ///
    /// # Errors
    /// [`Error::Request`] when `text_tokens` is out of range; [`Error::Model`] when weights, configs and
    /// tokenizers do not fit together; [`Error::Tensor`] when the device fails.
    pub fn encode<S: AsRef<str>>(
        &self,
        prompts: &[S],
        text_tokens: usize,
        observer: &dyn Observer,
    ) -> Result<Vec<PromptEmbeddings>> {
        check_sequence_length(text_tokens)?;
        let clip_layers = self.clip.config().num_hidden_layers;
        let total = (clip_layers + self.t5.config().num_layers) as u64;
        observer.on(Event::Begin { stage: Stage::Text, total });
        let advance = |done: usize, encoder: &str| {
            let (done, detail) = (done as u64, encoder.to_owned());
            observer.on(Event::Advance { stage: Stage::Text, done, detail });
        };

        let [clip_ids, t5_ids] = self.tokenize(prompts, text_tokens, observer)?;
        let pooled = self.clip.encode(&clip_ids, |done| advance(done, "CLIP"))?;
        let embeds = self.t5.encode(&t5_ids, |done| advance(clip_layers + done, "T5"))?;

        let detail = match prompts.len() {
            1 => format!("{text_tokens} tokens"),
            count => format!("{count} prompts of {text_tokens} tokens"),
        };
        observer.on(Event::End { stage: Stage::Text, detail });
        let pair = |(prompt_embeds, pooled)| PromptEmbeddings { prompt_embeds, pooled };
        Ok(embeds.into_iter().zip(pooled).map(pair).collect())
    }

    /// The ids of all prompts for CLIP and for T5; tells what was cut.
    fn tokenize<S: AsRef<str>>(
        &self,
        prompts: &[S],
        text_tokens: usize,
        observer: &dyn Observer,
    ) -> Result<[Vec<Vec<u32>>; 2]> {
        let (mut clip_ids, mut t5_ids) = (Vec::new(), Vec::new());
        for prompt in prompts {
            let clip = self.tokenizers.clip.encode(prompt.as_ref(), CLIP_TOKENS)?;
            let t5 = self.tokenizers.t5.encode(prompt.as_ref(), text_tokens)?;
            if let Some(lost) = &clip.lost {
                observer.on(Event::Note(clip_note(lost, t5.lost.is_some())));
            }
            if let Some(lost) = &t5.lost {
                observer.on(Event::Warning(t5_warning(lost, text_tokens)));
            }
            clip_ids.push(clip.ids);
            t5_ids.push(t5.ids);
        }
        Ok([clip_ids, t5_ids])
    }
}

/// CLIP alone being short is normal: T5 carries the details.
fn clip_note(lost: &str, t5_is_cut: bool) -> String {
    let t5 = if t5_is_cut { "" } else { "; T5 reads them" };
    format!("CLIP reads {CLIP_TOKENS} tokens, not these last words of the prompt{t5}: {lost:?}")
}

fn t5_warning(lost: &str, text_tokens: usize) -> String {
    let advice = if text_tokens < MAX_T5_TOKENS {
        format!("raise --max-sequence-length (at most {MAX_T5_TOKENS}) or shorten the prompt")
    } else {
        "shorten the prompt".into()
    };
    format!("T5 reads {text_tokens} tokens, not these last words of the prompt: {lost:?}; {advice}")
}

/// # Errors
/// [`Error::Request`] unless T5 can take this many tokens.
pub(super) fn check_sequence_length(tokens: usize) -> Result<()> {
    if (2..=MAX_T5_TOKENS).contains(&tokens) {
        return Ok(());
    }
    let what = format!("--max-sequence-length {tokens}: out of range");
    Err(Error::request(what, format!("T5 takes 2 to {MAX_T5_TOKENS} tokens")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_comes_with_advice() {
        assert!(t5_warning("the end", 256).contains("--max-sequence-length"));
        assert!(!t5_warning("the end", 512).contains("--max-sequence-length"));
        assert!(clip_note("the end", false).contains("T5 reads them"));
        assert!(!clip_note("the end", true).contains("T5 reads them"));
    }

    #[test]
    fn the_sequence_length_has_bounds() {
        for tokens in [0, 1, 513] {
            assert_eq!(check_sequence_length(tokens).expect_err("out of range").exit_code(), 2);
        }
        assert!(check_sequence_length(512).is_ok() && check_sequence_length(2).is_ok());
    }
}
