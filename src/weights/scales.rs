//! Names of what files in 8 bits have beside their weights.

/// Behind a layer's name: what the numbers of its weight are multiplied by, as ComfyUI calls it and as others do.
pub(crate) const OF_WEIGHTS: [&str; 2] = [".scale_weight", ".weight_scale"];

/// The same of what rounds a layer's inputs to 8 bits.
const OF_INPUTS: [&str; 2] = [".scale_input", ".input_scale"];

/// What ComfyUI knows files in fp8 with scales by. Source: comfyanonymous/ComfyUI, `model_detection.py`.
pub(crate) const MARK: &str = "scaled_fp8";

/// Behind a layer's name: how its weight is quantised, as JSON in bytes, where ComfyUI wrote it. Source: comfyanonymous/ComfyUI,
/// `ops.py`. The types and the scales say the same.
const SETTINGS: &str = ".comfy_quant";

/// The layer whose weight is multiplied by the tensor of this name, where it is a scale.
pub(crate) fn scaled_layer(name: &str) -> Option<&str> {
    OF_WEIGHTS.iter().find_map(|ending| name.strip_suffix(ending))
}

/// Whether a tensor is a scale by which a layer's inputs are rounded.
pub(crate) fn is_of_inputs(name: &str) -> bool {
    OF_INPUTS.iter().any(|ending| name.ends_with(ending))
}

/// Whether a tensor only says how another's numbers are to be read.
pub(crate) fn is_beside_weights(name: &str) -> bool {
    scaled_layer(name).is_some() || is_of_inputs(name) || [MARK, SETTINGS].iter().any(|ending| name.ends_with(ending))
}
