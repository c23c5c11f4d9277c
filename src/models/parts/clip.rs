//! The CLIP text encoder (Radford et al. 2021, arXiv 2103.00020): a causal transformer whose hidden state at the
//! end-of-text token is the pooled embedding of the prompt.
//!
//! Each layer is `x += out(attention(norm1(x)))`, `x += fc2(act(fc1(norm2(x))))`; the residual stream stays f32.

use std::path::Path;

use candle_core::{DType, Tensor};
use serde::Deserialize;

use super::{
    config::{self, Config, Key, computed, idle, one_of},
    layers::{PRETRAINED, TILES, check_epsilon},
    open,
};
use crate::{
    error::{Error, Result},
    nn::{self, Array, Attention, Bias, Blocks, Compute, LayerNorm, Ledger, Linear, Parameters, Place, embedding_rows},
    weights::{Expected, Weights, lora::Layer},
};

/// Dimensions of a CLIP text encoder, as `text_encoder/config.json` gives them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ClipConfig {
    /// Rows of the token embedding; 49408.
    pub vocab_size: usize,
    /// C: width of the encoder and of the pooled embedding; 768.
    pub hidden_size: usize,
    /// Width of the feed-forward part; 3072.
    pub intermediate_size: usize,
    /// Layers; 12.
    pub num_hidden_layers: usize,
    /// H: attention heads; 12.
    pub num_attention_heads: usize,
    /// Rows of the position embedding, the most tokens a prompt can have; 77.
    pub max_position_embeddings: usize,
    /// The activation.
    pub hidden_act: ClipActivation,
    /// Epsilon of the layer norms; 1e-5.
    pub layer_norm_eps: f64,
    /// Where to pool: the first token with this id; 2 means "the token with the highest id", see [`ClipEncoder`].
    pub eos_token_id: u32,
}

/// Activations of CLIP's feed-forward part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClipActivation {
    /// `x · sigmoid(1.702 x)` (openai/CLIP, `QuickGELU`).
    QuickGelu,
    /// The exact GELU, `x · Φ(x)`.
    Gelu,
}

/// The value of `eos_token_id` in configs that were written with a wrong one (transformers, pull request 24773).
const LEGACY_EOS: u32 = 2;

/// Source: transformers, `CLIPTextConfig`.
const KEYS: &[Key] = &[
    computed("vocab_size", "49408"),
    computed("hidden_size", "512"),
    computed("intermediate_size", "2048"),
    // Of the projection that FLUX's encoder does not have.
    idle("projection_dim", "512"),
    computed("num_hidden_layers", "12"),
    computed("num_attention_heads", "8"),
    computed("max_position_embeddings", "77"),
    one_of("hidden_act", r#""quick_gelu""#, &[r#""quick_gelu""#, r#""gelu""#]),
    computed("layer_norm_eps", "1e-5"),
    // Training.
    idle("attention_dropout", "0.0"),
    idle("initializer_range", "0.02"),
    idle("initializer_factor", "1.0"),
    // The tokenizer's own files say these.
    idle("pad_token_id", "1"),
    idle("bos_token_id", "49406"),
    computed("eos_token_id", "49407"),
];

impl ClipConfig {
    /// CLIP ViT-L/14, the pooled encoder of every FLUX.1.
    pub fn clip_l() -> Self {
        Self {
            vocab_size: 49_408,
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            max_position_embeddings: 77,
            hidden_act: ClipActivation::QuickGelu,
            layer_norm_eps: 1e-5,
            eos_token_id: LEGACY_EOS,
        }
    }

    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`Error::Disk`] when it cannot be read, [`Error::Model`] when it is not JSON, says what is not computed, or holds
    /// impossible dimensions.
    pub fn read(path: &Path) -> Result<Self> {
        config::read(path)
    }
}

impl Config for ClipConfig {
    const KEYS: &'static [&'static [Key]] = &[PRETRAINED, KEYS];
    const ADVICE: &'static str =
        "FLUX.1 takes the text encoder of CLIP ViT-L/14; check that this file is its config.json, or fetch it again";

    fn check(&self) -> Result<()> {
        let layers = ("num_hidden_layers", self.num_hidden_layers);
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_attention_heads", self.num_attention_heads),
            ("max_position_embeddings", self.max_position_embeddings),
            layers,
        ];
        open::check_range(&sizes, &[layers], Self::ADVICE)?;
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let (width, heads) = (self.hidden_size, self.num_attention_heads);
            let what = format!("hidden_size {width} is not divisible by num_attention_heads {heads}");
            return Err(Error::model(what, Self::ADVICE));
        }
        check_epsilon("layer_norm_eps", self.layer_norm_eps, Self::ADVICE)
    }
}

