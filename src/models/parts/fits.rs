//! Whether a file that holds a part goes with a transformer, by the shapes in both headers.

use crate::weights::TensorSource;

/// The second dimension of the tensor `name`: the width of what passes between a part and the transformer.
pub(crate) fn width(source: &dyn TensorSource, name: &str) -> Option<usize> {
    source.shape(name)?.get(1).copied()
}

/// What a part gives is what the transformer takes; where they are not, says so of so many of `what`.
///
/// # Errors
/// The reason why they do not go together. What cannot be told is told of when they are opened.
pub(crate) fn alike(what: &str, gives: Option<usize>, takes: Option<usize>) -> Result<(), String> {
    match (gives, takes) {
        (Some(gives), Some(takes)) if gives != takes => Err(format!("{gives} {what}, the transformer takes {takes}")),
        _ => Ok(()),
    }
}
