//! Which kernels of a device attention may be computed by.

use super::kl::VaeConfig;
use crate::{base::progress::Observer, models::On, nn};

/// Settles it for a transformer of so many heads of a width, and for an autoencoder's decoder, whose attention is one head as wide
/// as its coarsest stage.
pub(crate) fn settle(on: &On, transformer: (usize, usize), autoencoder: &VaeConfig, observer: &dyn Observer) {
    let decoder = autoencoder.decoder_channels().last().map(|channels| (1, *channels));
    for (heads, dim) in std::iter::once(transformer).chain(decoder) {
        nn::settle_attention(heads, dim, on.dtype, &on.device, observer);
    }
}
