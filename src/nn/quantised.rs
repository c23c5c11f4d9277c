//! A matrix quantised in blocks, held as its file has it on the processor and on CUDA, in candle's form on another device.

use std::{borrow::Cow, sync::Arc};

use candle_core::{
    DType, Device, Tensor,
    quantized::{QStorage, QTensor},
};

use super::{
    Array, Place,
    array::Launch,
    kernels::widen::{self, Codes},
    mismatch,
};
use crate::{base::device::DeviceKind, error::Result, weights::BlockType};

/// Rows that are widened at a time: 512 of 15,360 inputs are 31 MB of f32.
const PANEL: usize = 512;
/// The same on a device, where a product of few outputs leaves much of it idle: 126 MB of bf16.
pub(super) const DEVICE_PANEL: usize = 4096;

/// A matrix [rows, columns] whose rows are whole blocks.
#[derive(Debug, Clone)]
pub struct Quantised {
    kind: BlockType,
    rows: usize,
    columns: usize,
    held: Held,
}

#[derive(Debug, Clone)]
enum Held {
    /// Bytes [rows, bytes of a row]; also what a dry pass knows of either form.
    Bytes(Array),
    /// On a device that cannot widen bytes, [`DEVICE_PANEL`] rows each.
    Panels(Arc<Vec<QTensor>>),
}

impl Quantised {
    /// A matrix of these bytes [rows, bytes of a row] at a place: they lie there where it keeps them ([`holds_bytes`]), else in the
    /// processor's memory.
    ///
    /// # Errors
    /// When they are not whole blocks, or the device fails or has no such blocks.
    pub fn new(kind: BlockType, bytes: &Tensor, place: &Place) -> Result<Self> {
        let (rows, row) = bytes.dims2()?;
        if row % kind.bytes() != 0 {
            return Err(mismatch(format!("rows of {row} bytes in {}", kind.name())));
        }
        let columns = row / kind.bytes() * kind.numbers();
        let held = match place {
            Place::Real(device) if !holds_bytes(place.kind()) => {
                let panels = (0..rows).step_by(DEVICE_PANEL).map(|first| {
                    let count = DEVICE_PANEL.min(rows - first);
                    let panel = bytes.narrow(0, first, count)?.flatten_all()?.to_vec1::<u8>()?;
                    on_device(kind, panel, (count, columns), device)
                });
                Held::Panels(Arc::new(panels.collect::<Result<_>>()?))
            }
            _ => Held::Bytes(bytes.clone().into()),
        };
        Ok(Self { kind, rows, columns, held })
    }

    /// What a dry pass knows of a matrix of this size.
    ///
    /// # Errors
    /// When the place cannot count so many.
    pub fn dry(kind: BlockType, rows: usize, columns: usize, place: &Place) -> Result<Self> {
        let held = Held::Bytes(place.zeros(&[rows, kind.bytes_of(columns)], DType::U8)?);
        Ok(Self { kind, rows, columns, held })
    }

    /// The kind of blocks.
    pub fn kind(&self) -> BlockType {
        self.kind
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The bytes [rows, bytes of a row], where they are (or would be) in the processor's memory.
    pub(super) fn bytes(&self) -> Option<&Array> {
        match &self.held {
            Held::Bytes(bytes) => Some(bytes).filter(|bytes| bytes.is_cpu()),
            Held::Panels(_) => None,
        }
    }

    /// Rows that are widened at a time.
    pub(super) fn panel_rows(&self) -> usize {
        if self.bytes().is_some() { PANEL } else { DEVICE_PANEL }
    }

    /// Numbers `inputs` = (first, count) of `count` rows from `first` on, one panel or less, in the number type of `beside`, where that is:
    /// [count, inputs.1].
    ///
    /// # Errors
    /// When the device fails.
    pub(super) fn widened(&self, beside: &Array, first: usize, count: usize, inputs: (usize, usize)) -> Result<Array> {
        match &self.held {
            Held::Bytes(bytes) if widen::is_on(bytes.place().kind()) => {
                let codes = bytes.narrow(0, first, count)?;
                widen::widened(&codes, Codes::Blocks(self.kind), inputs, None, beside.dtype())
            }
            _ => self.floats(beside, first, count)?.narrow(1, inputs.0, inputs.1)?.to_dtype(beside.dtype()),
        }
    }

    /// All numbers of these rows as f32: [count, columns].
    fn floats(&self, beside: &Array, first: usize, count: usize) -> Result<Array> {
        let shape = [count, self.columns];
        beside.launch(Launch::Elements, &shape, DType::F32, |_| match &self.held {
            Held::Bytes(bytes) => {
                let bytes = bytes.real().map_err(candle_core::Error::wrap)?;
                let bytes = bytes.narrow(0, first, count)?.flatten_all()?.to_vec1::<u8>()?;
                let mut numbers = vec![0.0; count * self.columns];
                self.kind.decode(&bytes, &mut numbers);
                Tensor::from_vec(numbers, &shape, &Device::Cpu)
            }
            Held::Panels(panels) => {
                let panel = panels.get(first / DEVICE_PANEL).ok_or_else(|| candle_core::Error::msg("no such panel"))?;
                panel.dequantize(&panel.device())?.narrow(0, first % DEVICE_PANEL, count)
            }
        })
    }
}

/// Blocks in candle's form; kinds that candle does not know are not asked of it ([`is_on`]).
fn on_device(kind: BlockType, bytes: Vec<u8>, shape: (usize, usize), device: &Device) -> Result<QTensor> {
    let kind = kind.candle().ok_or_else(|| mismatch(format!("{} on a device", kind.name())))?;
    Ok(QTensor::new(QStorage::from_data(Cow::Owned(bytes), device, kind)?, shape)?)
}

/// Whether such a device keeps blocks as their file has them.
pub(super) fn holds_bytes(kind: DeviceKind) -> bool {
    kind.is_cpu() || widen::is_on(kind)
}

/// Whether such a device can widen such blocks.
pub(super) fn is_on(device: DeviceKind, kind: BlockType) -> bool {
    holds_bytes(device) || kind.candle().is_some()
}
