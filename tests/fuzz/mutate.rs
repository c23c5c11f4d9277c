//! Changes of the kinds that break readers: bits, lengths, numbers, repeats, cuts, halves of two files.

use flate2::Crc;

/// xorshift64*: the same changes on every machine.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize) % sides.max(1)
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.roll(from.len())]
    }
}

/// What readers stumble over in text.
const WORDS: [&str; 20] = [
    "null",
    "true",
    "-1",
    "0",
    "1e308",
    "-1e999",
    "NaN",
    "18446744073709551616",
    "9223372036854775807",
    "0.0000001",
    "\"\"",
    "[]",
    "{}",
    "[[[[",
    "\\ud800",
    "\u{feff}",
    "\u{1b}[2J",
    "../../x",
    "\n\n",
    "\0",
];
const NUMBERS: [u32; 10] = [0, 1, 7, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0x8000_0000, u32::MAX];

/// One of `seeds`, changed a few times.
pub fn mutated(dice: &mut Dice, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = dice.pick(seeds).clone();
    for _ in 0..=dice.roll(4) {
        change(dice, &mut bytes, seeds);
    }
    // Checksums that fit, or nothing behind them would ever be read.
    if bytes.starts_with(b"\x89PNG") && dice.roll(4) > 0 {
        mend_png(&mut bytes);
    }
    bytes
}

fn change(dice: &mut Dice, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
    let at = dice.roll(bytes.len() + 1);
    let to = (at + dice.roll(64)).min(bytes.len());
    match dice.roll(9) {
        0 if at < bytes.len() => bytes[at] ^= 1 << dice.roll(8),
        1 => {
            let number = *dice.pick(&NUMBERS);
            let number = if dice.roll(2) == 0 { number.to_be_bytes() } else { number.to_le_bytes() };
            bytes.splice(at..(at + 4).min(bytes.len()), number);
        }
        2 => drop(bytes.drain(at..to)),
        3 => {
            let repeated = bytes[at..to].repeat(1 + dice.roll(16));
            bytes.splice(at..at, repeated);
        }
        4 => bytes.truncate(at),
        5 => {
            let other = dice.pick(seeds);
            let from = dice.roll(other.len() + 1);
            bytes.splice(at.., other[from..].iter().copied());
        }
        // A token of text: a number or a string, from its first to its last byte.
        6 | 7 => {
            let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"\"._-".contains(byte);
            let start = at - bytes[..at].iter().rev().take(200).take_while(|byte| is_token(byte)).count();
            let end = at + bytes[at..].iter().take(200).take_while(|byte| is_token(byte)).count();
            let word = *dice.pick(&WORDS);
            bytes.splice(start..end, word.bytes());
        }
        _ => bytes.extend_from_slice(dice.pick(&WORDS).as_bytes()),
    }
    bytes.truncate(1 << 20);
}

/// Writes each chunk's checksum anew, as far as lengths make sense.
fn mend_png(bytes: &mut [u8]) {
    let mut at = 8;
    while let Some(length) = bytes.get(at..at + 4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize) {
        let Some(end) = at.checked_add(8 + length).filter(|end| end + 4 <= bytes.len()) else { return };
        let mut crc = Crc::new();
        crc.update(&bytes[at + 4..end]);
        bytes[end..end + 4].copy_from_slice(&crc.sum().to_be_bytes());
        at = end + 4;
    }
}
