//! The CLIP text encoder (Radford et al. 2021, arXiv 2103.00020): a causal transformer whose hidden state at the
//! end-of-text token is the pooled embedding of the prompt.
//!
//! Each layer is `x += out(attention(norm1(x)))`, `x += fc2(act(fc1(norm2(x))))`; the residual stream stays f32.

use std::path::Path;

use candle_core::{DType, Tensor};
use candle_nn::{Linear, ops::layer_norm};
use serde::Deserialize;

use super::layers::{attention, check_dimensions, embedding_rows, for_each_block, linear, project};
use crate::{
    base::json::read_json,
    error::{Error, Result},
    weights::Weights,
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
    #[serde(default = "clip_eps")]
    pub layer_norm_eps: f64,
    /// Where to pool: the first token with this id; 2 means "the token with the highest id", see [`ClipEncoder`].
    #[serde(default = "legacy_eos")]
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

/// Source: openai/clip-vit-large-patch14, `layer_norm_eps`.
fn clip_eps() -> f64 {
    1e-5
}

/// Source: transformers before its pull request 24773, the default of every config written until then.
fn legacy_eos() -> u32 {
    LEGACY_EOS
}

/// The value of `eos_token_id` in configs that were written with a wrong one (transformers, pull request 24773).
const LEGACY_EOS: u32 = 2;

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
            layer_norm_eps: clip_eps(),
            eos_token_id: LEGACY_EOS,
        }
    }

    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`Error::Disk`] when it cannot be read, [`Error::Model`] when it is not JSON, lacks a key, names an unknown
    /// activation or holds impossible dimensions.
    pub fn read(path: &Path) -> Result<Self> {
        let config: Self = read_json(path)?;
        let hint = "the file is damaged or not a CLIP text encoder's; delete it and fetch it again";
        config.check().map_err(|what| Error::model(format!("{}: {what}", path.display()), hint))?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        check_dimensions(&[
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("max_position_embeddings", self.max_position_embeddings),
        ])?;
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let (width, heads) = (self.hidden_size, self.num_attention_heads);
            return Err(format!("hidden_size {width} is not divisible by num_attention_heads {heads}"));
        }
        Ok(())
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

    /// Loads every tensor once, without computing, and drops it: a source that answers without reading makes this a
    /// check of all names and shapes.
    ///
    /// # Errors
    /// [`Error::Model`] when a tensor is missing, misshapen or unreadable.
    pub fn check_weights(&self) -> Result<()> {
        let embeddings = self.weights.pp("embeddings");
        embeddings.pp("token_embedding").get("weight", &self.token_table())?;
        embeddings.pp("position_embedding").get("weight", &self.position_table())?;
        for index in 0..self.config.num_hidden_layers {
            self.load_layer(index)?;
        }
        self.load_final_norm().map(drop)
    }

    /// The pooled embeddings of several prompts, each [1, C] f32, in one pass over the weights.
    ///
    /// `ids` are what [`super::PromptTokenizer`] makes; `on_layer` is told how many layers are done.
    ///
    /// # Errors
    /// [`Error::Model`] when the weights do not fit the config or ids are beyond the embedding tables,
    /// [`Error::Tensor`] when the device fails.
    pub fn encode(&self, ids: &[Vec<u32>], mut on_layer: impl FnMut(usize)) -> Result<Vec<Tensor>> {
        let mut states = self.embed(ids)?;
        let masks = states.iter().map(|x| causal_mask(x.dim(0)?, x.device())).collect::<Result<Vec<_>>>()?;
        let run = |index, layer: ClipLayer| {
            for (state, mask) in states.iter_mut().zip(&masks) {
                *state = layer.forward(state, mask)?;
            }
            on_layer(index + 1);
            Ok(())
        };
        let prefetch = self.weights.device().is_cpu();
        for_each_block(self.config.num_hidden_layers, prefetch, |index| self.load_layer(index), run)?;
        let norm = self.load_final_norm()?;
        let pool = |(state, ids): (&Tensor, &Vec<u32>)| {
            let at = pooled_position(ids, self.config.eos_token_id);
            norm.forward(&state.narrow(0, at, 1)?) // [1, C]
        };
        states.iter().zip(ids).map(pool).collect()
    }

    /// Token plus position embeddings, [N, C] f32 for each list of ids.
    fn embed(&self, id_lists: &[Vec<u32>]) -> Result<Vec<Tensor>> {
        let most = self.config.max_position_embeddings;
        if let Some(ids) = id_lists.iter().find(|ids| ids.is_empty() || ids.len() > most) {
            let what = format!("{} CLIP tokens, but the text encoder has {most} positions", ids.len());
            return Err(Error::model(what, "check that tokenizer and text encoder come from one model"));
        }
        let embeddings = self.weights.pp("embeddings");
        let tokens = embedding_rows(&embeddings.pp("token_embedding"), self.token_table(), id_lists)?;
        let positions =
            embeddings.pp("position_embedding").get("weight", &self.position_table())?.to_dtype(DType::F32)?;
        tokens.iter().map(|x| Ok((x + positions.narrow(0, 0, x.dim(0)?)?)?)).collect()
    }

    fn load_layer(&self, index: usize) -> Result<ClipLayer> {
        ClipLayer::load(&self.config, &self.weights.pp("encoder.layers").pp(index))
    }

    fn load_final_norm(&self) -> Result<LayerNorm> {
        LayerNorm::load(&self.config, &self.weights.pp("final_layer_norm"))
    }

    fn token_table(&self) -> [usize; 2] {
        [self.config.vocab_size, self.config.hidden_size]
    }

    fn position_table(&self) -> [usize; 2] {
        [self.config.max_position_embeddings, self.config.hidden_size]
    }
}

