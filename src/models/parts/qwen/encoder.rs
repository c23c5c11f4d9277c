//! The encoder: token ids in, hidden states out, the layers one by one.

use candle_core::{DType, Tensor};

use super::{
    QwenConfig,
    layer::{Pass, QwenLayer},
};
use crate::{
    base::device::DeviceKind,
    error::{Error, Result},
    nn::{Array, Blocks, Ledger, Parameters, Place, RmsNorm, embedding_rows},
    weights::{Expected, Weights, lora::Layer},
};

/// What is read of a language model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HiddenStates {
    /// The residual stream after so many layers, un-normed, each of these beside the other along the features; 0 is the
    /// embeddings. Layers after the last of them are not needed.
    After(Vec<usize>),
    /// What comes out of the last layer and the final norm.
    Last,
}

/// A prompt as the encoder takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// Its tokens, T of them, padding behind them included.
    pub ids: Vec<u32>,
    /// Those that are no padding. A row sees the real tokens at or before it and nothing else: padding does not see itself.
    pub real: usize,
}

impl Sequence {
    /// Without padding.
    pub fn whole(ids: Vec<u32>) -> Self {
        Self { real: ids.len(), ids }
    }

    /// Padded to `length` tokens, where it is shorter.
    pub fn padded(mut ids: Vec<u32>, length: usize, pad: u32) -> Self {
        let real = ids.len();
        ids.resize(length.max(real), pad);
        Self { ids, real }
    }
}

/// A language model that holds no weights: they are loaded, used and dropped layer by layer.
pub struct QwenEncoder {
    config: QwenConfig,
    reads: HiddenStates,
    weights: Weights,
}

impl QwenEncoder {
    /// An encoder on `weights`, of which `reads` is read. Nothing is loaded yet.
    pub fn open(config: QwenConfig, reads: HiddenStates, weights: Weights) -> Self {
        Self { config, reads, weights }
    }

    /// The dimensions.
    pub fn config(&self) -> &QwenConfig {
        &self.config
    }

    /// Layers that are run.
    pub fn layers(&self) -> usize {
        self.reads.layers(&self.config)
    }

    /// The hidden states of several prompts, each [1, T, n·C] f32 for n states that are read, in one pass over the weights.
    ///
    /// `on_layer` is told how many layers are done.
    ///
    /// # Errors
    /// [`Error::Model`] when the weights do not fit the config, or ids are beyond the embedding table; [`Error::Tensor`] when
    /// the device fails.
    pub fn encode(&self, prompts: &[Sequence], on_layer: impl FnMut(usize)) -> Result<Vec<Tensor>> {
        let parameters = Parameters::real(&self.weights).held_as_stored();
        let states = encode(&self.config, &self.reads, &parameters, prompts, on_layer)?;
        states.iter().map(|states| Ok(states.real()?.clone())).collect()
    }

    /// What [`QwenEncoder::encode`] would do on such a device, into `ledger`; the states are held while they live.
    ///
    /// # Errors
    /// As there, but for weights.
    pub fn dry(&self, prompts: &[Sequence], ledger: &Ledger) -> Result<Vec<Array>> {
        let parameters = Parameters::dry(&self.weights, ledger).held_as_stored();
        encode(&self.config, &self.reads, &parameters, prompts, |_| ())
    }

    /// What so many prompts of so many tokens, padding included, would take on such a device.
    ///
    /// # Errors
    /// As [`QwenEncoder::dry`].
    pub fn cost(&self, kind: DeviceKind, prompts: usize, tokens: usize) -> Result<Ledger> {
        let ledger = Ledger::new(kind);
        // No two alike: every row of the table that could be read is.
        let id = |i: usize| u32::try_from(i % self.config.vocab_size.max(1)).unwrap_or(0);
        let prompt = |prompt: usize| Sequence::whole((0..tokens).map(|token| id(prompt * tokens + token)).collect());
        self.dry(&(0..prompts).map(prompt).collect::<Vec<_>>(), &ledger)?;
        Ok(ledger)
    }
}

/// Names and shapes of all tensors an encoder's loader asks for, in its order.
///
/// # Errors
/// [`Error::Model`] when the configuration makes no sense, or has fewer layers than are read.
pub fn qwen_tensors(config: &QwenConfig, reads: &HiddenStates) -> Result<Vec<Expected>> {
    Ok(loaded_dry(config, reads)?.asked())
}

/// The linear layers of an encoder, in the order its loader asks for them.
///
/// # Errors
/// As [`qwen_tensors`].
pub(crate) fn qwen_layers(config: &QwenConfig, reads: &HiddenStates) -> Result<Vec<Layer>> {
    Ok(loaded_dry(config, reads)?.layers())
}

fn loaded_dry(config: &QwenConfig, reads: &HiddenStates) -> Result<Parameters> {
    reads.check(config)?;
    Parameters::of_load(|parameters| {
        embedding_rows(&parameters.pp("model.embed_tokens"), token_table(config), &[vec![0]])?;
        (0..reads.layers(config)).try_for_each(|index| QwenLayer::load(config, parameters, index).map(drop))?;
        reads.norm(config, parameters)
    })
}