/// A CLIP text encoder that holds no weights: they are loaded, used and dropped layer by layer.
///
/// The pooled embedding is the final-layer-normed hidden state at the first position whose id is `eos_token_id`; with
/// the legacy `eos_token_id` 2, at the first position of the highest id (transformers, `CLIPTextTransformer`).
pub struct ClipEncoder {
    config: ClipConfig,
    weights: Weights,
}

impl ClipEncoder {
    /// An encoder on `weights`, whose names start with `text_model.`. Nothing is loaded yet.
    pub fn open(config: ClipConfig, weights: Weights) -> Self {
        let weights = weights.pp("text_model");
        Self { config, weights }
    }

    /// The dimensions.
    pub fn config(&self) -> &ClipConfig {
        &self.config
    }

    /// The pooled embeddings of several prompts, each [1, C] f32, in one pass over the weights.
    ///
    /// `ids` are what [`super::PromptTokenizer`] makes; `on_layer` is told how many layers are done.
    ///
    /// # Errors
    /// [`Error::Model`] when the weights do not fit the config or ids are beyond the embedding tables,
    /// [`Error::Tensor`] when the device fails.
    pub fn encode(&self, ids: &[Vec<u32>], on_layer: impl FnMut(usize)) -> Result<Vec<Tensor>> {
        let parameters = Parameters::real(&self.weights).held_as_stored();
        let pooled = encode(&self.config, &parameters, ids, on_layer)?;
        pooled.iter().map(|pooled| Ok(pooled.real()?.clone())).collect()
    }

    /// What [`ClipEncoder::encode`] would do on such a device, into `ledger`; the embeddings are held while they live.
    ///
    /// # Errors
    /// As there, but for weights.
    pub fn dry(&self, ids: &[Vec<u32>], ledger: &Ledger) -> Result<Vec<Array>> {
        let parameters = Parameters::dry(&self.weights, ledger).held_as_stored();
        encode(&self.config, &parameters, ids, |_| ())
    }
}

/// Names and shapes of all tensors a CLIP text encoder's loader asks for, in its order.
///
/// # Errors
/// [`Error::Model`] when the configuration makes no sense.
pub fn clip_tensors(config: &ClipConfig) -> Result<Vec<Expected>> {
    Ok(loaded_dry(config)?.asked())
}

/// The linear layers of a CLIP text encoder, in the order its loader asks for them.
///
/// # Errors
/// [`Error::Model`] when the configuration makes no sense.
pub(crate) fn clip_layers(config: &ClipConfig) -> Result<Vec<Layer>> {
    Ok(loaded_dry(config)?.layers())
}

fn loaded_dry(config: &ClipConfig) -> Result<Parameters> {
    Parameters::of_load(|parameters| {
        let below = parameters.pp("text_model");
        embed(config, &below, &[vec![0]])?;
        (0..config.num_hidden_layers).try_for_each(|index| ClipLayer::load(config, &below, index).map(drop))?;
        load_final_norm(config, &below)
    })
}

/// The pooled embeddings [1, C] of lists of ids; `parameters` stands at `text_model`.
fn encode(
    config: &ClipConfig,
    parameters: &Parameters,
    ids: &[Vec<u32>],
    mut on_layer: impl FnMut(usize),
) -> Result<Vec<Array>> {
    let place = parameters.place();
    let mut states = embed(config, parameters, ids)?;
    let masks = states.iter().map(|x| causal_mask(x.dim(0), &place)).collect::<Result<Vec<_>>>()?;
    layers(config, parameters).for_each(|index, layer| {
        for (state, mask) in states.iter_mut().zip(&masks) {
            *state = layer.forward(state, mask)?;
        }
        on_layer(index + 1);
        Ok(())
    })?;
    let norm = load_final_norm(config, parameters)?;
    let pool = |(state, ids): (&Array, &Vec<u32>)| {
        let at = pooled_position(ids, config.eos_token_id);
        norm.forward(&state.narrow(0, at, 1)?) // [1, C]
    };
    states.iter().zip(ids).map(pool).collect()
}

/// Token plus position embeddings, [N, C] f32 for each list of ids.
fn embed(config: &ClipConfig, parameters: &Parameters, id_lists: &[Vec<u32>]) -> Result<Vec<Array>> {
    let most = config.max_position_embeddings;
    if let Some(ids) = id_lists.iter().find(|ids| ids.is_empty() || ids.len() > most) {
        let what = format!("{} CLIP tokens, but the text encoder has {most} positions", ids.len());
        return Err(Error::model(what, "check that tokenizer and text encoder come from one model"));
    }
    let embeddings = parameters.pp("embeddings");
    let table = [config.vocab_size, config.hidden_size];
    let tokens = embedding_rows(&embeddings.pp("token_embedding"), table, id_lists)?;
    let positions = embeddings.pp("position_embedding").with_dtype(DType::F32);
    let positions = positions.get("weight", &[most, config.hidden_size])?;
    tokens.iter().map(|x| x.add(&positions.narrow(0, 0, x.dim(0))?)).collect()
}

