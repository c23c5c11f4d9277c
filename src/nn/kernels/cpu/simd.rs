//! The exponential, and what is made of it, in forms that vectorise.

pub(crate) use crate::base::simd::multiversion;

/// `a * b + c`, fused where that is one instruction: elsewhere `f32::mul_add` is a slow library call.
#[inline(always)]
pub fn mul_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Asks for the cache line of an address, which need not be anybody's: nothing is read.
#[inline(always)]
pub fn ask_for<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: it never fails, wherever the address is, and changes nothing that a program sees.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// The nearest bf16, ties to even, in the upper half; NaN stays NaN.
#[inline(always)]
pub fn bf16_bits(value: f32) -> u32 {
    let bits = value.to_bits();
    let up = bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) & 0xFFFF_0000;
    if value.is_nan() { 0x7FC0_0000 } else { up }
}

/// 2^x to a relative error below 2e-7, without branches or library calls; x is held to [-126, 127], NaN stays NaN.
#[inline(always)]
pub fn exp2<const FMA: bool>(x: f32) -> f32 {
    /// 1.5 * 2^23: adding it leaves the nearest integer in the low bits of the mantissa.
    const ROUND: f32 = 12_582_912.0;
    /// 2^r for |r| <= 1/2. Source: Cephes, exp2f.c.
    const POLYNOMIAL: [f32; 6] =
        [1.535_336_2e-4, 1.339_887_4e-3, 9.618_437e-3, 5.550_332_5e-2, 2.402_264_8e-1, 6.931_472e-1];
    let x = if x < -126.0 { -126.0 } else { x };
    let x = if x > 127.0 { 127.0 } else { x };
    let rounded = x + ROUND;
    let r = x - (rounded - ROUND);
    let mut p = POLYNOMIAL[0];
    for coefficient in &POLYNOMIAL[1..] {
        p = mul_add::<FMA>(p, r, *coefficient);
    }
    p = mul_add::<FMA>(p, r, 1.0);
    let power = f32::from_bits((rounded.to_bits() << 23).wrapping_add(127 << 23));
    power * p
}

/// The tanh form of gelu, `x/2 · (1 + tanh(√(2/π)·(x + 0.044715·x³)))`, written as `x / (1 + 2^(-2u·log2 e))`.
#[inline(always)]
pub fn gelu<const FMA: bool>(x: f32) -> f32 {
    /// -2 · √(2/π) · log2(e)
    const SCALE: f32 = -2.302_208_2;
    let cubic = mul_add::<FMA>(0.044_715 * x, x, 1.0) * x;
    x / (1.0 + exp2::<FMA>(SCALE * cubic))
}

/// `x / (1 + e^-x)`.
#[inline(always)]
pub fn silu<const FMA: bool>(x: f32) -> f32 {
    x / (1.0 + exp2::<FMA>(-std::f32::consts::LOG2_E * x))
}

/// 64 numbers of 32 bits as four vectors. Kernels index them: iterators over vectors are compiled to memory where they are not inlined.
///
/// # Safety
/// There are 64 numbers from `start` on; the processor has AVX-512.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f")]
pub unsafe fn read_row(start: *const u32) -> [std::arch::x86_64::__m512i; 4] {
    use std::arch::x86_64::_mm512_loadu_si512 as read;
    // SAFETY: the caller's promise.
    unsafe { [read(start.cast()), read(start.add(16).cast()), read(start.add(32).cast()), read(start.add(48).cast())] }
}

/// Writes a row of a register tile: of its 64 sums the first `width`, added to what is there where `adds` says so.
///
/// # Safety
/// `out` points to `width` numbers, 64 at most; the processor has AVX-512.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f")]
pub unsafe fn write_row(sums: &[std::arch::x86_64::__m512; 4], out: *mut f32, width: usize, adds: bool) {
    use std::arch::x86_64::*;
    for (i, sum) in sums.iter().enumerate().take(width.div_ceil(16)) {
        let mask = (((1u32 << (width - 16 * i).min(16)) - 1) & 0xFFFF) as __mmask16;
        // SAFETY: the mask leaves out what lies beyond `width`; the rest is the caller's promise.
        unsafe {
            let target = out.add(16 * i);
            let sum = if adds { _mm512_add_ps(*sum, _mm512_maskz_loadu_ps(mask, target)) } else { *sum };
            _mm512_mask_storeu_ps(target, mask, sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worst_error(of: impl Fn(f32) -> f32) -> f64 {
        (-1_250_000..1_260_000)
            .map(|i| {
                let x = i as f32 * 1e-4;
                let exact = f64::from(x).exp2();
                ((f64::from(of(x)) - exact) / exact).abs()
            })
            .fold(0.0, f64::max)
    }

    #[test]
    fn exp2_is_exact_to_float_rounding() {
        assert!(worst_error(exp2::<false>) < 2e-7, "{:e}", worst_error(exp2::<false>));
        assert!(worst_error(exp2::<true>) < 2e-7, "{:e}", worst_error(exp2::<true>));
    }

    #[test]
    fn exp2_of_what_a_softmax_meets() {
        assert_eq!(exp2::<true>(0.0), 1.0);
        assert!(exp2::<true>(f32::NEG_INFINITY) < 2e-38);
        assert!(exp2::<true>(-1e30) < 2e-38);
        assert!(exp2::<true>(f32::NAN).is_nan());
    }

    #[test]
    fn silu_is_its_definition() {
        for i in -1200..1200 {
            let x = i as f32 * 0.01;
            let exact = f64::from(x) / (1.0 + (-f64::from(x)).exp());
            let error = (f64::from(silu::<true>(x)) - exact).abs();
            assert!(error <= 2e-6 * exact.abs(), "{x}: {error:e}");
        }
        assert!(silu::<true>(f32::NAN).is_nan());
        assert_eq!(silu::<true>(f32::INFINITY), f32::INFINITY);
        assert!(silu::<true>(-200.0).abs() < 1e-30);
    }

    #[test]
    fn gelu_is_its_definition() {
        let exact = |x: f64| {
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
            0.5 * x * (1.0 + u.tanh())
        };
        for i in -1200..1200 {
            let x = i as f32 * 0.01;
            let difference = (f64::from(gelu::<true>(x)) - exact(f64::from(x))).abs();
            assert!(difference < 1e-6 * f64::from(x.abs()).max(1e-3), "{x}: {difference:e}");
        }
        assert!(gelu::<true>(-1e4).abs() < 1e-30);
        assert_eq!(gelu::<true>(1e4), 1e4);
    }
}
