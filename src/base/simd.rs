//! The widest vectors the processor has, chosen when the program runs.

/// Declares a function whose body is compiled once for each instruction set and chosen at run time.
///
/// The body is plain Rust that the compiler vectorises; `$fma` names a constant that says whether fused
/// multiply-add is one instruction there.
macro_rules! multiversion {
    ($(#[$meta:meta])* pub fn $name:ident<$fma:ident>($($arg:ident: $ty:ty),* $(,)?) $body:block) => {
        $(#[$meta])*
        pub fn $name($($arg: $ty),*) {
            #[inline(always)]
            fn body<const $fma: bool>($($arg: $ty),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512($($arg: $ty),*) {
                    body::<true>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) {
                    body::<true>($($arg),*)
                }
                match $crate::base::simd::level() {
                    // SAFETY: the processor has what the function was compiled for.
                    $crate::base::simd::Level::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::base::simd::Level::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::base::simd::Level::Baseline => {}
                }
            }
            body::<{ cfg!(any(target_arch = "aarch64", target_feature = "fma")) }>($($arg),*)
        }
    };
}
pub(crate) use multiversion;

/// What the processor can do, as far as these kernels care.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// 512-bit vectors with fused multiply-add.
    Avx512,
    /// 256-bit vectors with fused multiply-add.
    Avx2,
    /// What every processor of the architecture has.
    Baseline,
}

/// The best level this processor has.
#[cfg(target_arch = "x86_64")]
#[inline]
pub fn level() -> Level {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match (avx512 && avx2, avx2) {
        (true, _) => Level::Avx512,
        (_, true) => Level::Avx2,
        _ => Level::Baseline,
    }
}
