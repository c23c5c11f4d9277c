//! The file: a header whose offsets are known, then the numbers of one tensor after another, some rows at a time.

use std::{
    io::{self, Write},
    ops::Range,
    path::{Path, PathBuf},
};

use candle_core::{DType, Device, Tensor};

use super::{Plan, plan::Made};
use crate::{
    base::{
        disk::free_bytes_at,
        memory::Bytes,
        progress::{Event, Observer, Stage},
    },
    error::{Error, Result},
    models::Composed,
    output::{folder_of, remove_stale_files, write_atomically},
    weights::{
        LARGEST_E4M3, TensorSource,
        lora::{self, Merge},
        write::{Outline, Rounding},
    },
};

/// Numbers that are held at a time: 8 MB of f32, a few times.
const PANEL: usize = 1 << 21;

/// Writes the file that a plan describes of these tensors, with what LoRA files add to them; returns its path.
///
/// # Errors
/// [`Error::Disk`] when there is no room for it or it cannot be written; [`Error::Numeric`] for numbers that their type cannot
/// hold; what reading the tensors may fail with.
pub fn write(
    plan: &Plan,
    source: &dyn TensorSource,
    output: &Path,
    overwrite: bool,
    observer: &dyn Observer,
) -> Result<PathBuf> {
    check_disk(output, plan.bytes, 0)?;
    remove_stale_files(folder_of(output));
    observer.on(Event::Begin { stage: Stage::Convert, total: plan.bytes });
    let mut failed = None;
    let written = write_atomically(output, overwrite, |file| {
        let mut writer = Writer { plan, source, file, observer, done: 0 };
        writer.all().map_err(|error| match error {
            Failure::Write(error) => error,
            Failure::Made(error) => {
                failed = Some(error);
                io::ErrorKind::Other.into()
            }
        })
    });
    if let Some(error) = failed {
        return Err(error);
    }
    let path = written?;
    let detail = format!("{} tensors, {}", plan.tensors.len(), Bytes(plan.bytes));
    observer.on(Event::End { stage: Stage::Convert, detail });
    Ok(path)
}

/// Whether there is room for a file of so many bytes, and for what must be fetched to the same disk before it is written.
///
/// # Errors
/// [`Error::Disk`] with the numbers when there is not.
pub fn check_disk(output: &Path, bytes: u64, to_fetch: u64) -> Result<()> {
    match free_bytes_at(output) {
        Some(free) if free < bytes.saturating_add(to_fetch) => {
            let before = match to_fetch {
                0 => String::new(),
                bytes => format!("{} are to be fetched, ", Bytes(bytes)),
            };
            let reason = format!("{before}it will have {}, {} are free", Bytes(bytes), Bytes(free));
            let source = io::Error::new(io::ErrorKind::StorageFull, reason);
            Err(Error::disk("not enough space for", output, source))
        }
        _ => Ok(()),
    }
}

/// What went wrong: the file, or what was to be written.
enum Failure {
    Write(io::Error),
    Made(Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Made(error)
    }
}

struct Writer<'a> {
    plan: &'a Plan,
    source: &'a dyn TensorSource,
    file: &'a mut dyn Write,
    observer: &'a dyn Observer,
    done: u64,
}

