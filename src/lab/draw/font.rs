//! A small stroke font of our own: letters as lines and curves on a grid, so that text needs no font file.
//!
//! Capitals and digits are 6 grid units high (y = 0 to 6, downwards), small letters 4 (y = 2 to 6), descenders reach 8.
//! A stroke is a row of points `xy`, one digit each; a leading `~` makes it a curve that the points pull on.

/// Points of one stroke, in grid units.
pub type Stroke = Vec<[f32; 2]>;

/// Grid units from the top of capitals to the baseline.
pub const CAPITAL_HEIGHT: f32 = 6.0;
/// Grid units between two letters.
const GAP: f32 = 1.7;
/// Grid units of a space.
const SPACE: f32 = 3.0;
/// Grid units of a digit, so that numbers below each other line up.
const DIGIT: f32 = 4.0;
/// Rounds of corner cutting that make a curve of a stroke's points; three leave no visible corner at our sizes.
const ROUNDS: usize = 3;

/// A letter's strokes and its width, without the gap to the next.
#[derive(Debug, Clone, PartialEq)]
pub struct Glyph {
    /// Lines and curves.
    pub strokes: Vec<Stroke>,
    /// Width in grid units.
    pub width: f32,
}

/// Width of a text in grid units.
pub fn text_width(text: &str) -> f32 {
    let widths = text.chars().map(|letter| glyph(letter).width + GAP);
    (widths.sum::<f32>() - GAP).max(0.0)
}

/// Each letter of a text with its left edge in grid units.
pub fn letters(text: &str) -> impl Iterator<Item = (f32, Glyph)> {
    text.chars().scan(0.0, |x, letter| {
        let glyph = glyph(letter);
        let left = *x;
        *x += glyph.width + GAP;
        Some((left, glyph))
    })
}

/// A letter; one that the font lacks is a box.
pub fn glyph(letter: char) -> Glyph {
    let strokes: Vec<Stroke> = drawing(letter).split(' ').filter(|word| !word.is_empty()).map(stroke).collect();
    let right = strokes.iter().flatten().map(|[x, _]| *x).fold(0.0, f32::max);
    let width = match letter {
        ' ' => SPACE,
        '0'..='9' => DIGIT,
        _ => right,
    };
    Glyph { strokes, width }
}

fn stroke(word: &str) -> Stroke {
    let (curved, digits) = word.strip_prefix('~').map_or((false, word), |rest| (true, rest));
    let points = digits.as_bytes().chunks_exact(2);
    let points: Stroke = points.map(|xy| [xy[0], xy[1]].map(|digit| f32::from(digit.saturating_sub(b'0')))).collect();
    if curved { (0..ROUNDS).fold(points, |points, _| cut_corners(&points)) } else { points }
}

/// One round of Chaikin's corner cutting; the ends of an open stroke stay.
fn cut_corners(points: &[[f32; 2]]) -> Stroke {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return Vec::new() };
    let closed = first == last;
    let between = |a: &[f32; 2], b: &[f32; 2], part: f32| [a[0] + part * (b[0] - a[0]), a[1] + part * (b[1] - a[1])];
    let mut cut = Vec::with_capacity(2 * points.len());
    for (index, pair) in points.windows(2).enumerate() {
        let (starts, ends) = (index == 0, index + 2 == points.len());
        cut.push(if starts && !closed { *first } else { between(&pair[0], &pair[1], 0.25) });
        cut.push(if ends && !closed { *last } else { between(&pair[0], &pair[1], 0.75) });
    }
    if closed {
        cut.extend(cut.first().copied());
    }
    cut
}

fn drawing(letter: char) -> &'static str {
    match letter {
        '0'..='9' | 'A'..='Z' => capital(letter),
        'a'..='z' => small(letter),
        ' ' => "",
        '.' => "0606",
        ',' => "1607",
        ':' => "0303 0606",
        '=' => "0343 0545",
        '-' => "0434",
        '+' => "0444 2226",
        '*' => "0236 3206 1127",
        '/' => "0730",
        '(' => "~20021527",
        ')' => "~00221507",
        '^' => "021022",
        '_' => "0747",
        '\'' => "0002",
        '"' => "0002 2022",
        '!' => "0004 0606",
        '?' => "~01004042242424 2626",
        ';' => "1303 1607",
        '%' => "4006 ~0010120200 ~3444463634",
        '#' => "1006 4036 0242 0444",
        '&' => "~460120310506244643",
        '<' => "310435",
        '>' => "013405",
        '[' => "20000727",
        ']' => "00202707",
        '|' => "0007",
        _ => "0040460600",
    }
}

