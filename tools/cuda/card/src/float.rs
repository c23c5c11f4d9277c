//! Floating point formats narrower than f64, and the roundings of the PTX ISA ("Floating-Point Rounding Modifiers").

/// How a result that a format does not hold is rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// `.rn`: to nearest, ties to even.
    Nearest,
    /// `.rz`: towards zero.
    Zero,
    /// `.rm`: towards minus infinity.
    Down,
    /// `.rp`: towards plus infinity.
    Up,
}

/// A binary floating point format of IEEE 754's making.
#[derive(Debug, Clone, Copy)]
pub struct Format {
    /// Bits of the fraction that are stored.
    pub fraction: u32,
    /// Bits of the exponent.
    pub exponent: u32,
}

/// Half precision.
pub const F16: Format = Format { fraction: 10, exponent: 5 };
/// The upper half of an f32.
pub const BF16: Format = Format { fraction: 7, exponent: 8 };
/// Single precision.
pub const F32: Format = Format { fraction: 23, exponent: 8 };

impl Format {
    fn bias(self) -> i32 {
        (1 << (self.exponent - 1)) - 1
    }

    fn infinity(self) -> u64 {
        ((1 << self.exponent) - 1) << self.fraction
    }

    /// The canonical NaN of the ISA: 0x7fff for the 16-bit formats, 0x7fffffff for f32.
    fn nan(self) -> u64 {
        (1 << (self.exponent + self.fraction)) - 1
    }

    /// The bits of `value` rounded to this format.
    pub fn round(self, value: f64, rounding: Rounding) -> u64 {
        let bits = value.to_bits();
        let negative = bits >> 63 == 1;
        let sign = (bits >> 63) << (self.exponent + self.fraction);
        if value.is_nan() {
            return self.nan();
        }
        if value.is_infinite() {
            return sign | self.infinity();
        }
        if value == 0.0 {
            return sign;
        }
        sign | self.round_magnitude(bits & !(1 << 63), negative, rounding)
    }

    /// The same for a finite number other than zero, its sign apart.
    fn round_magnitude(self, bits: u64, negative: bool, rounding: Rounding) -> u64 {
        let raw = (bits >> 52) as i32;
        // value = significand · 2^(exponent - 52); subnormal f64 lie below every format's smallest number.
        let significand = (bits & ((1 << 52) - 1)) | if raw == 0 { 0 } else { 1 << 52 };
        let exponent = raw.max(1) - 1023;
        let least = 1 - self.bias();
        let dropped = (52 - self.fraction) as i32 + (least - exponent).max(0);
        let (kept, rest, half) = if dropped > 63 {
            (0, significand, u64::MAX)
        } else {
            (significand >> dropped, significand & ((1 << dropped) - 1), 1u64 << (dropped - 1))
        };
        let up = match rounding {
            Rounding::Nearest => rest > half || (rest == half && kept & 1 == 1),
            Rounding::Zero => false,
            Rounding::Down => negative && rest != 0,
            Rounding::Up => !negative && rest != 0,
        };
        let steps = ((exponent.max(least) - least) as u64) << self.fraction;
        // The hidden bit, where there is one, adds one to the exponent's field; so does a carry.
        let rounded = steps + kept + u64::from(up);
        if rounded < self.infinity() {
            return rounded;
        }
        let to_infinity = match rounding {
            Rounding::Nearest => true,
            Rounding::Zero => false,
            Rounding::Down => negative,
            Rounding::Up => !negative,
        };
        self.infinity() - u64::from(!to_infinity)
    }

    /// The number that these bits are.
    #[cfg(test)]
    pub fn widen(self, bits: u64) -> f64 {
        let exponent = (bits >> self.fraction) as i32 & ((1 << self.exponent) - 1);
        let fraction = (bits & ((1 << self.fraction) - 1)) as f64;
        let unit = 2f64.powi(1 - self.bias() - self.fraction as i32);
        let magnitude = match exponent {
            0 => fraction * unit,
            e if e == (1 << self.exponent) - 1 => match fraction {
                0.0 => f64::INFINITY,
                _ => f64::NAN,
            },
            e => (fraction + 2f64.powi(self.fraction as i32)) * unit * 2f64.powi(e - 1),
        };
        if bits >> (self.exponent + self.fraction) & 1 == 1 { -magnitude } else { magnitude }
    }
}

