//! Metadata chunks of WebP files.
//!
//! Source: WebP container specification (RFC 9649): RIFF chunks of a name, a length and bytes, padded to even length.

use std::io::{self, Read, Seek, SeekFrom};

use super::MOST_TEXT_BYTES;

const EXTENDED: &[u8; 4] = b"VP8X";
const XMP: &[u8; 4] = b"XMP ";
const EXIF: &[u8; 4] = b"EXIF";
/// `RIFF`, the length of all that follows, `WEBP`.
const HEADER_BYTES: usize = 12;
/// Where the flags of the extended header stand: its chunk comes first.
const FLAGS_AT: usize = HEADER_BYTES + 8;
const XMP_FLAG: u8 = 1 << 2;

/// Appends an XMP packet to an extended WebP file, which the encoder writes as soon as there is EXIF.
pub fn add_xmp(webp: &mut Vec<u8>, packet: &str) -> io::Result<()> {
    if webp.get(HEADER_BYTES..HEADER_BYTES + 4) != Some(EXTENDED) || webp.len() <= FLAGS_AT {
        return Err(io::Error::other("the WebP encoder wrote no extended header"));
    }
    webp[FLAGS_AT] |= XMP_FLAG;
    webp.extend(XMP);
    webp.extend(u32::try_from(packet.len()).map_err(io::Error::other)?.to_le_bytes());
    webp.extend(packet.as_bytes());
    webp.extend(vec![0; packet.len() % 2]);
    let length = u32::try_from(webp.len() - 8).map_err(io::Error::other)?;
    webp[4..8].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

/// The XMP packet of a WebP file, empty where there is none. The reader stands after the header.
pub fn read_xmp(file: &mut (impl Read + Seek)) -> io::Result<String> {
    let packet = read_chunk(file, XMP)?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&packet).into_owned())
}

/// The EXIF block of a WebP file. The reader stands after the header.
pub fn read_exif(file: &mut (impl Read + Seek)) -> io::Result<Option<Vec<u8>>> {
    read_chunk(file, EXIF)
}

/// The first chunk of this name.
fn read_chunk(file: &mut (impl Read + Seek), name: &[u8; 4]) -> io::Result<Option<Vec<u8>>> {
    let mut head = [0; 8];
    loop {
        match file.read_exact(&mut head) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let length = u64::from(u32::from_le_bytes([head[4], head[5], head[6], head[7]]));
        if head.starts_with(name) {
            if length > MOST_TEXT_BYTES {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "what it says of itself is too long"));
            }
            let mut bytes = vec![];
            file.take(length).read_to_end(&mut bytes)?;
            return Ok(Some(bytes));
        }
        file.seek(SeekFrom::Current((length + length % 2) as i64))?;
    }
}