/// The position whose hidden state is the pooled embedding.
fn pooled_position(ids: &[u32], eos_token_id: u32) -> usize {
    let wanted = if eos_token_id == LEGACY_EOS { ids.iter().copied().max() } else { Some(eos_token_id) };
    // Without an end token the reference's argmax over "no match anywhere" gives the first position.
    ids.iter().position(|id| Some(*id) == wanted).unwrap_or(0)
}

/// 0 where token i may look at token j <= i, minus infinity elsewhere: [N, N] f32.
fn causal_mask(tokens: usize, device: &candle_core::Device) -> Result<Tensor> {
    let mask: Vec<f32> =
        (0..tokens).flat_map(|i| (0..tokens).map(move |j| if j <= i { 0.0 } else { f32::NEG_INFINITY })).collect();
    Ok(Tensor::from_vec(mask, (tokens, tokens), device)?)
}

/// Layer norm with weight and bias, in f32.
struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f32,
}

impl LayerNorm {
    fn load(config: &ClipConfig, weights: &Weights) -> Result<Self> {
        let weights = weights.with_dtype(DType::F32);
        let shape = [config.hidden_size];
        let (weight, bias) = (weights.get("weight", &shape)?, weights.get("bias", &shape)?);
        Ok(Self { weight, bias, eps: config.layer_norm_eps as f32 })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(layer_norm(&x.contiguous()?, &self.weight, &self.bias, self.eps)?) // [N, C]
    }
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
    /// 1 / sqrt(D).
    scale: f64,
}

impl ClipLayer {
    fn load(config: &ClipConfig, weights: &Weights) -> Result<Self> {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let (attn, mlp) = (weights.pp("self_attn"), weights.pp("mlp"));
        Ok(Self {
            layer_norm1: LayerNorm::load(config, &weights.pp("layer_norm1"))?,
            q_proj: linear(&attn.pp("q_proj"), width, width)?,
            k_proj: linear(&attn.pp("k_proj"), width, width)?,
            v_proj: linear(&attn.pp("v_proj"), width, width)?,
            out_proj: linear(&attn.pp("out_proj"), width, width)?,
            layer_norm2: LayerNorm::load(config, &weights.pp("layer_norm2"))?,
            fc1: linear(&mlp.pp("fc1"), width, inner)?,
            fc2: linear(&mlp.pp("fc2"), inner, width)?,
            activation: config.hidden_act,
            num_heads: config.num_attention_heads,
            scale: ((width / config.num_attention_heads) as f64).sqrt().recip(),
        })
    }

    /// x [N, C] f32, mask [N, N] f32.
    fn forward(&self, x: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let normed = self.layer_norm1.forward(x)?;
        let (q, k, v) =
            (project(&self.q_proj, &normed)?, project(&self.k_proj, &normed)?, project(&self.v_proj, &normed)?); // [N, H·D]
        let mixed = attention([&q, &k, &v], self.num_heads, self.scale, mask)?; // [N, H·D]
        let x = (x + project(&self.out_proj, &mixed)?.to_dtype(DType::F32)?)?; // [N, C]

        let hidden = self.activation.apply(&project(&self.fc1, &self.layer_norm2.forward(&x)?)?)?;
        Ok((x + project(&self.fc2, &hidden)?.to_dtype(DType::F32)?)?) // [N, C]
    }
}

impl ClipActivation {
    fn apply(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::QuickGelu => Ok((x * candle_nn::ops::sigmoid(&(x * 1.702)?)?)?),
            Self::Gelu => Ok(x.gelu_erf()?),
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

    #[test]
    fn an_unknown_activation_is_refused_by_name() {
        let text = r#"{"vocab_size": 9, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
            "num_attention_heads": 2, "max_position_embeddings": 77, "hidden_act": "swish"}"#;
        let error = serde_json::from_str::<ClipConfig>(text).expect_err("no such activation");
        assert!(error.to_string().contains("swish"));
        let text = text.replace("swish", "gelu");
        let config: ClipConfig = serde_json::from_str(&text).expect("valid");
        assert_eq!(config.check(), Ok(()));
        assert!(ClipConfig { num_attention_heads: 3, ..config.clone() }.check().is_err());
        assert!(ClipConfig { num_attention_heads: 0, ..config }.check().is_err());
    }
}