/// The f32 of these f16 bits.
pub fn f16_to_f32(bits: u64) -> f32 {
    let (sign, rest) = (((bits as u32) & 0x8000) << 16, (bits as u32) & 0x7fff);
    let magnitude = match rest >> 10 {
        0 => (rest as f32) * (1.0 / 16_777_216.0),
        31 => f32::from_bits(0x7f80_0000 | (rest & 0x3ff) << 13),
        _ => f32::from_bits((rest << 13) + ((127 - 15) << 23)),
    };
    f32::from_bits(magnitude.to_bits() | sign)
}

/// The f32 of these bf16 bits.
pub fn bf16_to_f32(bits: u64) -> f32 {
    f32::from_bits((bits as u32) << 16)
}

/// An f32 as bf16 bits, to nearest even.
pub fn f32_to_bf16(value: f32) -> u64 {
    if value.is_nan() {
        return BF16.nan();
    }
    let bits = value.to_bits();
    u64::from((bits + 0x7fff + (bits >> 16 & 1)) >> 16)
}

/// An f32 as f16 bits, to nearest even.
pub fn f32_to_f16(value: f32) -> u64 {
    F16.round(f64::from(value), Rounding::Nearest)
}

/// A float of 8 bits as it would be if its largest exponent held numbers and infinity, with which nothing here begins.
const E4M3: Format = Format { fraction: 3, exponent: 4 };
/// The largest number of [`f32_to_e4m3`].
const E4M3_MOST: f32 = 448.0;

/// The f32 of these e4m3 bits: no infinity, and NaN where all but the sign are ones (arXiv 2209.05433, table 1).
pub fn e4m3_to_f32(bits: u64) -> f32 {
    let (sign, rest) = (((bits as u32) & 0x80) << 24, (bits as u32) & 0x7f);
    let magnitude = match rest {
        0x7f => f32::NAN,
        0..8 => rest as f32 / 512.0,
        _ => f32::from_bits((rest << 20) + ((127 - 7) << 23)),
    };
    f32::from_bits(magnitude.to_bits() | sign)
}

/// An f32 as e4m3 bits, to nearest even, beyond 448 as 448: `cvt.rn.satfinite`.
pub fn f32_to_e4m3(value: f32) -> u64 {
    if value.is_nan() {
        return 0x7f;
    }
    let magnitude = value.abs().min(E4M3_MOST);
    // Numbers from 256 on share an exponent that the format knows infinity by: they are rounded two binades lower.
    let bits = match magnitude {
        256.0.. => E4M3.round(f64::from(magnitude / 4.0), Rounding::Nearest) + (2 << E4M3.fraction),
        _ => E4M3.round(f64::from(magnitude), Rounding::Nearest),
    };
    bits | u64::from(value.is_sign_negative()) << 7
}

/// What a sum of two f64 lost: `a + b = sum + error` exactly (Knuth's two-sum).
fn lost(a: f64, b: f64, sum: f64) -> f64 {
    let other = sum - a;
    (a - (sum - other)) + (b - other)
}

/// The sum rounded to odd: rounded once more to a format with two bits fewer, it is the exact sum rounded to that.
pub fn add_to_odd(a: f64, b: f64) -> f64 {
    let sum = a + b;
    let error = if sum.is_finite() { lost(a, b, sum) } else { 0.0 };
    if error == 0.0 || sum.to_bits() & 1 == 1 {
        return sum;
    }
    if (error > 0.0) == (sum > 0.0) { f64::from_bits(sum.to_bits() + 1) } else { f64::from_bits(sum.to_bits() - 1) }
}

