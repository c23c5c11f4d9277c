//! The linear layer: the one place that knows in which form a weight is held, and what adapters add to it.

use candle_core::DType;

use super::{
    Array, Compute, Products, Quantised,
    adapter::{self, Adapter},
    kernels::{
        columns,
        cpu::{
            int8,
            linear::{self as cpu, gelu_in_place},
        },
        fp8, fused, tensors,
        widen::{self, Codes},
    },
    mismatch,
    quantised::DEVICE_PANEL,
    unbiased::{Unbiased, after_product},
    view::{View, view},
};
use crate::{
    error::Result,
    weights::{BlockType, Float8},
};

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
        /// [out, in], bytes.
        codes: Array,
        /// Which floats of 8 bits they are.
        kind: Float8,
        /// f32: one number \[1\], or one of each output \[out, 1\].
        scale: Array,
    },
    /// Blocks of quantised numbers, as GGUF files have them.
    Quantised {
        /// [out, inputs of the stored weight]
        blocks: Quantised,
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
        self.apply(x, self.bias.as_ref(), Activation::None)
    }

    /// The same but for the bias, where whoever reads it adds that on the way.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn forward_unbiased(&self, x: &Array) -> Result<Unbiased> {
        let left = self.bias.as_ref().filter(|_| fused::adds_biases(x));
        let added = if left.is_some() { None } else { self.bias.as_ref() };
        let left = left.map(|bias| bias.to_dtype(x.dtype())).transpose()?;
        Ok(Unbiased::new(self.apply(x, added, Activation::None)?, left))
    }

    /// The same with gelu behind it, in its tanh form.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn forward_gelu(&self, x: &Array) -> Result<Array> {
        self.apply(x, self.bias.as_ref(), Activation::Gelu)
    }

    fn apply(&self, x: &Array, bias: Option<&Array>, activation: Activation) -> Result<Array> {
        if self.adapters.is_empty() && self.gain.is_none() {
            return self.weight.product(self.products, x, bias, activation);
        }
        let mut out = self.base(x, bias)?;
        for adapter in &self.adapters {
            out = adapter.add_to(out, x)?;
        }
        match activation {
            Activation::Gelu if out.is_fast() => out.change(gelu_in_place).map(|()| out),
            _ => after_product(out, None, activation),
        }
    }

    /// What the weight and a bias give.
    fn base(&self, x: &Array, bias: Option<&Array>) -> Result<Array> {
        let plain = |bias| self.weight.product(self.products, x, bias, Activation::None);
        let Some(gain) = &self.gain else { return plain(bias) };
        let out = plain(None)?;
        let dtype = out.dtype();
        let mut out = out.to_dtype(DType::F32)?.mul(gain)?;
        if let Some(bias) = bias {
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
            Self::Quantised { blocks, inputs } => [blocks.rows(), inputs.1],
        }
    }

    /// The weight for `count` of the inputs from `start` on.
    fn narrow(&self, start: usize, count: usize) -> Result<Self> {
        Ok(match self {
            Self::Dense(weight) => Self::Dense(weight.narrow(1, start, count)?),
            Self::Scaled { codes, kind, scale } => {
                Self::Scaled { codes: codes.narrow(1, start, count)?, kind: *kind, scale: scale.clone() }
            }
            Self::Quantised { blocks, inputs } => {
                Self::Quantised { blocks: blocks.clone(), inputs: (inputs.0 + start, count) }
            }
        })
    }

    fn product(&self, products: Products, x: &Array, bias: Option<&Array>, activation: Activation) -> Result<Array> {
        match self {
            Self::Dense(weight) => return product(products, x, weight, bias, activation),
            Self::Scaled { codes, kind, scale } if x.is_fast() => {
                return on_cpu(products, x, Operand::Codes { codes, kind: *kind, scale }, bias, activation);
            }
            Self::Quantised { blocks, inputs } => {
                if let Some(bytes) = blocks.bytes().filter(|_| x.is_fast()) {
                    let (kind, int8) = (blocks.kind(), products == Products::Int8);
                    let operand = Operand::Blocks { bytes, kind, inputs: *inputs, int8 };
                    return on_cpu(products, x, operand, bias, activation);
                }
            }
            Self::Scaled { codes, kind, scale } if products == Products::Float8 => {
                if let Some(out) = fp8::product(x, codes, *kind, scale)? {
                    return after_product(out, bias, activation);
                }
            }
            Self::Scaled { .. } => {}
        }
        let (outputs, panel) = (self.outputs(), self.panel_outputs(x));
        if outputs <= panel {
            return product(products, x, &self.panel(0, outputs, x)?, bias, activation);
        }
        let out = x.place().zeros(&[x.dim(0), outputs], x.dtype())?;
        x.place().pieces(0..outputs, panel, |first, count| {
            let bias = bias.map(|bias| bias.narrow(0, first, count)).transpose()?;
            let panel = product(products, x, &self.panel(first, count, x)?, bias.as_ref(), activation)?;
            out.slice_set(&panel, 1, first) // [C, count]
        })?;
        Ok(out)
    }

    /// Outputs of a panel that is widened on the way.
    fn panel_outputs(&self, x: &Array) -> usize {
        match self {
            Self::Quantised { blocks, .. } => blocks.panel_rows(),
            Self::Scaled { .. } if widen::is_on(x.place().kind()) => DEVICE_PANEL,
            _ => PANEL,
        }
    }

    /// Rows `first..first + count` of the weight as plain numbers in the number type of x.
    fn panel(&self, first: usize, count: usize, x: &Array) -> Result<Array> {
        match self {
            Self::Dense(weight) => weight.narrow(0, first, count),
            Self::Scaled { codes, kind, scale } => {
                let scale = if scale.dim(0) == 1 { scale.clone() } else { scale.narrow(0, first, count)? };
                let codes = codes.narrow(0, first, count)?;
                // In f32: a code times its scale is rounded once, whatever x is.
                if widen::is_on(codes.place().kind()) {
                    return widen::widened(&codes, Codes::Float8(*kind), (0, codes.dim(1)), Some(&scale), x.dtype());
                }
                widened(&codes, *kind)?.mul(&scale)?.to_dtype(x.dtype())
            }
            Self::Quantised { blocks, inputs } => blocks.widened(x, first, count, *inputs),
        }
    }
}

