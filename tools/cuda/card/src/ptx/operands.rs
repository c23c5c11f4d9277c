//! Operands and numbers of a PTX text.

use super::{
    Operand,
    lexer::{Placed, Token},
    parser::{Parser, Result},
};

/// A number as the ISA writes it: decimal, `0x`, octal, `0f` and `0d` with bits, or with a point.
pub fn number(word: &str) -> Option<Operand> {
    if let Some(bits) = word.strip_prefix("0f").or(word.strip_prefix("0F")) {
        return u32::from_str_radix(bits, 16).ok().map(Operand::Single);
    }
    if let Some(bits) = word.strip_prefix("0d").or(word.strip_prefix("0D")) {
        return u64::from_str_radix(bits, 16).ok().map(|bits| Operand::Double(f64::from_bits(bits)));
    }
    if word.contains('.') {
        return word.parse().ok().map(Operand::Double);
    }
    let digits = word.trim_end_matches('U');
    let whole = match digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None if digits.len() > 1 && digits.starts_with('0') => u64::from_str_radix(&digits[1..], 8).ok(),
        None => digits.parse().ok(),
    };
    whole.map(|value| Operand::Integer(value as i64))
}

impl Parser<'_> {
    /// An operand, with what follows it behind a `|`.
    pub(super) fn operand(&mut self) -> Result<Operand> {
        let first = self.single_operand()?;
        if self.takes(b'|') {
            return Ok(Operand::Pair(Box::new(first), Box::new(self.single_operand()?)));
        }
        Ok(first)
    }

    fn single_operand(&mut self) -> Result<Operand> {
        let Placed { token, .. } = self.next()?;
        match token {
            Token::Mark(b'{') => self.list(b'}'),
            Token::Mark(b'(') => self.list(b')'),
            Token::Mark(b'!') => Ok(Operand::Not(self.word()?.to_owned())),
            Token::Mark(b'[') => self.address(),
            Token::Mark(b'-') => {
                let word = self.word()?;
                match number(word) {
                    Some(Operand::Integer(value)) => Ok(Operand::Integer(value.wrapping_neg())),
                    Some(Operand::Double(value)) => Ok(Operand::Double(-value)),
                    _ => Err(self.wrong(&format!("'-{word}' is no number"))),
                }
            }
            Token::Word(word) if word.starts_with(|c: char| c.is_ascii_digit()) => {
                number(word).ok_or_else(|| self.wrong(&format!("'{word}' is no number")))
            }
            Token::Word(word) => Ok(Operand::Name(word.to_owned())),
            other => Err(self.wrong(&format!("{other:?} where an operand should be"))),
        }
    }

    fn list(&mut self, end: u8) -> Result<Operand> {
        let mut parts = Vec::new();
        while !self.takes(end) {
            parts.push(self.operand()?);
            self.takes(b',');
        }
        Ok(Operand::List(parts))
    }

    /// `[base]`, `[base+4]`, `[base+-4]`
    fn address(&mut self) -> Result<Operand> {
        let base = self.word()?.to_owned();
        let mut offset = 0;
        if self.takes(b'+') {
            let negative = self.takes(b'-');
            let word = self.word()?;
            let Some(Operand::Integer(value)) = number(word) else {
                return Err(self.wrong(&format!("'{word}' is no offset")));
            };
            offset = if negative { value.wrapping_neg() } else { value };
        }
        self.expect(b']')?;
        Ok(Operand::Address(base, offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_notation_are_read() {
        assert_eq!(number("42"), Some(Operand::Integer(42)));
        assert_eq!(number("0x7FU"), Some(Operand::Integer(127)));
        assert_eq!(number("010"), Some(Operand::Integer(8)));
        assert_eq!(number("0xFFFFFFFFFFFFFFFF"), Some(Operand::Integer(-1)));
        assert_eq!(number("0f3F800000"), Some(Operand::Single(0x3f80_0000)));
        assert_eq!(number("0d3FF0000000000000"), Some(Operand::Double(1.0)));
        assert_eq!(number("1.5"), Some(Operand::Double(1.5)));
        assert_eq!(number("0xyz"), None);
    }
}