/// The layers, one after another.
fn layers(config: &ClipConfig, parameters: &Parameters) -> Blocks<ClipLayer> {
    let config = config.clone();
    let kinds = [config.num_hidden_layers];
    Blocks::one_by_one(&kinds, parameters, move |index, parameters| ClipLayer::load(&config, parameters, index))
}

fn load_final_norm(config: &ClipConfig, parameters: &Parameters) -> Result<LayerNorm> {
    LayerNorm::load(&parameters.pp("final_layer_norm"), config.hidden_size, config.layer_norm_eps)
}

/// The position whose hidden state is the pooled embedding.
fn pooled_position(ids: &[u32], eos_token_id: u32) -> usize {
    let wanted = if eos_token_id == LEGACY_EOS { ids.iter().copied().max() } else { Some(eos_token_id) };
    // Without an end token the reference's argmax over "no match anywhere" gives the first position.
    ids.iter().position(|id| Some(*id) == wanted).unwrap_or(0)
}

/// 0 where token i may look at token j <= i, minus infinity elsewhere: [1, N, N] f32, for all heads.
fn causal_mask(tokens: usize, place: &Place) -> Result<Array> {
    let row = |i: usize| (0..tokens).map(move |j| if j <= i { 0.0 } else { f32::NEG_INFINITY });
    place.floats(&[1, tokens, tokens], || (0..tokens).flat_map(row).collect())
}

struct ClipLayer {
    layer_norm1: LayerNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    layer_norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    activation: ClipActivation,
    num_heads: usize,
    dtype: DType,
}

impl ClipLayer {
    fn load(config: &ClipConfig, parameters: &Parameters, index: usize) -> Result<Self> {
        let parameters = parameters.pp("encoder.layers").pp(index);
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let compute = Compute::on(parameters.place().kind(), parameters.dtype());
        let (attn, mlp) = (parameters.pp("self_attn"), parameters.pp("mlp"));
        let norm = |name| LayerNorm::load(&parameters.pp(name), width, config.layer_norm_eps);
        let layer = Self {
            layer_norm1: norm("layer_norm1")?,
            q_proj: attn.linear("q_proj", width, width, compute)?,
            k_proj: attn.linear("k_proj", width, width, compute)?,
            v_proj: attn.linear("v_proj", width, width, compute)?,
            out_proj: attn.linear("out_proj", width, width, compute)?,
            layer_norm2: norm("layer_norm2")?,
            fc1: mlp.linear("fc1", width, inner, compute)?,
            fc2: mlp.linear("fc2", inner, width, compute)?,
            activation: config.hidden_act,
            num_heads: config.num_attention_heads,
            dtype: compute.dtype,
        };
        // What was read is copied: its mapped pages need not stay.
        parameters.release();
        Ok(layer)
    }

    /// x [N, C] f32, mask [1, N, N] f32.
    fn forward(&self, x: &Array, mask: &Array) -> Result<Array> {
        let normed = self.layer_norm1.forward(x)?.to_dtype(self.dtype)?;
        let heads = |linear: &Linear| nn::heads_of(&linear.forward(&normed)?, None, self.num_heads);
        let (q, k, v) = (heads(&self.q_proj)?, heads(&self.k_proj)?, heads(&self.v_proj)?); // [H, N, D]
        let how = Attention { bias: Bias::Scores(mask), ..Attention::plain(TILES) };
        let mixed = nn::attention(&q, &k, &v, &how)?; // [N, H·D]
        let x = x.add(&self.out_proj.forward(&mixed)?.to_dtype(DType::F32)?)?; // [N, C]

        let normed = self.layer_norm2.forward(&x)?.to_dtype(self.dtype)?;
        let hidden = self.activation.apply(&self.fc1.forward(&normed)?)?;
        x.add(&self.fc2.forward(&hidden)?.to_dtype(DType::F32)?) // [N, C]
    }
}

impl ClipActivation {
    fn apply(self, x: &Array) -> Result<Array> {
        match self {
            Self::QuickGelu => x.mul(&x.affine(1.702, 0.0)?.sigmoid()?),
            Self::Gelu => x.gelu_erf(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pooling_follows_the_config() {
        let ids = [7, 9, 3, 9, 9];
        assert_eq!(pooled_position(&ids, LEGACY_EOS), 1, "the first of the highest ids");
        assert_eq!(pooled_position(&ids, 3), 2, "the first end token");
        assert_eq!(pooled_position(&ids, 4), 0, "none: where the reference looks then");
    }
}
