//! Whether a JPEG file holds a whole picture: decoders make grey of what is missing and say nothing.
//!
//! Source: ITU-T T.81 annex B.

const START_OF_SCAN: u8 = 0xda;
const END_OF_IMAGE: u8 = 0xd9;

/// Whether the picture's closing marker is there. What stands in segments before it (thumbnails) and what follows it (films of
/// telephones) is not the picture's.
pub fn is_whole(bytes: &[u8]) -> bool {
    let mut at = 2;
    loop {
        let Some(marker) = next_marker(bytes, &mut at) else { return false };
        match marker {
            END_OF_IMAGE => return true,
            // They stand alone.
            0x01 | 0xd0..=0xd8 => {}
            _ => {
                let Some(length) = bytes.get(at..at + 2) else { return false };
                at += usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
                if marker == START_OF_SCAN {
                    skip_scan(bytes, &mut at);
                }
            }
        }
    }
}

/// The next marker; `at` comes to stand behind it.
fn next_marker(bytes: &[u8], at: &mut usize) -> Option<u8> {
    let rest = bytes.get(*at..)?;
    let begins = rest.iter().position(|byte| *byte == 0xff)?;
    let marker = rest[begins..].iter().position(|byte| *byte != 0xff)?;
    *at += begins + marker + 1;
    Some(rest[begins + marker])
}

/// Over a scan's coded data, in which 0xff is followed by 0 or by a restart's number.
fn skip_scan(bytes: &[u8], at: &mut usize) {
    while let Some(pair) = bytes.get(*at..*at + 2) {
        match pair {
            [0xff, 0x00 | 0xd0..=0xd7] => *at += 2,
            [0xff, 0xff] => *at += 1,
            [0xff, _] => return,
            _ => *at += 1,
        }
    }
    *at = bytes.len();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(marker: u8, data: &[u8]) -> Vec<u8> {
        [&[0xff, marker, 0, data.len() as u8 + 2], data].concat()
    }

    #[test]
    fn the_closing_marker_counts_where_it_is_the_pictures_own() {
        let start = vec![0xff, 0xd8];
        let thumbnail = segment(0xe1, &[0xff, 0xd8, 0xff, END_OF_IMAGE]);
        let scan = [segment(START_OF_SCAN, &[1, 2, 3]), vec![9, 0xff, 0, 7, 0xff, 0xd3, 5]].concat();
        let end = vec![0xff, 0xff, END_OF_IMAGE];
        let parts: Vec<&[u8]> = vec![&start, &thumbnail, &scan, &scan, &end, &[1, 2, 3]];
        let whole = parts.concat();
        assert!(is_whole(&whole) && is_whole(&whole[..whole.len() - 3]));
        for cut in 0..whole.len() - 3 {
            assert!(!is_whole(&whole[..cut]), "cut at {cut}");
        }
    }
}
