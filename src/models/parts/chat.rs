//! Prompts to token ids as language models read them: within a chat of one turn, which the family writes out.

use std::path::{Path, PathBuf};

use tokenizers::Tokenizer;

use super::{
    chat_files,
    tokenizer::{Piece, check_rows, lost_tail, pieces, tokenize},
};
use crate::error::{Error, Result};

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
