//! Reading a picture's file: one in any format that is read here, as red, green and blue of 8 bits over white, the right way up.

use std::{
    fs::File,
    io::{Cursor, Read},
    path::Path,
};

use image::{
    AnimationDecoder, DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits,
    codecs::{gif::GifDecoder, png::PngDecoder, webp::WebPDecoder},
    metadata::Orientation,
};
use sha2::{Digest, Sha256};

use super::{Pixels, resize};
use crate::{
    base::{
        geometry::{ImageSize, MAX_SIDE_PX},
        hex::hex,
        jpeg_end,
        memory::Bytes,
    },
    error::{Error, Result},
};

/// The largest file that is read.
const MOST_FILE_BYTES: u64 = 1 << 30;
/// The most that its pixels may take as they are stored: 357 million of red, green and blue of 8 bits.
const MOST_PIXEL_BYTES: u64 = 1 << 30;
/// What a decoder holds of a pixel beside the result: the coefficients of a progressive JPEG, 2 bytes for each of 4 channels.
const DECODER_BYTES: u64 = 8;

const FORMATS: &str = "PNG, JPEG, WebP, TIFF, GIF or BMP";

/// What is known of a picture's file before its pixels are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The picture's size, the right way up.
    pub size: ImageSize,
    /// The sha256 of the file, in hexadecimal.
    pub sha256: String,
    /// Whether it holds more frames than the first, which is the one that is read.
    pub is_animated: bool,
    /// The most bytes that are held while it is read.
    read_bytes: u64,
}

impl Seen {
    /// Of this size, and nothing else.
    #[cfg(test)]
    pub(crate) fn of(size: ImageSize) -> Self {
        Self { size, sha256: String::new(), is_animated: false, read_bytes: 0 }
    }

    /// The most bytes that are held while it is read and brought to a size.
    pub fn ready_bytes(&self, size: ImageSize) -> u64 {
        let (from, to) = (sides(self.size), sides(size));
        let rgb = |[height, width]: [usize; 2]| 3 * (height * width) as u64;
        let [source, between, resized] = [from, resize::between(from, to), to].map(rgb);
        self.read_bytes.max(source + between).max(between + resized)
    }
}

/// Reads a picture whole, to see whether it can be, and tells of it.
///
/// # Errors
/// [`Error::Disk`] when the file cannot be read; [`Error::Request`] when it is no picture, a damaged one, or one that takes more
/// memory than a picture may.
pub fn look(path: &Path) -> Result<Seen> {
    let bytes = file_bytes(path)?;
    let sha256 = hex(&Sha256::digest(&bytes));
    let file = PictureFile::new(path, &bytes)?;
    let (read_bytes, is_animated) = (file.read_bytes()?, file.is_animated()?);
    Ok(Seen { size: file.decoded()?.size, sha256, is_animated, read_bytes })
}

/// A picture of a size: the file that has this sha256, where one is known.
///
/// # Errors
/// As [`look`]; [`Error::Request`] when it is another file.
pub fn open(path: &Path, sha256: Option<&str>, size: ImageSize) -> Result<Pixels> {
    let bytes = file_bytes(path)?;
    let found = hex(&Sha256::digest(&bytes));
    if let Some(wanted) = sha256.filter(|wanted| *wanted != found) {
        return Err(changed(path, wanted, &found));
    }
    let Pixels { size: own, rgb8 } = PictureFile::new(path, &bytes)?.decoded()?;
    drop(bytes);
    Ok(Pixels { size, rgb8: resize::resized(rgb8, sides(own), sides(size)) })
}

fn sides(size: ImageSize) -> [usize; 2] {
    [size.height_px, size.width_px]
}

/// A picture that is no longer what it was.
pub fn changed(path: &Path, wanted: &str, found: &str) -> Error {
    let what = format!("{} has sha256 {found}; the picture that is asked for has {wanted}", path.display());
    Error::request(what, "put the file back that it was, or give another with --image FILE")
}

/// All of a file.
fn file_bytes(path: &Path) -> Result<Vec<u8>> {
    let disk = |error| Error::disk("cannot read the picture", path, error);
    if path.is_dir() {
        return Err(Error::request(format!("{} is a folder, not a picture", path.display()), "name a file in it"));
    }
    if path.metadata().is_ok_and(|data| !data.is_file()) {
        let what = format!("{} is a pipe or a device, and a picture is read twice", path.display());
        return Err(Error::request(what, "save it to a file first"));
    }
    let file = File::open(path).map_err(disk)?;
    let mut bytes = Vec::new();
    file.take(MOST_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(disk)?;
    if bytes.len() as u64 > MOST_FILE_BYTES {
        let what =
            format!("{} is larger than {}, the most a picture's file may be", path.display(), Bytes(MOST_FILE_BYTES));
        return Err(Error::request(what, "give a smaller copy of it"));
    }
    Ok(bytes)
}

/// A picture's file in memory.
struct PictureFile<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    format: ImageFormat,
}

impl<'a> PictureFile<'a> {
    fn new(path: &'a Path, bytes: &'a [u8]) -> Result<Self> {
        let format = image::guess_format(bytes).ok().filter(ImageFormat::reading_enabled);
        let format = format.ok_or_else(|| no_picture(path, bytes))?;
        Ok(Self { path, bytes, format })
    }

