//! The starting noise: the streams of PyTorch's generators, made here so that a seed means the same picture everywhere.

mod mt19937;
mod philox;
mod torch_cpu;
mod torch_cuda;

use candle_core::Device;

use crate::{
    error::Result,
    recipe::{Card, Rng},
};

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
    noise_after(rng, seed, &[], shape)
}

/// The same after earlier draws of the same generator, of so many values each: with k of them the draw number k, counted from 0.
pub fn noise_after(rng: Rng, seed: u64, before: &[usize], shape: &[usize]) -> Vec<f32> {
    let count = shape.iter().product();
    match rng {
        Rng::TorchCpu => torch_cpu::randn(seed, before, count),
        Rng::TorchCuda(card) => torch_cuda::randn(&card, seed, before, count),
        Rng::TorchCudaInUse => torch_cuda::randn(&Card::DEFAULT, seed, before, count),
    }
}

impl Card {
    /// The card that a CUDA device is, as its driver describes it; `None` for any other device.
    ///
    /// # Errors
    /// When the driver does not say.
    #[cfg(feature = "cuda")]
    pub fn of(device: &Device) -> Result<Option<Self>> {
        use candle_core::cuda_backend::cudarc::driver::sys::CUdevice_attribute_enum as Attribute;
        let Device::Cuda(device) = device else { return Ok(None) };
        let stream = device.cuda_stream();
        let ask = |attribute| stream.context().attribute(attribute).map_err(candle_core::Error::wrap);
        let multiprocessors = ask(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        let threads = ask(Attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR)?;
        Ok(Self::custom(multiprocessors as usize, threads as usize))
    }

    /// The card that a CUDA device is; there are none in this build.
    ///
    /// # Errors
    /// Never.
    #[cfg(not(feature = "cuda"))]
    pub fn of(_device: &Device) -> Result<Option<Self>> {
        Ok(None)
    }
}
