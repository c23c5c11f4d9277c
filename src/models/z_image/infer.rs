//! The transformer's dimensions from the shapes of its tensors, for files that come without a `config.json`.

use super::ZImageConfig;
use crate::{
    error::{Error, Result},
    models::parts::infer::Shapes,
    weights::TensorSource,
};

/// The transformer's dimensions. `source` answers to diffusers' names.
///
/// # Errors
/// [`Error::Model`] when the tensors that show them are missing or contradict each other.
pub(super) fn transformer(source: &dyn TensorSource) -> Result<ZImageConfig> {
    let shapes = Shapes(source);
    let dim = shapes.dim("x_pad_token", 1)?;
    let head_dim = shapes.dim("layers.0.attention.norm_q.weight", 0)?;
    if dim % head_dim != 0 {
        let what = format!("{}: width {dim} is no multiple of the head width {head_dim}", source.describe());
        return Err(Error::model(what, "the file is damaged or holds another kind of model"));
    }
    let heads = dim / head_dim;
    Ok(ZImageConfig {
        dim,
        n_layers: shapes.count(|i| format!("layers.{i}.attention.norm_q.weight")),
        n_refiner_layers: shapes.count(|i| format!("noise_refiner.{i}.attention.norm_q.weight")),
        n_heads: heads,
        n_kv_heads: heads,
        cap_feat_dim: shapes.dim("cap_embedder.0.weight", 0)?,
        axes_dims: axes(head_dim),
        ..ZImageConfig::z_image()
    })
}

/// Rotary channels of the axes in Z-Image's proportions: 3/8 of a head for height and for width, in whole pairs, and the rest
/// (1/4) for text. A head of 128 gives (32, 48, 48).
fn axes(head_dim: usize) -> [usize; 3] {
    let spatial = head_dim * 3 / 8 / 2 * 2;
    [head_dim - 2 * spatial, spatial, spatial]
}

#[cfg(test)]
mod tests {
    use super::axes;

    #[test]
    fn axes_keep_the_proportions_in_whole_pairs() {
        assert_eq!((axes(128), axes(48)), ([32, 48, 48], [12, 18, 18]));
    }
}
