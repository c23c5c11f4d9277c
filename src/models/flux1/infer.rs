//! The transformer's dimensions from the shapes of its tensors, for files that come without a `config.json`.

use super::FluxConfig;
use crate::{
    error::{Error, Result},
    models::parts::infer::Shapes,
    weights::TensorSource,
};

/// The transformer's dimensions. `source` answers to diffusers' names.
///
/// # Errors
/// [`Error::Model`] when the tensors that show them are missing or contradict each other.
pub(super) fn transformer(source: &dyn TensorSource) -> Result<FluxConfig> {
    let shapes = Shapes(source);
    let hidden = shapes.dim("x_embedder.weight", 0)?;
    let head_dim = shapes.dim("transformer_blocks.0.attn.norm_q.weight", 0)?;
    if hidden % head_dim != 0 {
        let what = format!("{}: width {hidden} is no multiple of the head width {head_dim}", source.describe());
        return Err(Error::model(what, "the file is damaged or holds another kind of model"));
    }
    Ok(FluxConfig {
        in_channels: shapes.dim("x_embedder.weight", 1)?,
        num_layers: shapes.count(|i| format!("transformer_blocks.{i}.attn.norm_q.weight")),
        num_single_layers: shapes.count(|i| format!("single_transformer_blocks.{i}.attn.norm_q.weight")),
        attention_head_dim: head_dim,
        num_attention_heads: hidden / head_dim,
        joint_attention_dim: shapes.dim("context_embedder.weight", 1)?,
        pooled_projection_dim: shapes.dim("time_text_embed.text_embedder.linear_1.weight", 1)?,
        guidance_embeds: shapes.has("time_text_embed.guidance_embedder.linear_1.weight"),
        axes_dims_rope: axes(head_dim),
        ..FluxConfig::flux1_dev()
    })
}

/// Rotary channels of the axes in FLUX.1's proportions: 7/16 of a head for height and for width, in whole pairs, and
/// the rest (1/8) for text. A head of 128 gives (16, 56, 56).
fn axes(head_dim: usize) -> [usize; 3] {
    let spatial = head_dim * 7 / 16 / 2 * 2;
    [head_dim - 2 * spatial, spatial, spatial]
}

#[cfg(test)]
mod tests {
    use super::axes;

    #[test]
    fn axes_keep_flux_s_proportions_in_whole_pairs() {
        assert_eq!(axes(128), [16, 56, 56]);
        assert_eq!(axes(32), [4, 14, 14]);
        for head_dim in (16..=256).step_by(2) {
            let axes = axes(head_dim);
            assert_eq!(axes.iter().sum::<usize>(), head_dim);
            assert!(axes.iter().all(|axis| axis % 2 == 0 && *axis > 0), "{head_dim}: {axes:?}");
        }
    }
}
