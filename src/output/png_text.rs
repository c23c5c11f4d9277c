//! Text chunks of PNG files, read without the picture: what is not asked for is passed over, and nothing inflates without bound.
//!
//! Source: PNG (W3C, third edition), 11.3.3 "Textual information".

use std::io::{self, Read, Seek, SeekFrom};

use flate2::read::ZlibDecoder;

use super::MOST_TEXT_BYTES;

/// Bytes of the sum behind each chunk. It is not checked: what reads as settings is checked as settings.
const SUM_BYTES: u64 = 4;
/// The longest keyword, with its end.
const KEYWORD_BYTES: usize = 80;

/// The text of the first chunk of these kinds (iTXt, tEXt, zTXt) with this keyword, wherever it stands. The reader stands after the
/// signature.
///
/// # Errors
/// `InvalidData` for what is no PNG, and for a text of this keyword that is longer than any settings.
pub fn read(file: &mut (impl Read + Seek), keyword: &str, kinds: &[[u8; 4]]) -> io::Result<Option<String>> {
    first(file, kinds, |file, kind, length| {
        let mut bytes = vec![];
        file.take(length.min(KEYWORD_BYTES as u64)).read_to_end(&mut bytes)?;
        match bytes.strip_prefix(keyword.as_bytes()) {
            Some([0, ..]) => {}
            _ => return Ok(None),
        }
        read_rest(file, length, &mut bytes)?;
        text_of(kind, &bytes[keyword.len() + 1..]).map(Some)
    })
}

/// The EXIF block. The reader stands after the signature.
///
/// # Errors
/// As [`read`].
pub fn read_exif(file: &mut (impl Read + Seek)) -> io::Result<Option<Vec<u8>>> {
    first(file, &[*b"eXIf"], |file, _, length| {
        let mut bytes = vec![];
        read_rest(file, length, &mut bytes)?;
        Ok(Some(bytes))
    })
}

