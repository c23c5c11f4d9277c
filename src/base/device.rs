//! Which kind of device computes: all that plans and choices need to know, so that a GPU's plan can be made without one.

use candle_core::{DType, Device};

/// A kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeviceKind {
    /// The processor, with kernels of our own.
    Cpu,
    /// An NVIDIA card of this compute capability, such as (9, 0).
    Cuda {
        /// Major and minor number.
        capability: (u32, u32),
    },
    /// Apple's GPU.
    Metal,
}

/// The least compute capability whose cards multiply bf16. Source: CUDA C++ Programming Guide, table of feature support.
const BF16_CAPABILITY: (u32, u32) = (8, 0);

impl DeviceKind {
    /// The kind of an open device.
    pub fn of(device: &Device) -> Self {
        match device {
            Device::Cpu => Self::Cpu,
            Device::Cuda(device) => Self::Cuda { capability: capability(device) },
            Device::Metal(_) => Self::Metal,
        }
    }

    /// The device as `--device` takes it, without its number.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda { .. } => "cuda",
            Self::Metal => "metal",
        }
    }

    /// Whether it is the processor.
    pub fn is_cpu(self) -> bool {
        self == Self::Cpu
    }

    /// Whether it is an NVIDIA card.
    pub fn is_cuda(self) -> bool {
        matches!(self, Self::Cuda { .. })
    }

    /// Whether it computes in bf16 at all; the CPU does by widening.
    pub fn has_bf16(self) -> bool {
        !matches!(self, Self::Cuda { capability } if capability < BF16_CAPABILITY)
    }

    /// The number type of a computation that nobody asked another for: f32 on the CPU, bf16 on a GPU that has it, else f32:
    /// f16 overflows in FLUX.
    pub fn usual_dtype(self) -> DType {
        if self.is_cpu() || !self.has_bf16() { DType::F32 } else { DType::BF16 }
    }
}

#[cfg(feature = "cuda")]
fn capability(device: &candle_core::CudaDevice) -> (u32, u32) {
    let number = |found: i32| u32::try_from(found).unwrap_or(0);
    // A driver that does not answer is told of when something is computed on it.
    device.cuda_stream().context().compute_capability().map_or((0, 0), |(major, minor)| (number(major), number(minor)))
}

#[cfg(not(feature = "cuda"))]
fn capability(_device: &candle_core::CudaDevice) -> (u32, u32) {
    (0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_without_bf16_compute_in_f32() {
        let card = |major, minor| DeviceKind::Cuda { capability: (major, minor) };
        assert_eq!([card(7, 5), card(8, 0), card(9, 0)].map(DeviceKind::has_bf16), [false, true, true]);
        assert_eq!([card(7, 0), card(8, 6)].map(DeviceKind::usual_dtype), [DType::F32, DType::BF16]);
        assert_eq!((DeviceKind::Cpu.usual_dtype(), DeviceKind::Metal.usual_dtype()), (DType::F32, DType::BF16));
        assert_eq!((DeviceKind::of(&Device::Cpu), card(9, 0).name()), (DeviceKind::Cpu, "cuda"));
    }
}
