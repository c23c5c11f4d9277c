//! Tokenizer files in their layouts on disk: vocab.json with merges.txt, tokenizer.json, and spiece.model.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;
use serde_json::Value;
use tokenizers::{
    AddedToken, SplitDelimiterBehavior, Tokenizer,
    models::bpe::{BPE, Merges},
    normalizers::{self, Lowercase, NFC, Replace, replace::ReplacePattern},
    pre_tokenizers::{
        byte_level::ByteLevel,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
};

use super::{
    sentencepiece,
    tokenizer::{CLIP_TOKENS, broken},
    tokenizer_settings::{Fixed, Settings},
};
use crate::{
    base::{
        guard::guarded,
        json::{plain, read_json},
    },
    error::{Error, Result},
};

/// What a tokenizer is made of; the special tokens still by name.
pub(super) struct Parts {
    pub(super) tokenizer: Tokenizer,
    /// The file to name when something about it is wrong.
    pub(super) path: PathBuf,
    pub(super) start: Option<String>,
    pub(super) end: String,
    pub(super) pad: String,
}

/// CLIP's special tokens (openai/CLIP, `simple_tokenizer.py`).
const CLIP_START: &str = "<|startoftext|>";
const CLIP_END: &str = "<|endoftext|>";
/// What marks the last piece of a word in CLIP's vocabulary (openai/CLIP, `simple_tokenizer.py`).
const CLIP_WORD_END: &str = "</w>";
/// What CLIP takes as a word (openai/CLIP, `simple_tokenizer.py`).
const CLIP_WORD: &str = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
/// T5's special tokens (transformers, `T5Tokenizer`).
const T5_END: &str = "</s>";
const T5_PAD: &str = "<pad>";
const T5_UNKNOWN: &str = "<unk>";

/// A normaliser's field with a compiled table.
const TABLE: &str = "precompiled_charsmap";
/// The name of a sentencepiece model.
const PIECES: &str = "spiece.model";

pub(super) type Vocab = HashMap<String, u32>;

/// Opens CLIP's tokenizer from a folder in either layout, or from a tokenizer.json.
pub(super) fn open_clip(path: &Path) -> Result<Parts> {
    let (folder, json) = folder_and_json(path)?;
    let (vocab, merges) = (folder.join("vocab.json"), folder.join("merges.txt"));
    let (named, vocab, merges) = if path.is_dir() && vocab.is_file() && merges.is_file() {
        let words: Vocab = read_json(&vocab)?;
        check_special_tokens(&vocab, &words)?;
        let pairs = read_merges(&merges, &words)?;
        (vocab, words, pairs)
    } else if json.is_file() {
        let (words, pairs) = read_clip_json(&json)?;
        (json, words, pairs)
    } else {
        let what =
            format!("{} holds no tokenizer: neither vocab.json and merges.txt nor tokenizer.json", path.display());
        return Err(Error::model(what, "give CLIP's tokenizer folder with --tokenizer"));
    };
    let mut tokenizer = clip_tokenizer(vocab, merges).map_err(|e| broken(&named, e))?;
    let settings = Settings::read(&folder)?;
    let pad = settings.pad_token()?.unwrap_or_else(|| CLIP_END.into());
    if tokenizer.token_to_id(&pad).is_some() {
        // A special token is one wherever it stands, in a prompt too.
        tokenizer.add_special_tokens([AddedToken::from(pad.clone(), true)]).map_err(|e| broken(&named, e))?;
    }
    let tokens = [("bos_token", CLIP_START), ("eos_token", CLIP_END), ("unk_token", CLIP_END)];
    settings.check(&tokenizer, &Fixed { tokens: &tokens, length: Some(CLIP_TOKENS) })?;
    Ok(Parts { tokenizer, path: named, start: Some(CLIP_START.into()), end: CLIP_END.into(), pad })
}

/// Opens T5's tokenizer.json or spiece.model, or the one in a folder, for an embedding table of this many rows.
pub(super) fn open_t5(path: &Path, rows: usize) -> Result<Parts> {
    let (folder, json) = folder_and_json(path)?;
    let pieces =
        if path.extension().is_some_and(|ending| ending == "model") { json.clone() } else { folder.join(PIECES) };
    let settings = Settings::read(&folder)?;
    let (tokenizer, path) = if json.is_file() && json != pieces {
        (read_t5_json(&json)?, json)
    } else if pieces.is_file() {
        (sentencepiece::read_t5(&pieces, settings.extra_ids()?, rows)?, pieces)
    } else {
        let what = format!("{} holds neither tokenizer.json nor {PIECES}", path.display());
        return Err(Error::model(what, "give T5's tokenizer folder with --tokenizer-2"));
    };
    let tokens = [("eos_token", T5_END), ("pad_token", T5_PAD), ("unk_token", T5_UNKNOWN)];
    settings.check(&tokenizer, &Fixed { tokens: &tokens, length: None })?;
    Ok(Parts { tokenizer, path, start: None, end: T5_END.into(), pad: T5_PAD.into() })
}

/// The folder a tokenizer lies in, and its tokenizer.json there.
pub(super) fn folder_and_json(path: &Path) -> Result<(PathBuf, PathBuf)> {
    let metadata = std::fs::metadata(path).map_err(|e| Error::disk("cannot read", path, e))?;
    if metadata.is_dir() {
        return Ok((path.to_path_buf(), path.join("tokenizer.json")));
    }
    Ok((path.parent().unwrap_or(Path::new("")).to_path_buf(), path.to_path_buf()))
}

/// CLIP's pipeline: NFC, white space to one space, lower case; words by [`CLIP_WORD`], their bytes as letters; pairs
/// merged (transformers, `CLIPTokenizer`).
fn clip_tokenizer(vocab: Vocab, merges: Merges) -> tokenizers::Result<Tokenizer> {
    let model = BPE::builder()
        .vocab_and_merges(vocab.into_iter().collect::<tokenizers::models::bpe::Vocab>(), merges)
        .unk_token(CLIP_END.into())
        .end_of_word_suffix(CLIP_WORD_END.into())
        .build()?;
    let spaces = Replace::new(ReplacePattern::Regex(r"\s+".into()), " ")?;
    let normalizer = normalizers::Sequence::new(vec![NFC.into(), spaces.into(), Lowercase.into()]);
    let words = Split::new(SplitPattern::Regex(CLIP_WORD.into()), SplitDelimiterBehavior::Removed, true)?;
    let bytes = ByteLevel::new(false, true, true);
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_normalizer(Some(normalizer))?;
    tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![words.into(), bytes.into()])));
    tokenizer.add_special_tokens([CLIP_START, CLIP_END].map(|token| AddedToken::from(token, true)))?;
    Ok(tokenizer)
}