/// What `take` finds in the first chunk of these kinds that it finds something in; it is given the chunk's kind and length.
fn first<F: Read + Seek, T>(
    file: &mut F,
    kinds: &[[u8; 4]],
    take: impl Fn(&mut F, &[u8; 4], u64) -> io::Result<Option<T>>,
) -> io::Result<Option<T>> {
    let mut is_begun = false;
    loop {
        let mut head = [0; 8];
        match file.read_exact(&mut head) {
            // A cut picture says what it says.
            Err(error) if is_begun && error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let [a, b, c, d, kind @ ..] = head;
        let length = u64::from(u32::from_be_bytes([a, b, c, d]));
        let begins = file.stream_position()?;
        match &kind {
            b"IHDR" => is_begun = true,
            _ if !is_begun => return Err(invalid("its first chunk is no header")),
            b"IEND" => return Ok(None),
            kind if kinds.contains(kind) => {
                if let Some(found) = take(file, kind, length)? {
                    return Ok(Some(found));
                }
            }
            _ => {}
        }
        file.seek(SeekFrom::Start(begins + length + SUM_BYTES))?;
    }
}

/// The rest of a chunk of this length, of which `bytes` are read.
fn read_rest(file: &mut impl Read, length: u64, bytes: &mut Vec<u8>) -> io::Result<()> {
    if length > MOST_TEXT_BYTES {
        return Err(too_long());
    }
    let rest = length - bytes.len() as u64;
    if file.take(rest).read_to_end(bytes)? as u64 != rest {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

/// The text in what follows the keyword.
fn text_of(kind: &[u8; 4], bytes: &[u8]) -> io::Result<String> {
    match (kind, bytes) {
        (b"iTXt", _) => international(bytes),
        (b"zTXt", [_method, packed @ ..]) => Ok(latin(inflated(packed)?)),
        (b"zTXt", []) => Err(invalid("a text chunk is broken")),
        _ => Ok(latin(bytes.to_vec())),
    }
}

/// Latin-1, as PNG wants it, or UTF-8, as many programs write it all the same.
fn latin(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| error.into_bytes().into_iter().map(char::from).collect())
}

/// Whether a text of tEXt is read as it was meant by whoever takes it for UTF-8 where it can be that.
pub fn is_plain(text: &str) -> bool {
    let latin: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(c).ok()).collect();
    text.is_ascii() || latin.is_some_and(|bytes| std::str::from_utf8(&bytes).is_err())
}

/// What follows the keyword in iTXt: whether the text is compressed, how, a language, the keyword in it, and the text.
fn international(bytes: &[u8]) -> io::Result<String> {
    let broken = || invalid("a text chunk is broken");
    let [is_compressed, _method, rest @ ..] = bytes else { return Err(broken()) };
    let text = rest.splitn(3, |byte| *byte == 0).nth(2).ok_or_else(broken)?;
    let text = if *is_compressed == 0 { text.to_vec() } else { inflated(text)? };
    String::from_utf8(text).map_err(|_| broken())
}

fn inflated(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut text = vec![];
    let read = ZlibDecoder::new(bytes).take(MOST_TEXT_BYTES + 1).read_to_end(&mut text);
    read.map_err(|error| invalid(&format!("a text chunk cannot be inflated: {error}")))?;
    if text.len() as u64 > MOST_TEXT_BYTES { Err(too_long()) } else { Ok(text) }
}

fn too_long() -> io::Error {
    invalid(&format!("what it says of itself is longer than {MOST_TEXT_BYTES} bytes"))
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use flate2::{Compression, write::ZlibEncoder};

    use super::*;

    fn chunk(kind: &[u8; 4], bytes: &[u8]) -> Vec<u8> {
        [&(bytes.len() as u32).to_be_bytes()[..], kind, bytes, &[0; 4]].concat()
    }

    fn deflated(text: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(vec![], Compression::best());
        encoder.write_all(text).expect("in memory");
        encoder.finish().expect("in memory")
    }

    fn of(chunks: &[Vec<u8>]) -> io::Result<Option<String>> {
        let whole = [&[chunk(b"IHDR", &[0; 13])], chunks, &[chunk(b"IEND", &[])]].concat().concat();
        read(&mut Cursor::new(whole), "dype", &[*b"iTXt"])
    }

    #[test]
    fn a_text_is_found_plain_or_compressed_before_the_picture_or_behind_it() {
        let plain = chunk(b"iTXt", b"dype\0\0\0\0\0{}");
        let packed = chunk(b"iTXt", &[b"dype\0\x01\0en\0dype\0", &deflated(b"{}")[..]].concat());
        let others =
            [chunk(b"iTXt", b"dyper\0\0\0\0\0x"), chunk(b"tEXt", b"dype\0x"), chunk(b"IDAT", &[7; 999])].concat();
        for text in [&plain, &packed] {
            for chunks in [[others.clone(), text.clone()], [text.clone(), others.clone()]] {
                assert_eq!(of(&chunks).expect("readable").as_deref(), Some("{}"));
            }
        }
        assert_eq!(of(&[others]).expect("readable"), None);
    }

    #[test]
    fn nothing_inflates_without_bound_and_others_are_passed_over() {
        let bomb = deflated(&vec![b' '; 2 * MOST_TEXT_BYTES as usize]);
        assert!(bomb.len() < 1 << 16);
        let ours = chunk(b"iTXt", &[b"dype\0\x01\0\0\0", &bomb[..]].concat());
        assert!(of(&[ours]).expect_err("too long").to_string().contains("longer than"));
        let long = chunk(b"iTXt", &[b"dype\0\0\0\0\0", &vec![b' '; MOST_TEXT_BYTES as usize][..]].concat());
        assert!(of(&[long]).is_err());
        let other = [b"XML:com.adobe.xmp\0\x01\0\0\0", &bomb[..]].concat();
        let own = chunk(b"iTXt", b"dype\0\0\0\0\0{}");
        let profile = chunk(b"iCCP", &[b"p\0\0", &bomb[..]].concat());
        assert_eq!(of(&[chunk(b"iTXt", &other), profile, own]).expect("readable").as_deref(), Some("{}"));
    }

    #[test]
    fn what_is_broken_is_an_error_or_says_nothing() {
        for bytes in
            [&b"dype\0"[..], b"dype\0\0", b"dype\0\0\0no end", b"dype\0\x01\0\0\0not zlib", b"dype\0\0\0\0\0\xff"]
        {
            assert!(of(&[chunk(b"iTXt", bytes)]).is_err(), "{bytes:?}");
        }
        assert!(read(&mut Cursor::new(chunk(b"IDAT", b"x")), "dype", &[*b"iTXt"]).is_err());
        assert!(read(&mut Cursor::new(vec![0; 3]), "dype", &[*b"iTXt"]).is_err());
        let cut = [chunk(b"IHDR", &[0; 13]), chunk(b"IDAT", &[7; 99])[..50].to_vec()].concat();
        assert_eq!(read(&mut Cursor::new(cut), "dype", &[*b"iTXt"]).expect("cut"), None);
    }

    #[test]
    fn a_text_of_any_kind_is_found_and_bounded() {
        let of = |chunk: Vec<u8>| {
            let whole = [self::chunk(b"IHDR", &[0; 13]), chunk, self::chunk(b"IEND", &[])].concat();
            read(&mut Cursor::new(whole), "parameters", &[*b"iTXt", *b"tEXt", *b"zTXt"])
        };
        let packed = |bytes: &[u8]| chunk(b"zTXt", &[b"parameters\0\0", &deflated(bytes)[..]].concat());
        let plain = |bytes: &[u8]| chunk(b"tEXt", &[b"parameters\0", bytes].concat());
        for (bytes, text) in [(&b"a lake"[..], "a lake"), (b"\xdcber", "Über"), ("山 Ü".as_bytes(), "山 Ü"), (b"", "")]
        {
            assert_eq!(of(packed(bytes)).expect("readable").as_deref(), Some(text));
            assert_eq!(of(plain(bytes)).expect("readable").as_deref(), Some(text));
        }
        let bomb = packed(&vec![b' '; 2 * MOST_TEXT_BYTES as usize]);
        assert!(bomb.len() < 1 << 16);
        assert!(of(bomb).expect_err("too long").to_string().contains("longer than"));
        assert!(of(plain(&vec![b' '; MOST_TEXT_BYTES as usize])).is_err());
        for bytes in [&b"parameters\0"[..], b"parameters\0\0", b"parameters\0\0not zlib"] {
            assert!(of(chunk(b"zTXt", bytes)).is_err(), "{bytes:?}");
        }
        assert_eq!(of(chunk(b"tEXt", b"parameters of x\0y")).expect("another's"), None);
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_not_plain() {
        let cases = [("a lake", true), ("Über", true), ("Ã¼", false), ("山", false)];
        for (text, plain) in cases {
            assert_eq!(is_plain(text), plain, "{text}");
        }
    }
}
