//! The transformer's tensors under the names it is loaded by, from both layouts: diffusers' folders, and single files as Black
//! Forest Labs publishes them.
//!
//! Layers that are stored fused get a name for each of their parts, so that a block computes each where it needs it: of a feed-forward's
//! `linear_in` the `gate` and the `value`, of a single block's `to_qkv_mlp_proj` the `q`, `k`, `v`, `gate` and `value`.
//! Everything else has diffusers' names. In single files query, key and value are one tensor in double blocks too, and the
//! final modulation holds shift then scale where diffusers holds scale then shift. Sources: huggingface/diffusers,
//! `transformer_flux2.py` and `scripts/convert_flux2_to_diffusers.py`.

use std::{ops::Range, sync::Arc};

use super::Flux2Config;
use crate::{
    models::parts::single_file::{
        DOUBLE_NORMS, IMG_QKV, SINGLE_NORMS, TRANSFORMER_PREFIXES, TXT_QKV, norm_aliases, norm_of,
    },
    weights::{Cut, Renamed, TensorSource, lookup, lora::Alias},
};

/// The transformer's tensors, whichever layout they have; `None` if there is none.
pub fn transformer(source: Arc<dyn TensorSource>) -> Option<Renamed> {
    let has = |name: &str| source.shape(name).is_some();
    // What no other model of these blocks has: modulations that all blocks share.
    if has("double_stream_modulation_img.linear.weight") {
        let hidden = *source.shape("x_embedder.weight")?.first()?;
        let rows = |name: &str| source.shape(name)?.first().copied();
        return Some(Renamed::by(&source, "", |name| diffusers_names(name, hidden, rows(name))));
    }
    let prefix = TRANSFORMER_PREFIXES
        .into_iter()
        .find(|prefix| has(&format!("{prefix}double_stream_modulation_img.lin.weight")))?;
    let hidden = *source.shape(&format!("{prefix}img_in.weight"))?.first()?;
    let rows = |name: &str| source.shape(&format!("{prefix}{name}"))?.first().copied();
    Some(Renamed::by(&source, prefix, |name| single_file_names(name, hidden, rows(name))))
}

/// The layers as single files hold them, each with what of those that are loaded it is made of.
pub(super) fn layers(config: &Flux2Config) -> Vec<Alias> {
    let (hidden, wide) = (config.hidden_size(), config.feed_forward_size());
    let own = |name: String, rows| {
        let names = single_file_names(&format!("{name}.weight"), hidden, Some(rows));
        Alias::of_weight(name, names)
    };
    let mut all: Vec<Alias> = TOP.iter().map(|(name, _)| own((*name).to_owned(), hidden)).collect();
    all.push(own("final_layer.adaLN_modulation.1".to_owned(), 2 * hidden));
    for block in (0..config.num_layers).map(|i| format!("double_blocks.{i}")) {
        let own = |name: &str, rows| own(format!("{block}.{name}"), rows);
        all.extend(DOUBLE.iter().map(|(name, _)| own(name, hidden)));
        all.extend(["img_attn.qkv", "txt_attn.qkv"].map(|name| own(name, 3 * hidden)));
        all.extend(["img_mlp.0", "txt_mlp.0"].map(|name| own(name, 2 * wide)));
    }
    for block in (0..config.num_single_layers).map(|i| format!("single_blocks.{i}")) {
        all.push(own(format!("{block}.linear1"), 3 * hidden + 2 * wide));
        all.push(own(format!("{block}.linear2"), hidden));
    }
    all
}

/// The names that LoRA files have for the transformer's layers, where they are not those they are loaded by: of both layouts'
/// tensors.
pub(super) fn aliases(config: &Flux2Config) -> Vec<Alias> {
    let (hidden, wide) = (config.hidden_size(), config.feed_forward_size());
    let diffusers = |name: String, rows| {
        let names = diffusers_names(&format!("{name}.weight"), hidden, Some(rows));
        Alias::of_weight(name, names)
    };
    let mut all = layers(config);
    all.extend(norm_aliases(config.num_layers, config.num_single_layers));
    for i in 0..config.num_layers {
        let linear_in = |ff: &str| diffusers(format!("transformer_blocks.{i}.{ff}.linear_in"), 2 * wide);
        all.extend(["ff", "ff_context"].map(linear_in));
    }
    for i in 0..config.num_single_layers {
        all.push(diffusers(format!("single_transformer_blocks.{i}.attn.to_qkv_mlp_proj"), 3 * hidden + 2 * wide));
    }
    all
}

/// The names for one tensor of diffusers' layout; `rows` is its first dimension, `hidden` the streams' width.
fn diffusers_names(name: &str, hidden: usize, rows: Option<usize>) -> Option<Vec<(String, Cut)>> {
    let (stem, kind) = name.rsplit_once('.')?;
    let rows = rows.unwrap_or(0);
    if stem.ends_with(".linear_in") {
        return Some(halves(stem, kind, rows));
    }
    if stem.ends_with(".to_qkv_mlp_proj") {
        return Some(fused(stem, kind, hidden, rows));
    }
    Some(vec![(name.to_owned(), Cut::Whole)])
}