impl Writer<'_> {
    fn all(&mut self) -> Result<(), Failure> {
        let outlines: Vec<Outline> = self.plan.tensors.iter().map(|(outline, _)| outline.clone()).collect();
        self.put(&self.plan.container.header(&outlines)?)?;
        let mut scale = 1.0;
        for (outline, made) in &self.plan.tensors {
            match made {
                Made::Of(tensor) => self.tensor(outline, tensor, 1.0)?,
                Made::Scaled(tensor) => {
                    scale = self.scale(tensor)?;
                    self.tensor(outline, tensor, scale)?;
                }
                Made::Scale => self.put(&scale.to_le_bytes())?,
                Made::Mark => self.put(&vec![0; outline.bytes()])?,
            }
            self.put(&vec![0; self.plan.container.padding(outline.bytes())])?;
            let detail = outline.name.clone();
            self.observer.on(Event::Advance { stage: Stage::Convert, done: self.done, detail });
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.done += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    /// A tensor whose numbers are divided by `scale`.
    fn tensor(&mut self, outline: &Outline, tensor: &Composed, scale: f32) -> Result<(), Failure> {
        let source = self.source;
        for (name, rows) in &tensor.rows {
            let own = Own::of(source, name)?;
            if own.is_in(outline.rounding) {
                for rows in own.panels(rows) {
                    let bytes = source.load_blocks(name, rows).and_then(|blocks| flat::<u8>(&blocks))?;
                    self.put(&bytes)?;
                }
            } else {
                for rows in own.panels(rows) {
                    let mut numbers = own.numbers(rows)?;
                    if scale != 1.0 {
                        numbers.iter_mut().for_each(|x| *x /= scale);
                    }
                    let bytes =
                        outline.rounding.encode(&numbers).map_err(|error| named(error, source, &outline.name))?;
                    drop(numbers);
                    self.put(&bytes)?;
                }
            }
            source.release(&[name]);
        }
        Ok(())
    }

    /// What brings the largest number of a tensor to the largest f8_e4m3.
    fn scale(&self, tensor: &Composed) -> Result<f32> {
        let mut most = 0_f32;
        for (name, rows) in &tensor.rows {
            let own = Own::of(self.source, name)?;
            for rows in own.panels(rows) {
                most = own.numbers(rows)?.iter().fold(most, |most, x| most.max(x.abs()));
            }
        }
        let scale = most / LARGEST_E4M3;
        Ok(if scale.is_normal() { scale } else { 1.0 })
    }
}

fn flat<T: candle_core::WithDType>(tensor: &Tensor) -> Result<Vec<T>> {
    Ok(tensor.flatten_all()?.to_vec1::<T>()?)
}

/// The error with the tensor it is about.
fn named(error: Error, source: &dyn TensorSource, name: &str) -> Error {
    match error {
        Error::Numeric { what, hint } => {
            Error::Numeric { what: format!("{}: tensor {name}: {what}", source.describe()), hint }
        }
        other => other,
    }
}

/// One of the network's tensors, with what LoRA files add to it.
struct Own<'a> {
    source: &'a dyn TensorSource,
    name: &'a str,
    shape: Vec<usize>,
    merge: Option<Merge>,
    /// The bias, where something is added to it.
    bias: Option<Tensor>,
}

impl<'a> Own<'a> {
    fn of(source: &'a dyn TensorSource, name: &'a str) -> Result<Self> {
        let shape = source.shape(name).unwrap_or_default();
        let adapters = |ending: &str| name.strip_suffix(ending).map_or(&[][..], |layer| source.adapters(layer));
        let merge = Merge::of(adapters(".weight"))?;
        let added = adapters(".bias");
        let own = || source.load(name, DType::F32, &Device::Cpu);
        let is_added = added.iter().any(|adapter| adapter.bias.is_some());
        let outputs = shape.first().copied().unwrap_or(1);
        let bias = is_added.then(|| lora::bias(added, outputs, Some(own))).transpose()?;
        Ok(Self { source, name, shape, merge, bias })
    }

    /// Whether it is stored as it is to be written, in blocks that need not be made anew.
    fn is_in(&self, rounding: Rounding) -> bool {
        let blocks = self.source.blocks(self.name).map(Rounding::Blocks);
        self.merge.is_none() && blocks == Some(rounding)
    }

    /// These rows, as many at a time as are held together.
    fn panels(&self, rows: &Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
        let columns = self.shape.iter().skip(1).product::<usize>().max(1);
        let (count, end) = ((PANEL / columns).max(1), rows.end);
        rows.clone().step_by(count).map(move |start| start..end.min(start + count))
    }

    /// Rows as numbers.
    fn numbers(&self, rows: Range<usize>) -> Result<Vec<f32>> {
        if let Some(bias) = &self.bias {
            return flat(&bias.narrow(0, rows.start, rows.len())?);
        }
        if self.shape.is_empty() {
            return flat(&self.source.load(self.name, DType::F32, &Device::Cpu)?);
        }
        let weight = self.source.load_rows(self.name, rows.clone(), DType::F32, &Device::Cpu)?;
        match &self.merge {
            Some(merge) => flat(&merge.onto(&weight, rows)?),
            None => flat(&weight),
        }
    }
}