fn check_special_tokens(path: &Path, vocab: &Vocab) -> Result<()> {
    match [CLIP_START, CLIP_END].into_iter().find(|token| !vocab.contains_key(*token)) {
        Some(token) => Err(broken(path, format!("no token {token}"))),
        None => Ok(()),
    }
}

/// Reads merges.txt: a version line, then one pair a line, the first to merge first.
pub(super) fn read_merges(path: &Path, vocab: &Vocab) -> Result<Merges> {
    let bytes = std::fs::read(path).map_err(|e| Error::disk("cannot read", path, e))?;
    let text = str::from_utf8(plain(&bytes)).map_err(|_| broken(path, "not UTF-8 text"))?;
    let lines = text.lines().enumerate().filter(|(index, _)| *index > 0 || !text.starts_with("#version"));
    lines
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(index, line)| parse_merge(line, vocab).map_err(|why| broken(path, format!("line {}: {why}", index + 1))))
        .collect()
}

fn parse_merge(line: &str, vocab: &Vocab) -> Result<(String, String), String> {
    match line.trim_end().split_once(' ') {
        Some((a, b)) if !a.is_empty() && !b.is_empty() && !b.contains(' ') => check_merge(a, b, vocab),
        _ => Err(format!("{line:?} is not a pair of tokens")),
    }
}

