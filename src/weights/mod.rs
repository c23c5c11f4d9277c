//! Where tensors come from: safetensors and GGUF files behind a memory map, under the names and shapes a model asks for.

mod blocks;
mod convert;
mod files;
mod float8;
mod gguf;
mod header;
mod index;
mod kept;
pub(crate) mod lora;
mod magic;
mod number;
mod renamed;
pub(crate) mod scales;
mod shard;
mod source;
mod split;
mod stored;
mod tensor_files;
mod upload;
pub(crate) mod write;

use std::{fmt::Display, ops::Range, sync::Arc};

use candle_core::{DType, Device, Tensor};

use crate::error::{Error, Result};

pub use blocks::BlockType;
pub(crate) use files::names_in;
pub use files::{Ahead, Files};
pub use float8::{Float8, LARGEST_E4M3, nearest_e4m3};
pub(crate) use gguf::MADE_FOR;
pub(crate) use header::header_bytes;
pub use index::{ShardIndex, open_folder};
pub use kept::Kept;
pub use renamed::{Cut, Renamed, lookup, reverse};
pub use source::TensorSource;
pub(crate) use split::{all_parts, is_later_part, missing_part};
pub(crate) use stored::{STEMS, Stored, has_weights_ending, is_shard, is_usual_name};
pub use tensor_files::TensorFiles;
pub use upload::{Ring, SLOTS};

/// A view of a [`TensorSource`] below a name prefix, with the number type and device its tensors arrive in.
#[derive(Clone)]
pub struct Weights {
    source: Arc<dyn TensorSource>,
    prefix: String,
    dtype: DType,
    device: Device,
    ring: Option<Ring>,
}

/// A source without tensors.
struct Nothing;

impl TensorSource for Nothing {
    fn shape(&self, _name: &str) -> Option<Vec<usize>> {
        None
    }

    fn load(&self, name: &str, _dtype: DType, _device: &Device) -> Result<Tensor> {
        Err(no_tensor(&self.describe(), name, None))
    }

    fn describe(&self) -> String {
        "a configuration".into()
    }
}

impl Weights {
    /// None, in this number type: for dry passes of a configuration alone.
    pub fn absent(dtype: DType) -> Self {
        Self::new(Arc::new(Nothing), dtype, Device::Cpu)
    }

    /// The whole of a source.
    pub fn new(source: Arc<dyn TensorSource>, dtype: DType, device: Device) -> Self {
        Self { source, prefix: String::new(), dtype, device, ring: None }
    }

    /// The view one name segment further down: `weights.pp("transformer_blocks").pp(3)`.
    pub fn pp(&self, segment: impl Display) -> Self {
        Self { prefix: self.full_name(&segment.to_string()), ..self.clone() }
    }

    /// The same view with tensors of another number type.
    pub fn with_dtype(&self, dtype: DType) -> Self {
        Self { dtype, ..self.clone() }
    }

    /// The same view whose tensors travel to the device while it computes, where the device can do that.
    ///
    /// # Errors
    /// When the device fails.
    pub fn beside_computation(&self) -> Result<Self> {
        Ok(Self { ring: Ring::to(&self.device)?, ..self.clone() })
    }

    /// The ring that tensors travel through, where they travel beside computation.
    pub fn ring(&self) -> Option<&Ring> {
        self.ring.as_ref()
    }

    /// The number type tensors arrive in.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The device tensors arrive on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Whether `name` exists below this prefix.
    pub fn contains(&self, name: &str) -> bool {
        self.source.shape(&self.full_name(name)).is_some()
    }

