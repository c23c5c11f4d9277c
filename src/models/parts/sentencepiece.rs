//! T5's tokenizer from a sentencepiece model (`spiece.model`), as transformers makes a `tokenizer.json` of it
//! (`convert_slow_tokenizer.py`, `T5Converter`).
//!
//! The file is a protobuf message (google/sentencepiece, `sentencepiece_model.proto`); of it are read the pieces with their
//! scores and types, the kind of model, and the compiled normalisation table.

use std::path::Path;

use tokenizers::{
    AddedToken, Tokenizer,
    models::unigram::Unigram,
    normalizers::{self, NormalizerWrapper, Precompiled, Replace, Strip, replace::ReplacePattern},
    pre_tokenizers::metaspace::{Metaspace, PrependScheme},
};

use super::tokenizer::broken;
use crate::{
    base::{excerpt::excerpt, guard::guarded},
    error::Result,
};

/// Sentinels behind the pieces where the tokenizer's config says nothing (transformers, `T5Tokenizer`, `extra_ids`).
const EXTRA_IDS: usize = 100;

/// Reads a sentencepiece model of T5. It gets as many sentinels `<extra_id_0>`, ... as `extra_ids` says, else transformers' 100,
/// but no ids beyond the embedding table's `rows`.
///
/// # Errors
/// [`crate::Error::Disk`] when the file cannot be read; [`crate::Error::Model`] when it is no sentencepiece model, or not T5's kind.
pub(super) fn read_t5(path: &Path, extra_ids: Option<usize>, rows: usize) -> Result<Tokenizer> {
    let bytes = std::fs::read(path).map_err(|e| crate::Error::disk("cannot read", path, e))?;
    let model = Model::parse(&bytes).map_err(|why| match excerpt(&bytes) {
        Some(text) => broken(path, format!("no sentencepiece model; it says {text:?}")),
        None => broken(path, why),
    })?;
    let room = rows.saturating_sub(model.pieces.len());
    let extra_ids = extra_ids.unwrap_or(EXTRA_IDS).min(room);
    guarded(|| model.tokenizer(extra_ids))
        .ok_or_else(|| broken(path, "its tables are inconsistent"))?
        .map_err(|e| broken(path, e))
}

/// What a piece of the vocabulary is. Source: sentencepiece, `SentencePiece.Type`.
mod piece_type {
    pub const UNKNOWN: u64 = 2;
    pub const CONTROL: u64 = 3;
    pub const USER_DEFINED: u64 = 4;
}

/// Names of sentencepiece's kinds of models; T5's is the first.
const KINDS: [&str; 4] = ["UNIGRAM", "BPE", "WORD", "CHAR"];

/// A piece of the vocabulary.
struct Piece {
    text: String,
    score: f32,
    /// One of [`piece_type`]'s, or another.
    kind: u64,
}

/// That a compiled normalisation table holds as many bytes of its trie as it begins by saying: the reader makes room for them before it
/// looks for them.
pub(super) fn check_table(table: &[u8]) -> Result<(), String> {
    let Some((size, rest)) = table.split_first_chunk() else { return Ok(()) };
    let said = u32::from_le_bytes(*size);
    if said as usize <= rest.len() {
        return Ok(());
    }
    Err(format!("its normalisation table says {said} bytes of a trie and has {}", rest.len()))
}

/// What is read of a sentencepiece model.
struct Model<'a> {
    pieces: Vec<Piece>,
    byte_fallback: bool,
    /// The compiled normalisation table; empty for none.
    table: &'a [u8],
}

