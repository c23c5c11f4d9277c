//! Which time shift is asked for. What it does to the schedule is in `sampling`.

use std::{fmt, str::FromStr};

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

impl FromStr for Mu {
    type Err = Error;

    /// `stock`, `log`, `pinned` or a number.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "stock" => Ok(Self::Stock),
            "pinned" => Ok(Self::Pinned),
            "log" => Ok(Self::Log),
            _ => match text.parse::<f64>() {
                Ok(value) if value.is_finite() => Ok(Self::Value(value)),
                _ => {
                    let hint =
                        "give a number such as 1.15, `stock` for the model's own size-dependent formula, or `log`";
                    Err(Error::request(format!("--mu {text}: not a number"), hint))
                }
            },
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
