//! The linear layer: the one place that knows in which form a weight is held, and what adapters add to it.

use std::sync::Arc;

use candle_core::{
    DType, Device, Tensor,
    quantized::{QStorage, QTensor},
};

use super::{
    Array, Compute, Products,
    adapter::{self, Adapter},
    kernels::{
        cpu::linear::{self as cpu, gelu_in_place},
        tensors,
    },
    mismatch,
    view::{View, view},
};
use crate::error::{Error, Result};

pub use super::kernels::cpu::linear::Activation;

/// Outputs of one panel of a weight that is widened or dequantised on the way: 512 of 15,360 inputs are 31 MB of f32.
const PANEL: usize = 512;

/// `gain ∘ (W x (· scale)) + b + Σ adapters(x)`.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Form,
    bias: Option<Array>,
    adapters: Vec<Adapter>,
    /// What each output of the weight itself is multiplied by, \[out\] f32.
    gain: Option<Array>,
    products: Products,
}

/// The weight [out, in] in the form it is held in.
#[derive(Debug, Clone)]
pub enum Form {
    /// Numbers.
    Dense(Array),
    /// Codes of few bits, such as fp8, that are numbers when multiplied by a scale.
    Scaled {
        /// [out, in], in a float type of 8 bits.
        codes: Array,
        /// f32: one number \[1\], or one of each output \[out, 1\].
        scale: Array,
    },
    /// Blocks of quantised numbers, as GGUF files have them.
    Quantised {
        /// [out, inputs of the stored weight]
        blocks: Arc<QTensor>,
        /// Which of the stored inputs this layer takes: (first, count).
        inputs: (usize, usize),
    },
}

impl Linear {
    /// A layer of these parts; `bias` \[out\] in the number type of the stream.
    ///
    /// # Errors
    /// When their shapes do not fit.
    pub fn new(weight: Form, bias: Option<Array>, compute: Compute) -> Result<Self> {
        let outputs = weight.outputs();
        if let Some(bias) = bias.as_ref().filter(|bias| bias.dims() != [outputs]) {
            return Err(mismatch(format!("linear: a bias {:?} for {outputs} outputs", bias.dims())));
        }
        Ok(Self { weight, bias, adapters: Vec::new(), gain: None, products: compute.products })
    }

    /// The same layer with one more adapter.
    ///
    /// # Errors
    /// When its shapes do not fit.
    pub fn with_adapter(mut self, adapter: impl Into<Adapter>) -> Result<Self> {
        let (adapter, shape) = (adapter.into(), self.weight.shape());
        if !adapter.fits(shape) {
            return Err(adapter::unfit(&adapter, shape));
        }
        self.adapters.push(adapter);
        Ok(self)
    }

    /// The same layer, each output of whose weight is multiplied by a number of its own before bias and adapters: \[out\] f32.
    #[must_use]
    pub fn with_gain(self, gain: Array) -> Self {
        Self { gain: Some(gain), ..self }
    }

    /// For x [C, in]: [C, out].
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        self.apply(x, Activation::None)
    }

    /// The same with gelu behind it, in its tanh form.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn forward_gelu(&self, x: &Array) -> Result<Array> {
        self.apply(x, Activation::Gelu)
    }

    fn apply(&self, x: &Array, activation: Activation) -> Result<Array> {
        if self.adapters.is_empty() && self.gain.is_none() {
            return self.weight.product(self.products, x, self.bias.as_ref(), activation);
        }
        let mut out = self.base(x)?;
        for adapter in &self.adapters {
            out = adapter.add_to(out, x)?;
        }
        match activation {
            Activation::None => Ok(out),
            Activation::Gelu if out.is_fast() => out.change(gelu_in_place).map(|()| out),
            Activation::Gelu => out.gelu(),
        }
    }

    /// What the weight and the bias give.
    fn base(&self, x: &Array) -> Result<Array> {
        let plain = |bias| self.weight.product(self.products, x, bias, Activation::None);
        let Some(gain) = &self.gain else { return plain(self.bias.as_ref()) };
        let out = plain(None)?;
        let dtype = out.dtype();
        let mut out = out.to_dtype(DType::F32)?.mul(gain)?;
        if let Some(bias) = &self.bias {
            out = out.add(&bias.to_dtype(DType::F32)?)?;
        }
        out.to_dtype(dtype)
    }

    /// Two layers whose sum this is, for an input of `inputs` channels and the rest; the weight is shared, not copied.
    ///
    /// # Errors
    /// When there are fewer channels than that.
    pub fn split_inputs(&self, inputs: usize) -> Result<(Self, Self)> {
        let rest = self.weight.inputs().checked_sub(inputs);
        let rest = rest.ok_or_else(|| mismatch(format!("{inputs} of {} inputs", self.weight.inputs())))?;
        let part = |start, count, bias: Option<Array>| -> Result<Self> {
            let adapters = self.adapters.iter().map(|adapter| adapter.narrow(start, count)).collect::<Result<_>>()?;
            Ok(Self { weight: self.weight.narrow(start, count)?, bias, adapters, ..self.clone() })
        };
        Ok((part(0, inputs, self.bias.clone())?, part(inputs, rest, None)?))
    }
}

