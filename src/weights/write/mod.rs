//! Files of tensors that are written: what each number type makes of numbers, and the headers, whose offsets are known before any
//! number is.

mod gguf;
mod safetensors;

use std::{collections::BTreeMap, fmt};

use ::safetensors::Dtype;
use candle_core::{Device, Tensor, quantized::QTensor};
use half::{bf16, f16};
use rayon::prelude::*;

use super::{BlockType, float8::nearest_e4m3, number::NumberType};
use crate::error::{Error, Result};

pub use gguf::Key;

/// Numbers one thread rounds at a time, in whole blocks of any kind.
const TASK: usize = 1 << 16;

/// A number type that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rounding {
    /// 32 bits.
    F32,
    /// 16 bits, 8 of exponent.
    Bf16,
    /// 16 bits, 5 of exponent.
    F16,
    /// 8 bits, 4 of exponent.
    E4M3,
    /// Blocks that share scales.
    Blocks(BlockType),
}

impl fmt::Display for Rounding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        NumberType::from(*self).fmt(f)
    }
}

impl From<Rounding> for NumberType {
    fn from(rounding: Rounding) -> Self {
        match rounding {
            Rounding::F32 => Self::Plain(Dtype::F32),
            Rounding::Bf16 => Self::Plain(Dtype::BF16),
            Rounding::F16 => Self::Plain(Dtype::F16),
            Rounding::E4M3 => Self::Plain(Dtype::F8_E4M3),
            Rounding::Blocks(kind) => Self::Blocks(kind),
        }
    }
}

/// From here on a number is beyond the middle of what would be the next f8_e4m3 after the largest.
const MOST_OF_E4M3: f32 = 464.0;

impl Rounding {
    /// Bytes of so many numbers, in whole blocks.
    pub fn bytes_of(self, numbers: usize) -> usize {
        match self {
            Self::F32 => 4 * numbers,
            Self::Bf16 | Self::F16 => 2 * numbers,
            Self::E4M3 => numbers,
            Self::Blocks(kind) => kind.bytes_of(numbers),
        }
    }

    /// Whether rows of so many numbers can be written: blocks do not cross them.
    pub fn takes_rows_of(self, columns: usize) -> bool {
        !matches!(self, Self::Blocks(kind) if !columns.is_multiple_of(kind.numbers()))
    }

    /// Numbers, rounded, as their bytes.
    ///
    /// # Errors
    /// [`Error::Numeric`] for numbers that the type cannot hold; [`Error::Model`] for blocks that nothing here makes.
    pub fn encode(self, numbers: &[f32]) -> Result<Vec<u8>> {
        self.check(numbers)?;
        Ok(match self {
            Self::F32 => each(numbers, f32::to_le_bytes),
            Self::Bf16 => each(numbers, |x| bf16::from_f32(x).to_le_bytes()),
            Self::F16 => each(numbers, |x| f16::from_f32(x).to_le_bytes()),
            Self::E4M3 => numbers.iter().map(|x| nearest_e4m3(*x)).collect(),
            Self::Blocks(kind) => {
                let theirs = kind.candle().ok_or_else(|| {
                    Error::model(format!("blocks of {} are read and not made", kind.name()), "take another type")
                })?;
                pieces(numbers, |piece| {
                    let tensor = Tensor::from_slice(piece, piece.len(), &Device::Cpu)?;
                    let made = QTensor::quantize(&tensor, theirs)?;
                    self.check_made(piece, &made)?;
                    Ok(made.data()?.into_owned())
                })?
            }
        })
    }

    fn check(self, numbers: &[f32]) -> Result<()> {
        let most = match self {
            Self::F32 | Self::Bf16 => return Ok(()),
            Self::F16 => f32::from(f16::MAX),
            Self::E4M3 => MOST_OF_E4M3,
            Self::Blocks(_) => f32::MAX,
        };
        match numbers.iter().find(|x| x.is_nan() || x.abs() > most) {
            None => Ok(()),
            Some(odd) => Err(self.cannot_hold(*odd)),
        }
    }

    /// Blocks keep their scales and least numbers in f16: numbers beyond those come back as no numbers.
    fn check_made(self, numbers: &[f32], made: &QTensor) -> Result<()> {
        let most = numbers.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
        // What a block keeps of smaller ones is smaller than they are.
        if most < f32::from(f16::MAX) / 2.0 {
            return Ok(());
        }
        let is_sound = made.dequantize(&Device::Cpu)?.to_vec1::<f32>()?.iter().all(|x| x.is_finite());
        if is_sound { Ok(()) } else { Err(self.cannot_hold(most)) }
    }

    fn cannot_hold(self, odd: f32) -> Error {
        let what = format!("it holds {odd}, which {self} cannot hold");
        Error::Numeric { what, hint: "take bf16 or f32, which hold every number of this model".into() }
    }
}

