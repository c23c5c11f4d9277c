//! What everybody else knows of a model: the traits of one that is open, and of what it loads.

use std::{any::Any, cell::RefCell, fmt, rc::Rc, sync::Arc};

use candle_core::{DType, Device, Tensor};

use super::{
    Contents, Facts, FirstBlock, ForwardCost, ForwardOptions, Identity, NetworkBytes, StepShape,
    parts::kl::{Banding, Posterior, RowSink, RowSource, Ways},
};
use crate::{
    base::{
        device::DeviceKind,
        geometry::{LatentGeometry, LatentSize, TokenGrid},
        progress::Observer,
    },
    error::{Error, Result},
    methods::TextBias,
    nn::{CodeProducts, Compute, PositionIds, RopeTables, WeightsMode},
    weights::{TensorSource, lora::Network},
};

/// Where and in which numbers a model computes.
#[derive(Debug, Clone)]
pub struct On {
    /// The device.
    pub device: Device,
    /// The number type.
    pub dtype: DType,
    /// Which products are of codes.
    pub products: CodeProducts,
}

impl On {
    /// As usual: no products are of codes.
    pub const fn new(device: Device, dtype: DType) -> Self {
        Self { device, dtype, products: CodeProducts::NONE }
    }

    /// What a transformer computes in.
    pub fn compute(&self) -> Compute {
        let kind = DeviceKind::of(&self.device);
        Compute::on(kind, self.dtype).with_codes(kind, self.products)
    }
}

/// A model, open: configs read and checked, no weight loaded.
pub trait Model: Send + Sync {
    /// Which model it is.
    fn identity(&self) -> &Identity;

    /// What it says about itself.
    fn facts(&self) -> &Facts;

    /// What its parts hold, read from their files.
    ///
    /// # Errors
    /// [`Error::Disk`] and [`Error::Model`] when a file cannot be read, or is not here yet.
    fn contents(&self) -> Result<Contents>;

    /// What to tell of how it was opened.
    fn remarks(&self) -> Vec<String> {
        Vec::new()
    }

    /// The networks whose layers LoRA files may change, with every name these may call them by; none where the family takes no
    /// LoRA.
    ///
    /// # Errors
    /// [`Error::Model`] when a configuration makes no sense.
    fn networks(&self) -> Result<Vec<Network>> {
        Ok(Vec::new())
    }

    /// The same model, whose networks' tensors come from these sources, in the order of [`Model::networks`].
    ///
    /// # Errors
    /// [`Error::Model`] when they are not as many.
    fn with_sources(&self, _sources: Vec<Arc<dyn TensorSource>>) -> Result<Box<dyn Model>> {
        Err(Error::model("LoRA files cannot change this kind of model", "leave --lora away"))
    }

    /// Its text encoders and tokenizers, opened and checked; no weight is loaded yet.
    ///
    /// # Errors
    /// [`Error::Model`] when a config or tokenizer is broken.
    fn text(&self, on: &On) -> Result<Box<dyn TextEncoders + '_>>;

    /// Where the tokens of a picture and its text stand.
    fn positions(&self, grid: TokenGrid, text: &Conditioning) -> PositionIds;

    /// Decides what kernels of the device may be trusted with, and tells of it: done before plans are made, which follow
    /// what is decided.
    fn settle(&self, _on: &On, _observer: &dyn Observer) {}

    /// Loads the transformer, or what is not streamed of it.
    ///
    /// # Errors
    /// What reading weights may fail with.
    fn velocity(&self, on: &On, weights: WeightsMode, pieces: ForwardOptions) -> Result<Box<dyn Velocity>>;

    /// Whether its blocks can be left out behind the first ([`FirstBlock`]).
    fn leaves_blocks_out(&self) -> bool {
        false
    }

    /// Whether files of latents hold them as [1, C, h, w], as this family's reference holds them in its loop, instead of packed.
    fn saves_unpacked(&self) -> bool {
        false
    }

    /// Its decoder.
    fn decoder(&self) -> &dyn Decode;

    /// Its encoder, where its files hold one.
    fn encoder(&self) -> Option<&dyn Encode> {
        None
    }

    /// What the files hold of each network's weights, the most telling one first.
    ///
    /// # Errors
    /// [`Error::Model`] when a configuration makes no sense.
    fn weights_bytes(&self) -> Result<Vec<NetworkBytes>>;

    /// The most bytes held at once while so many prompts of so many tokens are encoded, by a dry pass.
    ///
    /// # Errors
    /// [`Error::Model`] when a configuration makes no sense.
    fn text_bytes(&self, on: (DeviceKind, DType), prompts: usize, text_tokens: usize) -> Result<u64>;

    /// Bytes of what one prompt of so many tokens becomes.
    fn conditioning_bytes(&self, text_tokens: usize) -> u64;

    /// What a step takes in these pieces, by a dry pass.
    ///
    /// # Errors
    /// [`Error::Model`] when a configuration makes no sense.
    fn step_cost(
        &self,
        on: (DeviceKind, DType),
        weights: WeightsMode,
        step: StepShape,
        pieces: ForwardOptions,
    ) -> Result<ForwardCost>;

    /// The largest pieces whose step stays within a budget, and whose elements the device can count; and what it takes in them.
    ///
    /// # Errors
    /// [`Error::Memory`] when even the smallest pieces do not fit.
    fn step_within(
        &self,
        on: (DeviceKind, DType),
        weights: WeightsMode,
        step: StepShape,
        budget_bytes: u64,
    ) -> Result<(ForwardOptions, ForwardCost)> {
        let first = ForwardOptions::first(on.0, Compute::on(on.0, on.1).dtype);
        first.within(budget_bytes, |pieces| self.step_cost(on, weights, step, pieces))
    }
}

