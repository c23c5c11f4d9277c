//! The starting noise: the streams of PyTorch's generators, made here so that a seed means the same picture everywhere.

mod card;
mod mt19937;
mod philox;
mod torch_cpu;
mod torch_cuda;

use std::{fmt, str::FromStr};

use candle_core::Device;

use crate::error::{Error, Result};

pub use card::Card;

/// A source of noise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rng {
    /// `torch.randn` of a CPU generator.
    #[default]
    TorchCpu,
    /// `torch.randn` of a CUDA generator on this card.
    TorchCuda(Card),
    /// The same on the card in use: [`Rng::on`] says which.
    TorchCudaInUse,
}

impl Rng {
    /// The source with its card named: the one in use is `device`, or [`Card::DEFAULT`] where that is no CUDA device.
    ///
    /// # Errors
    /// When the driver does not describe its card.
    pub fn on(self, device: &Device) -> Result<Self> {
        match self {
            Self::TorchCudaInUse => Ok(Self::TorchCuda(Card::of(device)?.unwrap_or(Card::DEFAULT))),
            named => Ok(named),
        }
    }
}

/// Standard normal noise of a shape, row-major: what `torch.randn` gives in f32 right after `manual_seed(seed)`. A card
/// in use that [`Rng::on`] has not named counts as [`Card::DEFAULT`].
pub fn noise(rng: Rng, seed: u64, shape: &[usize]) -> Vec<f32> {
    let count = shape.iter().product();
    match rng {
        Rng::TorchCpu => torch_cpu::randn(seed, count),
        Rng::TorchCuda(card) => torch_cuda::randn(&card, seed, count),
        Rng::TorchCudaInUse => torch_cuda::randn(&Card::DEFAULT, seed, count),
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
