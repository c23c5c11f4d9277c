//! The types that numbers are stored in.

use std::fmt;

use candle_core::DType;
use safetensors::Dtype;

use super::{BlockType, convert};

/// How the numbers of a tensor are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NumberType {
    /// One by one.
    Plain(Dtype),
    /// Quantised in blocks.
    Blocks(BlockType),
    /// In blocks that are not read.
    Unread(Unread),
}

/// A kind of block that is not read: of some use are its name and its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unread {
    name: &'static str,
    numbers: usize,
    bytes: usize,
}

const fn unread(name: &'static str, numbers: usize, bytes: usize) -> NumberType {
    NumberType::Unread(Unread { name, numbers, bytes })
}

/// The numbers by which GGUF files know types. Source: ggml-org/llama.cpp, `enum ggml_type`, which has holes.
const OF_GGML: [(u32, NumberType); 32] = [
    (0, NumberType::Plain(Dtype::F32)),
    (1, NumberType::Plain(Dtype::F16)),
    (24, NumberType::Plain(Dtype::I8)),
    (25, NumberType::Plain(Dtype::I16)),
    (26, NumberType::Plain(Dtype::I32)),
    (27, NumberType::Plain(Dtype::I64)),
    (28, NumberType::Plain(Dtype::F64)),
    (30, NumberType::Plain(Dtype::BF16)),
    (2, NumberType::Blocks(BlockType::Q4_0)),
    (3, NumberType::Blocks(BlockType::Q4_1)),
    (6, NumberType::Blocks(BlockType::Q5_0)),
    (7, NumberType::Blocks(BlockType::Q5_1)),
    (8, NumberType::Blocks(BlockType::Q8_0)),
    (10, NumberType::Blocks(BlockType::Q2K)),
    (11, NumberType::Blocks(BlockType::Q3K)),
    (12, NumberType::Blocks(BlockType::Q4K)),
    (13, NumberType::Blocks(BlockType::Q5K)),
    (14, NumberType::Blocks(BlockType::Q6K)),
    (20, NumberType::Blocks(BlockType::Iq4Nl)),
    (23, NumberType::Blocks(BlockType::Iq4Xs)),
    (9, unread("Q8_1", 32, 36)),
    (15, unread("Q8_K", 256, 292)),
    (16, unread("IQ2_XXS", 256, 66)),
    (17, unread("IQ2_XS", 256, 74)),
    (18, unread("IQ3_XXS", 256, 98)),
    (19, unread("IQ1_S", 256, 50)),
    (21, unread("IQ3_S", 256, 110)),
    (22, unread("IQ2_S", 256, 82)),
    (29, unread("IQ1_M", 256, 56)),
    (34, unread("TQ1_0", 256, 54)),
    (35, unread("TQ2_0", 256, 66)),
    (39, unread("MXFP4", 32, 17)),
];

impl NumberType {
    /// The type that a GGUF file gives this number.
    pub(super) fn of_ggml(number: u32) -> Option<Self> {
        OF_GGML.iter().find(|(known, _)| *known == number).map(|(_, kind)| *kind)
    }

    /// The number that a GGUF file gives this type.
    pub(super) fn in_ggml(self) -> Option<u32> {
        OF_GGML.iter().find(|(_, kind)| *kind == self).map(|(number, _)| *number)
    }

    /// Numbers that are stored together, and the bits they take.
    fn unit(self) -> (usize, usize) {
        match self {
            Self::Plain(dtype) => (1, dtype.bitsize()),
            Self::Blocks(kind) => (kind.numbers(), 8 * kind.bytes()),
            Self::Unread(kind) => (kind.numbers, 8 * kind.bytes),
        }
    }

    /// Numbers that are stored together: a row has a whole number of them.
    pub(super) fn numbers(self) -> usize {
        self.unit().0
    }

    /// Bytes of a tensor of this many numbers; `None` when there are no such.
    pub(super) fn bytes_of(self, numbers: usize) -> Option<usize> {
        let (unit, bits) = self.unit();
        let bits = (numbers.is_multiple_of(unit)).then_some(numbers / unit)?.checked_mul(bits)?;
        (bits % 8 == 0).then_some(bits / 8)
    }

    /// Whether such numbers can be weights.
    pub(super) fn is_weight(self) -> bool {
        match self {
            Self::Plain(dtype) => convert::is_weight(dtype),
            Self::Blocks(_) => true,
            Self::Unread(_) => false,
        }
    }

    /// The narrowest type of candle's that holds such numbers exactly, if one does.
    pub(super) fn candle(self) -> Option<DType> {
        match self {
            Self::Plain(dtype) => convert::candle_dtype(dtype),
            Self::Blocks(_) => Some(DType::F32),
            Self::Unread(_) => None,
        }
    }
}

impl fmt::Display for NumberType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(dtype) => write!(f, "{dtype}"),
            Self::Blocks(kind) => f.write_str(kind.name()),
            Self::Unread(kind) => f.write_str(kind.name),
        }
    }
}
