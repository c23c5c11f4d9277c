//! Floats of 8 bits: the number of each code, and the code nearest to a number.

/// A float of 8 bits (arXiv 2209.05433, table 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Float8 {
    /// 4 bits of exponent and 3 of mantissa: bias 7, no infinities, all ones is NaN.
    E4M3,
    /// 5 bits of exponent and 2 of mantissa: the upper half of an f16.
    E5M2,
}

impl Float8 {
    /// The number of each code.
    pub fn numbers(self) -> &'static [f32; 256] {
        match self {
            Self::E4M3 => &F8_E4M3,
            Self::E5M2 => &F8_E5M2,
        }
    }

    const fn table(self) -> [f32; 256] {
        let mut table = [0.0; 256];
        let mut code = 0;
        while code < 256 {
            table[code] = match self {
                Self::E4M3 => f8_e4m3(code as u8),
                Self::E5M2 => f8_e5m2(code as u8),
            };
            code += 1;
        }
        table
    }
}

static F8_E4M3: [f32; 256] = Float8::E4M3.table();
static F8_E5M2: [f32; 256] = Float8::E5M2.table();

const fn f8_e4m3(code: u8) -> f32 {
    let (exponent, mantissa) = ((code >> 3) & 15, code & 7);
    let magnitude = match (exponent, mantissa) {
        (15, 7) => f32::NAN,
        // Subnormal: mantissa/8 · 2^-6.
        (0, m) => m as f32 / 512.0,
        // (1 + m/8) · 2^(e-7): the f32 with exponent e - 7 + 127.
        (e, m) => f32::from_bits(((e as u32 + 120) << 23) | ((m as u32) << 20)),
    };
    if code >= 128 { -magnitude } else { magnitude }
}

const fn f8_e5m2(code: u8) -> f32 {
    let (exponent, mantissa) = ((code >> 2) & 31, code & 3);
    let magnitude = match (exponent, mantissa) {
        (31, 0) => f32::INFINITY,
        (31, _) => f32::NAN,
        // Subnormal: mantissa/4 · 2^-14.
        (0, m) => m as f32 / 65_536.0,
        // (1 + m/4) · 2^(e-15): the f32 with exponent e - 15 + 127.
        (e, m) => f32::from_bits(((e as u32 + 112) << 23) | ((m as u32) << 21)),
    };
    if code >= 128 { -magnitude } else { magnitude }
}

/// The largest f8_e4m3 (arXiv 2209.05433, table 1).
pub const LARGEST_E4M3: f32 = 448.0;

/// The code of the nearest f8_e4m3, of two as near the even one; beyond the largest that one.
pub fn nearest_e4m3(x: f32) -> u8 {
    /// Bits of an f32's mantissa that are dropped.
    const DROPPED: u32 = 20;
    let magnitude = x.abs();
    let code = if magnitude < 1.0 / 64.0 {
        // Subnormal: eighths of 2^-6; the eighth is the first normal one.
        (magnitude * 512.0).round_ties_even() as u32
    } else {
        let bits = magnitude.min(LARGEST_E4M3).to_bits();
        let rounded = bits + (1 << (DROPPED - 1)) - 1 + (bits >> DROPPED & 1);
        // Biases of the exponents: 127 there, 7 here.
        (rounded >> DROPPED) - (120 << 3)
    };
    code as u8 | if x.is_sign_negative() { 0x80 } else { 0 }
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;

    #[test]
    fn the_nearest_e4m3_is_found() {
        let table = Float8::E4M3.numbers();
        let mut finite: Vec<(f32, u8)> = (0..0x7f).map(|code| (table[usize::from(code)], code)).collect();
        finite.sort_by(|a, b| a.0.total_cmp(&b.0));
        for pair in finite.windows(2) {
            let [(low, below), (high, above)] = [pair[0], pair[1]];
            let middle = (low + high) / 2.0;
            let even = if below % 2 == 0 { below } else { above };
            for (x, code) in [(low, below), (middle.next_down(), below), (middle, even), (middle.next_up(), above)] {
                assert_eq!((nearest_e4m3(x), nearest_e4m3(-x)), (code, code | 0x80), "{x}");
            }
        }
        assert_eq!([460.0, 1e30, f32::INFINITY].map(nearest_e4m3), [0x7e; 3]);
    }

    #[test]
    fn every_e5m2_is_the_upper_half_of_an_f16() {
        for code in 0..=u8::MAX {
            let (ours, half) =
                (Float8::E5M2.numbers()[usize::from(code)], f16::from_bits(u16::from(code) << 8).to_f32());
            assert!(ours.to_bits() == half.to_bits() || (ours.is_nan() && half.is_nan()), "{code:#x}: {ours} {half}");
        }
    }
}
