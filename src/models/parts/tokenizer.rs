//! Prompts to token ids, as the tokenizers of CLIP-L and T5 make them, and the words that did not fit.

use std::path::{Path, PathBuf};

use serde::Serialize;
use tokenizers::{Encoding, Tokenizer};

use super::tokenizer_files::{Parts, open_clip, open_t5};
use crate::{
    base::guard::guarded,
    error::{Error, Result},
};

/// Tokens of a prompt that CLIP reads, its start and end tokens included (openai/CLIP, `context_length`).
pub const CLIP_TOKENS: usize = 77;

/// A prompt as token ids, padded to a fixed length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// The ids: start token (CLIP only), prompt, end token, padding.
    pub ids: Vec<u32>,
    /// The end of the prompt's own text that did not fit, from the first word that is not wholly read; `None` when all
    /// of it did.
    pub lost: Option<String>,
}

/// A token that a text encoder reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Piece {
    /// Its row in the encoder's table.
    pub id: u32,
    /// What its vocabulary calls it.
    pub piece: String,
}

/// The tokenizer of one text encoder.
pub struct PromptTokenizer {
    tokenizer: Tokenizer,
    /// The file to name when it turns out to be broken.
    path: PathBuf,
    start: Option<u32>,
    end: u32,
    pad: u32,
}

/// The tokenizers of both text encoders.
pub struct Tokenizers {
    /// CLIP's.
    pub clip: PromptTokenizer,
    /// T5's.
    pub t5: PromptTokenizer,
}

impl Tokenizers {
    /// Opens both, see [`PromptTokenizer::clip`] and [`PromptTokenizer::t5`]; each with the rows of its encoder's
    /// embedding table.
    ///
    /// # Errors
    /// As those two.
    pub fn open(clip: &Path, clip_vocab_size: usize, t5: &Path, t5_vocab_size: usize) -> Result<Self> {
        let clip = PromptTokenizer::clip(clip, clip_vocab_size)?;
        Ok(Self { clip, t5: PromptTokenizer::t5(t5, t5_vocab_size)? })
    }
}

impl PromptTokenizer {
    /// CLIP's tokenizer: a folder with vocab.json and merges.txt, or with tokenizer.json, or that file itself. Padding
    /// is the `pad_token` of the folder's tokenizer_config.json or special_tokens_map.json, else the end token.
    ///
    /// # Errors
    /// [`Error::Disk`] when a file cannot be read; [`Error::Model`], naming the file, when one is missing or broken, has
    /// no start or end token, or holds ids of `vocab_size` or more.
    pub fn clip(path: &Path, vocab_size: usize) -> Result<Self> {
        Self::from_parts(open_clip(path)?, vocab_size)
    }

    /// T5's tokenizer: a tokenizer.json or a sentencepiece model (spiece.model), or the folder that holds one of them.
    ///
    /// # Errors
    /// [`Error::Disk`] when the file cannot be read; [`Error::Model`], naming the file, when it is missing, broken or
    /// another model's, has no padding or end token, or holds ids of `vocab_size` or more.
    pub fn t5(path: &Path, vocab_size: usize) -> Result<Self> {
        Self::from_parts(open_t5(path, vocab_size)?, vocab_size)
    }

    fn from_parts(parts: Parts, vocab_size: usize) -> Result<Self> {
        let Parts { tokenizer, path, start, end, pad } = parts;
        let id_of = |token: &str| {
            let hint = "the file belongs to another kind of model, or is damaged: fetch it again";
            let what = || format!("{}: no token {token}", path.display());
            tokenizer.token_to_id(token).ok_or_else(|| Error::model(what(), hint))
        };
        let start = start.as_deref().map(id_of).transpose()?;
        let (end, pad) = (id_of(&end)?, id_of(&pad)?);
        check_rows(&tokenizer, &path, vocab_size)?;
        Ok(Self { tokenizer, path, start, end, pad })
    }

    /// The prompt as exactly `length` ids: cut when it is longer, keeping the end token; padded when it is shorter.
    ///
    /// # Errors
    /// [`Error::Request`] when `length` has no room for a single token of the prompt, [`Error::Model`] when the
    /// tokenizer's file turns out to be broken.
    pub fn encode(&self, prompt: &str, length: usize) -> Result<Tokens> {
        let special = usize::from(self.start.is_some()) + 1;
        if length <= special {
            let what = format!("{length} tokens leave no room for a prompt");
            return Err(Error::request(what, format!("ask for at least {}", special + 1)));
        }
        let encoding = tokenize(&self.tokenizer, &self.path, prompt)?;
        let body = encoding.get_ids();
        let room = length - special;
        let kept = body.len().min(room);
        let mut ids: Vec<u32> = self.start.into_iter().collect();
        ids.extend(&body[..kept]);
        ids.push(self.end);
        ids.resize(length, self.pad);
        let lost = encoding.get_offsets().get(room).and_then(|(begin, _)| lost_tail(prompt, *begin));
        Ok(Tokens { ids, lost })
    }