/// The bytes of each number.
fn each<const WIDTH: usize>(numbers: &[f32], encode: impl Fn(f32) -> [u8; WIDTH]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(WIDTH * numbers.len());
    numbers.iter().for_each(|x| bytes.extend(encode(*x)));
    bytes
}

/// What `encode` makes of pieces of whole blocks, one after another.
fn pieces(numbers: &[f32], encode: impl Fn(&[f32]) -> Result<Vec<u8>> + Send + Sync) -> Result<Vec<u8>> {
    let encoded = numbers.par_chunks(TASK).map(encode).collect::<Result<Vec<_>>>()?;
    Ok(encoded.concat())
}

/// The kinds of blocks that are made, from the largest to the smallest: those that candle knows.
pub const MADE_BLOCKS: [BlockType; 10] = [
    BlockType::Q8_0,
    BlockType::Q6K,
    BlockType::Q5K,
    BlockType::Q5_1,
    BlockType::Q5_0,
    BlockType::Q4K,
    BlockType::Q4_1,
    BlockType::Q4_0,
    BlockType::Q3K,
    BlockType::Q2K,
];

/// A tensor of a file that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// Its name.
    pub name: String,
    /// Its shape, rows first.
    pub shape: Vec<usize>,
    /// How its numbers are stored.
    pub rounding: Rounding,
}

impl Outline {
    /// Bytes of its numbers.
    pub fn bytes(&self) -> usize {
        self.rounding.bytes_of(self.shape.iter().product())
    }
}

/// A kind of file, with what it says beside its tensors.
#[derive(Debug, Clone, PartialEq)]
pub enum Container {
    /// Keys with values, in their order.
    Gguf(Vec<(String, Key)>),
    /// Texts by name.
    Safetensors(BTreeMap<String, String>),
}

impl Container {
    /// What stands before the numbers of these tensors, which follow in their order, each with [padding](Container::padding) behind
    /// it.
    ///
    /// # Errors
    /// [`Error::Model`] for a tensor that such a file cannot hold.
    pub fn header(&self, tensors: &[Outline]) -> Result<Vec<u8>> {
        match self {
            Self::Gguf(keys) => gguf::header(keys, tensors),
            Self::Safetensors(metadata) => safetensors::header(metadata, tensors),
        }
    }

    /// Zeros behind the numbers of a tensor of so many bytes.
    pub fn padding(&self, bytes: usize) -> usize {
        match self {
            Self::Gguf(_) => bytes.next_multiple_of(gguf::ALIGNMENT) - bytes,
            Self::Safetensors(_) => 0,
        }
    }

