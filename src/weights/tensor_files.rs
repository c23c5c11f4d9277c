//! Memory-mapped safetensors and GGUF files, one or many shards, read tensor by tensor.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    ops::Range,
    path::{Path, PathBuf},
};

use candle_core::{DType, Device, Tensor};
use safetensors::Dtype;

use super::{
    BlockType, Files, Float8, TensorSource, convert, gguf,
    header::{Entry, Header},
    no_tensor,
    number::NumberType,
    scales::OF_WEIGHTS,
    shard::Shard,
};
use crate::error::{Error, Result};

/// Tensors of one or several safetensors or GGUF files, by name. Headers are read once, tensors when they are asked for.
#[derive(Default)]
pub struct TensorFiles {
    shards: Vec<Shard>,
    index: HashMap<String, Place>,
    /// What the headers say beside their tensors, the last file's where several say it.
    metadata: BTreeMap<String, String>,
}

impl std::fmt::Debug for TensorFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TensorFiles({}, {} tensors)", self.describe(), self.index.len())
    }
}

/// Where a tensor lies.
#[derive(Clone)]
struct Place {
    shard: usize,
    dtype: NumberType,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

impl TensorFiles {
    /// Maps the files and reads their headers.
    ///
    /// # Errors
    /// [`Error::Disk`] when a file cannot be opened, [`Error::Model`] when one is not a whole safetensors or GGUF file or
    /// two hold a tensor of the same name.
    pub fn open(paths: &[PathBuf]) -> Result<Self> {
        Self::open_among(paths, &Files::default())
    }

    /// [`TensorFiles::open`] where some files may be known before they are here.
    pub(super) fn open_among(paths: &[PathBuf], files: &Files) -> Result<Self> {
        let mut all = Self::default();
        for path in paths {
            all.add_model(path, files)?;
        }
        Ok(all)
    }

    /// Adds the file at `path`, and the others of its model where it was split into several.
    fn add_model(&mut self, path: &Path, files: &Files) -> Result<()> {
        let (shard, header) = Shard::open(path, files)?;
        let Some(split) = header.split.clone() else { return self.add((shard, header)) };
        let mut shapes = HashMap::new();
        let before = self.index.len();
        for (number, path) in split.files(path, files)?.iter().enumerate() {
            let (shard, mut header) = Shard::open(path, files)?;
            split.check(path, number as u64, header.split.as_ref())?;
            shapes.extend(header.split.take().map(|split| split.shapes).unwrap_or_default());
            self.add((shard, header))?;
        }
        split.check_tensors(path, self.index.len() - before)?;
        // Keys stand in the first file, whichever holds the tensors they are about.
        for (name, shape) in shapes {
            let Some(place) = self.index.get_mut(&name) else { continue };
            let count = shape.iter().try_fold(1_usize, |n, dim| n.checked_mul(*dim));
            if count != Some(place.elements()) {
                let (found, path) = (place.elements(), path.display());
                let what = format!("{path}: tensor {name} holds {found} numbers, but its true shape is {shape:?}");
                return Err(Error::model(what, "the files are of different models; fetch them again"));
            }
            place.shape = shape;
        }
        Ok(())
    }

    /// A file that is in memory already, called `name` in messages.
    ///
    /// # Errors
    /// [`Error::Model`] when it is not a whole safetensors or GGUF file.
    pub fn from_bytes(name: &str, bytes: impl Into<Cow<'static, [u8]>>) -> Result<Self> {
        let mut one = Self::default();
        let (shard, header) = Shard::held(name, bytes.into())?;
        if let Some(split) = &header.split {
            let what = format!("{name}: this is one of {} files that a model was split into", split.count);
            return Err(Error::model(what, "give the files themselves, in one folder"));
        }
        one.add((shard, header))?;
        Ok(one)
    }

    fn add(&mut self, (file, header): (Shard, Header)) -> Result<()> {
        let shard = self.shards.len();
        self.metadata.extend(header.metadata);
        for Entry { name, dtype, shape, bytes } in header.entries {
            let place = Place { shard, dtype, shape, bytes };
            if let Some(first) = self.index.insert(name.clone(), place) {
                let other = self.shards[first.shard].path().display();
                let what = format!("tensor {name} is in both {other} and {}", file.path().display());
                return Err(Error::model(what, "the folder mixes files of two models; fetch it again"));
            }
        }
        self.shards.push(file);
        Ok(())
    }

