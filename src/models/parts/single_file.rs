//! What single files of several families have alike.

use crate::weights::{lookup, lora::Alias, reverse};

/// What the names of norms end with in Black Forest Labs' files.
const NORM_ENDING: &str = ".scale";

/// Prefixes that the names of a transformer's tensors may carry in a single file: none, or those of ComfyUI and all-in-one checkpoints.
pub(crate) const TRANSFORMER_PREFIXES: [&str; 3] = ["", "model.diffusion_model.", "diffusion_model."];

/// What one fused tensor of a double block holds of the picture's attention, a third of its rows each, as diffusers calls it.
pub(crate) const IMG_QKV: [&str; 3] = ["attn.to_q", "attn.to_k", "attn.to_v"];
/// The same of the text's.
pub(crate) const TXT_QKV: [&str; 3] = ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"];

/// Norms of queries and keys in a double block, as Black Forest Labs' files call them, without `.scale` (`.weight` where ComfyUI wrote
/// them), and as diffusers does, without `.weight`.
pub(crate) const DOUBLE_NORMS: &[(&str, &str)] = &[
    ("img_attn.norm.query_norm", "attn.norm_q"),
    ("img_attn.norm.key_norm", "attn.norm_k"),
    ("txt_attn.norm.query_norm", "attn.norm_added_q"),
    ("txt_attn.norm.key_norm", "attn.norm_added_k"),
];
/// The same in a single block.
pub(crate) const SINGLE_NORMS: &[(&str, &str)] =
    &[("norm.query_norm", "attn.norm_q"), ("norm.key_norm", "attn.norm_k")];

/// diffusers' name for one of these norms, without `.weight`; `kind` is what its own name ends with.
pub(crate) fn norm_of(norms: &[(&str, &'static str)], stem: &str, kind: &str) -> Option<&'static str> {
    lookup(norms, stem).filter(|_| ["scale", "weight"].contains(&kind))
}

/// The names that norms of queries and keys have in LoRA files of this layout, for so many double and single blocks: with and without
/// their ending.
pub(crate) fn norm_aliases(double: usize, single: usize) -> Vec<Alias> {
    let kinds = [
        ("double_blocks", "transformer_blocks", double, DOUBLE_NORMS),
        ("single_blocks", "single_transformer_blocks", single, SINGLE_NORMS),
    ];
    let mut all = Vec::new();
    for (stored, own, count, norms) in kinds {
        for (i, (name, norm)) in (0..count).flat_map(|i| norms.iter().map(move |pair| (i, pair))) {
            let ends = ["", NORM_ENDING];
            let alias = |end| Alias::of_layer(format!("{stored}.{i}.{name}{end}"), &format!("{own}.{i}.{norm}"));
            all.extend(ends.map(alias));
        }
    }
    all
}

/// The name that Black Forest Labs' files have for one of diffusers' tensors that belongs to no layer: a norm of queries or keys.
pub(crate) fn stored_norm(name: &str) -> Option<String> {
    let block = |kind: &str, own: &str, norms| -> Option<String> {
        let (i, rest) = name.strip_prefix(kind)?.split_once('.')?;
        let norm = reverse(norms, rest.strip_suffix(".weight")?)?;
        Some(format!("{own}.{i}.{norm}{NORM_ENDING}"))
    };
    block("transformer_blocks.", "double_blocks", DOUBLE_NORMS)
        .or_else(|| block("single_transformer_blocks.", "single_blocks", SINGLE_NORMS))
}