/// Prompts to what the transformer is told of them.
pub trait TextEncoders {
    /// Encodes several prompts in one pass over the weights, with at most `text_tokens` tokens each. The weights come and go
    /// here.
    ///
    /// # Errors
    /// What reading weights and computing may fail with; [`Error::Request`] for a number of tokens the model cannot read.
    fn encode(&self, prompts: &[&str], text_tokens: usize, observer: &dyn Observer) -> Result<Vec<Conditioning>>;
}

/// What a transformer is told of one prompt. Nobody but its family looks in.
#[derive(Clone)]
pub struct Conditioning {
    inner: Arc<dyn Any + Send + Sync>,
    text_tokens: usize,
}

impl Conditioning {
    /// Of `text_tokens` tokens in the transformer's sequence.
    pub fn new(inner: impl Any + Send + Sync, text_tokens: usize) -> Self {
        Self { inner: Arc::new(inner), text_tokens }
    }

    /// Tokens of text in the transformer's sequence.
    pub fn text_tokens(&self) -> usize {
        self.text_tokens
    }

    /// What the family put in.
    ///
    /// # Errors
    /// [`Error::Model`] when another family did: a bug of the caller.
    pub fn get<T: Any>(&self) -> Result<&T> {
        let other = || Error::model("this prompt was encoded by another kind of model", "please report this");
        self.inner.downcast_ref().ok_or_else(other)
    }
}

impl fmt::Debug for Conditioning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Conditioning({} tokens)", self.text_tokens)
    }
}

/// The moment and the wishes a velocity is asked for with.
#[derive(Debug, Clone, Copy)]
pub struct VelocityAt<'a> {
    /// The current sigma, in (0, 1].
    pub t: f64,
    /// The guidance scale, where the model takes one.
    pub guidance: Option<f64>,
    /// What the prompt became.
    pub text: &'a Conditioning,
    /// How the tokens of [`Model::positions`] are turned at this moment.
    pub rope: &'a RopeTables,
    /// What is added to the logits of the text's keys, where the method asks for it.
    pub text_bias: Option<TextBias>,
    /// What the logits of attention are multiplied by; 1 as the model was trained.
    pub logit_scale: f64,
    /// What may leave blocks out, of a model whose blocks can be ([`Model::leaves_blocks_out`]).
    pub first_block: Option<&'a Rc<RefCell<FirstBlock>>>,
}

/// A loaded transformer.
pub trait Velocity {
    /// Sets the sizes of the pieces it computes in; they change memory and speed, not the result.
    fn set_pieces(&mut self, pieces: ForwardOptions);

    /// The weights [C·P·P] that make one number of a token, for methods that look at the latents' spectrum: the mean of the
    /// token embedder's weight over its outputs, computed on `device`, where the transformer is. The bias is left out: it is the
    /// same for all tokens.
    ///
    /// # Errors
    /// When the device fails.
    fn token_reading(&self, device: &Device) -> Result<Vec<f64>>;

    /// The velocity at packed latents [1, N, C·P·P] f32, of the same shape.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    fn velocity(&self, latents: &Tensor, at: &VelocityAt<'_>) -> Result<Tensor>;
}

/// Latents to pixels.
pub trait Decode: Send + Sync {
    /// What diffusers calls autoencoders with these latents, where that tells them from others: files of latents say it.
    fn class(&self) -> Option<&'static str> {
        None
    }

    /// How pixels become latents and tokens.
    fn geometry(&self) -> LatentGeometry;

    /// Every way of decoding latents of this size, on a kind of device in a number type, that is worth trying.
    ///
    /// # Errors
    /// [`Error::Model`] when the configuration is not one of a decoder.
    fn ways(&self, on: (DeviceKind, DType), size: LatentSize) -> Result<Ways>;

    /// Decodes latents [1, C, h, w], as the loop leaves them, on their device; `sink` gets the rows of the picture. The
    /// weights come and go here.
    ///
    /// # Errors
    /// [`Error::Numeric`] when a pixel is not finite; what reading weights, computing and `sink` may fail with.
    fn decode(
        &self,
        latents: &Tensor,
        options: &Banding,
        dtype: DType,
        observer: &dyn Observer,
        sink: &mut RowSink<'_>,
    ) -> Result<()>;
}

/// Pixels to latents.
pub trait Encode: Send + Sync {
    /// How pixels become latents and tokens.
    fn geometry(&self) -> LatentGeometry;

    /// Every way of encoding to latents of this size, on a kind of device in a number type, that is worth trying.
    ///
    /// # Errors
    /// [`Error::Model`] when the configuration is not one of an encoder.
    fn ways(&self, on: (DeviceKind, DType), size: LatentSize) -> Result<Ways>;

    /// Whether image to image starts from a sample of the encoder's distribution, as this family's reference does it, made
    /// with the first draw of the seed; else from its mean.
    fn samples(&self) -> bool {
        true
    }

    /// Encodes a picture to latents [1, C, h, w] of this size, as the loop takes them: the mean of what the encoder says or a
    /// sample, in f32, where it was computed. `picture` gives its rows. The weights come and go here.
    ///
    /// # Errors
    /// [`Error::Numeric`] when a latent is not finite; what reading weights, computing and `picture` may fail with.
    fn encode(
        &self,
        to: (Posterior<'_>, LatentSize),
        picture: &mut RowSource<'_>,
        options: &Banding,
        on: &On,
        observer: &dyn Observer,
    ) -> Result<Tensor>;
}
