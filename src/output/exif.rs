//! The smallest EXIF block that holds a user comment and every tag that EXIF asks for.
//!
//! Source: TIFF 6.0 for the layout, EXIF 2.32 for the tags and which of them a file must have, AUTOMATIC1111's web UI for the habit
//! of keeping generation parameters in the user comment, as UTF-16 in the byte order of the block (its `piexif` writes and expects
//! big-endian).

/// TIFF's types, and the bytes of one value.
const SHORT: (u16, u32) = (3, 2);
const LONG: (u16, u32) = (4, 4);
const RATIONAL: (u16, u32) = (5, 8);
const UNDEFINED: (u16, u32) = (7, 1);
/// Tag of the folder of EXIF's own tags.
const EXIF_FOLDER: u16 = 0x8769;
/// The comment's character code.
const UNICODE: &[u8; 8] = b"UNICODE\0";
/// A JPEG segment holds 65,533 bytes; a longer text is cut (the XMP record beside it is whole).
const MAX_TEXT_BYTES: usize = 65_000;
/// Dots an inch, where nobody has said any: EXIF's default.
const DPI: u32 = 72;

/// A tag with its type and values.
type Entry = (u16, (u16, u32), Vec<u8>);

/// An EXIF block, without the `Exif\0\0` that JPEG puts before it, of a picture of `[height, width]` pixels.
pub fn user_comment(text: &str, [height, width]: [u32; 2]) -> Vec<u8> {
    let dpi = || [DPI.to_be_bytes(), 1u32.to_be_bytes()].concat();
    let short = |value: u16| value.to_be_bytes().to_vec();
    let picture: [Entry; 4] = [
        (0x011a, RATIONAL, dpi()), // XResolution
        (0x011b, RATIONAL, dpi()), // YResolution
        (0x0128, SHORT, short(2)), // ResolutionUnit: inches
        (0x0213, SHORT, short(1)), // YCbCrPositioning: centred
    ];
    let own: [Entry; 7] = [
        (0x9000, UNDEFINED, b"0232".to_vec()),         // ExifVersion
        (0x9101, UNDEFINED, vec![1, 2, 3, 0]),         // ComponentsConfiguration: Y, Cb, Cr
        (0x9286, UNDEFINED, comment(text)),            // UserComment
        (0xa000, UNDEFINED, b"0100".to_vec()),         // FlashpixVersion
        (0xa001, SHORT, short(1)),                     // ColorSpace: sRGB
        (0xa002, LONG, width.to_be_bytes().to_vec()),  // PixelXDimension
        (0xa003, LONG, height.to_be_bytes().to_vec()), // PixelYDimension
    ];
    const FIRST: usize = 8;
    // The folder of EXIF's own tags stands behind the picture's, one entry of which points to it.
    let after = |at: usize| FIRST + folder(&with_pointer(&picture, at), FIRST).len();
    let own_at = after(0);
    let mut block = b"MM\0\x2a".to_vec();
    block.extend((FIRST as u32).to_be_bytes());
    block.extend(folder(&with_pointer(&picture, own_at), FIRST));
    block.extend(folder(&own, own_at));
    block
}

fn with_pointer(picture: &[Entry], at: usize) -> Vec<Entry> {
    let pointer = (EXIF_FOLDER, LONG, (at as u32).to_be_bytes().to_vec());
    picture.iter().cloned().chain([pointer]).collect()
}

/// A folder that stands at `at`: a count of 2 bytes, entries of 12, 4 for "no further folder", and the values that are too long
/// for their entries.
fn folder(entries: &[Entry], at: usize) -> Vec<u8> {
    let mut folder = (entries.len() as u16).to_be_bytes().to_vec();
    let mut values = vec![];
    let values_at = at + 2 + 12 * entries.len() + 4;
    for (tag, (kind, width), bytes) in entries {
        folder.extend(tag.to_be_bytes());
        folder.extend(kind.to_be_bytes());
        folder.extend((bytes.len() as u32 / width).to_be_bytes());
        if bytes.len() <= 4 {
            folder.extend(bytes);
            folder.extend(vec![0; 4 - bytes.len()]);
        } else {
            folder.extend(((values_at + values.len()) as u32).to_be_bytes());
            values.extend(bytes);
            values.extend(vec![0; bytes.len() % 2]);
        }
    }
    folder.extend([0; 4]);
    folder.extend(values);
    folder
}

fn comment(text: &str) -> Vec<u8> {
    let mut comment = UNICODE.to_vec();
    for c in text.chars() {
        if comment.len() + 2 * c.len_utf16() > MAX_TEXT_BYTES {
            break;
        }
        comment.extend(c.encode_utf16(&mut [0; 2]).iter().flat_map(|unit| unit.to_be_bytes()));
    }
    comment
}
