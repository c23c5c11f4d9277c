//! Words and marks of a PTX text.

/// A word or a mark.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Token<'a> {
    /// Names, numbers, opcodes, directives: letters, digits, `_ $ % .`
    Word(&'a str),
    /// A string.
    Text,
    /// Any other character.
    Mark(u8),
}

/// A token, and the line it stands in.
#[derive(Debug, Clone, Copy)]
pub struct Placed<'a> {
    /// The token.
    pub token: Token<'a>,
    /// From 1.
    pub line: usize,
}

fn belongs_to_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'%' | b'.')
}

/// How many bytes from `start` on are not yet what `end` looks for.
fn until(bytes: &[u8], start: usize, end: impl Fn(&[u8]) -> bool) -> usize {
    (start..bytes.len()).find(|at| end(&bytes[*at..])).unwrap_or(bytes.len())
}

/// The tokens of a text; comments are left out.
pub fn tokens(text: &str) -> Vec<Placed<'_>> {
    let bytes = text.as_bytes();
    let (mut at, mut line, mut found) = (0, 1, Vec::new());
    while at < bytes.len() {
        let (start, here) = (at, &bytes[at..]);
        let mut token = None;
        if here.starts_with(b"//") {
            at = until(bytes, at, |rest| rest[0] == b'\n');
        } else if here.starts_with(b"/*") {
            at = (until(bytes, at, |rest| rest.starts_with(b"*/")) + 2).min(bytes.len());
        } else if here[0] == b'"' {
            at = (until(bytes, at + 1, |rest| rest[0] == b'"') + 1).min(bytes.len());
            token = Some(Token::Text);
        } else if belongs_to_word(here[0]) {
            // Directives may touch: `.reg.b32`.
            let directive = here[0] == b'.';
            at = until(bytes, at + 1, |rest| !belongs_to_word(rest[0]) || (directive && rest[0] == b'.'));
            token = Some(Token::Word(&text[start..at]));
        } else {
            at += 1;
            // C++'s scope mark in opcodes (`ld.global.L1::no_allocate`) is part of no opcode we know: it stays a mark.
            token = (!here[0].is_ascii_whitespace() && here[0].is_ascii()).then_some(Token::Mark(here[0]));
        }
        found.extend(token.map(|token| Placed { token, line }));
        line += bytes[start..at].iter().filter(|byte| **byte == b'\n').count();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_go_and_lines_are_counted() {
        assert_eq!(tokens(".reg.b32 a;").len(), 4);
        let found = tokens("// a\nadd.s32 \t%r1, %r2, -1; /* b\n */ $L__BB0_1:");
        let words: Vec<_> = found.iter().map(|placed| placed.token).collect();
        use Token::{Mark, Word};
        assert_eq!(
            words,
            [
                Word("add.s32"),
                Word("%r1"),
                Mark(b','),
                Word("%r2"),
                Mark(b','),
                Mark(b'-'),
                Word("1"),
                Mark(b';'),
                Word("$L__BB0_1"),
                Mark(b':')
            ]
        );
        assert_eq!((found[0].line, found[8].line), (2, 3));
    }
}
