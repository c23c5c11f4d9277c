//! What single files of several families have alike.

/// Prefixes that the names of a transformer's tensors may carry in a single file: none, or those of ComfyUI and all-in-one checkpoints.
pub(crate) const TRANSFORMER_PREFIXES: [&str; 3] = ["", "model.diffusion_model.", "diffusion_model."];

/// What one fused tensor of a double block holds of the picture's attention, a third of its rows each, as diffusers calls it.
pub(crate) const IMG_QKV: [&str; 3] = ["attn.to_q", "attn.to_k", "attn.to_v"];
/// The same of the text's.
pub(crate) const TXT_QKV: [&str; 3] = ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"];
