//! A part's dimensions from the shapes of its tensors, for files that come without a `config.json`.

use crate::{
    error::{Error, Result},
    models::parts::{ClipConfig, T5Config, kl::VaeConfig},
    weights::TensorSource,
};

/// Width of one attention head of every CLIP text encoder in use. Source: openai/CLIP, `transformer_heads`.
const CLIP_HEAD_DIM: usize = 64;

/// A source whose shapes are asked for.
pub(crate) struct Shapes<'a>(pub(crate) &'a dyn TensorSource);

impl Shapes<'_> {
    /// Dimension `axis` of the tensor `name`.
    ///
    /// # Errors
    /// [`Error::Model`] when there is no such tensor.
    pub(crate) fn dim(&self, name: &str, axis: usize) -> Result<usize> {
        let found = self.0.shape(name).and_then(|shape| shape.get(axis).copied()).filter(|&dim| dim > 0);
        found.ok_or_else(|| {
            let what = format!("{} has no tensor {name} to take its dimensions from", self.0.describe());
            Error::model(what, "the file is incomplete or holds another kind of model")
        })
    }

    /// Whether there is a tensor of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.shape(name).is_some()
    }

    /// How many of the names `name(0)`, `name(1)`, ... are there without a gap.
    pub(crate) fn count(&self, name: impl Fn(usize) -> String) -> usize {
        (0..).take_while(|&i| self.has(&name(i))).count()
    }
}

/// The autoencoder's dimensions. `source` answers to diffusers' names. The shapes do not show the latents' scale and
/// shift: they are those of `like`.
///
/// # Errors
/// [`Error::Model`] when the tensors that show them are missing.
pub(crate) fn vae(source: &dyn TensorSource, like: &VaeConfig) -> Result<VaeConfig> {
    let shapes = Shapes(source);
    let stages = shapes.count(|i| format!("decoder.up_blocks.{i}.resnets.0.conv1.weight"));
    let stage = |i| shapes.dim(&format!("decoder.up_blocks.{i}.resnets.0.conv1.weight"), 0);
    let resnets = shapes.count(|j| format!("decoder.up_blocks.0.resnets.{j}.conv1.weight"));
    let decoder: Vec<usize> = (0..stages).rev().map(stage).collect::<Result<_>>()?;
    // An encoder may be there, and as wide or not.
    let encoder = |i| shapes.dim(&format!("encoder.down_blocks.{i}.resnets.0.conv1.weight"), 0).ok();
    let encoder: Option<Vec<usize>> = (0..stages).map(encoder).collect();
    let (block_out_channels, decoder_block_out_channels) = match encoder.filter(|encoder| *encoder != decoder) {
        Some(encoder) => (encoder, Some(decoder)),
        None => (decoder, None),
    };
    Ok(VaeConfig {
        block_out_channels,
        decoder_block_out_channels,
        layers_per_block: resnets.saturating_sub(1),
        latent_channels: shapes.dim("decoder.conv_in.weight", 1)?,
        mid_block_add_attention: shapes.has("decoder.mid_block.attentions.0.to_q.weight"),
        use_quant_conv: shapes.has("quant_conv.weight"),
        use_post_quant_conv: shapes.has("post_quant_conv.weight"),
        ..like.clone()
    })
}

/// A CLIP text encoder's dimensions. `source` answers to names with `text_model.`. What shapes do not show is as in
/// black-forest-labs/FLUX.1-dev, text_encoder/config.json.
///
/// # Errors
/// [`Error::Model`] when the tensors that show it are missing, or the number of heads cannot be told.
pub(crate) fn clip(source: &dyn TensorSource) -> Result<ClipConfig> {
    let shapes = Shapes(source);
    let hidden = shapes.dim("text_model.embeddings.token_embedding.weight", 1)?;
    if hidden % CLIP_HEAD_DIM != 0 {
        let what = format!("{}: the number of heads of a CLIP of width {hidden} cannot be told", source.describe());
        return Err(Error::model(what, "put its config.json beside it, or give its folder"));
    }
    Ok(ClipConfig {
        vocab_size: shapes.dim("text_model.embeddings.token_embedding.weight", 0)?,
        hidden_size: hidden,
        intermediate_size: shapes.dim("text_model.encoder.layers.0.mlp.fc1.weight", 0)?,
        num_hidden_layers: shapes.count(|i| format!("text_model.encoder.layers.{i}.mlp.fc1.weight")),
        num_attention_heads: hidden / CLIP_HEAD_DIM,
        max_position_embeddings: shapes.dim("text_model.embeddings.position_embedding.weight", 0)?,
        ..ClipConfig::clip_l()
    })
}

/// A T5 encoder's dimensions. What shapes do not show is as in black-forest-labs/FLUX.1-dev, text_encoder_2/config.json.
///
/// # Errors
/// [`Error::Model`] when the tensors that show it are missing.
pub(crate) fn t5(source: &dyn TensorSource) -> Result<T5Config> {
    let shapes = Shapes(source);
    let attention = "encoder.block.0.layer.0.SelfAttention";
    let heads = shapes.dim(&format!("{attention}.relative_attention_bias.weight"), 1)?;
    Ok(T5Config {
        vocab_size: shapes.dim("shared.weight", 0)?,
        d_model: shapes.dim("shared.weight", 1)?,
        d_kv: shapes.dim(&format!("{attention}.q.weight"), 0)? / heads,
        d_ff: shapes.dim("encoder.block.0.layer.1.DenseReluDense.wi_0.weight", 0)?,
        num_layers: shapes.count(|i| format!("encoder.block.{i}.layer.0.SelfAttention.q.weight")),
        num_heads: heads,
        relative_attention_num_buckets: shapes.dim(&format!("{attention}.relative_attention_bias.weight"), 0)?,
        ..T5Config::t5_xxl()
    })
}
