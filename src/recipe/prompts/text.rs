//! What a line must be to be drawn as text: UTF-8 without a NUL, and nothing that is written for another program.

use super::{
    super::{declared, setting::Problem},
    MAX_LINE_BYTES, keys,
};

/// What to do with a line of another program.
const HINT: &str = "write the line as a JSON object, such as {\"prompt\": \"a cat\", \"steps\": 30}; if it is text, put it into one too";

/// The text of a line of bytes; of UTF-16 and other texts that would be drawn as something else it says what they are.
pub fn of_bytes(bytes: &[u8]) -> Result<&str, Problem> {
    if bytes.len() > MAX_LINE_BYTES {
        return Err(Problem::new(format!("longer than {MAX_LINE_BYTES} bytes"), "write one prompt a line"));
    }
    if let Some(name) = wide_encoding(bytes) {
        let hint = format!("save the file as UTF-8; an editor or `iconv -f {name} -t UTF-8` does it");
        return Err(Problem::new(format!("this looks like {name}"), hint));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let what = format!("not UTF-8 (byte {} of the line)", e.valid_up_to() + 1);
        Problem::new(what, "save the file as UTF-8; an editor or `iconv -t UTF-8` does it")
    })?;
    match bytes.iter().position(|byte| *byte == 0) {
        None => Ok(text),
        Some(at) => {
            Err(Problem::new(format!("byte {} of the line is NUL, which no prompt holds", at + 1), "delete it"))
        }
    }
}

/// UTF-16 or UTF-32, where a byte order mark says so or so many NULs as Latin text has in it.
fn wide_encoding(bytes: &[u8]) -> Option<&'static str> {
    let nuls = bytes.iter().filter(|byte| **byte == 0).count();
    let is_marked = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff");
    if nuls * 10 > bytes.len() * 6 { Some("UTF-32") } else { (is_marked || nuls * 3 > bytes.len()).then_some("UTF-16") }
}

/// Refuses a line that is written for another program: flags, the head of a table, settings with a colon as YAML and A1111 write them.
pub(super) fn check(line: &str) -> Result<(), Problem> {
    check_flags(line)?;
    let what = if let Some(name) = setting(line) {
        format!("{name:?} is a setting of another format, and would be drawn as text")
    } else if is_head_of_table(line) {
        format!("{line:?} is the head of a table, and all of it would be drawn as text")
    } else {
        return Ok(());
    };
    Err(Problem::new(what, HINT))
}

/// `prompt:`, also as an item of a list; `Negative prompt:` and `Steps: 20, ` as A1111 writes them; the line that begins YAML.
fn setting(line: &str) -> Option<&str> {
    if line == "---" {
        return Some(line);
    }
    let line = line.strip_prefix("- ").map_or(line, str::trim_start);
    let (name, value) = line.split_once(':')?;
    let is_prompt = ["prompt", "negative prompt", "negative_prompt"].contains(&name.to_lowercase().as_str());
    let is_steps =
        || name == "Steps" && value.split(',').next().is_some_and(|steps| steps.trim().parse::<u32>().is_ok());
    (is_prompt || is_steps()).then_some(&line[..=name.len()])
}

/// Two names of settings or more with commas, semicolons or tabs between them, the prompt's among them.
fn is_head_of_table(line: &str) -> bool {
    [',', ';', '\t'].iter().any(|separator| {
        let cells =
            line.split(*separator).map(|cell| cell.trim().trim_matches('"').to_lowercase().replace(['-', ' '], "_"));
        let cells: Vec<String> = cells.collect();
        cells.len() > 1
            && cells.iter().any(|cell| cell == declared::prompt.key)
            && cells.iter().all(|cell| keys::all().contains(&cell.as_str()))
    })
}

/// Refuses flags, as A1111 and InvokeAI read them in a line.
fn check_flags(line: &str) -> Result<(), Problem> {
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
            Err(Problem::new(what, HINT))
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