/// Both halves and the merged token must be tokens: the tokenizers crate relies on it unchecked.
fn check_merge(a: &str, b: &str, vocab: &Vocab) -> Result<(String, String), String> {
    let merged = format!("{a}{b}");
    match [a, b, &merged].into_iter().find(|token| !vocab.contains_key(*token)) {
        Some(token) => Err(format!("the merge of {a:?} and {b:?} needs the token {token:?}, which is not there")),
        None => Ok((a.to_owned(), b.to_owned())),
    }
}

/// Takes vocabulary and merges out of a tokenizer.json of CLIP; the rest of its pipeline is the same for every CLIP.
fn read_clip_json(path: &Path) -> Result<(Vocab, Merges)> {
    #[derive(Deserialize)]
    struct File {
        model: Model,
        #[serde(default)]
        added_tokens: Vec<Added>,
    }
    #[derive(Deserialize)]
    struct Model {
        vocab: Vocab,
        merges: Vec<Merge>,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Merge {
        Pair(String, String),
        Line(String),
    }
    #[derive(Deserialize)]
    struct Added {
        id: u32,
        content: String,
    }
    let file: File = read_json(path)?;
    let mut vocab = file.model.vocab;
    for token in file.added_tokens {
        vocab.entry(token.content).or_insert(token.id);
    }
    check_special_tokens(path, &vocab)?;
    let merge = |(rank, merge)| {
        let checked = match merge {
            Merge::Pair(a, b) => check_merge(&a, &b, &vocab),
            Merge::Line(line) => parse_merge(&line, &vocab),
        };
        checked.map_err(|why| broken(path, format!("merge {rank}: {why}")))
    };
    let merges = file.model.merges.into_iter().enumerate().map(merge).collect::<Result<Merges>>()?;
    Ok((vocab, merges))
}

/// Reads a tokenizer.json of T5: its own pipeline around a unigram model.
fn read_t5_json(path: &Path) -> Result<Tokenizer> {
    read_whole_json(path, "T5's", "Unigram")
}

/// That the compiled tables within a normaliser, however deep, hold what they say ([`sentencepiece::check_table`]).
fn check_tables(normalizer: &Value) -> std::result::Result<(), String> {
    match normalizer {
        Value::Array(steps) => steps.iter().try_for_each(check_tables),
        Value::Object(fields) => fields.iter().try_for_each(|(name, value)| match value.as_str() {
            // What is no base64 is refused by whoever reads it.
            Some(table) if name == TABLE => {
                BASE64_STANDARD.decode(table).map_or(Ok(()), |table| sentencepiece::check_table(&table))
            }
            _ => check_tables(value),
        }),
        _ => Ok(()),
    }
}

/// Reads a tokenizer.json with its own pipeline around a model of a kind, without its truncation and padding.
pub(super) fn read_whole_json(path: &Path, whose: &str, expected: &str) -> Result<Tokenizer> {
    #[derive(Deserialize)]
    struct File {
        model: Model,
        #[serde(default)]
        normalizer: Value,
    }
    #[derive(Deserialize)]
    struct Model {
        #[serde(rename = "type")]
        kind: Option<String>,
    }
    let File { model: Model { kind }, normalizer } = read_json(path)?;
    check_tables(&normalizer).map_err(|why| broken(path, why))?;
    if let Some(kind) = kind.filter(|kind| kind != expected) {
        return Err(broken(path, format!("a tokenizer of kind {kind}, expected {whose} {expected}")));
    }
    let bytes = std::fs::read(path).map_err(|e| Error::disk("cannot read", path, e))?;
    let mut tokenizer = guarded(|| Tokenizer::from_bytes(plain(&bytes)))
        .ok_or_else(|| broken(path, "its tables are inconsistent"))?
        .map_err(|e| broken(path, e))?;
    tokenizer.with_truncation(None).map_err(|e| broken(path, e))?;
    tokenizer.with_padding(None);
    Ok(tokenizer)
}