    fn decoder(&self) -> Result<impl ImageDecoder + use<'a>> {
        let mut reader = ImageReader::with_format(Cursor::new(self.bytes), self.format);
        // A header alone takes no memory: whether the picture is too large is told in our own words.
        reader.no_limits();
        let mut decoder = reader.into_decoder().map_err(|error| self.damaged(&error))?;
        self.check_extent(&decoder)?;
        let mut limits = Limits::no_limits();
        limits.max_alloc = Some(2 * MOST_PIXEL_BYTES);
        decoder.set_limits(limits).map_err(|error| self.damaged(&error))?;
        Ok(decoder)
    }

    fn check_extent(&self, decoder: &impl ImageDecoder) -> Result<()> {
        let (width, height) = decoder.dimensions();
        if width.max(height) as usize <= MAX_SIDE_PX && decoder.total_bytes() <= MOST_PIXEL_BYTES {
            return Ok(());
        }
        let what = format!(
            "{}: a picture of {height} x {width} px takes {} in memory; it may take {}, and {MAX_SIDE_PX} px a side",
            self.path.display(),
            Bytes(decoder.total_bytes()),
            Bytes(MOST_PIXEL_BYTES)
        );
        Err(Error::request(what, "give a smaller copy of it"))
    }

    /// The most bytes held while it is decoded: the file, which some decoders copy, and pixels as they are stored and as they
    /// are wanted.
    fn read_bytes(&self) -> Result<u64> {
        let decoder = self.decoder()?;
        let (width, height) = decoder.dimensions();
        let pixels = u64::from(width) * u64::from(height);
        Ok(2 * self.bytes.len() as u64 + decoder.total_bytes() + pixels * DECODER_BYTES)
    }

    fn is_animated(&self) -> Result<bool> {
        let file = Cursor::new(self.bytes);
        match self.format {
            ImageFormat::Png => PngDecoder::new(file).and_then(|decoder| decoder.is_apng()),
            ImageFormat::WebP => WebPDecoder::new(file).map(|decoder| decoder.has_animation()),
            // A second frame has to be read to be known of; a damaged one is none.
            ImageFormat::Gif => {
                GifDecoder::new(file).map(|decoder| decoder.into_frames().take(2).flatten().count() > 1)
            }
            _ => Ok(false),
        }
        .map_err(|error| self.damaged(&error))
    }

    /// The pixels over white, the right way up.
    fn decoded(&self) -> Result<Pixels> {
        let mut decoder = self.decoder()?;
        // EXIF that cannot be read turns nothing.
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        if !self.reaches_its_end() {
            return Err(self.broken("it ends before it should"));
        }
        let mut picture = DynamicImage::from_decoder(decoder).map_err(|error| self.damaged(&error))?;
        picture.apply_orientation(orientation);
        let size = ImageSize { height_px: picture.height() as usize, width_px: picture.width() as usize };
        if size.height_px == 0 || size.width_px == 0 {
            return Err(self.broken("it has no pixel"));
        }
        Ok(Pixels { size, rgb8: over_white(picture) })
    }

    /// Whether the file is as long as it says: some decoders do without what is missing, and say nothing.
    fn reaches_its_end(&self) -> bool {
        match self.format {
            ImageFormat::Jpeg => jpeg_end::is_whole(self.bytes),
            ImageFormat::WebP => {
                let said = self.bytes.get(4..8).map(|size| u32::from_le_bytes([size[0], size[1], size[2], size[3]]));
                said.is_some_and(|said| u64::from(said) + 8 <= self.bytes.len() as u64)
            }
            _ => true,
        }
    }

    fn damaged(&self, error: &ImageError) -> Error {
        match error {
            ImageError::Unsupported(_) => {
                let what = format!("{}: a kind of picture that is not read here: {error}", self.path.display());
                Error::request(what, "save it as a plain PNG")
            }
            _ => self.broken(&error.to_string()),
        }
    }

    fn broken(&self, why: &str) -> Error {
        let what = format!("{} is not a whole picture: {why}", self.path.display());
        Error::request(what, "it is damaged or cut short: give it whole")
    }
}

/// A file that begins like no picture.
fn no_picture(path: &Path, bytes: &[u8]) -> Error {
    let what = format!("{} is not a picture that is read here ({FORMATS})", path.display());
    let is_tensors = path.extension().is_some_and(|ending| ending == "safetensors");
    Error::request(
        what,
        match bytes {
            [] => "it is empty",
            _ if is_tensors => "latents become a picture with `dype decode`",
            _ => "save it as PNG",
        },
    )
}

/// Red, green and blue of 8 bits; what is transparent shows white.
fn over_white(picture: DynamicImage) -> Vec<u8> {
    if !picture.color().has_alpha() {
        return picture.into_rgb8().into_raw();
    }
    let rgba = picture.into_rgba8();
    let blended = |colour: u8, alpha: u8| {
        let (colour, alpha) = (u32::from(colour), u32::from(alpha));
        ((colour * alpha + 255 * (255 - alpha) + 127) / 255) as u8
    };
    let mut rgb8 = Vec::with_capacity(rgba.len() / 4 * 3);
    for pixel in rgba.pixels() {
        let [red, green, blue, alpha] = pixel.0;
        rgb8.extend([red, green, blue].map(|colour| blended(colour, alpha)));
    }
    rgb8
}
