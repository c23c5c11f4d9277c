//! The files of Qwen's tokenizer: tokenizer.json, or vocab.json and merges.txt with what tokenizer_config.json adds to them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use tokenizers::{
    AddedToken, SplitDelimiterBehavior, Tokenizer,
    models::bpe::{self, BPE, Merges},
    normalizers::NFC,
    pre_tokenizers::{
        byte_level::ByteLevel,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
};

use super::{
    tokenizer::broken,
    tokenizer_files::{Vocab, folder_and_json, read_merges, read_whole_json},
    tokenizer_settings::Settings,
};
use crate::{
    base::json::read_json,
    error::{Error, Result},
};

/// What Qwen takes as a word: letters with what stands before them, one digit, signs, white space. Source: transformers,
/// `tokenization_qwen2.py`.
const WORD: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// What Qwen pads with. Source: transformers, `Qwen2Tokenizer`.
const PAD: &str = "<|endoftext|>";

/// The tokenizer, its file, and the token that it pads with.
pub(super) fn open_qwen(path: &Path) -> Result<(Tokenizer, PathBuf, String)> {
    let (folder, json) = folder_and_json(path)?;
    let vocab = folder.join("vocab.json");
    let (tokenizer, path) = if json.is_file() {
        (read_whole_json(&json, "Qwen's", "BPE")?, json)
    } else if vocab.is_file() && folder.join("merges.txt").is_file() {
        (read_vocab(&vocab, &folder)?, vocab)
    } else {
        let what =
            format!("{} holds no tokenizer: neither tokenizer.json nor vocab.json and merges.txt", path.display());
        return Err(Error::model(what, "give the model's tokenizer folder with --tokenizer"));
    };
    Ok((tokenizer, path, Settings::read(&folder)?.pad_token()?.unwrap_or_else(|| PAD.into())))
}

fn read_vocab(path: &Path, folder: &Path) -> Result<Tokenizer> {
    let vocab: Vocab = read_json(path)?;
    let merges = read_merges(&folder.join("merges.txt"), &vocab)?;
    let mut tokenizer = pipeline(vocab, merges).map_err(|e| broken(path, e))?;
    let (file, added) = added_tokens(folder)?;
    for (id, token) in added {
        let content = token.content.clone();
        tokenizer.add_tokens([token]).map_err(|e| broken(&file, e))?;
        // Whoever adds tokens counts on from the vocabulary's end.
        match tokenizer.token_to_id(&content) {
            Some(found) if found == id => {}
            found => {
                let why = format!("token {content:?} is to have id {id}, and {found:?} is the next beside vocab.json");
                return Err(broken(&file, why));
            }
        }
    }
    Ok(tokenizer)
}

/// NFC, words by [`WORD`], their bytes as letters, pairs merged.
fn pipeline(vocab: Vocab, merges: Merges) -> tokenizers::Result<Tokenizer> {
    let model = BPE::builder().vocab_and_merges(vocab.into_iter().collect::<bpe::Vocab>(), merges).build()?;
    let words = Split::new(SplitPattern::Regex(WORD.into()), SplitDelimiterBehavior::Isolated, false)?;
    let bytes = ByteLevel::new(false, false, false);
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_normalizer(Some(NFC))?;
    tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![words.into(), bytes.into()])));
    Ok(tokenizer)
}

/// One of the tokens beside a vocabulary, as tokenizer_config.json describes it.
#[derive(Deserialize)]
struct Added {
    content: String,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    normalized: bool,
}

/// The tokens beside vocab.json by their ids, and the file that says so: tokenizer_config.json, else added_tokens.json.
fn added_tokens(folder: &Path) -> Result<(PathBuf, BTreeMap<u32, AddedToken>)> {
    #[derive(Deserialize)]
    struct Settings {
        added_tokens_decoder: Option<BTreeMap<String, Added>>,
    }
    let settings = folder.join("tokenizer_config.json");
    if settings.is_file()
        && let Some(decoder) = read_json::<Settings>(&settings)?.added_tokens_decoder
    {
        let token = |(id, added): (String, Added)| {
            let id = id.parse().map_err(|_| broken(&settings, format!("added_tokens_decoder: {id:?} is no id")))?;
            let token = AddedToken::from(added.content, true)
                .lstrip(added.lstrip)
                .rstrip(added.rstrip)
                .single_word(added.single_word)
                .normalized(added.normalized);
            Ok((id, token))
        };
        let tokens = decoder.into_iter().map(token).collect::<Result<_>>()?;
        return Ok((settings, tokens));
    }
    let list = folder.join("added_tokens.json");
    let named: BTreeMap<String, u32> = if list.is_file() { read_json(&list)? } else { BTreeMap::new() };
    Ok((list, named.into_iter().map(|(content, id)| (id, AddedToken::from(content, true))).collect()))
}
