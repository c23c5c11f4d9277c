//! Which time shift is asked for. What it does to the schedule is in `sampling`.

use std::{fmt, str::FromStr};

use super::numbers::NumberOrText;
use crate::error::{Error, Result};

/// Which mu the dynamic shift uses.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Mu {
    /// The family's stock formula where it holds, and what it pins mu at beyond: far from the sizes of training the formula
    /// leaves the range the model was trained in (11.5 at 4096 x 4096) and ruins the picture. FLUX.1's is `max_shift` at
    /// every size, as in DyPE's reference.
    #[default]
    Pinned,
    /// This value.
    Value(f64),
    /// The family's own formula at every size.
    Stock,
    /// TIDE's: through the same two points as FLUX.1's line, along the logarithm of the tokens.
    Log,
}

/// What time shifts are asked for with.
pub const SHIFT: NumberOrText<Mu> = NumberOrText {
    of_number: Mu::Value,
    is_in_range: Mu::is_finite,
    wanted: r#"a number such as 1.15, "stock" for the model's own formula, or "log""#,
};

impl Mu {
    fn is_finite(&self) -> bool {
        !matches!(self, Self::Value(number) if !number.is_finite())
    }
}

impl FromStr for Mu {
    type Err = Error;

    /// `stock`, `log`, `pinned` or a number.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "stock" => Ok(Self::Stock),
            "pinned" => Ok(Self::Pinned),
            "log" => Ok(Self::Log),
            _ => text.parse().ok().map(Self::Value).filter(Self::is_finite).ok_or_else(|| {
                let hint = "give a number such as 1.15, `stock` for the model's own size-dependent formula, `log`, or `pinned`, the default";
                Error::request(format!("--mu {text}: not a number"), hint)
            }),
        }
    }
}

impl fmt::Display for Mu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pinned => f.write_str("pinned"),
            Self::Stock => f.write_str("stock"),
            Self::Log => f.write_str("log"),
            Self::Value(value) => write!(f, "{value}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Kind;

    #[test]
    fn mu_is_a_number_or_stock() {
        assert_eq!(SHIFT.parse("stock"), Ok(Mu::Stock));
        assert_eq!(SHIFT.parse("log"), Ok(Mu::Log));
        assert_eq!(SHIFT.parse("0.5"), Ok(Mu::Value(0.5)));
        let message = SHIFT.parse("big").expect_err("no number");
        assert!(message.contains("stock") && message.contains("log"), "{message}");
    }
}
