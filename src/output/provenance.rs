//! What a picture says about how it was made, and reading it back.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek},
    path::Path,
};

use serde_json::Value;

use super::{jpeg, png_text, webp, xmp};
use crate::error::{Error, Result};

/// PNG keyword of the text that other tools read.
pub(super) const PARAMETERS_KEYWORD: &str = "parameters";
/// PNG keyword of the settings.
pub(super) const SETTINGS_KEYWORD: &str = "dype";

/// How a picture was made, in two forms.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Provenance {
    /// For people and other tools: the text of [`parameters_text`].
    pub parameters: String,
    /// For dype itself: every setting, the model's identity, the program's version.
    pub json: Value,
}

/// Generation parameters as AUTOMATIC1111's web UI writes them: the prompt, then a line `Steps: 28, Seed: 42, ...`.
/// A value with a comma, colon or line break is written as a JSON string, as there (`infotext_utils.quote`).
pub fn parameters_text(prompt: &str, settings: &[(&str, String)]) -> String {
    let setting = |(name, value): &(&str, String)| match value.contains([',', ':', '\n']) {
        true => format!("{name}: {}", Value::from(value.as_str())),
        false => format!("{name}: {value}"),
    };
    let line: Vec<String> = settings.iter().map(setting).collect();
    format!("{prompt}\n{}", line.join(", "))
}

/// The settings a picture carries, or `None` when dype did not make it (or they were stripped from it).
///
/// The format is told by content: PNG, JPEG or WebP.
///
/// # Errors
/// [`Error::Disk`] when the file cannot be read; [`Error::Request`] when it is no such picture, or a damaged one.
pub fn read_provenance(path: &Path) -> Result<Option<Value>> {
    let broken = |why: String| {
        let hint = "give a picture made by dype: PNG, JPEG or WebP, not edited since";
        Error::request(format!("{}: {why}", path.display()), hint)
    };
    let file = File::open(path).map_err(|e| Error::disk("cannot read", path, e))?;
    let text = settings_text(BufReader::new(file)).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => broken(format!("not a whole picture ({error})")),
        _ => Error::disk("cannot read", path, error),
    })?;
    text.map(|text| serde_json::from_str(&text).map_err(|e| broken(format!("its settings are not JSON: {e}"))))
        .transpose()
}

/// Whether a picture's file reaches its end: a cut one (a power cut, a copy that broke off) does not.
///
/// It looks at the last bytes: PNG's closing chunk, JPEG's closing marker, the length a WebP file says it has.
///
/// # Errors
/// When the file cannot be read.
pub fn is_whole(path: &Path) -> io::Result<bool> {
    const PNG_END: [u8; 12] = [0, 0, 0, 0, b'I', b'E', b'N', b'D', 0xae, 0x42, 0x60, 0x82];
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    if length < 24 {
        return Ok(false);
    }
    let (mut head, mut tail) = ([0; 12], [0; 12]);
    file.read_exact(&mut head)?;
    file.seek(io::SeekFrom::End(-12))?;
    file.read_exact(&mut tail)?;
    Ok(match head {
        [0x89, b'P', b'N', b'G', ..] => tail == PNG_END,
        [0xff, 0xd8, ..] => tail.ends_with(&[0xff, 0xd9]),
        [b'R', b'I', b'F', b'F', a, b, c, d, b'W', b'E', b'B', b'P'] => {
            u64::from(u32::from_le_bytes([a, b, c, d])) + 8 == length
        }
        _ => false,
    })
}

/// The JSON text in a picture.
fn settings_text(mut file: BufReader<File>) -> io::Result<Option<String>> {
    let mut head = [0; 12];
    file.read_exact(&mut head)?;
    match head {
        [0x89, b'P', b'N', b'G', ..] => {
            file.seek(io::SeekFrom::Start(8))?;
            png_text::read(&mut file, SETTINGS_KEYWORD)
        }
        [0xff, 0xd8, ..] => {
            file.seek(io::SeekFrom::Start(2))?;
            Ok(xmp::settings_text(&jpeg::read_xmp(&mut file)?))
        }
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P'] => {
            Ok(xmp::settings_text(&webp::read_xmp(&mut file)?))
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "neither PNG, JPEG nor WebP")),
    }
}
