//! Metadata segments of JPEG files.
//!
//! Source: JPEG (ITU-T T.81) annex B for segments, EXIF 2.3 and XMP part 3 (ISO 16684-3, with ExtendedXMP) for APP1.

use std::io::{self, Read, Write};

use sha2::{Digest, Sha256};

use super::{MOST_TEXT_BYTES, xmp};

const APP1: u8 = 0xe1;
const START_OF_SCAN: u8 = 0xda;
const END_OF_IMAGE: u8 = 0xd9;
/// Start of image, then the encoder's JFIF segment: a marker of 2 bytes, a length of 2 that counts itself, 14 bytes.
const METADATA_AT: usize = 2 + 2 + 16;
const EXIF_HEADER: &[u8] = b"Exif\0\0";
const XMP_HEADER: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";
const EXTENDED_HEADER: &[u8] = b"http://ns.adobe.com/xmp/extension/\0";
/// The length of a segment counts itself in 16 bits.
const MAX_SEGMENT_BYTES: usize = 65_535 - 2;
/// An extended segment begins with a name of 32 digits, the whole's length and the part's offset.
const GUID_BYTES: usize = 32;
/// Bytes of a packet in one extended segment.
const PART_BYTES: usize = 65_000;

/// Writes a JPEG file with an EXIF block and an XMP packet after its JFIF header.
pub fn write_with_metadata(jpeg: &[u8], exif: &[u8], packet: &str, file: &mut dyn Write) -> io::Result<()> {
    let (head, picture) = jpeg.split_at_checked(METADATA_AT).ok_or(io::ErrorKind::UnexpectedEof)?;
    file.write_all(head)?;
    write_segment(file, &[EXIF_HEADER, exif])?;
    if XMP_HEADER.len() + packet.len() <= MAX_SEGMENT_BYTES {
        write_segment(file, &[XMP_HEADER, packet.as_bytes()])?;
    } else {
        write_extended(file, packet)?;
    }
    file.write_all(picture)
}

/// A packet too long for a segment: a short one that names it, and its parts.
fn write_extended(file: &mut dyn Write, packet: &str) -> io::Result<()> {
    // The specification takes MD5 for the name; readers compare names and nothing else.
    let guid: String = Sha256::digest(packet).iter().take(GUID_BYTES / 2).map(|byte| format!("{byte:02X}")).collect();
    let note = format!(
        "<rdf:Description rdf:about=\"\" xmlns:xmpNote=\"http://ns.adobe.com/xmp/note/\" \
         xmpNote:HasExtendedXMP=\"{guid}\"/>"
    );
    write_segment(file, &[XMP_HEADER, xmp::wrap(&note).as_bytes()])?;
    let length = u32::try_from(packet.len()).map_err(io::Error::other)?.to_be_bytes();
    for (i, part) in packet.as_bytes().chunks(PART_BYTES).enumerate() {
        let offset = ((i * PART_BYTES) as u32).to_be_bytes();
        write_segment(file, &[EXTENDED_HEADER, guid.as_bytes(), &length, &offset, part])?;
    }
    Ok(())
}

fn write_segment(file: &mut dyn Write, parts: &[&[u8]]) -> io::Result<()> {
    let bytes = parts.concat();
    let length = u16::try_from(bytes.len() + 2).map_err(io::Error::other)?;
    file.write_all(&[0xff, APP1])?;
    file.write_all(&length.to_be_bytes())?;
    file.write_all(&bytes)
}

/// All XMP text of a JPEG file: its packet, then the extended parts in their order. The reader stands after the start of image.
pub fn read_xmp(file: &mut dyn Read) -> io::Result<String> {
    let mut packet = vec![];
    let mut parts: Vec<(u32, Vec<u8>)> = vec![];
    for bytes in application_segments(file)? {
        if let Some(found) = bytes.strip_prefix(XMP_HEADER) {
            packet.extend_from_slice(found);
        } else if let Some((offset, part)) = bytes.strip_prefix(EXTENDED_HEADER).and_then(extended_part) {
            parts.push((offset, part.to_vec()));
        }
    }
    parts.sort_by_key(|(offset, _)| *offset);
    packet.extend(parts.into_iter().flat_map(|(_, part)| part));
    Ok(String::from_utf8_lossy(&packet).into_owned())
}

/// The EXIF block of a JPEG file. The reader stands after the start of image.
pub fn read_exif(file: &mut dyn Read) -> io::Result<Option<Vec<u8>>> {
    let segments = application_segments(file)?;
    Ok(segments.iter().find_map(|bytes| bytes.strip_prefix(EXIF_HEADER)).map(<[u8]>::to_vec))
}

/// The segments of EXIF and XMP, in their order.
fn application_segments(file: &mut dyn Read) -> io::Result<Vec<Vec<u8>>> {
    let mut segments = vec![];
    let mut read = 0;
    loop {
        let [0xff, marker] = read_array(file)? else { return Err(io::ErrorKind::InvalidData.into()) };
        match marker {
            START_OF_SCAN | END_OF_IMAGE => return Ok(segments),
            // Fill bytes, and markers that stand alone.
            0xff | 0x01 | 0xd0..=0xd8 => return Err(io::ErrorKind::InvalidData.into()),
            _ => {}
        }
        let length = u16::from_be_bytes(read_array(file)?).checked_sub(2).ok_or(io::ErrorKind::InvalidData)?;
        let mut bytes = vec![0; usize::from(length)];
        file.read_exact(&mut bytes)?;
        read += u64::from(length);
        if read > 2 * MOST_TEXT_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "what it says of itself is too long"));
        }
        if marker == APP1 {
            segments.push(bytes);
        }
    }
}

/// Offset and bytes of an extended segment.
fn extended_part(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let rest = bytes.get(GUID_BYTES + 4..)?;
    let (offset, part) = rest.split_first_chunk()?;
    Some((u32::from_be_bytes(*offset), part))
}

fn read_array<const N: usize>(file: &mut dyn Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}