/// `a + b` of f32 in this rounding.
pub fn add_f32(a: f32, b: f32, rounding: Rounding) -> f32 {
    f32::from_bits(F32.round(add_to_odd(a.into(), b.into()), rounding) as u32)
}

/// `a · b` of f32 in this rounding.
pub fn mul_f32(a: f32, b: f32, rounding: Rounding) -> f32 {
    f32::from_bits(F32.round(f64::from(a) * f64::from(b), rounding) as u32)
}

/// `a · b + c` of f32, rounded once.
pub fn fma_f32(a: f32, b: f32, c: f32, rounding: Rounding) -> f32 {
    f32::from_bits(F32.round(add_to_odd(f64::from(a) * f64::from(b), c.into()), rounding) as u32)
}

/// `a + b` of f64 in this rounding.
pub fn add_f64(a: f64, b: f64, rounding: Rounding) -> f64 {
    let sum = a + b;
    directed(sum, if sum.is_finite() { lost(a, b, sum) } else { 0.0 }, rounding)
}

/// `a · b` of f64 in this rounding.
pub fn mul_f64(a: f64, b: f64, rounding: Rounding) -> f64 {
    let product = a * b;
    directed(product, if product.is_finite() { a.mul_add(b, -product) } else { 0.0 }, rounding)
}

/// The nearest f64 and what it lost, rounded the other way where the rounding asks.
fn directed(nearest: f64, error: f64, rounding: Rounding) -> f64 {
    let down = error < 0.0 && (rounding == Rounding::Down || (rounding == Rounding::Zero && nearest > 0.0));
    let up = error > 0.0 && (rounding == Rounding::Up || (rounding == Rounding::Zero && nearest < 0.0));
    match (down, up) {
        (true, _) => nearest.next_down(),
        (_, true) => nearest.next_up(),
        _ => nearest,
    }
}

/// A float to an integral float: `.rni`, `.rzi`, `.rmi`, `.rpi`.
pub fn integral(value: f64, rounding: Rounding) -> f64 {
    match rounding {
        Rounding::Nearest => value.round_ties_even(),
        Rounding::Zero => value.trunc(),
        Rounding::Down => value.floor(),
        Rounding::Up => value.ceil(),
    }
}

