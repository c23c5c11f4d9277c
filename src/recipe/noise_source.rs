//! The names of the sources of noise: PyTorch's generators, on the CPU or on a card. What they make is made in `sampling`.

use std::{fmt, str::FromStr};

use super::Card;
use crate::error::{Error, Result};

/// A source of noise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rng {
    /// `torch.randn` of a CPU generator.
    #[default]
    TorchCpu,
    /// `torch.randn` of a CUDA generator on this card.
    TorchCuda(Card),
    /// The same on the card in use: `Rng::on` says which.
    TorchCudaInUse,
}

impl Rng {
    /// What A1111's web UI and its kin call it: they know `CPU`, `GPU` and `NV`, and take another word for their own default.
    pub fn elsewhere(self) -> &'static str {
        match self {
            Self::TorchCpu => "CPU",
            Self::TorchCuda(_) | Self::TorchCudaInUse => "GPU",
        }
    }

    /// What [`Rng::elsewhere`] was said of, as far as the word tells: a card has no name there.
    pub fn of_elsewhere(word: &str) -> Option<Self> {
        match word {
            "CPU" => Some(Self::TorchCpu),
            "GPU" => Some(Self::TorchCudaInUse),
            _ => None,
        }
    }
}

impl FromStr for Rng {
    type Err = Error;

    /// `torch-cpu`, `torch-cuda:CARD`, or `torch-cuda` for the card in use.
    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':') {
            None if text == "torch-cpu" => Ok(Self::TorchCpu),
            None if text == "torch-cuda" => Ok(Self::TorchCudaInUse),
            Some(("torch-cuda", card)) => card.parse().map(Self::TorchCuda),
            _ => {
                let hint = "use torch-cpu, torch-cuda, or torch-cuda:CARD such as torch-cuda:h100";
                Err(Error::request(format!("--rng {text}: unknown noise source"), hint))
            }
        }
    }
}

impl fmt::Display for Rng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TorchCpu => f.write_str("torch-cpu"),
            Self::TorchCuda(card) => write!(f, "torch-cuda:{card}"),
            Self::TorchCudaInUse => f.write_str("torch-cuda"),
        }
    }
}
