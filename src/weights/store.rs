//! Memory-mapped safetensors files, one or many shards, read tensor by tensor.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fs::File,
    ops::Range,
    path::{Path, PathBuf},
};

use candle_core::{DType, Device, Tensor};
use memmap2::Mmap;
use safetensors::Dtype;

use super::{
    Ahead, Files, TensorSource, convert,
    header::{Entry, Header, read_header},
    no_tensor,
};
use crate::error::{Error, Result};

/// Tensors of one or several safetensors files, by name. Headers are read once, tensors when they are asked for.
pub struct SafetensorsStore {
    shards: Vec<Shard>,
    index: HashMap<String, Place>,
    /// What the headers say beside their tensors, the last file's where several say it.
    metadata: BTreeMap<String, String>,
}

impl std::fmt::Debug for SafetensorsStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SafetensorsStore({}, {} tensors)", self.describe(), self.index.len())
    }
}

/// One file.
struct Shard {
    path: PathBuf,
    bytes: Bytes,
}

/// Where a file's bytes are.
enum Bytes {
    Mapped(Mmap),
    Held(Cow<'static, [u8]>),
    /// Not here yet, beyond the header.
    Awaited,
}

impl Bytes {
    /// The bytes, where they are here.
    fn here(&self) -> Option<&[u8]> {
        match self {
            Self::Mapped(map) => Some(map),
            Self::Held(bytes) => Some(bytes),
            Self::Awaited => None,
        }
    }
}

/// Where a tensor lies.
#[derive(Clone)]
struct Place {
    shard: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

impl SafetensorsStore {
    /// Maps the files and reads their headers.
    ///
    /// # Errors
    /// [`Error::Disk`] when a file cannot be opened, [`Error::Model`] when it is not a whole safetensors file or two
    /// files hold a tensor of the same name.
    pub fn open(paths: &[PathBuf]) -> Result<Self> {
        Self::open_among(paths, &Files::default())
    }

    /// [`SafetensorsStore::open`] where some files may be known before they are here.
    pub(super) fn open_among(paths: &[PathBuf], files: &Files) -> Result<Self> {
        let mut store = Self { shards: Vec::new(), index: HashMap::new(), metadata: BTreeMap::new() };
        for path in paths {
            if let Some(ahead) = files.ahead(path) {
                let (bytes, file_len): (&[u8], usize) = match ahead {
                    Ahead::Name => (&[], 0),
                    Ahead::Whole(bytes) => (bytes, bytes.len()),
                    // What would not fit an address could not be mapped either.
                    Ahead::Header { bytes, file_bytes } => (bytes, usize::try_from(*file_bytes).unwrap_or(usize::MAX)),
                };
                store.add(path.clone(), Bytes::Awaited, read_header(path, bytes, file_len)?)?;
                continue;
            }
            let file = File::open(path).map_err(|e| Error::disk("cannot open", path, e))?;
            let metadata = file.metadata().map_err(|e| Error::disk("cannot read", path, e))?;
            if metadata.is_dir() {
                let hint = "give a .safetensors file";
                return Err(Error::model(format!("{} is a folder, not a safetensors file", path.display()), hint));
            }
            let bytes = if metadata.len() == 0 {
                // An empty file cannot be mapped everywhere; the header's reader says that it is empty.
                Bytes::Held(Cow::Borrowed(&[]))
            } else {
                // SAFETY: the map is read-only; a file that another process truncates meanwhile ends this one with SIGBUS.
                Bytes::Mapped(unsafe { Mmap::map(&file) }.map_err(|e| Error::disk("cannot map", path, e))?)
            };
            let header = header_of(path, &bytes)?;
            store.add(path.clone(), bytes, header)?;
        }
        Ok(store)
    }

    /// A file that is in memory already, called `name` in messages.
    ///
    /// # Errors
    /// [`Error::Model`] when it is not a whole safetensors file.
    pub fn from_bytes(name: &str, bytes: impl Into<Cow<'static, [u8]>>) -> Result<Self> {
        let mut store = Self { shards: Vec::new(), index: HashMap::new(), metadata: BTreeMap::new() };
        let (path, bytes) = (PathBuf::from(name), Bytes::Held(bytes.into()));
        let header = header_of(&path, &bytes)?;
        store.add(path, bytes, header)?;
        Ok(store)
    }

