//! What everybody else knows of a model: the traits a family implements, and the data it gives.

use std::{any::Any, cell::RefCell, fmt, path::Path, rc::Rc, sync::Arc};

use candle_core::{DType, Device, Tensor};
use serde::Serialize;
use serde_json::Value;

use super::{
    Contents, Exchange, FirstBlock, ForwardCost, ForwardOptions, Found, Identity, NetworkBytes, PartSpec, Published,
    RgbFactors, SchedulerConfig,
    parts::{
        Piece,
        kl::{Banding, Posterior, RowSink, RowSource, Ways},
    },
};
use crate::{
    base::{
        device::DeviceKind,
        geometry::{LatentGeometry, LatentSize, TokenGrid},
        progress::Observer,
    },
    error::{Error, Result},
    methods::TextBias,
    nn::{PositionAxis, PositionIds, RopeTables, WeightsMode},
    recipe::ModelFacts,
    weights::{Expected, TensorSource, lora::Network},
};

/// What one text encoder reads of a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reading {
    /// Which encoder.
    pub encoder: &'static str,
    /// Tokens it takes, padding included.
    pub length: usize,
    /// The tokens, without padding.
    pub tokens: Vec<Piece>,
    /// How many of padding follow.
    pub padding: usize,
    /// The words at the end of the prompt that it does not read; null where it reads all.
    pub cut: Option<String>,
}

/// A family of models. A new one is a folder that implements this, and one line in [`super::BUILT_IN`].
pub trait Family: Sync {
    /// What each of a model's text encoders reads of a prompt: the one whose length can be asked for in `asked` tokens, else in
    /// `usual` or what its tokenizer reads at most. Only the tokenizers need be there.
    ///
    /// # Errors
    /// [`crate::Error::Model`] when a tokenizer is broken, or this family's cannot be seen; [`crate::Error::Request`] for a
    /// length out of range.
    fn tokens(&self, _found: &Found, _prompt: &str, _asked: Option<usize>, _usual: usize) -> Result<Vec<Reading>> {
        Err(Error::model(format!("the tokens of {} models cannot be shown", self.name()), ""))
    }

    /// What it is called, such as "FLUX.1".
    fn name(&self) -> &'static str;

    /// Models to name in advice.
    fn examples(&self) -> Examples;

    /// How sure it is that a model is one of its own, by what the model's files hold, never by what they are called;
    /// `None` when it is not.
    fn recognise(&self, seen: &Seen) -> Option<Confidence>;

    /// The parts its models have: finding, fetching and the flags of the command line follow from them.
    fn parts(&self) -> &'static [PartSpec];

    /// What a model says about itself, as far as its transformer and scheduler tell; the other parts need not be there.
    ///
    /// # Errors
    /// [`Error::Model`] when a config makes no sense; [`Error::Disk`] when a file cannot be read.
    fn facts(&self, found: &Found) -> Result<Facts>;

    /// The facts of the family's usual model, for whoever names none.
    fn usual(&self) -> Facts;

    /// Opens a model and checks that its parts fit each other. Reads configs and headers only.
    ///
    /// # Errors
    /// [`Error::Model`] when something is missing, damaged or does not fit; [`Error::Disk`] when a file cannot be read.
    fn open(&self, found: Found) -> Result<Box<dyn Model>>;

    /// Names and shapes of the tensors that one of its networks is read from, in diffusers layout, by its config alone, which was
    /// read at `path`: what a plan needs to know of weights that are nowhere yet.
    ///
    /// # Errors
    /// [`Error::Model`] when the config makes no sense, or the family has no such network.
    fn tensors(&self, part: &str, _config: &Value, _path: &Path) -> Result<Vec<Expected>> {
        Err(Error::model(format!("what {part} of a {} model holds is not known without its weights", self.name()), ""))
    }

    /// What its authors published.
    fn published(&self) -> &'static [Published] {
        &[]
    }

    /// How files of other programs hold a part of a model, for who writes such a file. The other parts need not be there.
    ///
    /// # Errors
    /// As [`Family::open`]; [`Error::Request`] for a part that is not written.
    fn exchange(&self, _found: &Found, part: &str) -> Result<Exchange> {
        Err(Error::request(format!("the {part} of {} models is not converted", self.name()), "give another part"))
    }

    /// Opens the autoencoder alone.
    ///
    /// # Errors
    /// As [`Family::open`].
    fn autoencoder(&self, found: &Found) -> Result<Box<dyn Decode>>;
}

/// Models of a family to name in advice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Examples {
    /// A single file.
    pub file: &'static str,
    /// A model of the Hub.
    pub hub: &'static str,
}

/// How sure a family is that a model is one of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Confidence {
    /// Nothing says otherwise.
    Possible,
    /// Something in the model says so.
    Certain,
}

/// What is seen of a model before it is known which family's it is.
#[derive(Default)]
pub struct Seen {
    /// The class that `model_index.json` names.
    pub pipeline: Option<String>,
    /// The transformer's `config.json`.
    pub config: Option<Value>,
    /// The tensors of a single file.
    pub tensors: Option<Arc<dyn TensorSource>>,
}

impl Seen {
    /// The class that the transformer's config names.
    pub fn class(&self) -> Option<&str> {
        self.config.as_ref()?.get("_class_name")?.as_str()
    }
}

/// What a model says about itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// How its pixels become latents and tokens.
    pub latents: LatentGeometry,
    /// The axes of its rotary embedding.
    pub axes: Vec<PositionAxis>,
    /// What fills the gaps of a recipe: training resolution, guidance, text tokens.
    pub recipe: ModelFacts,
    /// Its schedule.
    pub scheduler: SchedulerConfig,
    /// What its latents look like, for previews.
    pub latent_rgb: RgbFactors,
}

impl Facts {
    /// L: patches a side at a training resolution, in pixels.
    pub fn patches(&self, base_resolution_px: usize) -> usize {
        base_resolution_px / self.latents.px_per_token()
    }
}

/// Where and in which numbers a model computes.
#[derive(Debug, Clone)]
pub struct On {
    /// The device.
    pub device: Device,
    /// The number type.
    pub dtype: DType,
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
    ///
    /// # Errors
    /// When the device fails.
    fn settle(&self, _on: &On, _observer: &dyn Observer) -> Result<()> {
        Ok(())
    }

    /// Loads the transformer, or what is not streamed of it.
    ///
    /// # Errors
    /// What reading weights may fail with.
    fn velocity(&self, on: &On, weights: WeightsMode, pieces: ForwardOptions) -> Result<Box<dyn Velocity>>;

    /// C: width of the tokens between its blocks, where these can be left out behind the first ([`FirstBlock`]); `None` where
    /// they cannot.
    fn first_block_channels(&self) -> Option<usize> {
        None
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

    /// What a step takes in these pieces, by a dry pass; `tokens` are those of the picture and of the text.
    ///
    /// # Errors
    /// [`Error::Model`] when a configuration makes no sense.
    fn step_cost(
        &self,
        on: (DeviceKind, DType),
        weights: WeightsMode,
        tokens: [usize; 2],
        pieces: ForwardOptions,
    ) -> Result<ForwardCost>;

    /// The largest pieces whose step stays within a budget, and what it takes in them.
    ///
    /// # Errors
    /// [`Error::Memory`] when even the smallest pieces do not fit.
    fn step_within(
        &self,
        on: (DeviceKind, DType),
        weights: WeightsMode,
        tokens: [usize; 2],
        budget_bytes: u64,
    ) -> Result<(ForwardOptions, ForwardCost)>;
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
    /// What may leave blocks out, of a model with [`Model::first_block_channels`].
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
