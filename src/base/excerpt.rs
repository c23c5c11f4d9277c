//! What stands in a file that should hold something else: a login page, "Invalid username or password.", an error in JSON or XML.

/// Bytes that are looked at.
const LOOKED_AT_BYTES: usize = 4096;
/// Characters that are shown.
const SHOWN_CHARS: usize = 160;

/// The beginning of a text in one line, without tags where it is a page; `None` where the bytes are no text, or nothing is left.
pub fn excerpt(bytes: &[u8]) -> Option<String> {
    let text = beginning(bytes)?;
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let shown = if text.starts_with('<') { page_text(text) } else { text.to_owned() };
    let words: Vec<&str> = shown.split_whitespace().collect();
    let line = words.join(" ");
    let short: String = line.chars().take(SHOWN_CHARS).collect();
    let ends = if short.len() < line.len() || bytes.len() > LOOKED_AT_BYTES { " ..." } else { "" };
    (!short.is_empty()).then(|| format!("{short}{ends}"))
}

/// Whether this is text, as far as its beginning tells.
pub fn is_text(bytes: &[u8]) -> bool {
    !bytes.is_empty() && beginning(bytes).is_some()
}

/// The first bytes as text: UTF-8 without control characters but white space.
fn beginning(bytes: &[u8]) -> Option<&str> {
    let looked_at = &bytes[..bytes.len().min(LOOKED_AT_BYTES)];
    let text = match std::str::from_utf8(looked_at) {
        Ok(text) => text,
        // A character may be cut where the looking ends.
        Err(e) if e.error_len().is_none() && e.valid_up_to() > 0 => {
            std::str::from_utf8(&looked_at[..e.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    (!text.chars().any(|c| c.is_control() && !c.is_whitespace())).then_some(text)
}

/// A page's title, else what stands between its tags.
fn page_text(page: &str) -> String {
    let lower = page.to_ascii_lowercase();
    let title = lower.find("<title").and_then(|at| {
        let begin = at + lower[at..].find('>')? + 1;
        let end = begin + lower[begin..].find("</title")?;
        Some(page[begin..end].trim().to_owned()).filter(|title| !title.is_empty())
    });
    title.unwrap_or_else(|| {
        let (mut text, mut inside) = (String::new(), false);
        for c in page.chars() {
            match c {
                '<' => inside = true,
                '>' => {
                    inside = false;
                    text.push(' ');
                }
                c if !inside => text.push(c),
                _ => {}
            }
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_pages_are_shown_in_one_line() {
        let cases: [(&[u8], &str); 7] = [
            (b"Invalid username or password.", "Invalid username or password."),
            (b"\xef\xbb\xbf\n Not\r\n found\n", "Not found"),
            (br#"{"error":"Repository not found"}"#, r#"{"error":"Repository not found"}"#),
            (b"<!doctype html>\n<html><head><TITLE lang=en>Sign in</TITLE></head><body>more</body>", "Sign in"),
            (b"<html><title></title><body><h1>502</h1>Bad <b>Gateway</b></body></html>", "502 Bad Gateway"),
            (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "AccessDenied"),
            ("früh".as_bytes(), "früh"),
        ];
        for (bytes, shown) in cases {
            assert_eq!(excerpt(bytes).as_deref(), Some(shown));
        }
        let long = excerpt("word ".repeat(2000).as_bytes()).expect("text");
        assert!(long.ends_with(" ...") && long.len() < 200, "{long}");
        // The looking ends inside a character.
        let cut = [&b"x"[..], "é".repeat(3000).as_bytes()].concat();
        assert!(excerpt(&cut).is_some_and(|text| text.starts_with("xé")));
    }

    #[test]
    fn what_is_no_text_shows_nothing() {
        for bytes in [&b""[..], b" \n", b"<html>", b"\x40\0\0\0\0\0\0\0{}", b"\xff\xfe", b"GIF89a\x01", b"\x1b[31mred"]
        {
            assert_eq!(excerpt(bytes), None, "{bytes:?}");
        }
    }
}
