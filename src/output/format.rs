//! The file formats of pictures.

use std::{
    io::{self, Write},
    path::Path,
};

use image::{ExtendedColorType, ImageEncoder, ImageError, codecs};

use super::{Picture, Provenance, exif, is_stream, jpeg, png_text, provenance, webp, xmp};
use crate::{
    base::geometry::ImageSize,
    error::{Error, Result},
};

/// Quality of JPEG files, as libjpeg counts it: above it files grow and nothing is seen.
const JPEG_QUALITY: u8 = 95;

/// A file format for pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Lossless; provenance in text chunks.
    Png,
    /// Quality 95, full colour resolution (4:4:4); provenance in EXIF and XMP.
    Jpeg,
    /// Lossless; provenance in EXIF and XMP.
    Webp,
}

impl Format {
    /// The format that a file's ending names, in any case; a stream is PNG where it names none.
    ///
    /// # Errors
    /// [`Error::Request`] when the ending is missing or unknown.
    pub fn from_path(path: &Path) -> Result<Self> {
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
        let what = match ending.as_deref() {
            Some("png") => return Ok(Self::Png),
            Some("jpg" | "jpeg") => return Ok(Self::Jpeg),
            Some("webp") => return Ok(Self::Webp),
            // A stream need not have a name that says anything.
            _ if is_stream(path) => return Ok(Self::Png),
            Some(other) if !other.is_empty() => format!("{:?}: unknown picture format .{other}", path),
            _ => format!("{:?} has no ending that names a picture format", path),
        };
        Err(Error::request(what, "end the name in .png, .jpg or .webp; a folder ends in /"))
    }

    /// The usual ending of its files.
    pub fn ending(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
            Self::Webp => "webp",
        }
    }

    /// Whether the format can hold a picture of this size; worth asking before the run.
    ///
    /// # Errors
    /// [`Error::Request`] when a side is too long.
    pub fn check_size(self, size: ImageSize) -> Result<()> {
        let (name, most) = match self {
            Self::Png => return Ok(()), // 2^31 - 1 a side
            Self::Jpeg => ("JPEG", 65_535),
            Self::Webp => ("WebP", 16_384),
        };
        if size.longer_px() <= most {
            return Ok(());
        }
        let ImageSize { height_px, width_px } = size;
        let what = format!(
            "{height_px} x {width_px} px (height x width) do not fit into a {name} file: its longest side is {most} px"
        );
        Err(Error::request(what, "end the output's name in .png"))
    }

    /// Writes the whole file.
    pub(super) fn encode(self, picture: &Picture, provenance: &Provenance, file: &mut dyn Write) -> io::Result<()> {
        let side = |length: usize| u32::try_from(length).map_err(io::Error::other);
        let (height, width) = (side(picture.height)?, side(picture.width)?);
        if self == Self::Png {
            return png(picture, provenance, file, (height, width)).map_err(png_error);
        }
        let (mut bytes, exif) = (vec![], exif::user_comment(&provenance.parameters, [height, width]));
        let packet = xmp::packet(&provenance.json);
        if self == Self::Jpeg {
            codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY)
                .write_image(&picture.rgb8, width, height, ExtendedColorType::Rgb8)
                .map_err(image_error)?;
            jpeg::write_with_metadata(&bytes, &exif, &packet, file)
        } else {
            let mut encoder = codecs::webp::WebPEncoder::new_lossless(&mut bytes);
            encoder.set_exif_metadata(exif).map_err(io::Error::other)?;
            encoder.write_image(&picture.rgb8, width, height, ExtendedColorType::Rgb8).map_err(image_error)?;
            webp::add_xmp(&mut bytes, &packet)?;
            file.write_all(&bytes)
        }
    }
}

fn png(
    picture: &Picture,
    provenance: &Provenance,
    file: &mut dyn Write,
    (height, width): (u32, u32),
) -> Result<(), png::EncodingError> {
    let mut encoder = png::Encoder::new(file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    // PNG text may not hold the NUL that ends its fields. tEXt is Latin-1 and what every tool reads; iTXt is UTF-8.
    let parameters = provenance.parameters.replace('\0', " ");
    let keyword = provenance::PARAMETERS_KEYWORD.to_owned();
    if png_text::is_plain(&parameters) {
        encoder.add_text_chunk(keyword, parameters)?;
    } else {
        encoder.add_itxt_chunk(keyword, parameters)?;
    }
    if !provenance.json.is_null() {
        encoder.add_itxt_chunk(provenance::SETTINGS_KEYWORD.to_owned(), provenance.json.to_string())?;
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&picture.rgb8)?;
    writer.finish()
}

/// The system's own error where there is one: a full disk must stay recognisable.
fn png_error(error: png::EncodingError) -> io::Error {
    match error {
        png::EncodingError::IoError(error) => error,
        other => io::Error::other(other),
    }
}

/// As [`png_error`].
fn image_error(error: ImageError) -> io::Error {
    match error {
        ImageError::IoError(error) => error,
        other => io::Error::other(other),
    }
}
