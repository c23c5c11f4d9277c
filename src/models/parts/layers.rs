//! What both text encoders share.

use crate::nn::AttentionTiles;

/// Pieces of an encoder's attention where scores are a tensor: 16 of T5's heads over 512 tokens are 17 MB of f32.
pub(super) const TILES: AttentionTiles = AttentionTiles { query_rows: 512, heads: 16 };

/// Refuses dimensions no encoder can have, before they are multiplied or divided by.
pub(super) fn check_dimensions(dimensions: &[(&str, usize)]) -> Result<(), String> {
    /// Far above any model, low enough that products of two fit.
    const LARGEST: usize = 1 << 20;
    match dimensions.iter().find(|(_, value)| !(1..=LARGEST).contains(value)) {
        Some((name, value)) => Err(format!("{name} is {value}, expected 1 to {LARGEST}")),
        None => Ok(()),
    }
}