    /// What the header says under this key of its `__metadata__`; of a GGUF file, of its keys that matter here.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    /// The file that holds the tensor `name`.
    pub fn file_of(&self, name: &str) -> Option<&Path> {
        self.index.get(name).map(|place| self.shards[place.shard].path())
    }

    fn place(&self, name: &str) -> Result<&Place> {
        self.index.get(name).ok_or_else(|| no_tensor(&self.describe(), name, None))
    }

    /// The tensor that holds the number a float-8 weight was divided by.
    fn scale_of(&self, name: &str) -> Option<(&String, &Place)> {
        let stem = name.strip_suffix(".weight")?;
        OF_WEIGHTS.iter().find_map(|ending| self.index.get_key_value(&format!("{stem}{ending}")))
    }

    /// What to multiply the numbers of `name` by when they are loaded as `dtype`.
    fn scales_for(&self, name: &str, dtype: DType) -> Result<Vec<f32>> {
        if dtype == DType::U8 { Ok(Vec::new()) } else { self.scales(name) }
    }

    /// Bytes of a tensor as they are in its file.
    fn stored(&self, name: &str, place: &Place, range: Range<usize>) -> Result<&[u8]> {
        self.shards[place.shard].stored(name, range)
    }

    /// Numbers `elements` of a tensor, as a tensor of this shape.
    fn convert(
        &self,
        (name, place): (&str, &Place),
        elements: Range<usize>,
        shape: &[usize],
        scales: &[f32],
        (dtype, device): (DType, &Device),
    ) -> Result<Tensor> {
        let scale = match scales {
            [] => None,
            [scale] => Some(*scale),
            scales => {
                let numbers = self.convert((name, place), elements.clone(), shape, &[], (DType::F32, device))?;
                let first = elements.start / (place.elements() / scales.len()).max(1);
                let mut column = vec![1; shape.len()];
                column[0] = shape[0];
                let scales = scales.get(first..first + shape[0]).unwrap_or_default().to_vec();
                let scales = Tensor::from_vec(scales, column, device)?; // [rows, 1]
                return Ok(numbers.broadcast_mul(&scales)?.to_dtype(dtype)?);
            }
        };
        // Rows of a matrix that is stored in another shape need not begin where blocks do.
        let unit = place.dtype.numbers();
        let whole = elements.start / unit * unit..elements.end.next_multiple_of(unit);
        let bytes = self.stored(name, place, place.range(&whole))?;
        let path = self.shards[place.shard].path().display();
        let load = |shape: &[usize]| {
            convert::tensor(bytes, place.dtype, scale, shape, dtype, device).map_err(|e| match e {
                Error::Model { what, hint } => Error::model(format!("{path}: tensor {name}: {what}"), hint),
                other => other,
            })
        };
        if whole == elements {
            return load(shape);
        }
        let part = load(&[whole.len()])?.narrow(0, elements.start - whole.start, elements.len())?;
        Ok(part.reshape(shape)?)
    }

    /// The place of some rows of a tensor: how many there are, and how many numbers each has.
    fn rows(&self, name: &str, rows: &Range<usize>) -> Result<(&Place, usize)> {
        let place = self.place(name)?;
        let count = place.shape.first().copied();
        if rows.start > rows.end || count.is_none_or(|count| rows.end > count) {
            let what = format!("{}: tensor {name} {:?} has no rows {rows:?}", self.describe(), place.shape);
            return Err(Error::model(what, "the file does not fit the model's dimensions"));
        }
        Ok((place, place.elements() / count.unwrap_or(0).max(1)))
    }
}

impl Place {
    fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Where numbers lie that begin and end where blocks do.
    fn range(&self, elements: &Range<usize>) -> Range<usize> {
        let at = |element| self.bytes.start + self.dtype.bytes_of(element).unwrap_or(0);
        at(elements.start)..at(elements.end)
    }
}

impl TensorSource for TensorFiles {
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
        let scales = self.scales_for(name, dtype)?;
        self.convert((name, place), 0..place.elements(), &place.shape, &scales, (dtype, device))
    }

