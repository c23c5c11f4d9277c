//! The file of prompts: one a line, as plain text or as a JSON object whose keys are the flags.
//!
//! ```text
//! # a comment; blank lines are skipped too
//! a castle above a stormy sea
//! {"prompt": "a lighthouse", "seed": 7, "method": "ntk", "dype": false, "width": 2048}
//! ```

mod fields;
#[cfg(test)]
mod tests;

use std::{
    io::{BufRead, Read},
    path::{Path, PathBuf},
};

use crate::{
    error::{Error, Result},
    methods::{Method, Thresholds},
    sampling::{Mu, Rng},
};

/// The longest line that is read: no text encoder sees more than a few thousand bytes of it, and a stream without line ends
/// must not fill the memory.
pub const MAX_LINE_BYTES: usize = 1 << 20;
/// The most denoising steps, as `--steps` takes them.
pub const MAX_STEPS: usize = 10_000;
/// The most T5 tokens, as `--max-sequence-length` takes them. Source: diffusers, `FluxPipeline.check_inputs`.
pub const MAX_SEQUENCE_LENGTH: usize = 512;

/// One picture of a batch, as its line asks for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Number of the line in its file, from 1.
    pub number: usize,
    /// What to draw, without the space around it; never empty.
    pub prompt: String,
    /// What this line asks for in place of the command line's flags.
    pub overrides: Overrides,
}

/// Flags that a line sets for itself; `None` leaves the command line's.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overrides {
    /// Seed of the noise.
    pub seed: Option<u64>,
    /// How positions are scaled.
    pub method: Option<Method>,
    /// Whether the scaling follows the denoising steps.
    pub dype: Option<bool>,
    /// lambda_s of kappa(t), 0 or more.
    pub dype_scale: Option<f64>,
    /// lambda_t of kappa(t), 0 or more.
    pub dype_exponent: Option<f64>,
    /// How kappa moves YaRN's thresholds.
    pub dype_thresholds: Option<Thresholds>,
    /// Training resolution in pixels, 16 to 65,536.
    pub base_resolution: Option<usize>,
    /// Width in pixels, 16 to 65,536.
    pub width: Option<usize>,
    /// Height in pixels, 16 to 65,536.
    pub height: Option<usize>,
    /// Denoising steps, 1 to [`MAX_STEPS`].
    pub steps: Option<usize>,
    /// Guidance scale.
    pub guidance: Option<f64>,
    /// The time shift.
    pub mu: Option<Mu>,
    /// Source of the noise.
    pub rng: Option<Rng>,
    /// T5 tokens, 1 to [`MAX_SEQUENCE_LENGTH`].
    pub max_sequence_length: Option<usize>,
    /// Where the picture goes.
    pub output: Option<PathBuf>,
}

/// What is wrong with a line, and what to do about it.
#[derive(Debug, PartialEq)]
struct Problem {
    what: String,
    hint: String,
}

impl Problem {
    fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), hint: hint.into() }
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
    let (prompt, overrides) =
        if text.starts_with('{') { fields::parse(text)? } else { (text.to_owned(), Overrides::default()) };
    Ok(Some(Line { number, prompt, overrides }))
}