    /// The tensor `name` below this prefix, of exactly this shape.
    ///
    /// # Errors
    /// [`Error::Model`] when it is missing, has another shape, or cannot be read.
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.check(name, shape)?;
        let name = self.full_name(name);
        let load = |device: &Device| self.source.load(&name, self.dtype, device);
        let Some(ring) = &self.ring else { return load(&self.device) };
        // A ring has room for what networks compute in.
        let is_float = matches!(self.dtype, DType::BF16 | DType::F16 | DType::F32);
        match self.source.as_stored(&name, self.dtype).filter(|_| is_float) {
            Some(bytes) => ring.send_bytes(bytes, shape, self.dtype),
            None => ring.send(&load(&Device::Cpu)?),
        }
    }

    /// What LoRA files add to the layer at this prefix.
    pub fn adapters(&self) -> &[lora::Adapter] {
        self.source.adapters(&self.prefix)
    }

    /// Whether LoRA files add to any layer, also beyond this prefix.
    pub fn is_adapted(&self) -> bool {
        self.source.is_adapted()
    }

    /// A tensor in the processor's memory as it arrives where these do.
    ///
    /// # Errors
    /// When the device fails.
    pub fn send(&self, tensor: &Tensor) -> Result<Tensor> {
        match &self.ring {
            Some(ring) => ring.send(tensor),
            None => Ok(tensor.to_device(&self.device)?),
        }
    }

    /// Checks, without reading it, that the tensor `name` is there and of exactly this shape.
    ///
    /// # Errors
    /// [`Error::Model`] when it is missing or has another shape.
    pub fn check(&self, name: &str, shape: &[usize]) -> Result<()> {
        check_shape(&*self.source, &self.full_name(name), shape)
    }

    /// [`Weights::get`] in the processor's memory, whatever device and number type these are for.
    ///
    /// # Errors
    /// As there.
    pub fn on_cpu(&self, name: &str, shape: &[usize], dtype: DType) -> Result<Tensor> {
        self.check(name, shape)?;
        self.source.load(&self.full_name(name), dtype, &Device::Cpu)
    }

    /// The prefix: the name of what these are the weights of.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Rows `rows` of the tensor `name` below this prefix, which as a whole has exactly this shape.
    ///
    /// # Errors
    /// As [`Weights::get`]; and when it has no such rows.
    pub fn get_rows(&self, name: &str, shape: &[usize], rows: Range<usize>) -> Result<Tensor> {
        self.check(name, shape)?;
        self.source.load_rows(&self.full_name(name), rows, self.dtype, &self.device)
    }

    /// The narrowest number type that holds `name` exactly, a scale of 8-bit numbers apart, where the source knows.
    pub fn file_dtype(&self, name: &str) -> Option<DType> {
        self.source.file_dtype(&self.full_name(name))
    }

    /// The kind of blocks that the matrix `name` is quantised in, where its rows are whole blocks.
    pub fn blocks(&self, name: &str) -> Option<BlockType> {
        self.source.blocks(&self.full_name(name))
    }

    /// The matrix `name` below this prefix, of exactly this shape, in its blocks: bytes [rows, bytes of a row] in the processor's
    /// memory.
    ///
    /// # Errors
    /// As [`Weights::get`].
    pub fn get_blocks(&self, name: &str, shape: [usize; 2]) -> Result<Tensor> {
        self.check(name, &shape)?;
        self.source.load_blocks(&self.full_name(name), 0..shape[0])
    }

    /// The kind of floats of 8 bits that `name` is stored in, where it is.
    pub fn float8(&self, name: &str) -> Option<Float8> {
        self.source.float8(&self.full_name(name))
    }

    /// What the stored numbers of `name` are multiplied by: nothing, one number, or one of each row.
    ///
    /// # Errors
    /// [`Error::Model`] when they cannot be read.
    pub fn scales(&self, name: &str) -> Result<Vec<f32>> {
        self.source.scales(&self.full_name(name))
    }

    /// How many [scales](Weights::scales) there are.
    pub fn scale_count(&self, name: &str) -> usize {
        self.source.scale_count(&self.full_name(name))
    }

    /// Bytes of all tensors below this prefix, as they are stored.
    pub fn bytes(&self) -> u64 {
        self.names_below().iter().filter_map(|name| self.source.bytes(name)).sum()
    }

    /// Numbers in all tensors below this prefix.
    pub fn elements(&self) -> u64 {
        let count = |name: &String| self.source.shape(name).map(|shape| shape.iter().product::<usize>() as u64);
        self.names_below().iter().filter_map(count).sum()
    }

    /// Says that nothing below this prefix will be loaded soon.
    pub fn release(&self) {
        let names = self.names_below();
        self.source.release(&names.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// Full names of the tensors below this prefix.
    fn names_below(&self) -> Vec<String> {
        let mut names = self.source.names();
        if !self.prefix.is_empty() {
            names.retain(|name| name.strip_prefix(&self.prefix).is_some_and(|rest| rest.starts_with('.')));
        }
        names
    }

    /// A name below this prefix as the source knows it.
    pub(crate) fn full_name(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }
}

/// What to do about weights and a config that do not fit.
pub(crate) const DO_NOT_FIT: &str =
    "the file does not fit the model's config.json; check that both come from one model";

/// The source has `name`, with this shape.
pub(crate) fn check_shape(source: &dyn TensorSource, name: &str, shape: &[usize]) -> Result<()> {
    match source.shape(name) {
        None => Err(no_tensor(&source.describe(), name, Some(shape))),
        Some(found) if found != shape => {
            let what = format!("{}: tensor {name} has shape {found:?}, expected {shape:?}", source.describe());
            Err(Error::model(what, DO_NOT_FIT))
        }
        Some(_) => Ok(()),
    }
}

/// A tensor's name and shape.
pub type Expected = (String, Vec<usize>);

/// The source has every tensor, in its shape and in a type that can be loaded.
///
/// # Errors
/// [`Error::Model`] for the first that is not so; when more are missing it says how many.
pub fn check_all(source: &dyn TensorSource, expected: &[Expected]) -> Result<()> {
    let missing = expected.iter().filter(|(name, _)| source.shape(name).is_none()).count();
    for (name, shape) in expected {
        match check_shape(source, name, shape) {
            Err(Error::Model { what, .. }) if missing > 1 && source.shape(name).is_none() => {
                return Err(Error::model(format!("{what} and {} more", missing - 1), DO_NOT_FIT));
            }
            other => other?,
        }
        if !source.is_weight(name) {
            let kind = source.type_name(name).unwrap_or_else(|| "another type".into());
            let what = format!(
                "{}: tensor {name} is stored in {kind}: no float, and no blocks that are read",
                source.describe()
            );
            return Err(Error::model(what, "give the model in bf16, f16, f32 or fp8, or as GGUF in Q8_0 or Q4_K"));
        }
    }
    Ok(())
}

fn no_tensor(source: &str, name: &str, shape: Option<&[usize]>) -> Error {
    let shape = shape.map_or_else(String::new, |shape| format!(" {shape:?}"));
    Error::model(format!("{source} has no tensor {name}{shape}"), DO_NOT_FIT)
}

/// A number of bytes for people, in decimal units as file managers use: "4.9 GB".
fn human_bytes(bytes: u64) -> String {
    match bytes {
        1_000_000_000.. => format!("{:.1} GB", bytes as f64 / 1e9),
        1_000_000.. => format!("{:.1} MB", bytes as f64 / 1e6),
        1_000.. => format!("{:.1} kB", bytes as f64 / 1e3),
        1 => "1 byte".into(),
        _ => format!("{bytes} bytes"),
    }
}
