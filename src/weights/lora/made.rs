//! The arrays that come of a change's pieces.
//!
//! With s = strength · alpha / rank, in f32:
//!
//! - LoRA (arXiv 2106.09685): W + s·up·down.
//! - LoHa (arXiv 2108.06098): W + s·(a1·b1) ∘ (a2·b2), which is of rank r1·r2: small enough, it is held as such a product.
//! - LoKr (LyCORIS): W + s·(w1 ⊗ w2), each whole or a product; alpha counts where one is a product.
//! - DoRA (arXiv 2402.09353): m·V / |V| for V = W + s·up·down and the norm of each row.
//! - Whole differences: W + strength·D, b + strength·d.

use std::{
    ops::Range,
    sync::{Arc, OnceLock},
};

use candle_core::{D, DType, Device, Tensor};

use super::{
    super::{Cut, TensorSource},
    Adapter,
    change::{Change, Piece},
    fit::OTHER_MODEL,
    kinds::{Factor, Kind, OfWeight},
    names::Part,
    numbers::{check_finite, number},
};
use crate::error::{Error, Result};

/// Rows of a weight that are looked at together for their lengths.
const PANEL: usize = 512;

/// A change whose shapes fit.
pub(super) struct Made {
    pub source: Arc<dyn TensorSource>,
    pub kind: Kind,
    /// in
    pub inputs: usize,
    pub scale: Scale,
    /// Of its product, or its two.
    pub ranks: [usize; 2],
}

/// What a change is multiplied by.
#[derive(Debug, Clone)]
pub(super) struct Scale {
    pub strength: f64,
    /// The tensor that holds alpha, and the rank it is divided by.
    pub alpha: Option<(String, usize)>,
    /// What the header says, where there is no such tensor.
    pub else_scale: f64,
}

impl Scale {
    fn value(&self, source: &dyn TensorSource) -> Result<f64> {
        let scale = match &self.alpha {
            Some((alpha, rank)) => number(source, alpha)? / *rank as f64,
            None => self.else_scale,
        };
        let value = self.strength * scale;
        if (value as f32).is_finite() {
            return Ok(value);
        }
        let what = format!("{}: its header has changes multiplied by {scale:e}", source.describe());
        Err(Error::model(what, OTHER_MODEL))
    }
}

/// A tensor of a file as a matrix of f32.
fn matrix(source: &dyn TensorSource, name: &str) -> Result<Tensor> {
    let tensor = source.load(name, DType::F32, &Device::Cpu)?;
    let rows = tensor.dims().first().copied().unwrap_or(0);
    let matrix = tensor.reshape((rows, ()))?;
    check_finite(&matrix, source, name)?;
    Ok(matrix)
}

/// What of rows is a layer's.
fn cut(whole: &Tensor, cut: &Cut) -> Result<Tensor> {
    let half = whole.dim(0)? / 2;
    Ok(match cut {
        Cut::Rows(rows) | Cut::MatrixRows(rows) => whole.narrow(0, rows.start, rows.len())?.contiguous()?,
        Cut::SwappedHalves => Tensor::cat(&[whole.narrow(0, half, half)?, whole.narrow(0, 0, half)?], 0)?,
        // No part of a layer: of a norm, all; and no adapter changes a convolution between frames.
        Cut::Whole | Cut::Matrix | Cut::Vector | Cut::LastFrame => whole.clone(),
    })
}

impl Made {
    /// The change of one of the layers, whose own weight is in `base`.
    pub fn adapter(&self, part: &Part, base: &Arc<dyn TensorSource>) -> Result<Adapter> {
        let change = self.kind.weight.as_ref().map(|weight| self.change(weight, part));
        let tensors = self.kind.names().into_iter().cloned().collect();
        let stored = Some((Arc::clone(&self.source), tensors));
        let plain = Adapter { change, gain: None, bias: self.bias(part), stored };
        match (&self.kind.magnitude, plain.change.clone()) {
            (Some(magnitude), Some(Change::LowRank { down, up })) => {
                Ok(self.decomposed(magnitude, [down, up], plain, (part, base)))
            }
            _ => Ok(plain),
        }
    }

    fn change(&self, weight: &OfWeight, part: &Part) -> Change {
        match weight {
            OfWeight::Product([down, up]) => {
                let rank = self.ranks[0];
                let down = self.piece([rank, self.inputs], down.clone(), |file, down, _| matrix(file, down));
                let up = self.scaled([part.layer.outputs, rank], (up.clone(), part.cut.clone()), |file, (up, rows)| {
                    cut(&matrix(file, up)?, rows)
                });
                Change::LowRank { down, up }
            }
            OfWeight::Hadamard(pairs) => self.hadamard(pairs, part),
            OfWeight::Kronecker(factors) => self.kronecker(factors, part),
            OfWeight::Difference(name) => self.difference(name, part),
        }
    }

