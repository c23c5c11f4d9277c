//! The transformer's dimensions from the shapes of its tensors, for files that come without a `config.json`.

use super::Flux2Config;
use crate::{
    error::{Error, Result},
    models::parts::infer::Shapes,
    weights::TensorSource,
};

/// The transformer's dimensions. `source` answers to the names it is loaded by; theta, which shapes do not show, is klein's.
///
/// # Errors
/// [`Error::Model`] when the tensors that show them are missing or contradict each other, or are FLUX.2 \[dev\]'s.
pub(super) fn transformer(source: &dyn TensorSource) -> Result<Flux2Config> {
    let shapes = Shapes(source);
    if shapes.has("time_guidance_embed.guidance_embedder.linear_1.weight") {
        let what = format!("{} takes a guidance scale: it looks like FLUX.2 [dev]", source.describe());
        return Err(Error::model(what, "give a FLUX.2 [klein] model, such as black-forest-labs/FLUX.2-klein-4B"));
    }
    let hidden = shapes.dim("x_embedder.weight", 0)?;
    let head_dim = shapes.dim("transformer_blocks.0.attn.norm_q.weight", 0)?;
    let wide = shapes.dim("transformer_blocks.0.ff.linear_out.weight", 1)?;
    if hidden % head_dim != 0 || head_dim % 8 != 0 {
        let what = format!("{}: width {hidden} in heads of {head_dim} cannot be told apart", source.describe());
        return Err(Error::model(what, "the file is damaged or holds another kind of model"));
    }
    Ok(Flux2Config {
        in_channels: shapes.dim("x_embedder.weight", 1)?,
        num_layers: shapes.count(|i| format!("transformer_blocks.{i}.attn.norm_q.weight")),
        num_single_layers: shapes.count(|i| format!("single_transformer_blocks.{i}.attn.norm_q.weight")),
        attention_head_dim: head_dim,
        num_attention_heads: hidden / head_dim,
        joint_attention_dim: shapes.dim("context_embedder.weight", 1)?,
        mlp_ratio: wide as f64 / hidden as f64,
        axes_dims_rope: [head_dim / 4; 4],
        ..Flux2Config::klein_4b()
    })
}