impl Form {
    /// out
    pub fn outputs(&self) -> usize {
        self.shape()[0]
    }

    /// in
    pub fn inputs(&self) -> usize {
        self.shape()[1]
    }

    fn shape(&self) -> [usize; 2] {
        match self {
            Self::Dense(weight) | Self::Scaled { codes: weight, .. } => [weight.dim(0), weight.dim(1)],
            Self::Quantised { blocks, inputs } => [blocks.shape().dims().first().copied().unwrap_or(0), inputs.1],
        }
    }

    /// The weight for `count` of the inputs from `start` on.
    fn narrow(&self, start: usize, count: usize) -> Result<Self> {
        Ok(match self {
            Self::Dense(weight) => Self::Dense(weight.narrow(1, start, count)?),
            Self::Scaled { codes, scale } => {
                Self::Scaled { codes: codes.narrow(1, start, count)?, scale: scale.clone() }
            }
            Self::Quantised { blocks, inputs } => {
                Self::Quantised { blocks: Arc::clone(blocks), inputs: (inputs.0 + start, count) }
            }
        })
    }

    fn product(&self, products: Products, x: &Array, bias: Option<&Array>, activation: Activation) -> Result<Array> {
        match self {
            Self::Dense(weight) => return product(products, x, weight, bias, activation),
            Self::Scaled { codes, scale } if is_fast(x, codes) && scale.dim(0) == 1 => {
                return on_cpu(products, x, (codes, Some(scale)), bias, activation);
            }
            _ => {}
        }
        let out = x.place().zeros(&[x.dim(0), self.outputs()], x.dtype())?;
        x.place().pieces(0..self.outputs(), PANEL, |first, count| {
            let bias = bias.map(|bias| bias.narrow(0, first, count)).transpose()?;
            let panel = product(products, x, &self.panel(first, count, x)?, bias.as_ref(), activation)?;
            out.slice_set(&panel, 1, first) // [C, count]
        })?;
        Ok(out)
    }

    /// Rows `first..first + count` of the weight as plain numbers in the number type of x.
    fn panel(&self, first: usize, count: usize, x: &Array) -> Result<Array> {
        match self {
            Self::Dense(weight) => weight.narrow(0, first, count),
            Self::Scaled { codes, scale } => {
                let scale = if scale.dim(0) == 1 { scale.clone() } else { scale.narrow(0, first, count)? };
                // In f32: a code times its scale is rounded once, whatever x is.
                codes.narrow(0, first, count)?.to_dtype(DType::F32)?.mul(&scale)?.to_dtype(x.dtype())
            }
            Self::Quantised { blocks, inputs } => {
                let rows = dequantised(blocks, first, count, x.real()?.device())?;
                Array::from(rows).narrow(1, inputs.0, inputs.1)?.to_dtype(x.dtype())
            }
        }
    }
}

/// Some rows of a quantised matrix, in f32: a row is whole blocks, and rows follow each other.
fn dequantised(blocks: &QTensor, first: usize, count: usize, device: &Device) -> Result<Tensor> {
    let (rows, columns) = blocks.shape().dims2()?;
    let data = blocks.data()?;
    let row = data.len() / rows.max(1);
    let bytes = data.get(first * row..(first + count) * row).unwrap_or_default();
    let storage = QStorage::from_data(bytes.to_vec().into(), device, blocks.dtype())?;
    Ok(QTensor::new(storage, (count, columns))?.dequantize(device)?)
}

