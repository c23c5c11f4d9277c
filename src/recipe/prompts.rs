//! The file of prompts: one a line, as plain text or as a JSON object whose keys are the flags.
//!
//! ```text
//! # a comment; blank lines are skipped too
//! a castle above a stormy sea
//! {"prompt": "a lighthouse", "seed": 7, "method": "ntk", "dype": false, "width": 2048}
//! ["a hill", {"prompt": "a harbour", "steps": 12}]
//! ```

mod array;
mod keys;
#[cfg(test)]
mod tests;
mod text;

use std::{
    io::{BufRead, Read},
    path::{Path, PathBuf},
};

use super::{Wanted, setting::Problem};
use crate::error::{Error, Result};

/// The longest line that is read: no text encoder sees more than a few thousand bytes of it, and a stream without line ends
/// must not fill the memory.
pub const MAX_LINE_BYTES: usize = 1 << 20;
/// One picture of a batch, as its line asks for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Number of the line in its file, from 1.
    pub number: usize,
    /// What to draw, without the space around it. Of a plain line never empty; an object or a text in quotes may say nothing.
    pub prompt: String,
    /// What else it asks for, in place of the command line's flags.
    pub overrides: Wanted,
    /// Where its picture goes, in place of `--output`.
    pub output: Option<PathBuf>,
}

impl Line {
    /// All that it asks for, its prompt included.
    pub fn wanted(&self) -> Wanted {
        Wanted { prompt: Some(self.prompt.clone()), ..self.overrides.clone() }
    }
}

/// Reads every line of a file of prompts; `name` is the file's in messages ("-" is told as "stdin").
///
/// A line that starts with `{` is a JSON object, one that starts with `[` and goes on as JSON an array of prompts and objects, which
/// may take several lines; one that starts with `#` is a comment, a blank one nothing, any other a prompt. Byte order marks, CRLF,
/// CR and space around a line are not part of it.
///
/// # Errors
/// [`Error::Request`] naming file, line and fault for the first line that is not UTF-8, too long, no JSON, has an unknown key, a
/// value of the wrong type or range, no prompt, or is written for another program; and for a file without a prompt.
/// [`Error::Disk`] when reading fails.
pub fn read_prompts(name: &str, reader: impl BufRead) -> Result<Vec<Line>> {
    let name = if name == "-" { "stdin" } else { name };
    let named = |(number, problem): (usize, Problem)| {
        Error::request(format!("{name} line {number}: {}", problem.what), problem.hint)
    };
    let texts = read_texts(name, reader, &named)?;
    let whole = texts.join("\n");
    let (mut lines, mut number, mut rest) = (Vec::new(), 1, whole.as_str());
    while number <= texts.len() {
        let text = texts[number - 1].trim();
        let mut taken = 1;
        if text.starts_with('[') && array::begins(rest.trim_start()) {
            let (found, count) = array::parse(rest.trim_start(), number).map_err(named)?;
            lines.extend(found);
            taken = count;
        } else {
            lines.extend(parse_line(text, number).map_err(|problem| named((number, problem)))?);
        }
        number += taken;
        (0..taken).for_each(|_| rest = rest.split_once('\n').map_or("", |(_, rest)| rest));
    }
    if lines.is_empty() {
        return Err(Error::request(format!("{name} holds no prompt"), "write one prompt a line, or JSON objects"));
    }
    Ok(lines)
}

/// The lines with their ends.
fn read_texts(name: &str, mut reader: impl BufRead, named: &dyn Fn((usize, Problem)) -> Error) -> Result<Vec<String>> {
    let (mut texts, mut bytes) = (Vec::new(), Vec::new());
    loop {
        let number = texts.len() + 1;
        bytes.clear();
        let mut limited = reader.by_ref().take(MAX_LINE_BYTES as u64 + 1);
        let read = limited.read_until(b'\n', &mut bytes);
        if read.map_err(|e| Error::disk("cannot read", Path::new(name), e))? == 0 {
            break;
        }
        let text = text::of_bytes(&bytes).map_err(|problem| named((number, problem)))?;
        let text = if number == 1 { text.trim_start_matches('\u{feff}') } else { text };
        // Before 2001 a Mac ended lines with a carriage return alone; Python reads them so too.
        texts.extend(text.trim_end_matches(['\r', '\n']).split('\r').map(str::to_owned));
    }
    Ok(texts)
}

/// One line; `None` when it asks for nothing.
fn parse_line(text: &str, number: usize) -> Result<Option<Line>, Problem> {
    if text.is_empty() || text.starts_with('#') {
        return Ok(None);
    }
    if text.starts_with('{') {
        return keys::parse(text, number).map(Some);
    }
    text::check(text)?;
    Ok(Some(Line { number, prompt: text.to_owned(), overrides: Wanted::default(), output: None }))
}

/// The prompt that a stream holds, without a byte order mark and the line end behind it.
///
/// # Errors
/// [`Error::Request`] for what is no text; [`Error::Disk`] when reading fails.
pub fn read_prompt(reader: impl Read) -> Result<String> {
    let mut bytes = Vec::new();
    let read = reader.take(MAX_LINE_BYTES as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| Error::disk("cannot read", Path::new("stdin"), error))?;
    let text = text::of_bytes(&bytes)
        .map_err(|problem| Error::request(format!("the prompt from stdin: {}", problem.what), problem.hint))?;
    Ok(text.trim_start_matches('\u{feff}').trim_end_matches(['\r', '\n']).to_owned())
}