    /// A product of few columns where that is smaller than the matrix itself.
    fn hadamard(&self, pairs: &[[String; 2]; 2], part: &Part) -> Change {
        let (outputs, inputs, [first, second]) = (part.layer.outputs, self.inputs, self.ranks);
        let names = (pairs.clone(), part.cut.clone());
        if let Some(rank) = first.checked_mul(second).filter(|rank| rank * (outputs + inputs) <= outputs * inputs) {
            let down = self.piece([rank, inputs], names.clone(), |file, ([one, two], _), shape| {
                let (one, two) = (matrix(file, &one[1])?.unsqueeze(1)?, matrix(file, &two[1])?.unsqueeze(0)?);
                Ok(one.broadcast_mul(&two)?.reshape(&shape)?) // [r1·r2, in]
            });
            let up = self.scaled([outputs, rank], names, move |file, ([one, two], rows)| {
                let side = |name: &str| cut(&matrix(file, name)?, rows);
                let (one, two) = (side(&one[0])?.unsqueeze(2)?, side(&two[0])?.unsqueeze(1)?);
                Ok(one.broadcast_mul(&two)?.reshape((outputs, rank))?) // [out, r1·r2]
            });
            return Change::LowRank { down, up };
        }
        let scale = self.scale.clone();
        let weight = self.piece([outputs, inputs], names, move |file, ([one, two], rows), shape| {
            let factors = |[left, right]: &[String; 2]| -> Result<[Tensor; 2]> {
                Ok([cut(&matrix(file, left)?, rows)?, matrix(file, right)?])
            };
            hadamard_product([factors(one)?, factors(two)?], scale.value(file)?, shape)
        });
        Change::Dense { weight, strength: 1.0 }
    }

    fn kronecker(&self, factors: &[Factor; 2], part: &Part) -> Change {
        let whole = |file: &dyn TensorSource, factor: &Factor| match factor {
            Factor::Whole(name) => matrix(file, name),
            Factor::Product([left, right]) => Ok(matrix(file, left)?.matmul(&matrix(file, right)?)?),
        };
        let shape = |factor: &Factor| {
            let of = |name: &str, index: usize| self.source.shape(name).and_then(|shape| shape.get(index).copied());
            match factor {
                Factor::Whole(name) => [of(name, 0), of(name, 1)],
                Factor::Product([left, right]) => [of(left, 0), of(right, 1)],
            }
            .map(|size| size.unwrap_or(0))
        };
        let rows = match &part.cut {
            Cut::Rows(rows) => rows.clone(),
            _ => 0..part.layer.outputs,
        };
        if part.cut == Cut::SwappedHalves {
            let weight = self.scaled([rows.len(), self.inputs], factors.clone(), move |file, [first, second]| {
                let all = kronecker_rows(&whole(file, first)?, &whole(file, second)?, rows.clone())?;
                cut(&all, &Cut::SwappedHalves)
            });
            return Change::Dense { weight, strength: 1.0 };
        }
        let first = self.scaled(shape(&factors[0]), factors[0].clone(), move |file, factor| whole(file, factor));
        let second = self.piece(shape(&factors[1]), factors[1].clone(), move |file, factor, _| whole(file, factor));
        Change::Kronecker { first, second, rows }
    }

    /// In the file's number type: it may be as large as the model.
    fn difference(&self, name: &str, part: &Part) -> Change {
        let dtype = match self.source.file_dtype(name) {
            Some(dtype @ (DType::BF16 | DType::F16)) => dtype,
            _ => DType::F32,
        };
        let (source, name, part, inputs) = (Arc::clone(&self.source), name.to_owned(), part.clone(), self.inputs);
        let weight = Piece::of(&[part.layer.outputs, inputs], dtype, move || {
            let rows = match &part.cut {
                Cut::Rows(rows) => source.load_rows(&name, rows.clone(), dtype, &Device::Cpu)?,
                other => cut(&source.load(&name, dtype, &Device::Cpu)?, other)?,
            };
            check_finite(&rows, &*source, &name)?;
            Ok(rows.reshape((part.layer.outputs, inputs))?)
        });
        Change::Dense { weight, strength: self.scale.strength }
    }

    fn bias(&self, part: &Part) -> Option<Piece> {
        let (of_up, whole) = (self.kind.up_bias.clone(), self.kind.bias.clone());
        if of_up.is_none() && whole.is_none() {
            return None;
        }
        let (source, scale, part) = (Arc::clone(&self.source), self.scale.clone(), part.clone());
        Some(Piece::floats(&[part.layer.outputs], move || {
            let vector = |name: &str, factor: f64| -> Result<Tensor> {
                let whole = source.load(name, DType::F32, &Device::Cpu)?.flatten_all()?;
                check_finite(&whole, &*source, name)?;
                Ok((cut(&whole, &part.cut)? * factor)?)
            };
            let of_up = of_up.as_deref().map(|name| vector(name, scale.value(&*source)?)).transpose()?;
            let whole = whole.as_deref().map(|name| vector(name, scale.strength)).transpose()?;
            match (of_up, whole) {
                (Some(one), Some(other)) => Ok((one + other)?),
                (Some(one), None) | (None, Some(one)) => Ok(one),
                (None, None) => Err(Error::model("a bias of nothing", "please report this")),
            }
        }))
    }

