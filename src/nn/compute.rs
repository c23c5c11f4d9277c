//! What a network computes in.

use candle_core::DType;

use super::kernels::fp8;
use crate::base::device::DeviceKind;

/// How linear layers and attention multiply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Products {
    /// In the number type of the stream.
    Exact,
    /// As [`Products::Exact`], except that the CPU may round inputs to bf16, where the weight is bf16 and the processor
    /// multiplies such pairs at twice the rate, and queries, keys, values and softmax weights in attention; sums stay f32.
    Rounded,
    /// As [`Products::Rounded`], except that inputs are rounded to 8 bits, in blocks of 32 with a scale, where the weight is Q8_0.
    Int8,
    /// As [`Products::Exact`], except that rows of inputs become e4m3 where the weight is e4m3 and a card multiplies such; sums stay
    /// f32.
    Float8,
}

impl Products {
    /// Whether inputs may be rounded to bf16.
    pub fn rounds(self) -> bool {
        matches!(self, Self::Rounded | Self::Int8)
    }
}

/// In which products codes of weights meet codes of inputs, where that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeProducts {
    /// Those with weights of e4m3, where the device has such.
    pub fp8: bool,
    /// Those with weights in Q8_0, where the CPU rounds inputs.
    pub int8: bool,
}

impl CodeProducts {
    /// In none.
    pub const NONE: Self = Self { fp8: false, int8: false };
}

/// What the streams of a network compute in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compute {
    /// The number type of tokens, keys and values.
    pub dtype: DType,
    /// How the large products multiply.
    pub products: Products,
}

impl Compute {
    /// f32 throughout.
    pub const EXACT_F32: Self = Self { dtype: DType::F32, products: Products::Exact };

    /// What a device of this kind computes in when asked for `dtype`: bf16 on the CPU is f32 with the large products
    /// rounded.
    pub fn on(kind: DeviceKind, dtype: DType) -> Self {
        match (kind, dtype) {
            (DeviceKind::Cpu, DType::BF16) => Self { products: Products::Rounded, ..Self::EXACT_F32 },
            _ => Self { dtype, products: Products::Exact },
        }
    }

    /// The same, with products of codes where they are asked for: in e4m3 where a device of this kind has them, in 8 bits where inputs
    /// may be rounded at all.
    pub fn with_codes(self, kind: DeviceKind, asked: CodeProducts) -> Self {
        let products = match self.products {
            _ if asked.fp8 && fp8::is_on(kind) => Products::Float8,
            Products::Rounded if asked.int8 => Products::Int8,
            usual => usual,
        };
        Self { products, ..self }
    }

    /// The same for small layers whose rounding would reach every token: modulation, the first and the last layer.
    pub fn exact(self) -> Self {
        Self { products: Products::Exact, ..self }
    }
}