/// The names for one tensor of a single file.
fn single_file_names(name: &str, hidden: usize, rows: Option<usize>) -> Option<Vec<(String, Cut)>> {
    let (stem, kind) = name.rsplit_once('.')?;
    let rows = rows.unwrap_or(0);
    let whole = |stem: String| Some(vec![(format!("{stem}.{kind}"), Cut::Whole)]);
    let norm = |block: String, norm: &str| Some(vec![(format!("{block}.{norm}.weight"), Cut::Whole)]);
    let mut words = stem.splitn(3, '.');
    match (words.next()?, words.next(), words.next()) {
        ("double_blocks", Some(i), Some(rest)) => {
            let block = format!("transformer_blocks.{i}");
            match rest {
                "img_attn.qkv" => Some(thirds(&block, IMG_QKV, kind, hidden, rows)),
                "txt_attn.qkv" => Some(thirds(&block, TXT_QKV, kind, hidden, rows)),
                "img_mlp.0" => Some(halves(&format!("{block}.ff.linear_in"), kind, rows)),
                "txt_mlp.0" => Some(halves(&format!("{block}.ff_context.linear_in"), kind, rows)),
                _ => match norm_of(DOUBLE_NORMS, rest, kind) {
                    Some(name) => norm(block, name),
                    None => whole(format!("{block}.{}", lookup(DOUBLE, rest)?)),
                },
            }
        }
        ("single_blocks", Some(i), Some(rest)) => {
            let block = format!("single_transformer_blocks.{i}");
            match rest {
                "linear1" => Some(fused(&format!("{block}.attn.to_qkv_mlp_proj"), kind, hidden, rows)),
                "linear2" => whole(format!("{block}.attn.to_out")),
                _ => norm(block, norm_of(SINGLE_NORMS, rest, kind)?),
            }
        }
        ("final_layer", Some("adaLN_modulation"), Some("1")) => {
            Some(vec![(format!("norm_out.linear.{kind}"), Cut::SwappedHalves)])
        }
        _ => whole(lookup(TOP, stem)?.to_owned()),
    }
}

/// One name for some rows of a tensor.
fn part(stem: &str, name: &str, kind: &str, rows: Range<usize>) -> (String, Cut) {
    (format!("{stem}.{name}.{kind}"), Cut::Rows(rows))
}

fn halves(stem: &str, kind: &str, rows: usize) -> Vec<(String, Cut)> {
    vec![part(stem, "gate", kind, 0..rows / 2), part(stem, "value", kind, rows / 2..rows)]
}

/// Query, key and value, of as many rows as the streams are wide, then the two halves of the feed-forward's.
fn fused(stem: &str, kind: &str, hidden: usize, rows: usize) -> Vec<(String, Cut)> {
    let start = rows.min(hidden.saturating_mul(3));
    let middle = start + (rows - start) / 2;
    let mut parts = thirds(stem, ["q", "k", "v"], kind, hidden, rows);
    parts.extend([part(stem, "gate", kind, start..middle), part(stem, "value", kind, middle..rows)]);
    parts
}

/// Parts of as many rows as the streams are wide, where there are so many.
fn thirds(stem: &str, names: [&str; 3], kind: &str, hidden: usize, rows: usize) -> Vec<(String, Cut)> {
    let row = |i: usize| rows.min(i.saturating_mul(hidden));
    names.into_iter().enumerate().map(|(i, name)| part(stem, name, kind, row(i)..row(i + 1))).collect()
}

const TOP: &[(&str, &str)] = &[
    ("img_in", "x_embedder"),
    ("txt_in", "context_embedder"),
    ("time_in.in_layer", "time_guidance_embed.timestep_embedder.linear_1"),
    ("time_in.out_layer", "time_guidance_embed.timestep_embedder.linear_2"),
    ("guidance_in.in_layer", "time_guidance_embed.guidance_embedder.linear_1"),
    ("guidance_in.out_layer", "time_guidance_embed.guidance_embedder.linear_2"),
    ("double_stream_modulation_img.lin", "double_stream_modulation_img.linear"),
    ("double_stream_modulation_txt.lin", "double_stream_modulation_txt.linear"),
    ("single_stream_modulation.lin", "single_stream_modulation.linear"),
    ("final_layer.linear", "proj_out"),
];

const DOUBLE: &[(&str, &str)] = &[
    ("img_attn.proj", "attn.to_out.0"),
    ("txt_attn.proj", "attn.to_add_out"),
    ("img_mlp.2", "ff.linear_out"),
    ("txt_mlp.2", "ff_context.linear_out"),
];
