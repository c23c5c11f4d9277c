//! What a picture says about how it was made, and reading it back.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek},
    path::Path,
};

use serde_json::Value;

use super::{Format, Parameters, exif, jpeg, png_text, webp, xmp};
use crate::{
    base::jpeg_end,
    error::{Error, Result},
};

/// PNG keyword of the text that other tools read.
pub(super) const PARAMETERS_KEYWORD: &str = "parameters";
/// The key of a preview's settings that a picture's have not: which step it shows.
pub const PREVIEW: &str = "preview";
/// Where the chunks of a PNG file begin.
const PNG_BEGINS: u64 = 8;
/// PNG keyword of the settings.
pub(super) const SETTINGS_KEYWORD: &str = "dype";

/// How a picture was made, in two forms.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Provenance {
    /// For people and other tools: the text of [`parameters_text`](super::parameters_text).
    pub parameters: String,
    /// For dype itself: every setting, the model's identity, the program's version.
    pub json: Value,
}

/// The settings a picture carries, or `None` when dype did not make it (or they were stripped from it).
///
/// The format is told by content: PNG, JPEG or WebP.
///
/// # Errors
/// [`Error::Disk`] when the file cannot be read; [`Error::Request`] when it is no such picture, or a damaged one.
pub fn read_provenance(path: &Path) -> Result<Option<Value>> {
    let file = File::open(path).map_err(|e| Error::disk("cannot read", path, e))?;
    let text = settings_text(BufReader::new(file)).map_err(|error| unreadable(path, error))?;
    let json = |text: String| {
        serde_json::from_str(&text).map_err(|e| broken(path, &format!("its settings are not JSON: {e}")))
    };
    text.map(json).transpose()
}

fn broken(path: &Path, why: &str) -> Error {
    let hint = "give a picture made by dype: PNG, JPEG or WebP, not edited since";
    Error::request(format!("{}: {why}", path.display()), hint)
}

fn unreadable(path: &Path, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            broken(path, &format!("not a whole picture ({error})"))
        }
        _ => Error::disk("cannot read", path, error),
    }
}

/// Whether a file is a preview of a picture that was being made.
pub fn is_preview(path: &Path) -> bool {
    read_provenance(path).is_ok_and(|json| json.is_some_and(|json| json.get(PREVIEW).is_some()))
}

/// The text for people and other tools that a picture carries, whoever made it; `None` where it has none. Some programs keep it
/// and drop the settings beside it.
///
/// # Errors
/// As [`read_provenance`].
pub fn read_parameters(path: &Path) -> Result<Option<Parameters>> {
    let file = File::open(path).map_err(|e| Error::disk("cannot read", path, e))?;
    parameters_of(BufReader::new(file)).map_err(|error| unreadable(path, error))
}

/// Whether a picture's file reaches its end: a cut one (a power cut, a copy that broke off) does not. What follows the end is not the
/// picture's.
///
/// The end is PNG's closing chunk, JPEG's closing marker, the length a WebP file says it has.
///
/// # Errors
/// When the file cannot be read.
pub fn is_whole(path: &Path) -> io::Result<bool> {
    let mut file = BufReader::new(File::open(path)?);
    let length = file.get_ref().metadata()?.len();
    let mut head = [0; 12];
    if length < 24 {
        return Ok(false);
    }
    file.read_exact(&mut head)?;
    Ok(match format_of(&head) {
        Some(Format::Png) => has_closing_chunk(file, length)?,
        Some(Format::Jpeg) => {
            let mut bytes = head.to_vec();
            file.read_to_end(&mut bytes)?;
            jpeg_end::is_whole(&bytes)
        }
        Some(Format::Webp) => u64::from(u32::from_le_bytes([head[4], head[5], head[6], head[7]])) + 8 <= length,
        None => false,
    })
}

/// Whether a PNG file of this length has its last chunk whole: chunks are a length, a name, data and a checksum.
fn has_closing_chunk(mut file: impl Read + Seek, length: u64) -> io::Result<bool> {
    const FRAME: u64 = 12;
    let mut at = PNG_BEGINS;
    while at + FRAME <= length {
        let mut head = [0; 8];
        file.seek(io::SeekFrom::Start(at))?;
        file.read_exact(&mut head)?;
        let [a, b, c, d, name @ ..] = head;
        at += FRAME + u64::from(u32::from_be_bytes([a, b, c, d]));
        if name == *b"IEND" {
            return Ok(at <= length);
        }
    }
    Ok(false)
}

/// The format of a picture; the reader is left where its parts begin.
fn begun(file: &mut BufReader<File>) -> io::Result<Format> {
    let mut head = [0; 12];
    file.read_exact(&mut head)?;
    let unknown = || io::Error::new(io::ErrorKind::InvalidData, "neither PNG, JPEG nor WebP");
    let format = format_of(&head).ok_or_else(unknown)?;
    let at = match format {
        Format::Png => PNG_BEGINS,
        Format::Jpeg => 2,
        Format::Webp => 12,
    };
    file.seek(io::SeekFrom::Start(at))?;
    Ok(format)
}

/// The format of a file that begins with these bytes.
fn format_of(head: &[u8; 12]) -> Option<Format> {
    match head {
        [0x89, b'P', b'N', b'G', ..] => Some(Format::Png),
        [0xff, 0xd8, ..] => Some(Format::Jpeg),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P'] => Some(Format::Webp),
        _ => None,
    }
}

/// The JSON text in a picture.
fn settings_text(mut file: BufReader<File>) -> io::Result<Option<String>> {
    match begun(&mut file)? {
        Format::Png => png_text::read(&mut file, SETTINGS_KEYWORD, &[*b"iTXt"]),
        Format::Jpeg => Ok(xmp::settings_text(&jpeg::read_xmp(&mut file)?)),
        Format::Webp => Ok(xmp::settings_text(&webp::read_xmp(&mut file)?)),
    }
}

/// The text for other tools in a picture. A camera's comment is none: a comment has to have a line of settings.
fn parameters_of(mut file: BufReader<File>) -> io::Result<Option<Parameters>> {
    let exif = match begun(&mut file)? {
        Format::Png => {
            let begins = file.stream_position()?;
            if let Some(text) = png_text::read(&mut file, PARAMETERS_KEYWORD, &[*b"iTXt", *b"tEXt", *b"zTXt"])? {
                return Ok(Some(Parameters::parse(&text)).filter(|read| *read != Parameters::default()));
            }
            file.seek(io::SeekFrom::Start(begins))?;
            png_text::read_exif(&mut file)?
        }
        Format::Jpeg => jpeg::read_exif(&mut file)?,
        Format::Webp => webp::read_exif(&mut file)?,
    };
    let comment = exif.and_then(|block| exif::read_user_comment(&block));
    Ok(comment.map(|text| Parameters::parse(&text)).filter(|read| !read.settings.is_empty()))
}
