//! FLUX.1's autoencoder: a KL one.

use crate::models::parts::kl::VaeConfig;

/// Its dimensions. Source: black-forest-labs/flux, `util.py`, `AutoEncoderParams`.
pub fn autoencoder() -> VaeConfig {
    VaeConfig { scaling_factor: 0.3611, shift_factor: Some(0.1159), ..VaeConfig::default() }
}