    fn load_rows(&self, name: &str, rows: Range<usize>, dtype: DType, device: &Device) -> Result<Tensor> {
        let (place, row) = self.rows(name, &rows)?;
        let mut shape = place.shape.clone();
        shape[0] = rows.len();
        check_count(name, &shape)?;
        let elements = rows.start * row..rows.end * row;
        self.convert((name, place), elements, &shape, &self.scales_for(name, dtype)?, (dtype, device))
    }

    fn blocks(&self, name: &str) -> Option<BlockType> {
        // A scale beside blocks is none of theirs: such a weight is read as numbers.
        let place = self.index.get(name).filter(|_| self.scale_of(name).is_none())?;
        match (place.dtype, place.shape.as_slice()) {
            (NumberType::Blocks(kind), [_, columns]) if columns.is_multiple_of(kind.numbers()) => Some(kind),
            _ => None,
        }
    }

    fn load_blocks(&self, name: &str, rows: Range<usize>) -> Result<Tensor> {
        let (place, row) = self.rows(name, &rows)?;
        let bytes = self.stored(name, place, place.range(&(rows.start * row..rows.end * row)))?;
        let shape = (rows.len(), bytes.len() / rows.len().max(1));
        Ok(Tensor::from_vec(bytes.to_vec(), shape, &Device::Cpu)?) // [rows, bytes of a row]
    }

    fn as_stored(&self, name: &str, dtype: DType) -> Option<&[u8]> {
        let place = self.index.get(name)?;
        let is_same = matches!(place.dtype, NumberType::Plain(_)) && place.dtype.candle() == Some(dtype);
        if !is_same || self.scale_of(name).is_some() {
            return None;
        }
        self.stored(name, place, place.bytes.clone()).ok()
    }

    fn type_name(&self, name: &str) -> Option<String> {
        self.index.get(name).map(|place| place.dtype.to_string())
    }

    fn made_for(&self) -> Option<&str> {
        self.metadata(gguf::MADE_FOR)
    }

    fn file_dtype(&self, name: &str) -> Option<DType> {
        let place = self.index.get(name)?;
        match place.dtype {
            NumberType::Plain(Dtype::BF16 | Dtype::F16 | Dtype::F8_E5M2) if self.scale_of(name).is_some() => {
                Some(DType::F32)
            }
            // A float of 8 bits with 5 of exponent is the upper half of an f16.
            NumberType::Plain(Dtype::F8_E5M2) => Some(DType::F16),
            dtype => dtype.candle(),
        }
    }

    fn float8(&self, name: &str) -> Option<Float8> {
        match self.index.get(name)?.dtype {
            NumberType::Plain(Dtype::F8_E4M3) => Some(Float8::E4M3),
            NumberType::Plain(Dtype::F8_E5M2) => Some(Float8::E5M2),
            _ => None,
        }
    }

    fn scales(&self, name: &str) -> Result<Vec<f32>> {
        let Some((scale_name, place)) = self.scale_of(name) else { return Ok(Vec::new()) };
        let (count, rows) = (place.elements(), self.place(name)?.shape.first().copied().unwrap_or(1));
        if count != 1 && count != rows {
            let (file, found) = (self.describe(), &place.shape);
            let what =
                format!("{file}: {scale_name} has shape {found:?}, not one number or one of each of {rows} rows");
            return Err(Error::model(what, "other scales are not read; give the model in bf16"));
        }
        let scales =
            self.convert((scale_name, place), 0..count, &[count], &[], (DType::F32, &Device::Cpu))?.to_vec1::<f32>()?;
        Ok(scales)
    }

    fn scale_count(&self, name: &str) -> usize {
        self.scale_of(name).map_or(0, |(_, place)| place.elements())
    }

    fn is_weight(&self, name: &str) -> bool {
        self.index.get(name).is_some_and(|place| place.dtype.is_weight())
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
            self.shards[place.shard].release(&place.bytes);
        }
    }

    fn describe(&self) -> String {
        match self.shards.as_slice() {
            [] => "no file".into(),
            [one] => one.path().display().to_string(),
            [first, ..] if first.is_gguf() => first.path().display().to_string(),
            [first, ..] => first.path().parent().unwrap_or_else(|| first.path()).display().to_string(),
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
            Err(Error::model(what, "no model that is read has a tensor of this size; check the file"))
        }
    }
}
