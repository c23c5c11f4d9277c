//! Parsers of flag values: each says what it wanted when it refuses.

use crate::{
    base::geometry::{MAX_SIDE_PX, MIN_SIDE_PX},
    base::memory::Bytes,
    recipe::settings::DeviceChoice,
    recipe::{self, Shard},
    sampling::{Mu, Rng},
};

/// A side of the picture in pixels.
pub fn side_px(text: &str) -> Result<usize, String> {
    let wanted = || format!("a side is a whole number of pixels from {MIN_SIDE_PX} to {MAX_SIDE_PX}");
    let side: usize = text.parse().map_err(|_| wanted())?;
    if (MIN_SIDE_PX..=MAX_SIDE_PX).contains(&side) { Ok(side) } else { Err(wanted()) }
}

/// A number of denoising steps.
pub fn steps(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(steps @ 1..=10_000) => Ok(steps),
        _ => Err("steps are a whole number from 1 to 10000; 28 is usual, 4 for schnell".into()),
    }
}

/// A seed.
pub fn seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("a seed is a whole number from 0 to {}", u64::MAX))
}

/// A number of T5 tokens.
pub fn sequence_length(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(length @ 2..=512) => Ok(length),
        _ => Err("FLUX.1 takes 2 to 512 T5 tokens".into()),
    }
}

/// Any finite number.
pub fn finite(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|x: &f64| x.is_finite()).ok_or_else(|| "a finite number is wanted".into())
}

/// A finite number that is not negative.
pub fn not_negative(text: &str) -> Result<f64, String> {
    finite(text).ok().filter(|x| *x >= 0.0).ok_or_else(|| "a number of 0 or more is wanted".into())
}

/// The time shift: a number or "stock".
pub fn mu(text: &str) -> Result<Mu, String> {
    text.parse().map_err(|_| "mu is a number (FLUX.1's max_shift is 1.15), or \"stock\"".into())
}

/// The source of noise.
pub fn rng(text: &str) -> Result<Rng, String> {
    text.parse().map_err(|e: crate::Error| {
        let what = e.to_string();
        // clap says which flag and value it is.
        let what = what.strip_prefix(&format!("--rng {text}: ")).unwrap_or(&what);
        match e.hint() {
            Some(hint) => format!("{what}; {hint}"),
            None => what.to_owned(),
        }
    })
}

/// The device.
pub fn device(text: &str) -> Result<DeviceChoice, String> {
    text.parse()
}

/// A list of seeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seeds(pub Vec<u64>);

/// A list of seeds, such as 1,2,5-8.
pub fn seeds(text: &str) -> Result<Seeds, String> {
    recipe::parse_seeds(text).map(Seeds).map_err(|e| with_hint(&e))
}

/// One part of a batch.
pub fn shard(text: &str) -> Result<Shard, String> {
    text.parse().map_err(|e| with_hint(&e))
}

/// A whole number from 1 on.
pub fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number >= 1).ok_or_else(|| "a whole number of 1 or more is wanted".into())
}

fn with_hint(error: &crate::Error) -> String {
    error.hint().map_or_else(|| error.to_string(), |hint| format!("{error}; {hint}"))
}

/// An amount of memory.
pub fn bytes(text: &str) -> Result<Bytes, String> {
    text.parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_that_are_no_sides_are_refused_with_the_range() {
        for text in ["0", "15", "-5", "1e9", "65537", "", "tall"] {
            let message = side_px(text).expect_err(text);
            assert!(message.contains("from 16 to 65536"), "{message}");
        }
        assert_eq!(side_px("16"), Ok(16));
        assert_eq!(side_px("4097"), Ok(4097));
    }

    #[test]
    fn numbers_must_be_finite() {
        for text in ["nan", "inf", "-inf", "x"] {
            assert!(finite(text).is_err(), "{text}");
        }
        assert_eq!(finite("-1.5"), Ok(-1.5));
        assert!(not_negative("-0.1").is_err());
        assert_eq!(not_negative("0"), Ok(0.0));
    }

    #[test]
    fn mu_is_a_number_or_stock() {
        assert_eq!(mu("stock"), Ok(Mu::Stock));
        assert_eq!(mu("0.5"), Ok(Mu::Value(0.5)));
        assert!(mu("big").expect_err("no number").contains("stock"));
    }

    #[test]
    fn seeds_are_64_bits() {
        assert_eq!(seed("18446744073709551615"), Ok(u64::MAX));
        for text in ["-1", "18446744073709551616", "x", "1.5"] {
            assert!(seed(text).expect_err(text).contains("18446744073709551615"));
        }
    }

    #[test]
    fn an_unknown_noise_source_is_told_once() {
        let message = rng("torch-cuda:h10").expect_err("no such card");
        assert!(message.starts_with("unknown card") && message.contains("h100"), "{message}");
    }

    #[test]
    fn steps_start_at_one() {
        assert!(steps("0").is_err());
        assert_eq!(steps("1"), Ok(1));
    }
}
