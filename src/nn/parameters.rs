//! What networks load from: weights by name, or in a dry pass their shapes, of which a list is kept.

use std::{
    collections::HashSet,
    fmt::Display,
    sync::{Arc, Mutex, PoisonError},
};

use candle_core::{DType, Device, Tensor};

use super::{
    Adapter, Array, Compute, Dense, Form, Kronecker, Ledger, Linear, LowRank, Place, Quantised, array,
    quantised::{self, holds_bytes},
};
use crate::{
    base::device::DeviceKind,
    error::Result,
    weights::{
        BlockType, Expected, Ring, Weights,
        lora::{self, Change, Layer, LayerKind, Piece},
    },
};

/// A view of the weights below a name prefix.
///
/// In a dry pass nothing is read: what is asked for is there, in the shape it is asked for, takes its bytes in the ledger,
/// and is noted ([`Parameters::asked`]). Whether a source has all of it is then a question of its header
/// ([`crate::weights::check_all`]).
#[derive(Clone)]
pub struct Parameters {
    weights: Weights,
    dry: Option<Dry>,
    holds: Holds,
}

/// In which number type weights of products are held.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holds {
    /// In the view's own.
    AsAsked,
    /// On the CPU in their file's, where that is narrower: a half or a quarter of the memory, and widened exactly. Quantised ones
    /// and those of 8 bits on every device.
    AsStored,
}

#[derive(Clone)]
struct Dry {
    ledger: Ledger,
    asked: Arc<Mutex<Vec<Expected>>>,
    layers: Arc<Mutex<Vec<Layer>>>,
    /// What of [`Dry::asked`] was read whole.
    read: Arc<Mutex<Vec<Expected>>>,
}

impl Parameters {
    /// Weights, in the number type and on the device they say.
    pub fn real(weights: &Weights) -> Self {
        Self { weights: weights.clone(), dry: None, holds: Holds::AsAsked }
    }

    /// What these weights would take.
    pub fn dry(weights: &Weights, ledger: &Ledger) -> Self {
        let dry = Dry { ledger: ledger.clone(), asked: Arc::default(), layers: Arc::default(), read: Arc::default() };
        Self { weights: weights.clone(), dry: Some(dry), holds: Holds::AsAsked }
    }

    /// What weights in this number type would take, whatever file they come from.
    pub fn of_configuration(dtype: DType, ledger: &Ledger) -> Self {
        Self::dry(&Weights::absent(dtype), ledger)
    }

    /// A dry view through which `load` has asked for all it asks for.
    ///
    /// # Errors
    /// What `load` fails with.
    pub fn of_load<T>(load: impl FnOnce(&Self) -> Result<T>) -> Result<Self> {
        let parameters = Self::of_configuration(DType::BF16, &Ledger::new(DeviceKind::Cpu));
        load(&parameters)?;
        Ok(parameters)
    }

    /// Nothing, on the CPU: for tests of what takes parameters and reads none.
    #[cfg(test)]
    pub(crate) fn of_nothing(dtype: DType) -> Self {
        Self::real(&Weights::absent(dtype))
    }

    /// The same view, whose products' weights the CPU holds as their file does, where that is narrower.
    #[must_use]
    pub fn held_as_stored(self) -> Self {
        Self { holds: Holds::AsStored, ..self }
    }

    /// The view one name segment further down.
    #[must_use]
    pub fn pp(&self, segment: impl Display) -> Self {
        Self { weights: self.weights.pp(segment), ..self.clone() }
    }

    /// The same view with tensors of another number type.
    #[must_use]
    pub fn with_dtype(&self, dtype: DType) -> Self {
        Self { weights: self.weights.with_dtype(dtype), ..self.clone() }
    }

    /// The same view whose tensors travel to the device while it computes, where the device can do that.
    ///
    /// # Errors
    /// When the device fails.
    pub fn beside_computation(&self) -> Result<Self> {
        let weights = if self.dry.is_some() { self.weights.clone() } else { self.weights.beside_computation()? };
        Ok(Self { weights, ..self.clone() })
    }

    /// The ledger of a dry pass.
    pub(super) fn ledger(&self) -> Option<&Ledger> {
        self.dry.as_ref().map(|dry| &dry.ledger)
    }

    /// The ring that tensors travel through, where they travel beside computation.
    pub(super) fn ring(&self) -> Option<&Ring> {
        self.weights.ring()
    }

    /// The number type tensors arrive in.
    pub fn dtype(&self) -> DType {
        self.weights.dtype()
    }

    /// Where arrays are made.
    pub fn place(&self) -> Place {
        match &self.dry {
            Some(dry) => Place::Dry(dry.ledger.clone()),
            None => Place::Real(self.weights.device().clone()),
        }
    }

