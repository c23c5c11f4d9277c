//! Single-file names, as ComfyUI's files hold Z-Image, under the names of diffusers: query, key and value are one tensor, and a
//! few layers are called otherwise. Source: huggingface/diffusers, `convert_z_image_transformer_checkpoint_to_diffusers`.

use std::sync::Arc;

use super::ZImageConfig;
use crate::{
    models::parts::single_file::TRANSFORMER_PREFIXES,
    weights::{Cut, Renamed, TensorSource, lookup, lora::Alias},
};

/// What one fused tensor holds, a third of its rows each.
const QKV: [&str; 3] = ["to_q", "to_k", "to_v"];
/// The norms of queries and keys, which diffusers calls otherwise.
const NORMS: [(&str, &str); 2] =
    [("attention.q_norm.weight", "attention.norm_q.weight"), ("attention.k_norm.weight", "attention.norm_k.weight")];
/// What tells Z-Image from Lumina 2, whose layers have the same names.
const KNOWN_BY: &str = "x_pad_token";

/// The transformer of a single file under diffusers' names, whichever prefix it carries; `None` if it holds none.
pub fn transformer(source: Arc<dyn TensorSource>) -> Option<Renamed> {
    let has = |name: &str| source.shape(name).is_some();
    let is_ours =
        |prefix: &&str| has(&format!("{prefix}{KNOWN_BY}")) && has(&format!("{prefix}layers.0.attention.qkv.weight"));
    let prefix = TRANSFORMER_PREFIXES.into_iter().find(is_ours)?;
    let rows = |name: &str| source.shape(&format!("{prefix}{name}"))?.first().copied();
    Some(Renamed::by(&source, prefix, |name| names(name, rows(name))))
}

/// Whether the file holds the transformer under diffusers' own names.
pub fn has_diffusers_names(source: &dyn TensorSource) -> bool {
    let has = |name| source.shape(name).is_some();
    has(KNOWN_BY) && has("layers.0.attention.to_q.weight")
}

/// The names of layers in LoRA files of this layout that diffusers calls otherwise.
pub(super) fn aliases(config: &ZImageConfig) -> Vec<Alias> {
    let alias = |name: String| {
        // Only the fused layer is cut, by its rows.
        let stored = names(&format!("{name}.weight"), Some(QKV.len() * config.dim));
        Alias::of_weight(name, stored)
    };
    let kinds = [
        ("noise_refiner", config.n_refiner_layers),
        ("context_refiner", config.n_refiner_layers),
        ("layers", config.n_layers),
    ];
    let layers = kinds.into_iter().flat_map(|(kind, count)| (0..count).map(move |i| format!("{kind}.{i}.attention")));
    let fused = layers.flat_map(|layer| ["qkv", "out", "q_norm", "k_norm"].map(|name| format!("{layer}.{name}")));
    let ends = ["x_embedder", "final_layer.linear", "final_layer.adaLN_modulation.1"].map(str::to_owned);
    fused.chain(ends).map(alias).collect()
}

/// The name here of a tensor that diffusers may call otherwise and that belongs to no fused layer.
pub(super) fn stored_name(name: &str) -> Option<String> {
    let renamed =
        NORMS.iter().find_map(|(stored, new)| Some(format!("{}.{stored}", name.strip_suffix(&format!(".{new}"))?)));
    Some(renamed.unwrap_or_else(|| name.to_owned()))
}

/// diffusers' names for one tensor; `rows` is its first dimension.
fn names(name: &str, rows: Option<usize>) -> Option<Vec<(String, Cut)>> {
    // It lies in published files and belongs to no layer.
    if name == "norm_final.weight" {
        return None;
    }
    let whole = |name: String| Some(vec![(name, Cut::Whole)]);
    if let Some(rest) = name.strip_prefix("final_layer.") {
        return whole(format!("all_final_layer.2-1.{rest}"));
    }
    if let Some(rest) = name.strip_prefix("x_embedder.") {
        return whole(format!("all_x_embedder.2-1.{rest}"));
    }
    let Some((layer, rest)) = name.split_once(".attention.") else { return whole(name.to_owned()) };
    match rest {
        "qkv.weight" => {
            let third = rows? / QKV.len();
            let part = |(i, part)| (format!("{layer}.attention.{part}.weight"), Cut::Rows(i * third..(i + 1) * third));
            Some(QKV.into_iter().enumerate().map(part).collect())
        }
        "out.weight" => whole(format!("{layer}.attention.to_out.0.weight")),
        _ => whole(match lookup(&NORMS, &format!("attention.{rest}")) {
            Some(norm) => format!("{layer}.{norm}"),
            None => name.to_owned(),
        }),
    }
}
