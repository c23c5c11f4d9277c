//! Latents in a file of their own: packed as tokens, or as they are.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use candle_core::{DType, Device, Tensor};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use sha2::{Digest, Sha256};

use super::{Confirmation, Naming, elsewhere, write_named};
use crate::{
    base::{
        hex::hex,
        safetensors::{Entry, header},
    },
    error::{Error, Result},
};

/// The tensor's name in the file.
const KEY: &str = "latents";
/// The metadata that holds the sha256 of the tensor's bytes; for tensors beside the latents a dot and their name follow.
const SHA256: &str = "sha256";
/// The metadata that says whose latents they are, by the class of the autoencoder.
pub const AUTOENCODER: &str = "autoencoder";
/// No file of latents is longer: 65,536 px a side take 4.3 GB.
const MAX_BYTES: u64 = 8 << 30;

/// A safetensors file of latents, with what is said about them.
#[derive(Debug, Clone)]
pub struct LatentsFile {
    /// Packed latents [1, N, C], or unpacked ones [1, C, h, w].
    pub latents: Tensor,
    /// Other tensors of floats, by name. f64 is kept as such, all else becomes f32, which holds it exactly.
    pub beside: BTreeMap<String, Tensor>,
    /// The file's metadata: text by name. What starts with `sha256` is the writer's own: it is written and checked, and not
    /// kept here.
    pub metadata: BTreeMap<String, String>,
}

impl LatentsFile {
    /// Writes the latents as f32 under the key `latents` and returns the path they got: with `overwrite` off an existing
    /// file is kept, as for pictures.
    ///
    /// # Errors
    /// [`Error::Request`] when the shape is another; [`Error::Disk`] when the file cannot be written.
    pub fn write(&self, path: &Path, overwrite: bool) -> Result<PathBuf> {
        self.write_named(path, Naming { number: 1, overwrite, confirmation: Confirmation::Demanded })
    }

    /// As [`LatentsFile::write`]. Where they cannot be written there, they are kept elsewhere.
    ///
    /// # Errors
    /// As [`LatentsFile::write`]; and [`Error::KeptElsewhere`].
    pub fn write_or_keep(&self, path: &Path, overwrite: bool) -> Result<PathBuf> {
        elsewhere::or_keep(path, 1, overwrite, "safetensors", |path, naming| self.write_named(path, naming))
    }

    fn write_named(&self, path: &Path, naming: Naming) -> Result<PathBuf> {
        let shape = self.latents.dims();
        if !is_latents(shape) {
            let what = format!("cannot save latents of shape {shape:?}, expected [1, N, C] or [1, C, h, w]");
            return Err(Error::request(what, "give those of one picture"));
        }
        let mut parts = vec![(KEY, Bytes::of(&self.latents.to_dtype(DType::F32)?)?)];
        for (name, tensor) in &self.beside {
            parts.push((name.as_str(), Bytes::of(tensor)?));
        }
        let mut metadata = self.metadata.clone();
        metadata.extend(parts.iter().map(|(name, part)| (sha256_of(name), hex(&Sha256::digest(&part.bytes)))));
        // Wider numbers first, so that all lie at multiples of their width.
        parts.sort_by_key(|(name, part)| (part.dtype != Dtype::F64, *name));
        let entries: Vec<_> = parts.iter().map(|(name, part)| part.entry(name)).collect();
        let header = header(&metadata, &entries);
        write_named(path, naming, |file| {
            file.write_all(&header)?;
            parts.iter().try_for_each(|(_, part)| file.write_all(&part.bytes))
        })
    }

    /// Reads what [`LatentsFile::write`] wrote; the tensors are on the CPU.
    ///
    /// # Errors
    /// [`Error::Disk`] when the file cannot be read; [`Error::Model`] when it is not a safetensors file with finite f32
    /// `latents` of that shape, or its bytes are no longer those that were written.
    pub fn read(path: &Path) -> Result<Self> {
        let unreadable = |e| Error::disk("cannot read", path, e);
        let wrong =
            |why: String| Error::model(format!("{}: {why}", path.display()), "give a file that --save-latents wrote");
        if fs::metadata(path).map_err(unreadable)?.len() > MAX_BYTES {
            return Err(wrong("longer than any file of latents".into()));
        }
        let bytes = fs::read(path).map_err(unreadable)?;
        let not_safetensors = |e| wrong(format!("not a safetensors file ({e})"));
        let file = SafeTensors::deserialize(&bytes).map_err(not_safetensors)?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(not_safetensors)?;
        let mut metadata: BTreeMap<_, _> = header.metadata().clone().unwrap_or_default().into_iter().collect();
        let view = file.tensor(KEY).map_err(|_| wrong(format!("has no tensor `{KEY}`")))?;
        if view.dtype() != Dtype::F32 || !is_latents(view.shape()) {
            let (dtype, shape) = (view.dtype(), view.shape());
            return Err(wrong(format!("`{KEY}` is {dtype:?} {shape:?}, expected F32 [1, N, C] or [1, C, h, w]")));
        }
        let mut beside = BTreeMap::new();
        for (name, view) in file.tensors() {
            if metadata.remove(&sha256_of(&name)).is_some_and(|expected| expected != hex(&Sha256::digest(view.data())))
            {
                return Err(wrong(format!("damaged: `{name}` is not what was written")));
            }
            // Of another type it was not written here, and means nothing to anybody.
            beside.extend(tensor(&view)?.map(|tensor| (name, tensor)));
        }
        let latents = beside.remove(KEY).ok_or_else(|| wrong(format!("has no tensor `{KEY}`")))?;
        // 0 times a number is 0 for every finite one and NaN for all others, and so is the sum of them.
        if (&latents * 0.0)?.sum_all()?.to_scalar::<f32>()? != 0.0 {
            return Err(wrong(format!("`{KEY}` holds a number that is not finite")));
        }
        Ok(Self { latents, beside, metadata })
    }