    /// The tensor `name` below this prefix, of exactly this shape.
    ///
    /// # Errors
    /// [`Error::Model`](crate::Error::Model) when it is missing, has another shape, or cannot be read; never in a dry pass.
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<Array> {
        let Some(dry) = &self.dry else {
            return Ok(self.weights.get(name, shape)?.into());
        };
        dry.note(&self.weights, name, shape);
        dry.note_read(&self.weights, name, shape);
        Ok(array::dry(&dry.ledger, shape, self.dtype()))
    }

    /// The linear layer `{name}.weight` [outputs, inputs] with `{name}.bias` \[outputs\], and what LoRA files add to it.
    ///
    /// # Errors
    /// As [`Parameters::get`].
    pub fn linear(&self, name: &str, inputs: usize, outputs: usize, compute: Compute) -> Result<Linear> {
        self.pp(name).layer([outputs, inputs], true, compute)
    }

    /// The linear layer `{name}.weight` [outputs, inputs] without bias.
    ///
    /// # Errors
    /// As [`Parameters::get`].
    pub fn linear_no_bias(&self, name: &str, inputs: usize, outputs: usize, compute: Compute) -> Result<Linear> {
        self.pp(name).layer([outputs, inputs], false, compute)
    }

    /// The layer this view stands at.
    fn layer(&self, [outputs, inputs]: [usize; 2], has_bias: bool, compute: Compute) -> Result<Linear> {
        if let Some(dry) = &self.dry {
            let (name, kind) = (self.weights.prefix().to_owned(), LayerKind::Linear);
            dry.note_layer(Layer { name, kind, outputs, inputs, has_bias });
        }
        let weight = self.form(inputs, outputs)?;
        let bias = self.bias(outputs, has_bias, compute)?;
        self.adapted(Linear::new(weight, bias, compute)?)
    }

    fn form(&self, inputs: usize, outputs: usize) -> Result<Form> {
        if let Some(kind) = self.quantised() {
            return Ok(Form::Quantised { blocks: self.blocks(kind, [outputs, inputs])?, inputs: (0, inputs) });
        }
        let held = self.held();
        let weight = self.with_dtype(held).get("weight", &[outputs, inputs])?;
        let Some(kind) = self.weights.float8("weight").filter(|_| held == DType::U8) else {
            return Ok(Form::Dense(weight));
        };
        Ok(Form::Scaled { codes: weight, kind, scale: self.scale()? })
    }

    /// What the codes of the weight are multiplied by: one number \[1\], or one of each row [rows, 1].
    fn scale(&self) -> Result<Array> {
        let count = self.weights.scale_count("weight").max(1);
        let shape: &[usize] = if count == 1 { &[1] } else { &[count, 1] };
        if let Some(dry) = &self.dry {
            return Ok(array::dry(&dry.ledger, shape, DType::F32));
        }
        let scales = Some(self.weights.scales("weight")?).filter(|scales| !scales.is_empty()).unwrap_or(vec![1.0]);
        Ok(self.weights.send(&Tensor::from_vec(scales, shape, &Device::Cpu)?)?.into())
    }

    /// The kind of blocks that the weight of a product is held in, where it is.
    fn quantised(&self) -> Option<BlockType> {
        let kind = self.weights.blocks("weight").filter(|_| self.holds == Holds::AsStored)?;
        quantised::is_on(self.place().kind(), kind).then_some(kind)
    }

    /// The weight [rows, columns] in its blocks.
    fn blocks(&self, kind: BlockType, shape: [usize; 2]) -> Result<Quantised> {
        match &self.dry {
            None => {
                let (bytes, place) = (self.weights.get_blocks("weight", shape)?, self.place());
                let bytes = if holds_bytes(place.kind()) { self.weights.send(&bytes)? } else { bytes };
                Quantised::new(kind, &bytes, &place)
            }
            Some(dry) => {
                dry.note(&self.weights, "weight", &shape);
                Quantised::dry(kind, shape[0], shape[1], &self.place())
            }
        }
    }

    fn bias(&self, outputs: usize, is_there: bool, compute: Compute) -> Result<Option<Array>> {
        // Converted as it is read: a kernel launched here would stand in the way of one that computes.
        let added: Vec<_> = self.weights.adapters().iter().filter_map(|adapter| adapter.bias.as_ref()).collect();
        if added.is_empty() || self.dry.is_some() {
            let bias = || self.with_dtype(compute.dtype).get("bias", &[outputs]);
            let more = || self.place().zeros(&[outputs], compute.dtype);
            return if is_there { bias().map(Some) } else { (!added.is_empty()).then(more).transpose() };
        }
        let own = is_there.then_some(|| self.weights.on_cpu("bias", &[outputs], DType::F32));
        let sum = lora::bias(self.weights.adapters(), outputs, own)?;
        Ok(Some(self.weights.send(&sum.to_dtype(compute.dtype)?)?.into()))
    }