    /// The prompt as [`PromptTokenizer::encode`] gives it, piece by piece; without the padding, of which there are so many as
    /// the second says.
    ///
    /// # Errors
    /// As there.
    pub fn pieces(&self, prompt: &str, length: usize) -> Result<(Vec<Piece>, usize, Option<String>)> {
        let Tokens { ids, lost } = self.encode(prompt, length)?;
        let start = usize::from(self.start.is_some());
        let used = start + tokenize(&self.tokenizer, &self.path, prompt)?.len().min(length - start - 1) + 1;
        Ok((pieces(&self.tokenizer, &ids[..used]), length - used, lost))
    }
}

/// A prompt's ids without tokens around them, and the bytes of the prompt each stands for.
pub(super) fn tokenize(tokenizer: &Tokenizer, path: &Path, prompt: &str) -> Result<Encoding> {
    guarded(|| tokenizer.encode(prompt, false))
        .ok_or_else(|| broken(path, "its tables are inconsistent"))?
        .map_err(|e| broken(path, e))
}

/// What a vocabulary calls these tokens.
pub(super) fn pieces(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<Piece> {
    ids.iter().map(|id| Piece { id: *id, piece: tokenizer.id_to_token(*id).unwrap_or_default() }).collect()
}

/// Refuses a tokenizer that has ids of `vocab_size` or more.
pub(super) fn check_rows(tokenizer: &Tokenizer, path: &Path, vocab_size: usize) -> Result<()> {
    let highest = tokenizer.get_vocab(true).into_iter().max_by_key(|(_, id)| *id);
    let Some((token, id)) = highest.filter(|(_, id)| *id as usize >= vocab_size) else { return Ok(()) };
    let what = format!(
        "{}: token {token:?} has id {id}, but the text encoder's embedding table has {vocab_size} rows",
        path.display()
    );
    Err(Error::model(what, "take tokenizer and text encoder from one model"))
}

/// The error of a tokenizer file that cannot be what it claims to be.
pub(super) fn broken(path: &Path, why: impl std::fmt::Display) -> Error {
    let hint = "the file is damaged or belongs to another kind of tokenizer; delete it and fetch it again";
    Error::model(format!("{}: {why}", path.display()), hint)
}

/// The text from byte `begin` on, or from the start of the word that `begin` cuts; `None` when only space is left.
pub(super) fn lost_tail(prompt: &str, begin: usize) -> Option<String> {
    /// Longer runs are scripts without spaces between words: there the cut stays where it is.
    const LONGEST_WORD_CHARS: usize = 32;
    let begin = (0..=begin.min(prompt.len())).rev().find(|at| prompt.is_char_boundary(*at)).unwrap_or(0);
    let (head, tail) = prompt.split_at(begin);
    let cuts_a_word = tail.starts_with(char::is_alphanumeric);
    let word_chars = head.chars().rev().take_while(|c| cuts_a_word && c.is_alphanumeric());
    let word: Vec<usize> = word_chars.map(char::len_utf8).take(LONGEST_WORD_CHARS + 1).collect();
    let back = if word.len() > LONGEST_WORD_CHARS { 0 } else { word.iter().sum() };
    let tail = prompt[begin - back..].trim();
    (!tail.is_empty()).then(|| tail.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lost_tail_begins_with_a_whole_word() {
        assert_eq!(lost_tail("a small castle", 10).as_deref(), Some("castle"));
        assert_eq!(lost_tail("a small castle", 7).as_deref(), Some("castle"));
        assert_eq!(lost_tail("a small, old castle", 7).as_deref(), Some(", old castle"));
        assert_eq!(lost_tail("a small  ", 7), None);
        assert_eq!(lost_tail("é", 1).as_deref(), Some("é"), "inside a character");
        assert_eq!(lost_tail("a", 99), None, "beyond the end");
        let unspaced = "山".repeat(40);
        assert_eq!(lost_tail(&unspaced, 39 * 3).as_deref(), Some("山"));
    }
}