    /// Whether the file holds these very latents, with this metadata.
    pub fn is_in(&self, path: &Path) -> bool {
        let same = |there: Self| -> Result<bool> {
            let alike = there.metadata == self.metadata && there.latents.dims() == self.latents.dims();
            Ok(alike && Bytes::of(&there.latents)?.bytes == Bytes::of(&self.latents)?.bytes)
        };
        path.is_file() && Self::read(path).and_then(same).unwrap_or(false)
    }

    /// The metadata of such a file, from its header alone; `None` where it has none, or is none.
    pub fn metadata(path: &Path) -> Option<BTreeMap<String, String>> {
        /// A header holds a few names and the settings.
        const MOST_BYTES: u64 = 16 << 20;
        let mut file = fs::File::open(path).ok()?;
        let mut length = [0; 8];
        file.read_exact(&mut length).ok()?;
        let length = u64::from_le_bytes(length);
        let mut header = vec![];
        file.take(length.min(MOST_BYTES)).read_to_end(&mut header).ok()?;
        let mut header: serde_json::Value = serde_json::from_slice(&header).ok()?;
        serde_json::from_value(header.get_mut("__metadata__")?.take()).ok()
    }

    /// [`LatentsFile::read`] for a model whose tokens have `channels` channels.
    ///
    /// # Errors
    /// As [`LatentsFile::read`]; and [`Error::Model`] when these have another number.
    pub fn read_of(path: &Path, channels: usize) -> Result<Self> {
        let file = Self::read(path)?;
        if matches!(*file.latents.dims(), [1, _, found] if found == channels) {
            return Ok(file);
        }
        let found = file.latents.dims();
        let what = format!("{}: `{KEY}` is {found:?}, expected [1, N, {channels}]", path.display());
        Err(Error::model(what, "give latents of the same kind of model"))
    }
}

/// A tensor as a file holds it.
struct Bytes {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Bytes {
    fn of(tensor: &Tensor) -> Result<Self> {
        let values = tensor.to_device(&Device::Cpu)?.flatten_all()?;
        let (dtype, bytes) = match tensor.dtype() {
            DType::F64 => (Dtype::F64, values.to_vec1::<f64>()?.into_iter().flat_map(f64::to_le_bytes).collect()),
            _ => {
                let values = values.to_dtype(DType::F32)?.to_vec1::<f32>()?;
                (Dtype::F32, values.into_iter().flat_map(f32::to_le_bytes).collect())
            }
        };
        Ok(Self { dtype, shape: tensor.dims().to_vec(), bytes })
    }

    fn entry<'a>(&'a self, name: &'a str) -> Entry<'a> {
        Entry { name, dtype: self.dtype.to_string(), shape: &self.shape, bytes: self.bytes.len() as u64 }
    }
}

/// The tensor of a view; `None` for a type that [`Bytes`] does not write.
fn tensor(view: &TensorView) -> Result<Option<Tensor>> {
    let (shape, data) = (view.shape(), view.data());
    Ok(match view.dtype() {
        Dtype::F32 => {
            let values: Vec<f32> = data.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect();
            Some(Tensor::from_vec(values, shape, &Device::Cpu)?)
        }
        Dtype::F64 => {
            let values: Vec<f64> = data.as_chunks().0.iter().map(|word| f64::from_le_bytes(*word)).collect();
            Some(Tensor::from_vec(values, shape, &Device::Cpu)?)
        }
        _ => None,
    })
}

/// The name of the metadata that holds a tensor's sha256.
fn sha256_of(name: &str) -> String {
    if name == KEY { SHA256.to_owned() } else { format!("{SHA256}.{name}") }
}

/// Writes packed latents [1, N, C] without more words: see [`LatentsFile::write`].
///
/// # Errors
/// As [`LatentsFile::write`].
pub fn save_latents(path: &Path, latents: &Tensor, overwrite: bool) -> Result<PathBuf> {
    LatentsFile { latents: latents.clone(), beside: BTreeMap::new(), metadata: BTreeMap::new() }.write(path, overwrite)
}

/// Reads packed latents [1, N, C] in f32, on the CPU, of a model whose tokens have `channels` channels: see [`LatentsFile::read`].
///
/// # Errors
/// As [`LatentsFile::read`]; and [`Error::Model`] when they have other channels.
pub fn load_latents(path: &Path, channels: usize) -> Result<Tensor> {
    LatentsFile::read_of(path, channels).map(|file| file.latents)
}

fn is_latents(shape: &[usize]) -> bool {
    matches!(*shape, [1, _, _] | [1, _, _, _]) && !shape.contains(&0)
}
