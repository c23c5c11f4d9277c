//! Single-file names, as Black Forest Labs publishes FLUX.1, under the names of diffusers.
//!
//! Two things are more than a new name: query, key and value are one tensor (in single blocks together with the
//! feed-forward's first half), and the final modulation holds shift then scale where diffusers holds scale then shift. Sources: black-forest-labs/flux, `model.py` and
//! `modules/`; huggingface/diffusers, `scripts/convert_flux_to_diffusers.py`.

use std::{ops::Range, sync::Arc};

use super::{FluxConfig, blocks::FEED_FORWARD_RATIO};
use crate::{
    base::shown::shown,
    error::Error,
    models::parts::single_file::{
        DOUBLE_NORMS, IMG_QKV, SINGLE_NORMS, TRANSFORMER_PREFIXES, TXT_QKV, norm_aliases, norm_of,
    },
    weights::{Cut, Renamed, TensorSource, lookup, lora::Alias},
};

/// The transformer of a single file under diffusers' names, whichever prefix it carries; `None` if it holds none.
pub fn transformer(source: Arc<dyn TensorSource>) -> Option<Renamed> {
    let has = |prefix: &&str| source.shape(&format!("{prefix}double_blocks.0.img_attn.qkv.weight")).is_some();
    let prefix = TRANSFORMER_PREFIXES.into_iter().find(has)?;
    let hidden = *source.shape(&format!("{prefix}img_in.weight"))?.first()?;
    let rows = |name: &str| source.shape(&format!("{prefix}{name}"))?.first().copied();
    Some(Renamed::by(&source, prefix, |name| transformer_names(name, hidden, rows(name))))
}

/// The layers as they are stored here, each with what of diffusers' it is made of.
pub fn layers(config: &FluxConfig) -> Vec<Alias> {
    let hidden = config.hidden_size();
    let own = |name: String, rows| alias(name.clone(), &name, hidden, rows);
    let mut all: Vec<Alias> = TOP.iter().map(|(name, _)| own((*name).to_owned(), hidden)).collect();
    all.push(own("final_layer.adaLN_modulation.1".to_owned(), 2 * hidden));
    for block in (0..config.num_layers).map(|i| format!("double_blocks.{i}")) {
        all.extend(DOUBLE.iter().map(|(name, _)| own(format!("{block}.{name}"), hidden)));
        all.extend(["img", "txt"].map(|stream| own(format!("{block}.{stream}_attn.qkv"), 3 * hidden)));
    }
    for block in (0..config.num_single_layers).map(|i| format!("single_blocks.{i}")) {
        all.push(own(format!("{block}.linear1"), (3 + FEED_FORWARD_RATIO) * hidden));
        all.extend(["linear2", "modulation.lin"].map(|name| own(format!("{block}.{name}"), hidden)));
    }
    all
}

/// The layers that `name` stands for, which are those of the tensor `like`, of so many rows.
fn alias(name: String, like: &str, hidden: usize, rows: usize) -> Alias {
    Alias::of_weight(name, transformer_names(&format!("{like}.weight"), hidden, Some(rows)))
}

/// The names that LoRA files have for the transformer's layers beside diffusers': Black Forest Labs' and XLabs'.
pub fn aliases(config: &FluxConfig) -> Vec<Alias> {
    let hidden = config.hidden_size();
    let alias = |name: String, like: &str, rows| alias(name, like, hidden, rows);
    let mut all = layers(config);
    all.extend(norm_aliases(config.num_layers, config.num_single_layers));
    for block in (0..config.num_layers).map(|i| format!("double_blocks.{i}")) {
        let adapter = |(name, like): (&str, &str)| {
            alias(format!("{block}.processor.{name}"), &format!("{block}.{like}"), 3 * hidden)
        };
        all.extend(XLABS_DOUBLE.map(adapter));
    }
    for block in (0..config.num_single_layers).map(|i| format!("single_blocks.{i}")) {
        let fused = format!("{block}.linear1");
        let mut qkv = alias(format!("{block}.processor.qkv_lora"), &fused, (3 + FEED_FORWARD_RATIO) * hidden);
        // Of the fused layer XLabs changes the attention's part alone.
        qkv.parts.truncate(3);
        all.push(qkv);
        all.push(alias(format!("{block}.processor.proj_lora"), &format!("{block}.linear2"), hidden));
    }
    all
}

/// What XLabs calls the layers of a double block that it changes. Source: XLabs-AI/x-flux, `layers.py`.
const XLABS_DOUBLE: [(&str, &str); 4] = [
    ("qkv_lora1", "img_attn.qkv"),
    ("proj_lora1", "img_attn.proj"),
    ("qkv_lora2", "txt_attn.qkv"),
    ("proj_lora2", "txt_attn.proj"),
];

