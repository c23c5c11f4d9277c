//! Prompts to token ids as language models read them: within a chat of one turn, which the family writes out.

use std::path::{Path, PathBuf};

use candle_core::Tensor;
use tokenizers::Tokenizer;

use super::{
    QwenEncoder, Sequence, chat_files,
    tokenizer::{Piece, check_rows, lost_tail, pieces, tokenize},
};
use crate::{
    base::progress::{Event, Observer, Stage},
    error::{Error, Result},
    models::Reading,
};

/// What stands around a prompt. The prompt goes in as it is: nothing is trimmed, and special tokens in it act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChatTemplate {
    /// Before it.
    pub before: &'static str,
    /// Behind it.
    pub after: &'static str,
}

/// A prompt in its template as token ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatTokens {
    /// The ids, without padding.
    pub ids: Vec<u32>,
    /// The end of the prompt's own text that did not fit, from the first word that is not wholly read; `None` when all of it
    /// did.
    pub lost: Option<String>,
}

/// How a family reads prompts with a Qwen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChatReader {
    /// What messages call the encoder.
    pub(crate) encoder: &'static str,
    /// The most tokens of a prompt.
    pub(crate) most_tokens: usize,
    /// Tokens at the start that the transformer does not see, which do not count among those.
    pub(crate) dropped: usize,
    /// Whether prompts are padded to the number of tokens that is asked for.
    pub(crate) is_padded: bool,
}

impl ChatReader {
    /// Reads several prompts, of at most so many tokens, in one pass over the weights; tells `observer` of [`Stage::Text`] in layers, and
    /// which words were not read. For each its states \[1, T, C\], the dropped among them.
    ///
    /// # Errors
    /// [`Error::Request`] when the number of tokens is out of range; what tokenizing and encoding may fail with.
    pub(crate) fn states<S: AsRef<str>>(
        &self,
        (tokenizer, qwen): (&ChatTokenizer, &QwenEncoder),
        prompts: &[S],
        tokens: usize,
        observer: &dyn Observer,
    ) -> Result<Vec<Tensor>> {
        self.check(tokens)?;
        let (stage, most) = (Stage::Text, self.dropped + tokens);
        let sequence = |prompt: &S| {
            let found = tokenizer.encode(prompt.as_ref(), most)?;
            if let Some(lost) = &found.lost {
                observer.on(Event::Warning(self.cut(lost, tokens)));
            }
            Ok(match self.is_padded {
                true => Sequence::padded(found.ids, most, tokenizer.pad()),
                false => Sequence::whole(found.ids),
            })
        };
        let sequences = prompts.iter().map(sequence).collect::<Result<Vec<_>>>()?;
        observer.on(Event::Begin { stage, total: qwen.layers() as u64 });
        let states = qwen.encode(&sequences, |done| {
            observer.on(Event::Advance { stage, done: done as u64, detail: self.encoder.to_owned() });
        })?;
        let read: Vec<usize> = states.iter().map(|states| states.dim(1)).collect::<candle_core::Result<_>>()?;
        let seen = |read: &usize| read.saturating_sub(self.dropped);
        let detail = match read.as_slice() {
            [one] => format!("{} tokens", seen(one)),
            several => {
                format!("{} prompts of up to {} tokens", several.len(), several.iter().map(seen).max().unwrap_or(0))
            }
        };
        observer.on(Event::End { stage, detail });
        Ok(states)
    }

    /// What the transformer sees of a prompt.
    ///
    /// # Errors
    /// As [`ChatReader::states`].
    pub(crate) fn reading(&self, tokenizer: &ChatTokenizer, prompt: &str, length: usize) -> Result<Reading> {
        self.check(length)?;
        let read = tokenizer.encode(prompt, self.dropped + length)?;
        let tokens = tokenizer.pieces(&read.ids[self.dropped.min(read.ids.len())..]);
        let padding = if self.is_padded { length - tokens.len() } else { 0 };
        Ok(Reading { encoder: self.encoder, length, tokens, padding, cut: read.lost })
    }

    fn cut(&self, lost: &str, tokens: usize) -> String {
        let Self { encoder, most_tokens, .. } = self;
        let advice = match tokens < *most_tokens {
            true => format!("raise --max-sequence-length (at most {most_tokens}) or shorten the prompt"),
            false => "shorten the prompt".into(),
        };
        format!("{encoder} reads {tokens} tokens, not these last words of the prompt: {lost:?}; {advice}")
    }

    fn check(&self, tokens: usize) -> Result<()> {
        if (1..=self.most_tokens).contains(&tokens) {
            return Ok(());
        }
        let what = format!("--max-sequence-length {tokens}: out of range");
        Err(Error::request(what, format!("{} takes 1 to {} tokens", self.encoder, self.most_tokens)))
    }
}

/// A language model's tokenizer with the template of one family.
pub struct ChatTokenizer {
    tokenizer: Tokenizer,
    /// The file to name when it turns out to be broken.
    path: PathBuf,
    template: ChatTemplate,
    pad: u32,
}

impl ChatTokenizer {
    /// Qwen's tokenizer: a folder with tokenizer.json, or with vocab.json and merges.txt, or a tokenizer.json; for an embedding
    /// table of `vocab_size` rows.
    ///
    /// # Errors
    /// [`Error::Disk`] when a file cannot be read; [`Error::Model`], naming the file, when one is missing or broken, has no
    /// token to pad with, or holds ids of `vocab_size` or more.
    pub fn qwen(path: &Path, template: ChatTemplate, vocab_size: usize) -> Result<Self> {
        let (tokenizer, path, pad) = chat_files::open_qwen(path)?;
        check_rows(&tokenizer, &path, vocab_size)?;
        let Some(pad) = tokenizer.token_to_id(&pad) else {
            let hint = "the file belongs to another kind of model, or is damaged: fetch it again";
            return Err(Error::model(format!("{}: no token {pad}", path.display()), hint));
        };
        Ok(Self { tokenizer, path, template, pad })
    }

    /// The token that prompts are padded with.
    pub fn pad(&self) -> u32 {
        self.pad
    }

    /// The prompt in its template as at most `most` ids: what is longer loses its end, the template's first.
    ///
    /// # Errors
    /// [`Error::Request`] for no room at all; [`Error::Model`] when the tokenizer's file turns out to be broken.
    pub fn encode(&self, prompt: &str, most: usize) -> Result<ChatTokens> {
        if most == 0 {
            return Err(Error::request("0 tokens leave no room for a prompt", "ask for at least 1"));
        }
        let ChatTemplate { before, after } = self.template;
        let encoding = tokenize(&self.tokenizer, &self.path, &format!("{before}{prompt}{after}"))?;
        let ids = encoding.get_ids();
        let first_lost = encoding.get_offsets().get(most).map(|(begin, _)| begin.saturating_sub(before.len()));
        let lost = first_lost.filter(|begin| *begin < prompt.len()).and_then(|begin| lost_tail(prompt, begin));
        Ok(ChatTokens { ids: ids[..ids.len().min(most)].to_vec(), lost })
    }

    /// What the vocabulary calls the tokens of [`ChatTokenizer::encode`].
    pub fn pieces(&self, ids: &[u32]) -> Vec<Piece> {
        pieces(&self.tokenizer, ids)
    }
}
