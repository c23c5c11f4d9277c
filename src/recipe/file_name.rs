//! The name of a picture that is given none.

use crate::{base::geometry::ImageSize, methods};

/// The name the reference's `run_dype.py` gives a picture.
pub fn reference_name(seed: u64, method: &str, dype: bool, size: ImageSize) -> String {
    let label = methods::label(method, dype);
    format!("seed_{seed}_method_{label}_res_{}x{}.png", size.height_px, size.width_px)
}