/// `activation(x·weightᵀ + bias)` for x [C, in] and weight [out, in]; a weight of another number type is converted on the way.
///
/// # Errors
/// When shapes do not fit or the device fails.
pub fn product(
    products: Products,
    x: &Array,
    weight: &Array,
    bias: Option<&Array>,
    activation: Activation,
) -> Result<Array> {
    let ((_, inputs), (_, weight_inputs)) = (x.dims2()?, weight.dims2()?);
    if inputs != weight_inputs {
        return Err(mismatch(format!("linear: {inputs} inputs for a weight of {weight_inputs}")));
    }
    if !is_fast(x, weight) {
        return tensors::linear(x, weight, bias, activation);
    }
    on_cpu(products, x, (weight, None), bias, activation)
}

/// Whether the CPU's own kernel takes this product.
fn is_fast(x: &Array, weight: &Array) -> bool {
    let is_held = matches!(weight.dtype(), DType::F32 | DType::BF16 | DType::F16 | DType::F8E4M3);
    x.is_fast() && is_held && weight.layout().stride().get(1) == Some(&1)
}

/// The same in the CPU's own kernel; codes of 8 bits come with the one number they are multiplied by.
fn on_cpu(
    products: Products,
    x: &Array,
    (weight, scale): (&Array, Option<&Array>),
    bias: Option<&Array>,
    activation: Activation,
) -> Result<Array> {
    let ((rows, inputs), (outputs, _)) = (x.dims2()?, weight.dims2()?);
    let size = cpu::Size { rows, inputs, outputs, stride: weight.layout().stride()[0] };
    let rounds = products == Products::Rounded;
    let out = x.computed(&[rows, outputs], |out| {
        let (x, weight, bias) = (view(x.real()?), view(weight.real()?), bias.map(Array::real).transpose()?.map(view));
        let scale = scale.map(|scale| Ok::<_, Error>(scale.real()?.to_vec1::<f32>()?.first().copied())).transpose()?;
        let (weight, bias) =
            (weight.weight(scale.flatten().unwrap_or(1.0))?, bias.as_ref().map(View::f32).transpose()?);
        cpu::Linear { weight, size, bias, activation, rounds, adds: false }.apply(x.f32()?, out);
        Ok(())
    })?;
    x.note(|ledger| {
        let pairs = rounds && matches!(weight.dtype(), DType::BF16 | DType::F8E4M3);
        ledger.pass(size.working_bytes(pairs));
        ledger.work(2 * (rows * inputs) as u64 * outputs as u64);
    });
    Ok(out) // [C, out]
}

/// `out + x·weightᵀ` for x [C, in] f32 and weight [out, in], summed in f32; where the CPU's own kernel takes it, in place.
///
/// # Errors
/// When shapes do not fit or the device fails.
pub(super) fn accumulate(out: Array, x: &Array, weight: &Array) -> Result<Array> {
    if !(out.is_fast() && is_fast(x, weight)) {
        return adapter::sum(out, &product(Products::Exact, x, weight, None, Activation::None)?);
    }
    let ((rows, inputs), (outputs, _)) = (x.dims2()?, weight.dims2()?);
    if (out.dims(), weight.dim(1)) != (&[rows, outputs], inputs) {
        return Err(mismatch(format!("{:?} and {inputs} inputs of {:?}", out.dims(), weight.dims())));
    }
    let size = cpu::Size { rows, inputs, outputs, stride: weight.layout().stride()[0] };
    if let (Array::Real(x), Array::Real(weight)) = (x, weight) {
        let (x, weight) = (view(x), view(weight));
        let (x, weight) = (x.f32()?, weight.weight(1.0)?);
        let layer = cpu::Linear { weight, size, bias: None, activation: Activation::None, rounds: false, adds: true };
        out.change(|out| layer.apply(x, out))?;
    }
    x.note(|ledger| {
        ledger.pass(size.working_bytes(false));
        ledger.work(2 * (rows * inputs) as u64 * outputs as u64);
    });
    Ok(out) // [C, out]
}