    /// Bytes of the whole file.
    ///
    /// # Errors
    /// As [`Container::header`].
    pub fn file_bytes(&self, tensors: &[Outline]) -> Result<u64> {
        let numbers = tensors.iter().map(|tensor| (tensor.bytes() + self.padding(tensor.bytes())) as u64).sum::<u64>();
        Ok(self.header(tensors)?.len() as u64 + numbers)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;
    use crate::weights::{TensorFiles, TensorSource};

    fn numbers(count: usize) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * 0.37).sin() * 0.1).collect()
    }

    fn file(container: &Container, tensors: &[(Outline, Vec<f32>)]) -> Vec<u8> {
        let outlines: Vec<_> = tensors.iter().map(|(outline, _)| outline.clone()).collect();
        let mut bytes = container.header(&outlines).expect("a header");
        for (outline, numbers) in tensors {
            let encoded = outline.rounding.encode(numbers).expect("rounded");
            assert_eq!(encoded.len(), outline.bytes());
            bytes.extend(&encoded);
            bytes.extend(vec![0; container.padding(encoded.len())]);
        }
        assert_eq!(bytes.len() as u64, container.file_bytes(&outlines).expect("a size"));
        bytes
    }

    #[test]
    fn numbers_that_a_type_cannot_hold_are_refused() {
        for (rounding, fits, odd) in [
            (Rounding::E4M3, 463.0, 465.0),
            (Rounding::F16, 65_000.0, 70_000.0),
            (Rounding::Blocks(BlockType::Q8_0), 8e6, 1e7),
            (Rounding::Blocks(BlockType::Q4K), 1e5, 1e9),
            (Rounding::Blocks(BlockType::Q4_1), 6e4, 1e6),
        ] {
            let mut numbers = numbers(512);
            numbers[7] = fits;
            rounding.encode(&numbers).expect("it fits");
            numbers[300] = -odd;
            let error = rounding.encode(&numbers).expect_err("it is beyond");
            assert!(error.to_string().contains("cannot hold"), "{rounding}: {error}");
            assert!(rounding.encode(&[f32::NAN; 256]).is_err(), "{rounding}");
        }
    }

    /// A file made by others may say a scale beside blocks, which then are numbers like others.
    #[test]
    fn blocks_with_a_scale_are_read_as_numbers() {
        let outline =
            |name: &str, shape: &[usize], rounding| Outline { name: name.into(), shape: shape.to_vec(), rounding };
        let q8_0 = Rounding::Blocks(BlockType::Q8_0);
        let scaled = |names: [&str; 2]| {
            let weight = (outline(names[0], &[2, 64], q8_0), numbers(128));
            let scale = (outline(names[1], &[1], Rounding::F32), vec![2.0]);
            let keys = vec![("general.architecture".to_owned(), Key::Text("flux".into()))];
            TensorFiles::from_bytes("x.gguf", file(&Container::Gguf(keys), &[weight, scale])).expect("a GGUF file")
        };
        let (plain, doubled) = (scaled(["a.weight", "b.other"]), scaled(["a.weight", "a.scale_weight"]));
        assert!(plain.blocks("a.weight").is_some() && doubled.blocks("a.weight").is_none());
        let loaded = |files: &TensorFiles| {
            let tensor = files.load("a.weight", DType::F32, &Device::Cpu).expect("numbers");
            tensor.flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("f32")
        };
        let twice: Vec<f32> = loaded(&plain).iter().map(|x| 2.0 * x).collect();
        assert_eq!(loaded(&doubled), twice);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let blocks = MADE_BLOCKS.map(Rounding::Blocks);
        let plain = [Rounding::F32, Rounding::Bf16, Rounding::F16];
        let kinds: Vec<Rounding> = plain.into_iter().chain(blocks).collect();
        let tensor = |rounding: &Rounding| {
            let outline = Outline { name: format!("t.{rounding}"), shape: vec![3, 512], rounding: *rounding };
            (outline, numbers(3 * 512))
        };
        let odd = (Outline { name: "odd".into(), shape: vec![5], rounding: Rounding::F16 }, numbers(5));
        let all: Vec<_> = kinds.iter().map(tensor).chain([odd]).collect();
        let keys = vec![("general.architecture".to_owned(), Key::Text("flux".into()))];
        let gguf = TensorFiles::from_bytes("x.gguf", file(&Container::Gguf(keys), &all)).expect("a GGUF file");
        assert_eq!(gguf.made_for(), Some("flux"));
        let simple = all.iter().filter(|(one, _)| !matches!(one.rounding, Rounding::Blocks(_))).cloned();
        let fp8 = tensor(&Rounding::E4M3);
        let simple: Vec<_> = simple.chain([fp8]).collect();
        let texts = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        let plain = TensorFiles::from_bytes("x.safetensors", file(&Container::Safetensors(texts), &simple));
        let plain = plain.expect("a safetensors file");
        assert_eq!(plain.metadata("format"), Some("pt"));
        for (store, tensors) in [(&gguf, &all), (&plain, &simple)] {
            for (outline, numbers) in tensors {
                let name = &outline.name;
                assert_eq!(store.type_name(name), Some(outline.rounding.to_string()), "{name}");
                assert_eq!(store.shape(name).as_ref(), Some(&outline.shape), "{name}");
                let found =
                    store.load(name, DType::F32, &Device::Cpu).and_then(|t| Ok(t.flatten_all()?.to_vec1::<f32>()?));
                let found = found.expect("numbers");
                let error = found.iter().zip(numbers).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                // Of 0.1 at most: 2 bits leave a sixth of the range, 8 a hundredth, floats a thousandth.
                let most = match outline.rounding {
                    Rounding::F32 => 0.0,
                    Rounding::Bf16 | Rounding::F16 => 4e-4,
                    Rounding::E4M3 => 4e-3,
                    Rounding::Blocks(BlockType::Q8_0 | BlockType::Q6K) => 4e-3,
                    Rounding::Blocks(_) => 0.04,
                };
                assert!(error <= most, "{name}: {error}");
            }
        }
    }

    #[test]
    fn what_is_no_number_is_refused_by_the_type_s_name() {
        for (rounding, numbers) in [
            (Rounding::F16, [1.0, 70_000.0]),
            (Rounding::E4M3, [f32::NAN, 1.0]),
            (Rounding::Blocks(BlockType::Q8_0), [f32::INFINITY, 0.0]),
        ] {
            let error = rounding.encode(&numbers).expect_err("refused");
            assert!(error.to_string().contains(&rounding.to_string()), "{error}");
        }
        assert_eq!(Rounding::Bf16.encode(&[70_000.0]).expect("held").len(), 2);
        assert!(Rounding::Blocks(BlockType::Iq4Nl).encode(&[0.0; 32]).is_err());
    }
}