    /// V = W + s·up·down, and each row of it stretched to its length in `magnitude`: gain·W + gain·s·up·down.
    fn decomposed(
        &self,
        magnitude: &str,
        [down, up]: [Piece; 2],
        plain: Adapter,
        (part, base): (&Part, &Arc<dyn TensorSource>),
    ) -> Adapter {
        let (source, base, name, part) =
            (Arc::clone(&self.source), Arc::clone(base), magnitude.to_owned(), part.clone());
        let outputs = part.layer.outputs;
        let (low, high) = (down.clone(), up.clone());
        let known: OnceLock<Tensor> = OnceLock::new();
        let gain: Arc<dyn Fn() -> Result<Tensor> + Send + Sync> = Arc::new(move || {
            if let Some(known) = known.get() {
                return Ok(known.clone());
            }
            let lengths = cut(&source.load(&name, DType::F32, &Device::Cpu)?.flatten_all()?, &part.cut)?;
            let gain = lengths.div(&row_lengths(&*base, &part, [&low.make()?, &high.make()?])?)?; // [out]
            Ok(known.get_or_init(|| gain).clone())
        });
        let of_up = Arc::clone(&gain);
        let (shape, unscaled) = (up.shape.clone(), up);
        let up = Piece::floats(&shape, move || Ok(unscaled.make()?.broadcast_mul(&of_up()?.unsqueeze(1)?)?));
        let gain = Piece::floats(&[outputs], move || gain());
        Adapter { change: Some(Change::LowRank { down, up }), gain: Some(gain), ..plain }
    }

    /// A matrix made of tensors of the file.
    fn piece<N: Send + Sync + 'static>(
        &self,
        shape: [usize; 2],
        names: N,
        make: impl Fn(&dyn TensorSource, &N, [usize; 2]) -> Result<Tensor> + Send + Sync + 'static,
    ) -> Piece {
        let source = Arc::clone(&self.source);
        Piece::floats(&shape, move || make(&*source, &names, shape))
    }

    /// The same, multiplied by the scale in f32.
    fn scaled<N: Send + Sync + 'static>(
        &self,
        shape: [usize; 2],
        names: N,
        make: impl Fn(&dyn TensorSource, &N) -> Result<Tensor> + Send + Sync + 'static,
    ) -> Piece {
        let (source, scale) = (Arc::clone(&self.source), self.scale.clone());
        Piece::floats(&shape, move || Ok((make(&*source, &names)? * scale.value(&*source)?)?))
    }
}

/// The length of each row of the layer's weight with up · down added, some rows at a time: \[out\].
fn row_lengths(base: &dyn TensorSource, part: &Part, [down, up]: [&Tensor; 2]) -> Result<Tensor> {
    let (name, outputs) = (format!("{}.weight", part.layer.name), part.layer.outputs);
    let panel = |start: usize| -> Result<Tensor> {
        let rows = start..outputs.min(start + PANEL);
        let weight = base.load_rows(&name, rows.clone(), DType::F32, &Device::Cpu)?;
        let changed = (weight + up.narrow(0, start, rows.len())?.matmul(down)?)?; // [rows, in]
        Ok(changed.sqr()?.sum(D::Minus1)?.sqrt()?)
    };
    let panels = (0..outputs).step_by(PANEL).map(panel).collect::<Result<Vec<_>>>()?;
    Ok(Tensor::cat(&panels, 0)?)
}

/// The product of two matrices number by number, each of which is one of two factors, times a scale: [outputs, inputs]. Made some rows
/// at a time, so that no more than the result is held.
fn hadamard_product(factors: [[Tensor; 2]; 2], scale: f64, [outputs, inputs]: [usize; 2]) -> Result<Tensor> {
    let mut numbers: Vec<f32> = Vec::with_capacity(outputs * inputs);
    for start in (0..outputs).step_by(PANEL) {
        let count = PANEL.min(outputs - start);
        let panel = |[left, right]: &[Tensor; 2]| left.narrow(0, start, count)?.matmul(right);
        let both = ((panel(&factors[0])? * panel(&factors[1])?)? * scale)?; // [count, in]
        numbers.extend(both.flatten_all()?.to_vec1::<f32>()?);
    }
    Ok(Tensor::from_vec(numbers, (outputs, inputs), &Device::Cpu)?)
}

/// Rows of the Kronecker product of first [a, b] and second [d, e]: [rows, b·e].
pub(super) fn kronecker_rows(first: &Tensor, second: &Tensor, rows: Range<usize>) -> Result<Tensor> {
    let ((_, b), (d, e)) = (first.dims2()?, second.dims2()?);
    let pick = |index: fn(usize, usize) -> usize| -> Result<Tensor> {
        let indices = rows.clone().map(|row| index(row, d.max(1)) as u32).collect::<Vec<_>>();
        Ok(Tensor::from_vec(indices, rows.len(), &Device::Cpu)?)
    };
    let left = first.index_select(&pick(|row, d| row / d)?, 0)?.unsqueeze(2)?; // [rows, b, 1]
    let right = second.index_select(&pick(|row, d| row % d)?, 0)?.unsqueeze(1)?; // [rows, 1, e]
    Ok(left.broadcast_mul(&right)?.reshape((rows.len(), b * e))?) // [rows, b·e]
}