fn capital(letter: char) -> &'static str {
    match letter {
        '0' => "~0040460600",
        '1' => "0220 2026",
        '2' => "~01004042 ~42440606 0646",
        '3' => "~0100404313 ~1343460605",
        '4' => "36300444",
        '5' => "400003 ~0302424606 ~0605",
        '6' => "~4140000646420204",
        '7' => "004016",
        '8' => "~0040430300 ~0343460603",
        '9' => "~0506464000044442",
        'A' => "062046 1434",
        'B' => "0006 ~00404303 ~03434606",
        'C' => "~414000064645",
        'D' => "0006 ~00404606",
        'E' => "40000646 0333",
        'F' => "400006 0333",
        'G' => "~414000064644 4424",
        'H' => "0006 4046 0343",
        'I' => "0006",
        'J' => "3034 ~34360605",
        'K' => "0006 4004 1346",
        'L' => "000646",
        'M' => "0600346066",
        'N' => "06004640",
        'O' => "~0050560600",
        'P' => "0006 ~00404303",
        'Q' => "~0050560600 3456",
        'R' => "0006 ~00404303 2346",
        'S' => "~4140000343460605",
        'T' => "0040 2026",
        'U' => "0004 ~04064644 4440",
        'V' => "002640",
        'W' => "0016325660",
        'X' => "0046 4006",
        'Y' => "002340 2326",
        _ => "00400646",
    }
}

fn small(letter: char) -> &'static str {
    match letter {
        'a' => "~0242460602 4246",
        'b' => "0006 ~0242460602",
        'c' => "~434202064645",
        'd' => "~0242460602 4046",
        'e' => "0444 ~444202064645",
        'f' => "~301013 1316 0232",
        'g' => "~0242460602 4246 ~46480807",
        'h' => "0006 ~04024244 4446",
        'i' => "0206 0000",
        'j' => "1216 ~161808 1010",
        'k' => "0006 3204 1336",
        'l' => "0006",
        'm' => "0206 ~04023234 3436 ~34326264 6466",
        'n' => "0206 ~04024244 4446",
        'o' => "~0242460602",
        'p' => "0208 ~0242460602",
        'q' => "~0242460602 4248",
        'r' => "0206 ~040232",
        's' => "~3332020434360605",
        't' => "1014 ~141636 0232",
        'u' => "0204 ~04064644 4246",
        'v' => "022642",
        'w' => "0216335662",
        'x' => "0246 4206",
        'y' => "0226 4218",
        _ => "02420646",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_drawing_is_whole_points_on_the_grid() {
        for letter in (' '..='~').chain(['é']) {
            for word in drawing(letter).split(' ') {
                let digits = word.trim_start_matches('~');
                assert!(digits.len() % 2 == 0 && digits.bytes().all(|b| b.is_ascii_digit()), "{letter}: {word}");
            }
        }
    }

    #[test]
    fn no_two_letters_look_the_same() {
        let drawings: Vec<_> = ('0'..='9').chain('A'..='Z').chain('a'..='z').map(|c| (c, drawing(c))).collect();
        for (index, (letter, drawing)) in drawings.iter().enumerate() {
            let same = drawings[index + 1..].iter().find(|(_, other)| other == drawing);
            assert!(same.is_none_or(|(other, _)| matches!((letter, other), ('I', 'l'))), "{letter} and {same:?}");
        }
    }

    #[test]
    fn curves_keep_their_ends_and_closed_ones_stay_closed() {
        let open = stroke("~01004042");
        assert_eq!((open.first(), open.last()), (Some(&[0.0, 1.0]), Some(&[4.0, 2.0])));
        let closed = stroke("~0242460602");
        assert_eq!(closed.first(), closed.last());
        assert!(closed.len() > 16);
    }

    #[test]
    fn numbers_line_up() {
        assert_eq!(text_width("0.111"), text_width("0.888"));
        assert_eq!(text_width(""), 0.0);
    }
}