impl<'a> Model<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let mut model = Self { pieces: Vec::new(), byte_fallback: false, table: &[] };
        for field in Fields(bytes) {
            match field.map_err(|why| format!("no sentencepiece model: {why}"))? {
                (1, Value::Bytes(piece)) => model.pieces.push(Piece::parse(piece)?),
                (2, Value::Bytes(trainer)) => model.read_trainer(trainer)?,
                (3, Value::Bytes(normalizer)) => model.read_normalizer(normalizer)?,
                _ => {}
            }
        }
        if model.pieces.is_empty() { Err("a sentencepiece model without pieces".into()) } else { Ok(model) }
    }

    /// `TrainerSpec`: `model_type` is its field 3, `byte_fallback` 35.
    fn read_trainer(&mut self, bytes: &[u8]) -> Result<(), String> {
        for field in Fields(bytes) {
            match field? {
                (3, Value::Number(kind)) if kind != 1 => {
                    let name = usize::try_from(kind).ok().and_then(|kind| KINDS.get(kind.checked_sub(1)?));
                    let name = name.copied().unwrap_or("unknown");
                    return Err(format!("a sentencepiece model of kind {name}, expected T5's UNIGRAM"));
                }
                (35, Value::Number(on)) => self.byte_fallback = on != 0,
                _ => {}
            }
        }
        Ok(())
    }

    /// `NormalizerSpec`: `precompiled_charsmap` is its field 2.
    fn read_normalizer(&mut self, bytes: &'a [u8]) -> Result<(), String> {
        for field in Fields(bytes) {
            if let (2, Value::Bytes(table)) = field? {
                check_table(table)?;
                self.table = table;
            }
        }
        Ok(())
    }

    /// The pipeline around the pieces: normalised, white space at the end cut, runs of it to one mark; words begin with the mark.
    fn tokenizer(&self, extra_ids: usize) -> tokenizers::Result<Tokenizer> {
        let unknown = self.pieces.iter().position(|piece| piece.kind == piece_type::UNKNOWN);
        let pieces = self.pieces.iter().map(|piece| (piece.text.clone(), f64::from(piece.score)));
        let extra: Vec<String> = (0..extra_ids).rev().map(|i| format!("<extra_id_{i}>")).collect();
        let vocab = pieces.chain(extra.iter().map(|token| (token.clone(), 0.0))).collect();
        let mut tokenizer = Tokenizer::new(Unigram::from(vocab, unknown, self.byte_fallback)?);
        let mut steps: Vec<NormalizerWrapper> = Vec::new();
        if !self.table.is_empty() {
            steps.push(Precompiled::from(self.table)?.into());
        }
        steps.push(Strip::new(false, true).into());
        steps.push(Replace::new(ReplacePattern::Regex(" {2,}".into()), "▁")?.into());
        tokenizer.with_normalizer(Some(normalizers::Sequence::new(steps)))?;
        tokenizer.with_pre_tokenizer(Some(Metaspace::new('▁', PrependScheme::Always, true)));
        let is_special = |piece: &&Piece| [piece_type::UNKNOWN, piece_type::CONTROL].contains(&piece.kind);
        let special = self.pieces.iter().filter(is_special).map(|piece| AddedToken::from(piece.text.clone(), true));
        tokenizer.add_special_tokens(special.chain(extra.into_iter().map(|token| AddedToken::from(token, true))))?;
        let of_users = self.pieces.iter().filter(|piece| piece.kind == piece_type::USER_DEFINED);
        tokenizer.add_tokens(of_users.map(|piece| AddedToken::from(piece.text.clone(), false).normalized(false)))?;
        Ok(tokenizer)
    }
}

impl Piece {
    /// `SentencePiece`: `piece` is its field 1, `score` 2, `type` 3.
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut piece = Self { text: String::new(), score: 0.0, kind: 1 };
        for field in Fields(bytes) {
            match field? {
                (1, Value::Bytes(text)) => {
                    piece.text = String::from_utf8(text.to_vec()).map_err(|_| "a piece that is not UTF-8 text")?;
                }
                (2, Value::Bits32(bits)) => piece.score = f32::from_bits(bits),
                (3, Value::Number(kind)) => piece.kind = kind,
                _ => {}
            }
        }
        if piece.score.is_finite() {
            Ok(piece)
        } else {
            Err(format!("the score of {:?} is {}", piece.text, piece.score))
        }
    }
}

/// The value of a protobuf field.
enum Value<'a> {
    Number(u64),
    Bits32(u32),
    Bits64,
    Bytes(&'a [u8]),
}

/// The fields of a protobuf message, in the order they come.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or("it ends in the middle of a field")?;
        self.0 = rest;
        Ok(taken)
    }

    /// Seven bits a byte, the lowest first.
    fn number(&mut self) -> Result<u64, String> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err("a number in it is too long".into())
    }

    fn field(&mut self) -> Result<(u64, Value<'a>), String> {
        let key = self.number()?;
        let value = match key & 7 {
            0 => Value::Number(self.number()?),
            1 => self.take(8).map(|_| Value::Bits64)?,
            2 => {
                let length = usize::try_from(self.number()?).map_err(|_| "a field of it is too long")?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Bits32(self.take(4)?.try_into().map(u32::from_le_bytes).unwrap_or_default()),
            kind => return Err(format!("a field of it is of the unknown kind {kind}")),
        };
        Ok((key >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}