/// Floats of 8 bits in f32.
fn widened(codes: &Array, kind: Float8) -> Result<Array> {
    let table = codes.place().floats(&[256], || kind.numbers().to_vec())?;
    // Of 8 bits the largest id means no row to candle, and is a code here.
    let ids = codes.reshape(&[codes.elem_count()])?.to_dtype(DType::U32)?;
    table.index_select(&ids, 0)?.reshape(codes.dims())
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
        let rows = columns::product(x, weight)?.map_or_else(|| tensors::product(x, weight), Ok)?;
        return after_product(rows, bias, activation);
    }
    on_cpu(products, x, Operand::Numbers(weight), bias, activation)
}

/// Whether the CPU's own kernel takes this product.
fn is_fast(x: &Array, weight: &Array) -> bool {
    let is_held = matches!(weight.dtype(), DType::F32 | DType::BF16 | DType::F16);
    x.is_fast() && is_held && weight.layout().stride().get(1) == Some(&1)
}

/// A weight in the processor's memory.
#[derive(Clone, Copy)]
enum Operand<'a> {
    Numbers(&'a Array),
    Codes {
        /// [out, in], bytes.
        codes: &'a Array,
        kind: Float8,
        /// What they are multiplied by.
        scale: &'a Array,
    },
    Blocks {
        /// [out, bytes of a row]
        bytes: &'a Array,
        kind: BlockType,
        /// Which of the stored inputs count: (first, count).
        inputs: (usize, usize),
        /// Whether x may be rounded to such blocks.
        int8: bool,
    },
}