/// The error of a file that is called a transformer of this kind and lacks what shows its dimensions.
pub fn lacks(source: &dyn TensorSource) -> Error {
    let blocks = [("double_blocks.0.", DOUBLE), ("double_blocks.0.", DOUBLE_NORMS), ("single_blocks.0.", SINGLE_NORMS)];
    let of_blocks =
        blocks.iter().flat_map(|(block, names)| names.iter().map(move |(name, _)| format!("{block}{name}")));
    let names = TOP.iter().map(|(name, _)| (*name).to_owned()).chain(of_blocks);
    let fused = ["double_blocks.0.img_attn.qkv", "double_blocks.0.txt_attn.qkv", "single_blocks.0.linear1"];
    let has = |name: &String| {
        let kinds = ["weight", "scale"];
        let full = |prefix: &str, kind: &str| source.shape(&format!("{prefix}{name}.{kind}")).is_some();
        TRANSFORMER_PREFIXES.iter().any(|prefix| kinds.iter().any(|kind| full(prefix, kind)))
    };
    let is_optional = |name: &String| name.starts_with("guidance_in");
    let missing = fused.map(str::to_owned).into_iter().chain(names).filter(|name| !has(name) && !is_optional(name));
    let missing: Vec<String> = missing.collect();
    let what = format!("{}: of a FLUX.1 transformer it lacks {}", source.describe(), shown(&missing, 3));
    Error::model(what, "the file is incomplete, or of another kind of model; fetch it again")
}

/// diffusers' names for one tensor of the transformer; `rows` is its first dimension, `hidden` the streams' width.
fn transformer_names(name: &str, hidden: usize, rows: Option<usize>) -> Option<Vec<(String, Cut)>> {
    let (stem, kind) = name.rsplit_once('.')?;
    let whole = |stem: String| Some(vec![(format!("{stem}.{kind}"), Cut::Whole)]);
    let mut words = stem.splitn(3, '.');
    match (words.next()?, words.next(), words.next()) {
        ("double_blocks", Some(i), Some(rest)) => {
            let block = format!("transformer_blocks.{i}");
            if let Some(stream) = rest.strip_suffix("_attn.qkv") {
                let names = if stream == "img" { &IMG_QKV } else { &TXT_QKV };
                return Some(split(&block, names, kind, hidden, rows?));
            }
            if let Some(norm) = norm_of(DOUBLE_NORMS, rest, kind) {
                return Some(vec![(format!("{block}.{norm}.weight"), Cut::Whole)]);
            }
            whole(format!("{block}.{}", lookup(DOUBLE, rest)?))
        }
        ("single_blocks", Some(i), Some(rest)) => {
            let block = format!("single_transformer_blocks.{i}");
            if let Some(norm) = norm_of(SINGLE_NORMS, rest, kind) {
                return Some(vec![(format!("{block}.{norm}.weight"), Cut::Whole)]);
            }
            single_block(&block, rest, kind, hidden, rows?)
        }
        ("final_layer", Some("adaLN_modulation"), Some("1")) => {
            Some(vec![(format!("norm_out.linear.{kind}"), Cut::SwappedHalves)])
        }
        _ => whole(lookup(TOP, stem)?.to_owned()),
    }
}

fn single_block(block: &str, rest: &str, kind: &str, hidden: usize, rows: usize) -> Option<Vec<(String, Cut)>> {
    match rest {
        "linear1" => Some(split(block, &SINGLE_LINEAR1, kind, hidden, rows)),
        "linear2" => Some(vec![(format!("{block}.proj_out.{kind}"), Cut::Whole)]),
        "modulation.lin" => Some(vec![(format!("{block}.norm.linear.{kind}"), Cut::Whole)]),
        _ => None,
    }
}

/// The parts of a fused tensor: `hidden` rows each, the last takes what remains.
fn split(block: &str, names: &[&str], kind: &str, hidden: usize, rows: usize) -> Vec<(String, Cut)> {
    let part = |i: usize| -> Range<usize> {
        let end = if i + 1 == names.len() { rows } else { rows.min((i + 1) * hidden) };
        end.min(i * hidden)..end
    };
    names.iter().enumerate().map(|(i, name)| (format!("{block}.{name}.{kind}"), Cut::Rows(part(i)))).collect()
}

const SINGLE_LINEAR1: [&str; 4] = ["attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"];

const TOP: &[(&str, &str)] = &[
    ("img_in", "x_embedder"),
    ("txt_in", "context_embedder"),
    ("time_in.in_layer", "time_text_embed.timestep_embedder.linear_1"),
    ("time_in.out_layer", "time_text_embed.timestep_embedder.linear_2"),
    ("vector_in.in_layer", "time_text_embed.text_embedder.linear_1"),
    ("vector_in.out_layer", "time_text_embed.text_embedder.linear_2"),
    ("guidance_in.in_layer", "time_text_embed.guidance_embedder.linear_1"),
    ("guidance_in.out_layer", "time_text_embed.guidance_embedder.linear_2"),
    ("final_layer.linear", "proj_out"),
];

const DOUBLE: &[(&str, &str)] = &[
    ("img_mod.lin", "norm1.linear"),
    ("txt_mod.lin", "norm1_context.linear"),
    ("img_attn.proj", "attn.to_out.0"),
    ("txt_attn.proj", "attn.to_add_out"),
    ("img_mlp.0", "ff.net.0.proj"),
    ("img_mlp.2", "ff.net.2"),
    ("txt_mlp.0", "ff_context.net.0.proj"),
    ("txt_mlp.2", "ff_context.net.2"),
];