    fn add(&mut self, path: PathBuf, bytes: Bytes, header: Header) -> Result<()> {
        let shard = self.shards.len();
        self.metadata.extend(header.metadata);
        for Entry { name, dtype, shape, bytes } in header.entries {
            let place = Place { shard, dtype, shape, bytes };
            if let Some(first) = self.index.insert(name.clone(), place) {
                let other = self.shards[first.shard].path.display();
                let what = format!("tensor {name} is in both {other} and {}", path.display());
                return Err(Error::model(what, "the folder mixes files of two models; fetch it again"));
            }
        }
        self.shards.push(Shard { path, bytes });
        Ok(())
    }

    /// What the header says under this key of its `__metadata__`.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    /// The file that holds the tensor `name`.
    pub fn file_of(&self, name: &str) -> Option<&Path> {
        self.index.get(name).map(|place| self.shards[place.shard].path.as_path())
    }

    fn place(&self, name: &str) -> Result<&Place> {
        self.index.get(name).ok_or_else(|| no_tensor(&self.describe(), name, None))
    }

    /// The tensor that holds the number a float-8 weight was divided by. ComfyUI writes it as `X.scale_weight`, others as
    /// `X.weight_scale`.
    fn scale_of(&self, name: &str) -> Option<(&String, &Place)> {
        let stem = name.strip_suffix(".weight")?;
        let names = [format!("{stem}.scale_weight"), format!("{stem}.weight_scale")];
        names.iter().find_map(|name| self.index.get_key_value(name.as_str()))
    }

    /// What to multiply the numbers of `name` by when they are loaded as `dtype`.
    fn scale_for(&self, name: &str, dtype: DType) -> Result<Option<f32>> {
        if dtype == DType::F8E4M3 { Ok(None) } else { self.scale(name) }
    }

    /// Bytes of a tensor as they are in its file.
    fn stored(&self, name: &str, place: &Place, range: Range<usize>) -> Result<&[u8]> {
        let shard = &self.shards[place.shard];
        let Some(bytes) = shard.bytes.here() else {
            let path = shard.path.display();
            let what = format!("{path}: only the header is here, not the numbers of tensor {name}");
            return Err(Error::model(what, "fetch the model first"));
        };
        // The header's reader has checked that every range lies in its file.
        Ok(bytes.get(range).unwrap_or_default())
    }

    fn convert(
        &self,
        name: &str,
        place: &Place,
        range: Range<usize>,
        shape: &[usize],
        scale: Option<f32>,
        (dtype, device): (DType, &Device),
    ) -> Result<Tensor> {
        let path = self.shards[place.shard].path.display();
        let bytes = self.stored(name, place, range)?;
        convert::tensor(bytes, place.dtype, scale, shape, dtype, device).map_err(|e| match e {
            Error::Model { what, hint } => Error::model(format!("{path}: tensor {name}: {what}"), hint),
            other => other,
        })
    }
}

fn header_of(path: &Path, bytes: &Bytes) -> Result<Header> {
    let bytes = bytes.here().unwrap_or_default();
    read_header(path, bytes, bytes.len())
}

/// Lets the pages of a range go. Only ever advice: errors are of no consequence.
#[cfg(unix)]
fn release_range(map: &Mmap, range: &Range<usize>) {
    // SAFETY: the map is read-only and backed by a file, so dropped pages come back unchanged when read again.
    let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len()) };
}

#[cfg(not(unix))]
fn release_range(_: &Mmap, _: &Range<usize>) {}

