//! The smallest EXIF block that holds a user comment and every tag that EXIF asks for; and the user comment of any block.
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
/// Tag of the user comment.
const USER_COMMENT: u16 = 0x9286;
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
        (USER_COMMENT, UNDEFINED, comment(text)),      // UserComment
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

/// The user comment of an EXIF block, in either byte order; `None` where there is none, or the block is broken.
pub fn read_user_comment(block: &[u8]) -> Option<String> {
    // Some writers keep JPEG's header before the block in other formats too.
    let block = Block::new(block.strip_prefix(b"Exif\0\0").unwrap_or(block))?;
    let first = block.long(4)?;
    let own = block.value(first, EXIF_FOLDER)?;
    let own = block.long(own)?;
    let entry = block.value(own, USER_COMMENT)?;
    // The value's length stands before its place.
    let (length, at) = (block.long(entry.checked_sub(4)?)?, block.long(entry)?);
    let (code, text) = block.bytes.get(at..at.checked_add(length)?)?.split_at_checked(UNICODE.len())?;
    match code {
        b"UNICODE\0" => Some(utf16(text, block.is_big)),
        b"ASCII\0\0\0" | b"\0\0\0\0\0\0\0\0" => Some(String::from_utf8_lossy(text).into_owned()),
        _ => None,
    }
}

/// An EXIF block that is read.
struct Block<'a> {
    bytes: &'a [u8],
    is_big: bool,
}

impl<'a> Block<'a> {
    fn new(bytes: &'a [u8]) -> Option<Self> {
        let is_big = bytes.starts_with(b"MM\0\x2a");
        (is_big || bytes.starts_with(b"II\x2a\0")).then_some(Self { bytes, is_big })
    }

    fn short(&self, at: usize) -> Option<u16> {
        let bytes = *self.bytes.get(at..)?.first_chunk()?;
        Some(if self.is_big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }

    fn long(&self, at: usize) -> Option<usize> {
        let bytes = *self.bytes.get(at..)?.first_chunk()?;
        usize::try_from(if self.is_big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }).ok()
    }

    /// Where the value, or the place, of the tag stands in the folder at `folder`.
    fn value(&self, folder: usize, tag: u16) -> Option<usize> {
        let entries = (0..usize::from(self.short(folder)?)).map(|i| folder.saturating_add(2 + 12 * i));
        entries.take_while(|at| *at < self.bytes.len()).find(|at| self.short(*at) == Some(tag))?.checked_add(8)
    }
}

/// UTF-16 in the byte order of its mark, else in the one that gives more letters of Latin, else in the block's: writers do not agree.
fn utf16(bytes: &[u8], is_big: bool) -> String {
    let (pairs, _) = bytes.as_chunks::<2>();
    let count = |place: usize| pairs.iter().filter(|pair| pair[place] == 0 && pair[1 - place] != 0).count();
    let is_big = match pairs.first() {
        Some([0xfe, 0xff]) => true,
        Some([0xff, 0xfe]) => false,
        _ if count(0) == count(1) => is_big,
        _ => count(0) > count(1),
    };
    let unit = if is_big { u16::from_be_bytes } else { u16::from_le_bytes };
    let text = char::decode_utf16(pairs.iter().map(|pair| unit(*pair)));
    let text: String = text.map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    text.trim_start_matches('\u{feff}').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "a lake, 山 🏔\nSteps: 1, Seed: 2, Size: 8x8";

    /// A little-endian block as other writers make it, with this comment.
    fn little(comment: &[u8]) -> Vec<u8> {
        let entry = |tag: u16, kind: u16, count: usize, value: u32| {
            [&tag.to_le_bytes()[..], &kind.to_le_bytes(), &(count as u32).to_le_bytes(), &value.to_le_bytes()].concat()
        };
        let folder = |entry: Vec<u8>| [&1u16.to_le_bytes()[..], &entry, &[0; 4]].concat();
        let (first, own) = (folder(entry(EXIF_FOLDER, 4, 1, 26)), folder(entry(USER_COMMENT, 7, comment.len(), 44)));
        [b"II\x2a\0\x08\0\0\0", &first[..], &own, comment].concat()
    }

    #[test]
    fn the_comment_is_read_as_it_was_written() {
        let block = user_comment(TEXT, [64, 80]);
        assert_eq!(read_user_comment(&block).as_deref(), Some(TEXT));
        assert_eq!(read_user_comment(&[b"Exif\0\0", &block[..]].concat()).as_deref(), Some(TEXT));
    }

    #[test]
    fn other_writers_have_other_byte_orders_and_codes() {
        let units = |order: fn(u16) -> [u8; 2], mark: &str| -> Vec<u8> {
            [mark, TEXT].concat().encode_utf16().flat_map(order).collect()
        };
        for (code, bytes) in [
            (&b"UNICODE\0"[..], units(u16::to_le_bytes, "")),
            (b"UNICODE\0", units(u16::to_be_bytes, "")),
            (b"UNICODE\0", units(u16::to_be_bytes, "\u{feff}")),
            (b"UNICODE\0", units(u16::to_le_bytes, "\u{feff}")),
            (b"ASCII\0\0\0", TEXT.as_bytes().to_vec()),
            (b"\0\0\0\0\0\0\0\0", TEXT.as_bytes().to_vec()),
        ] {
            assert_eq!(read_user_comment(&little(&[code, &bytes].concat())).as_deref(), Some(TEXT));
        }
        assert_eq!(read_user_comment(&little(b"JIS\0\0\0\0\0abc")), None);
        assert_eq!(read_user_comment(&little(b"UNI")), None);
    }

    #[test]
    fn broken_blocks_never_panic() {
        for block in [user_comment(TEXT, [64, 80]), little(&[&b"ASCII\0\0\0"[..], TEXT.as_bytes()].concat())] {
            for at in 0..block.len() {
                let _ = read_user_comment(&block[..at]);
                let mut flipped = block.clone();
                flipped[at] ^= 0xff;
                let _ = read_user_comment(&flipped);
            }
        }
        assert_eq!(read_user_comment(b"II\x2a\0\xff\xff\xff\xff"), None);
    }
}