impl HiddenStates {
    /// How many layers must run.
    fn layers(&self, config: &QwenConfig) -> usize {
        match self {
            Self::After(counts) => counts.iter().copied().max().unwrap_or(0),
            Self::Last => config.num_hidden_layers,
        }
    }

    fn check(&self, config: &QwenConfig) -> Result<()> {
        let (asked, there) = (self.layers(config), config.num_hidden_layers);
        if asked <= there {
            return Ok(());
        }
        let what = format!("the text encoder has {there} layers, and what it says after {asked} is read");
        Err(Error::model(what, "this text encoder is of another model"))
    }

    /// The final norm, where it is needed.
    fn norm(&self, config: &QwenConfig, parameters: &Parameters) -> Result<Option<RmsNorm>> {
        match self {
            Self::After(_) => Ok(None),
            Self::Last => {
                RmsNorm::load(&parameters.pp("model.norm"), config.hidden_size, config.rms_norm_eps).map(Some)
            }
        }
    }

    /// Where the state after so many layers goes, in the order of what is read.
    fn places(&self, layers: usize) -> impl Iterator<Item = usize> {
        let counts = match self {
            Self::After(counts) => counts.as_slice(),
            Self::Last => &[],
        };
        counts.iter().enumerate().filter(move |(_, count)| **count == layers).map(|(place, _)| place)
    }

    /// The layers in runs that end where a state is read: a dry pass looks at the last of each.
    fn runs(&self, config: &QwenConfig) -> Vec<usize> {
        let mut ends = match self {
            Self::After(counts) => counts.clone(),
            Self::Last => vec![self.layers(config)],
        };
        ends.sort_unstable();
        let starts: Vec<usize> = std::iter::once(0).chain(ends.iter().copied()).collect();
        ends.iter().zip(starts).map(|(end, start)| end - start).collect()
    }

    /// States that are read.
    fn count(&self) -> usize {
        match self {
            Self::After(counts) => counts.len(),
            Self::Last => 1,
        }
    }
}

fn token_table(config: &QwenConfig) -> [usize; 2] {
    [config.vocab_size, config.hidden_size]
}

/// The states [1, T, n·C] of lists of ids.
fn encode(
    config: &QwenConfig,
    reads: &HiddenStates,
    parameters: &Parameters,
    prompts: &[Sequence],
    mut on_layer: impl FnMut(usize),
) -> Result<Vec<Array>> {
    reads.check(config)?;
    let ids: Vec<Vec<u32>> = prompts.iter().map(|prompt| prompt.ids.clone()).collect();
    let mut streams = embedding_rows(&parameters.pp("model.embed_tokens"), token_table(config), &ids)?; // [T, C] each
    let place = parameters.place();
    let passes = prompts.iter().map(|prompt| pass(config, prompt, &place)).collect::<Result<Vec<_>>>()?;
    let channels = config.hidden_size;
    let empty = |prompt: &Sequence| place.zeros(&[prompt.ids.len(), reads.count() * channels], DType::F32);
    let found = prompts.iter().map(empty).collect::<Result<Vec<_>>>()?; // [T, n·C] each
    let keep = |streams: &[Array], layers| -> Result<()> {
        for at in reads.places(layers) {
            found.iter().zip(streams).try_for_each(|(found, stream)| found.slice_set(stream, 1, at * channels))?;
        }
        Ok(())
    };
    keep(&streams, 0)?;
    layers(config, reads, parameters).for_each(|index, layer| {
        for (stream, pass) in streams.iter_mut().zip(&passes) {
            *stream = layer.forward(stream, pass)?;
        }
        on_layer(index + 1);
        keep(&streams, index + 1)
    })?;
    if let Some(norm) = reads.norm(config, parameters)? {
        let normed = |(found, stream): (&Array, &Array)| found.slice_set(&norm.forward(stream)?, 1, 0);
        found.iter().zip(&streams).try_for_each(normed)?;
    }
    found.iter().map(|states| states.unsqueeze(0)).collect() // [1, T, n·C]
}

/// The layers that are needed, one after another.
fn layers(config: &QwenConfig, reads: &HiddenStates, parameters: &Parameters) -> Blocks<QwenLayer> {
    let (kinds, config) = (reads.runs(config), config.clone());
    Blocks::one_by_one(&kinds, parameters, move |index, parameters| QwenLayer::load(&config, parameters, index))
}

/// How the tokens of a prompt are turned: token p by `p·theta^(-2i/D)`, padding too.
fn pass(config: &QwenConfig, prompt: &Sequence, place: &Place) -> Result<Pass> {
    let pairs = config.head_dim() / 2;
    let angles = || {
        let inv_freq = move |pair: usize| config.rope_theta.powf(-(pair as f64) / pairs as f64);
        (0..prompt.ids.len()).flat_map(move |token| (0..pairs).map(move |pair| token as f64 * inv_freq(pair)))
    };
    let table = |of: fn(f64) -> f64| {
        place.floats(&[prompt.ids.len(), pairs], || angles().map(|angle| of(angle) as f32).collect()) // [T, D/2]
    };
    Ok(Pass { cos: table(f64::cos)?, sin: table(f64::sin)?, real: prompt.real })
}
