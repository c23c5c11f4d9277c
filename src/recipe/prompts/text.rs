//! What a line must be to be drawn as text: UTF-8 without a NUL, and no command line of another program.

use super::{super::setting::Problem, MAX_LINE_BYTES};

/// The text of a line of bytes; of UTF-16 and other texts that would be drawn as something else it says what they are.
pub fn of_bytes(bytes: &[u8]) -> Result<&str, Problem> {
    if bytes.len() > MAX_LINE_BYTES {
        return Err(Problem::new(format!("longer than {MAX_LINE_BYTES} bytes"), "write one prompt a line"));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let what = format!("not UTF-8 (byte {} of the line)", e.valid_up_to() + 1);
        Problem::new(what, "save the file as UTF-8; an editor or `iconv -t UTF-8` does it")
    })?;
    match bytes.iter().position(|byte| *byte == 0) {
        None => Ok(text),
        // Every other byte of Latin text in UTF-16.
        Some(at) if bytes.iter().filter(|byte| **byte == 0).count() * 3 > bytes.len() => {
            let what = format!("this looks like UTF-16 (byte {} of the line is NUL)", at + 1);
            Err(Problem::new(what, "save the file as UTF-8; an editor or `iconv -f UTF-16 -t UTF-8` does it"))
        }
        Some(at) => {
            Err(Problem::new(format!("byte {} of the line is NUL, which no prompt holds", at + 1), "delete it"))
        }
    }
}

/// Refuses a line that is written for another program: with flags, as A1111 and InvokeAI read them.
pub(super) fn check_flags(line: &str) -> Result<(), Problem> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let is_value = |word: Option<&&str>| word.is_some_and(|word| word.parse::<f64>().is_ok());
    let flag = words
        .iter()
        .enumerate()
        .find(|(i, word)| is_long_flag(word) || is_short_flag(word, is_value(words.get(i + 1))));
    match flag {
        None => Ok(()),
        Some((_, flag)) => {
            let what = format!("{flag:?} looks like a flag, and would be drawn as text");
            let hint = "write the line as a JSON object, such as {\"prompt\": \"a cat\", \"steps\": 30}; if it is text, put it into one too";
            Err(Problem::new(what, hint))
        }
    }
}

/// `--steps`, `--steps=30`
fn is_long_flag(word: &str) -> bool {
    let name = word.strip_prefix("--").map(|rest| rest.split('=').next().unwrap_or_default());
    name.is_some_and(|name| {
        name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    })
}

/// `-s30`, or `-s` before a number.
fn is_short_flag(word: &str, before_number: bool) -> bool {
    let Some(rest) = word.strip_prefix('-') else { return false };
    let mut chars = rest.chars();
    let is_letter = chars.next().is_some_and(|c| c.is_ascii_alphabetic());
    let value = chars.as_str();
    is_letter && if value.is_empty() { before_number } else { value.parse::<f64>().is_ok() }
}
