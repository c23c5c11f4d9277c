//! The smallest EXIF block that holds a user comment.
//!
//! Source: TIFF 6.0 for the layout, EXIF 2.3 for the tags, AUTOMATIC1111's web UI for the habit of keeping generation
//! parameters in the user comment, as UTF-16 in the byte order of the block (its `piexif` writes and expects big-endian).

/// Tag of the folder of EXIF's own tags.
const EXIF_FOLDER: u16 = 0x8769;
/// Tag of the user comment.
const USER_COMMENT: u16 = 0x9286;
/// TIFF's types of the two.
const LONG: u16 = 4;
const UNDEFINED: u16 = 7;
/// The comment's character code.
const UNICODE: &[u8; 8] = b"UNICODE\0";
/// The header's 8 bytes, then per folder a count of 2, an entry of 12, and 4 for "no further folder".
const FOLDER_BYTES: u32 = 2 + 12 + 4;
const EXIF_FOLDER_AT: u32 = 8 + FOLDER_BYTES;
const COMMENT_AT: u32 = EXIF_FOLDER_AT + FOLDER_BYTES;
/// A JPEG segment holds 65,533 bytes; a longer text is cut (the XMP record beside it is whole).
const MAX_TEXT_BYTES: usize = 65_000;

/// An EXIF block, without the `Exif\0\0` that JPEG puts before it.
pub fn user_comment(text: &str) -> Vec<u8> {
    let mut comment = UNICODE.to_vec();
    for c in text.chars() {
        if comment.len() + 2 * c.len_utf16() > MAX_TEXT_BYTES {
            break;
        }
        comment.extend(c.encode_utf16(&mut [0; 2]).iter().flat_map(|unit| unit.to_be_bytes()));
    }
    let mut block = b"MM\0\x2a".to_vec();
    block.extend(8u32.to_be_bytes());
    push_folder(&mut block, EXIF_FOLDER, LONG, 1, EXIF_FOLDER_AT);
    push_folder(&mut block, USER_COMMENT, UNDEFINED, comment.len() as u32, COMMENT_AT);
    block.extend(comment);
    block
}

/// A folder of one entry.
fn push_folder(block: &mut Vec<u8>, tag: u16, kind: u16, count: u32, value: u32) {
    for short in [1, tag, kind] {
        block.extend(short.to_be_bytes());
    }
    for long in [count, value, 0] {
        block.extend(long.to_be_bytes());
    }
}