    /// The layer with what LoRA files add to it.
    fn adapted(&self, mut layer: Linear) -> Result<Linear> {
        let adapters = self.weights.adapters();
        for change in adapters.iter().filter_map(|adapter| adapter.change.as_ref()) {
            let adapter: Adapter = match change {
                Change::LowRank { down, up } => {
                    LowRank { down: self.piece(down)?, up: self.piece(up)?, strength: 1.0 }.into()
                }
                Change::Kronecker { first, second, rows } => {
                    let (first, second) = (self.piece(first)?, self.piece(second)?);
                    let inputs = 0..first.dim(1) * second.dim(1);
                    Adapter::Kronecker(Kronecker { first, second, rows: rows.clone(), inputs })
                }
                Change::Dense { weight, strength } => {
                    Adapter::Dense(Dense { weight: self.piece(weight)?, strength: *strength })
                }
            };
            layer = layer.with_adapter(adapter)?;
        }
        if self.dry.is_some() {
            let gain = adapters.iter().find_map(|adapter| adapter.gain.as_ref());
            return match gain {
                Some(gain) => Ok(layer.with_gain(self.piece(gain)?)),
                None => Ok(layer),
            };
        }
        match lora::gain(adapters)? {
            Some(gain) => Ok(layer.with_gain(self.weights.send(&gain)?.into())),
            None => Ok(layer),
        }
    }

    /// An array that is made beside the weights, where they arrive.
    fn piece(&self, piece: &Piece) -> Result<Array> {
        match &self.dry {
            Some(dry) => Ok(array::dry(&dry.ledger, &piece.shape, piece.dtype)),
            None => Ok(self.weights.send(&piece.make()?)?.into()),
        }
    }

    /// Whether LoRA files change layers, so that blocks of one kind may hold different amounts.
    pub(super) fn is_adapted(&self) -> bool {
        self.weights.is_adapted()
    }

    /// The number type that the weight of a product is held in.
    fn held(&self) -> DType {
        let is_stored = self.holds == Holds::AsStored;
        if is_stored && self.weights.float8("weight").is_some() {
            return DType::U8;
        }
        let stored = self.weights.file_dtype("weight").filter(|_| is_stored && self.place().is_cpu());
        match (stored, self.dtype()) {
            (Some(stored @ (DType::BF16 | DType::F16)), DType::F32) => stored,
            (_, asked) => asked,
        }
    }

    /// Row `row` of the tensor `name`, which as a whole has this shape, as [1, columns].
    ///
    /// # Errors
    /// As [`Parameters::get`].
    pub(super) fn row(&self, name: &str, shape: [usize; 2], row: usize) -> Result<Array> {
        match &self.dry {
            None => Ok(self.weights.get_rows(name, &shape, row..row + 1)?.into()),
            Some(dry) => Ok(array::dry(&dry.ledger, &[1, shape[1]], self.dtype())),
        }
    }

    /// Notes that the tensor `name` is used, where it is not read as a whole.
    pub(super) fn note(&self, name: &str, shape: &[usize]) {
        if let Some(dry) = &self.dry {
            dry.note(&self.weights, name, shape);
        }
    }

    /// Says that nothing below this prefix will be loaded soon.
    pub fn release(&self) {
        if self.dry.is_none() {
            self.weights.release();
        }
    }

    /// The layers that were asked for in a dry pass, each once: linear ones in their order, then all else that is read whole.
    pub fn layers(&self) -> Vec<Layer> {
        let Some(dry) = &self.dry else { return Vec::new() };
        let mut layers = dry.layers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut seen = HashSet::new();
        layers.retain(|layer| seen.insert(layer.name.clone()));
        let read = dry.read.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let names: HashSet<&str> = read.iter().map(|(name, _)| name.as_str()).collect();
        for (name, shape) in &read {
            let (layer, kind) = match name.rsplit_once('.') {
                Some((_, "bias")) => continue,
                Some((layer, "weight")) => (layer, LayerKind::Plain),
                _ => (name.as_str(), LayerKind::Bare),
            };
            if seen.insert(layer.to_owned()) {
                let (outputs, inputs) = (shape.first().copied().unwrap_or(1), shape.iter().skip(1).product());
                let has_bias = names.contains(format!("{layer}.bias").as_str());
                layers.push(Layer { name: layer.to_owned(), kind, outputs, inputs, has_bias });
            }
        }
        layers
    }

    /// Full names and shapes of all that was asked for in a dry pass, in order, each once.
    pub fn asked(&self) -> Vec<Expected> {
        let Some(dry) = &self.dry else { return Vec::new() };
        let mut asked = dry.asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut seen = HashSet::new();
        asked.retain(|(name, _)| seen.insert(name.clone()));
        asked
    }
}

impl Dry {
    fn note_layer(&self, layer: Layer) {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner).push(layer);
    }

    fn note_read(&self, weights: &Weights, name: &str, shape: &[usize]) {
        let read = (weights.full_name(name), shape.to_vec());
        self.read.lock().unwrap_or_else(PoisonError::into_inner).push(read);
    }

    fn note(&self, weights: &Weights, name: &str, shape: &[usize]) {
        let asked = (weights.full_name(name), shape.to_vec());
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
    }
}