/// Subnormal f32 as zero of the same sign (`.ftz`).
pub fn flush(value: f32) -> f32 {
    if value.is_subnormal() { 0f32.copysign(value) } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_16_bit_number_survives_widening_and_rounding() {
        for format in [F16, BF16] {
            for bits in 0..=u64::from(u16::MAX) {
                let value = format.widen(bits);
                if !value.is_nan() {
                    assert_eq!(format.round(value, Rounding::Nearest), bits, "{bits:#x}");
                }
            }
        }
        for bits in 0..=u64::from(u16::MAX) {
            let (narrow, wide) = (f64::from(f16_to_f32(bits)), F16.widen(bits));
            assert!(narrow == wide || (narrow.is_nan() && wide.is_nan()), "{bits:#x}");
        }
    }

    #[test]
    fn e4m3_is_what_it_is_defined_as() {
        let by_definition = |code: u64| {
            let (exponent, mantissa) = ((code >> 3 & 15) as i32, (code & 7) as f64 / 8.0);
            let magnitude = match exponent {
                0 => mantissa * 2f64.powi(-6),
                _ => (1.0 + mantissa) * 2f64.powi(exponent - 7),
            };
            if code >= 128 { -magnitude } else { magnitude }
        };
        assert!(e4m3_to_f32(0x7f).is_nan() && e4m3_to_f32(0xff).is_nan());
        for code in (0..=255).filter(|code| code & 0x7f != 0x7f) {
            assert_eq!(f64::from(e4m3_to_f32(code)), by_definition(code), "{code:#x}");
            assert_eq!(f32_to_e4m3(e4m3_to_f32(code)), code, "{code:#x}");
        }
        // Half way between two neighbours the even one; beside it the nearer one.
        for code in 0..0x7e {
            let half = (e4m3_to_f32(code) + e4m3_to_f32(code + 1)) / 2.0;
            assert_eq!(f32_to_e4m3(half), code + (code & 1), "{half}");
            assert_eq!([half.next_down(), half.next_up()].map(f32_to_e4m3), [code, code + 1], "{half}");
            assert_eq!(f32_to_e4m3(-half), 0x80 | (code + (code & 1)), "{half}");
        }
        assert_eq!([448.1, 464.0, 1e30, f32::INFINITY].map(f32_to_e4m3), [0x7e; 4], "satfinite");
        assert_eq!((f32_to_e4m3(f32::NEG_INFINITY), f32_to_e4m3(f32::NAN), f32_to_e4m3(-0.0)), (0xfe, 0x7f, 0x80));
    }

    #[test]
    fn f32_rounds_as_the_processor_does() {
        let mut state = 1u64;
        for _ in 0..100_000 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let value = f64::from_bits(state >> 2 | 0x3000_0000_0000_0000);
            for value in [value, -value, value * 1e-300, f64::from(value as f32 * 1e-20) * 1e-22] {
                assert_eq!(F32.round(value, Rounding::Nearest) as u32, (value as f32).to_bits(), "{value:e}");
            }
        }
    }

    #[test]
    fn ties_go_to_even_and_overflow_to_infinity() {
        assert_eq!(F16.round(2049.0, Rounding::Nearest), F16.round(2048.0, Rounding::Nearest));
        assert_eq!(F16.round(2051.0, Rounding::Nearest), F16.round(2052.0, Rounding::Nearest));
        assert_eq!(F16.round(65519.9, Rounding::Nearest), 0x7bff);
        assert_eq!(F16.round(65520.0, Rounding::Nearest), 0x7c00);
        assert_eq!(F16.round(1e9, Rounding::Zero), 0x7bff);
        assert_eq!(F16.round(-1e9, Rounding::Up), 0xfbff);
        assert_eq!(BF16.round(1.0 + 1.0 / 256.0, Rounding::Nearest), 0x3f80);
        assert_eq!(BF16.round(1.0 + 1.0 / 256.0, Rounding::Up), 0x3f81);
        assert_eq!(BF16.round(-1.0 - 1.0 / 256.0, Rounding::Down), 0xbf81);
        assert_eq!(f32_to_bf16(1.0 + 3.0 / 256.0), 0x3f82);
    }

    #[test]
    fn a_fused_product_is_rounded_once() {
        let (a, c) = (1.0 + f32::EPSILON, -1.0 - 2.0 * f32::EPSILON);
        assert_eq!(fma_f32(a, a, c, Rounding::Nearest), f32::EPSILON * f32::EPSILON);
        let mut state = 7u64;
        for _ in 0..20_000 {
            let mut next = || {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                f32::from_bits((state >> 40) as u32 | 0x3f00_0000) * if state >> 33 & 1 == 1 { 1e-6 } else { -1.0 }
            };
            let (a, b, c) = (next(), next(), next());
            assert_eq!(fma_f32(a, b, c, Rounding::Nearest), a.mul_add(b, c));
        }
    }

    #[test]
    fn directed_sums_enclose_the_exact_one() {
        let tiny = f32::MIN_POSITIVE;
        assert_eq!(add_f32(1.0, tiny, Rounding::Nearest), 1.0);
        assert_eq!(add_f32(1.0, tiny, Rounding::Up), 1f32.next_up());
        assert_eq!(add_f32(1.0, -tiny, Rounding::Zero), 1f32.next_down());
        assert_eq!(add_f64(1.0, 1e-300, Rounding::Up), 1f64.next_up());
        assert_eq!(mul_f64(0.1, 0.1, Rounding::Down), (0.1f64 * 0.1).next_down());
        assert_eq!(flush(-1e-40).to_bits(), (-0f32).to_bits());
    }
}
