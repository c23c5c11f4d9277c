//! The file of prompts: one a line, as plain text or as a JSON object whose keys are the flags.
//!
//! ```text
//! # a comment; blank lines are skipped too
//! a castle above a stormy sea
//! {"prompt": "a lighthouse", "seed": 7, "method": "ntk", "dype": false, "width": 2048}
//! ```

mod keys;
#[cfg(test)]
mod tests;

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
    /// What to draw, without the space around it; never empty.
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
/// A line that starts with `{` is a JSON object, one that starts with `#` a comment, a blank one nothing, any other a
/// prompt. Byte order marks, CRLF and space around a line are not part of it.
///
/// # Errors
/// [`Error::Request`] naming file, line and fault for the first line that is not UTF-8, too long, no JSON object, or has
/// an unknown key, a value of the wrong type or range, or no prompt; and for a file without a prompt.
/// [`Error::Disk`] when reading fails.
pub fn read_prompts(name: &str, mut reader: impl BufRead) -> Result<Vec<Line>> {
    let name = if name == "-" { "stdin" } else { name };
    let (mut lines, mut bytes) = (Vec::new(), Vec::new());
    for number in 1.. {
        bytes.clear();
        let mut limited = reader.by_ref().take(MAX_LINE_BYTES as u64 + 1);
        let read = limited.read_until(b'\n', &mut bytes);
        if read.map_err(|e| Error::disk("cannot read", Path::new(name), e))? == 0 {
            break;
        }
        let line = parse_line(&bytes, number);
        let named = |problem: Problem| Error::request(format!("{name} line {number}: {}", problem.what), problem.hint);
        lines.extend(line.map_err(named)?);
    }
    if lines.is_empty() {
        return Err(Error::request(format!("{name} holds no prompt"), "write one prompt a line, or JSON objects"));
    }
    Ok(lines)
}

/// One line with its end; `None` when it asks for nothing.
fn parse_line(bytes: &[u8], number: usize) -> Result<Option<Line>, Problem> {
    if bytes.len() > MAX_LINE_BYTES {
        let what = format!("longer than {MAX_LINE_BYTES} bytes");
        return Err(Problem::new(what, "write one prompt a line"));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let what = format!("not UTF-8 (byte {} of the line)", e.valid_up_to() + 1);
        Problem::new(what, "save the file as UTF-8; an editor or `iconv -t UTF-8` does it")
    })?;
    let text = if number == 1 { text.trim_start_matches('\u{feff}') } else { text }.trim();
    if text.is_empty() || text.starts_with('#') {
        return Ok(None);
    }
    if text.starts_with('{') {
        return keys::parse(text, number).map(Some);
    }
    Ok(Some(Line { number, prompt: text.to_owned(), overrides: Wanted::default(), output: None }))
}
