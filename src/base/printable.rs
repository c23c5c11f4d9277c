//! Text from files as a terminal may be given it.

/// The text with what would steer a terminal, or hide what is there, written as its code: control characters but line ends and
/// tabs, and marks that change the direction of writing.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if (c.is_control() && !matches!(c, '\n' | '\t')) || is_mark(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Bidirectional embeddings, overrides and isolates (Unicode TR9), and line ends that are not the terminal's.
fn is_mark(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_written_as_its_code() {
        assert_eq!(printable("a\u{1b}[2Jb\u{7}\r\u{9b}31m\u{7f}"), r"a\u{1b}[2Jb\u{7}\u{d}\u{9b}31m\u{7f}");
        assert_eq!(printable("exe\u{202e}gnp"), r"exe\u{202e}gnp");
        let plain = "a lake, é 山 🏔\n\tand \"more\"";
        assert_eq!(printable(plain), plain);
    }
}
