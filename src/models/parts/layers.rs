//! What both text encoders share.

use super::config::{Key, idle, one_of};
use crate::{
    error::{Error, Result},
    nn::AttentionTiles,
};

/// Pieces of an encoder's attention where scores are a tensor: 16 of T5's heads over 512 tokens are 17 MB of f32.
pub(super) const TILES: AttentionTiles = AttentionTiles { query_rows: 512, heads: 16 };

/// What every config of transformers may say. Source: transformers, `PreTrainedConfig`.
pub(super) const PRETRAINED: &[Key] = &[
    idle("transformers_version", "null"),
    idle("architectures", "null"),
    idle("output_hidden_states", "false"),
    idle("return_dict", "true"),
    // Numbers are computed in what `--dtype` says.
    idle("dtype", "null"),
    idle("chunk_size_feed_forward", "0"),
    idle("is_encoder_decoder", "false"),
    idle("id2label", "null"),
    idle("label2id", "null"),
    idle("problem_type", "null"),
    // Other values of some keys for some layers.
    one_of("per_layer_config", "null", &["null", "{}"]),
];

/// Refuses an epsilon of a norm that is no small number above 0.
///
/// # Errors
/// [`Error::Model`] that names the key.
pub(crate) fn check_epsilon(key: &str, epsilon: f64, advice: &str) -> Result<()> {
    if (0.0..1.0).contains(&epsilon) {
        return Ok(());
    }
    Err(Error::model(format!("{key} is {epsilon}, expected a number in [0, 1)"), advice))
}