impl TensorSource for SafetensorsStore {
    fn sample(&self, name: &str, whole: bool, to: &mut dyn FnMut(&[u8])) -> Result<()> {
        /// Bytes of each of three samples.
        const SAMPLE: usize = 1 << 16;
        let place = self.place(name)?;
        let bytes = self.stored(name, place, place.bytes.clone())?;
        if whole || bytes.len() <= 3 * SAMPLE {
            to(bytes);
            return Ok(());
        }
        let last = bytes.len() - SAMPLE;
        for start in [0, last / 2, last] {
            to(&bytes[start..start + SAMPLE]);
        }
        Ok(())
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.index.get(name).map(|place| place.shape.clone())
    }

    fn load(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let place = self.place(name)?;
        check_count(name, &place.shape)?;
        self.convert(name, place, place.bytes.clone(), &place.shape, self.scale_for(name, dtype)?, (dtype, device))
    }

    fn load_rows(&self, name: &str, rows: Range<usize>, dtype: DType, device: &Device) -> Result<Tensor> {
        let place = self.place(name)?;
        let count = place.shape.first().copied().unwrap_or(0);
        if rows.start > rows.end || rows.end > count {
            let what = format!("{}: tensor {name} {:?} has no rows {rows:?}", self.describe(), place.shape);
            return Err(Error::model(what, "the file does not fit the model's dimensions"));
        }
        let row_bytes = place.bytes.len() / count.max(1);
        let start = place.bytes.start + rows.start * row_bytes;
        let mut shape = place.shape.clone();
        shape[0] = rows.len();
        check_count(name, &shape)?;
        let range = start..start + rows.len() * row_bytes;
        self.convert(name, place, range, &shape, self.scale_for(name, dtype)?, (dtype, device))
    }

    fn file_dtype(&self, name: &str) -> Option<DType> {
        let place = self.index.get(name)?;
        match place.dtype {
            Dtype::BF16 | Dtype::F16 | Dtype::F8_E5M2 if self.scale_of(name).is_some() => Some(DType::F32),
            // A float of 8 bits with 5 of exponent is the upper half of an f16.
            Dtype::F8_E5M2 => Some(DType::F16),
            dtype => convert::candle_dtype(dtype),
        }
    }

    fn scale(&self, name: &str) -> Result<Option<f32>> {
        let Some((scale_name, place)) = self.scale_of(name) else { return Ok(None) };
        if place.shape.iter().product::<usize>() != 1 {
            let what = format!("{}: {scale_name} has shape {:?}, not one number", self.describe(), place.shape);
            return Err(Error::model(what, "only one scale per tensor is supported; give the model in bf16"));
        }
        let one = self.convert(scale_name, place, place.bytes.clone(), &[1], None, (DType::F32, &Device::Cpu))?;
        Ok(one.to_vec1::<f32>()?.first().copied())
    }

    fn is_weight(&self, name: &str) -> bool {
        self.index.get(name).is_some_and(|place| convert::is_weight(place.dtype))
    }

    fn bytes(&self, name: &str) -> Option<u64> {
        self.index.get(name).map(|place| place.bytes.len() as u64)
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.index.keys().cloned().collect();
        names.sort_unstable();
        names
    }

    fn release(&self, names: &[&str]) {
        for place in names.iter().filter_map(|name| self.index.get(*name)) {
            let Bytes::Mapped(map) = &self.shards[place.shard].bytes else { continue };
            release_range(map, &place.bytes);
        }
    }

    fn describe(&self) -> String {
        match self.shards.as_slice() {
            [] => "no file".into(),
            [one] => one.path.display().to_string(),
            [first, ..] => first.path.parent().unwrap_or(&first.path).display().to_string(),
        }
    }
}

/// No tensor reaches 2^32 elements: candle's CUDA launches count in u32 and would silently cut it.
fn check_count(name: &str, shape: &[usize]) -> Result<()> {
    let elements = shape.iter().try_fold(1_u64, |n, &dim| n.checked_mul(dim as u64));
    match elements {
        Some(n) if n <= u64::from(u32::MAX) => Ok(()),
        _ => {
            let what = format!("tensor {name} {shape:?} has 2^32 elements or more");
            Err(Error::model(what, "no FLUX model has a tensor of this size; check the file"))
        }
    }
}