impl Operand<'_> {
    /// The weight's memory.
    fn array(&self) -> &Array {
        match self {
            Self::Numbers(array) | Self::Codes { codes: array, .. } | Self::Blocks { bytes: array, .. } => array,
        }
    }

    fn size(&self, rows: usize) -> Result<cpu::Size> {
        let (outputs, columns) = self.array().dims2()?;
        let inputs = if let Self::Blocks { inputs, .. } = self { inputs.1 } else { columns };
        Ok(cpu::Size { rows, inputs, outputs, stride: self.array().layout().stride()[0] })
    }

    fn form(&self) -> cpu::Form {
        match self {
            Self::Numbers(array) if array.dtype() == DType::BF16 => cpu::Form::Bf16,
            Self::Numbers(_) => cpu::Form::Wide,
            Self::Codes { .. } => cpu::Form::Codes,
            Self::Blocks { kind, inputs, int8: true, .. } if int8::takes(*kind, inputs.0, inputs.1) => cpu::Form::Int8,
            Self::Blocks { .. } => cpu::Form::Blocks,
        }
    }
}

/// The same in the CPU's own kernel.
fn on_cpu(
    products: Products,
    x: &Array,
    operand: Operand<'_>,
    bias: Option<&Array>,
    activation: Activation,
) -> Result<Array> {
    let size = operand.size(x.dims2()?.0)?;
    if x.dim(1) != size.inputs {
        return Err(mismatch(format!("linear: {} inputs for a weight of {}", x.dim(1), size.inputs)));
    }
    let rounds = products.rounds();
    let out = x.computed(&[size.rows, size.outputs], |out| {
        let (x, weight, bias) =
            (view(x.real()?), view(operand.array().real()?), bias.map(Array::real).transpose()?.map(view));
        let scales = match operand {
            Operand::Codes { scale, .. } => scale.real()?.flatten_all()?.to_vec1::<f32>()?,
            _ => Vec::new(),
        };
        let weight = match operand {
            Operand::Numbers(_) => weight.weight()?,
            Operand::Codes { kind, .. } => cpu::Weight::F8 { codes: weight.bytes()?, kind, scales: &scales },
            Operand::Blocks { kind, inputs, int8, .. } => {
                cpu::Weight::Blocks { bytes: weight.bytes()?, kind, first: inputs.0, int8 }
            }
        };
        let bias = bias.as_ref().map(View::f32).transpose()?;
        cpu::Linear { weight, size, bias, activation, rounds, adds: false }.apply(x.f32()?, out);
        Ok(())
    })?;
    x.note(|ledger| {
        ledger.pass(size.working_bytes(operand.form(), rounds));
        ledger.work(2 * (size.rows * size.inputs) as u64 * size.outputs as u64);
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
        let (x, weight) = (x.f32()?, weight.weight()?);
        let layer = cpu::Linear { weight, size, bias: None, activation: Activation::None, rounds: false, adds: true };
        out.change(|out| layer.apply(x, out))?;
    }
    x.note(|ledger| {
        ledger.pass(size.working_bytes(Operand::Numbers(weight).form(), false));
        ledger.work(2 * (rows * inputs) as u64 * outputs as u64);
    });
    Ok(out) // [C, out]
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    /// 0xff is no number in both, and the largest id of 8 bits.
    #[test]
    fn every_code_is_looked_up() {
        let codes = Array::from(Tensor::from_vec((0..=u8::MAX).collect(), (2, 128), &Device::Cpu).expect("codes"));
        for kind in [Float8::E4M3, Float8::E5M2] {
            let found = widened(&codes, kind).expect("looked up");
            let numbers = found.real().expect("a tensor").flatten_all().and_then(|t| t.to_vec1::<f32>());
            let bits =
                |numbers: &[f32]| numbers.iter().map(|x| if x.is_nan() { 1 } else { x.to_bits() }).collect::<Vec<_>>();
            assert_eq!(bits(&numbers.expect("numbers")), bits(kind.numbers()));
        }
    }
}
