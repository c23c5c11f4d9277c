//! The autoencoder's tensors under the names of [`super::super::kl`]'s walk, from those of diffusers and from those it was
//! trained with (Wan-Video/Wan2.1, `vae.py`), which ComfyUI's files have too.
//!
//! What is more than a new name: of a convolution's frames the last is taken, norms are vectors, and query, key and value of
//! the attention are rows of one matrix. The convolutions between frames stay where they are. Source: huggingface/diffusers,
//! `loaders/single_file_utils.py`, `convert_wan_vae_to_diffusers`.

use std::sync::Arc;

use crate::weights::{Cut, Expected, Renamed, TensorSource};

/// Prefixes an autoencoder's names may carry.
const PREFIXES: [&str; 3] = ["", "vae.", "first_stage_model."];

/// The autoencoder of a source under the walk's names; `None` if it holds none.
pub fn wan(source: Arc<dyn TensorSource>) -> Option<Renamed> {
    let has = |name: String| source.shape(&name).is_some();
    let is_own = |prefix: &&str| has(format!("{prefix}decoder.middle.0.residual.0.gamma"));
    let is_diffusers = |prefix: &&str| has(format!("{prefix}decoder.mid_block.resnets.0.norm1.gamma"));
    let own = PREFIXES.into_iter().find(is_own);
    let prefix = own.or_else(|| PREFIXES.into_iter().find(is_diffusers))?;
    // Where the first stage ends: a convolution that resizes.
    let length =
        |list: &str| (0..64).find(|i| has(format!("{prefix}{list}.{i}.resample.1.weight"))).unwrap_or(usize::MAX / 2);
    let stages = Stages {
        down: length(if own.is_some() { "encoder.downsamples" } else { "encoder.down_blocks" }),
        up: length("decoder.upsamples"),
    };
    let third = |name: &str| source.shape(&format!("{prefix}{name}"))?.first().map(|rows| rows / 3);
    Some(Renamed::by(&source, prefix, |name| {
        let diffusers = if own.is_some() { stages.diffusers_name(name)? } else { name.to_owned() };
        stages.walk_names(&diffusers, third(name))
    }))
}

/// Layers of one stage before the one that resizes, in lists that know no stages.
struct Stages {
    down: usize,
    up: usize,
}

impl Stages {
    /// diffusers' name of a tensor by its own.
    fn diffusers_name(&self, name: &str) -> Option<String> {
        let (side, rest) = match name.split_once('.')? {
            ("conv1", rest) => return Some(format!("quant_conv.{rest}")),
            ("conv2", rest) => return Some(format!("post_quant_conv.{rest}")),
            pair => pair,
        };
        let words: Vec<&str> = rest.split('.').collect();
        let block = |tail: &[&str]| -> Option<String> {
            Some(match tail {
                ["residual", "0", kind] => format!("norm1.{kind}"),
                ["residual", "2", kind] => format!("conv1.{kind}"),
                ["residual", "3", kind] => format!("norm2.{kind}"),
                ["residual", "6", kind] => format!("conv2.{kind}"),
                ["shortcut", kind] => format!("conv_shortcut.{kind}"),
                _ => return None,
            })
        };
        let new = match words.as_slice() {
            ["conv1", kind] => format!("conv_in.{kind}"),
            ["head", "0", kind] => format!("norm_out.{kind}"),
            ["head", "2", kind] => format!("conv_out.{kind}"),
            ["middle", "0", tail @ ..] => format!("mid_block.resnets.0.{}", block(tail)?),
            ["middle", "1", tail @ ..] => format!("mid_block.attentions.0.{}", tail.join(".")),
            ["middle", "2", tail @ ..] => format!("mid_block.resnets.1.{}", block(tail)?),
            ["downsamples", i, "resample" | "time_conv", ..] => format!("down_blocks.{i}.{}", words[2..].join(".")),
            ["downsamples", i, tail @ ..] => format!("down_blocks.{i}.{}", block(tail)?),
            ["upsamples", i, tail @ ..] => {
                let (stage, layer) = place(i, self.up)?;
                match tail {
                    ["resample" | "time_conv", ..] => format!("up_blocks.{stage}.upsamplers.0.{}", tail.join(".")),
                    _ => format!("up_blocks.{stage}.resnets.{layer}.{}", block(tail)?),
                }
            }
            _ => return None,
        };
        Some(format!("{side}.{new}"))
    }

    /// The walk's names for a tensor under diffusers' name; a third of its rows are as many.
    fn walk_names(&self, name: &str, third: Option<usize>) -> Option<Vec<(String, Cut)>> {
        let (stem, kind) = name.rsplit_once('.')?;
        let of_frames = if kind == "weight" { Cut::LastFrame } else { Cut::Whole };
        let of_matrix = if kind == "weight" { Cut::Matrix } else { Cut::Whole };
        let one = |new: String, cut: Cut| Some(vec![(new, cut)]);
        if let Some(attention) = stem.strip_suffix(".to_qkv") {
            let parts = ["to_q", "to_k", "to_v"].into_iter().enumerate().map(|(at, part)| {
                let rows = at * third.unwrap_or(0)..(at + 1) * third.unwrap_or(0);
                let cut = if kind == "weight" { Cut::MatrixRows(rows) } else { Cut::Rows(rows) };
                (format!("{attention}.{part}.{kind}"), cut)
            });
            return Some(parts.collect());
        }
        if let Some(attention) = stem.strip_suffix(".proj") {
            return one(format!("{attention}.to_out.0.{kind}"), of_matrix);
        }
        if kind == "gamma" {
            let new = match stem.rsplit_once('.')? {
                (attention, "norm") => format!("{attention}.group_norm"),
                (side, "norm_out") => format!("{side}.conv_norm_out"),
                _ => self.staged(stem)?,
            };
            return one(format!("{new}.weight"), Cut::Vector);
        }
        if stem.ends_with(".time_conv") {
            return None;
        }
        let stem = self.staged(stem)?;
        // What resizes is a convolution of one frame already.
        match stem.strip_suffix(".resample.1") {
            Some(resizing) => one(format!("{resizing}.conv.{kind}"), Cut::Whole),
            None => one(format!("{stem}.{kind}"), of_frames),
        }
    }

    /// A name whose flat list of encoder layers has become stages.
    fn staged(&self, stem: &str) -> Option<String> {
        let Some(rest) = stem.strip_prefix("encoder.down_blocks.") else { return Some(stem.to_owned()) };
        let (i, tail) = rest.split_once('.')?;
        let (stage, layer) = place(i, self.down)?;
        Some(match tail.starts_with("resample") {
            true => format!("encoder.down_blocks.{stage}.downsamplers.0.{tail}"),
            false => format!("encoder.down_blocks.{stage}.resnets.{layer}.{tail}"),
        })
    }
}

/// What diffusers stores for the tensors that the walk asks for, of an autoencoder with so many residual blocks in a stage of its
/// encoder; but for the convolutions between frames, which nobody asks for.
pub(super) fn stored(walk: Vec<Expected>, blocks: usize) -> Vec<Expected> {
    walk.into_iter().filter_map(|(name, shape)| stored_one(&name, shape, blocks)).collect()
}

/// One tensor, as [`Stages::walk_names`] reads it; of query, key and value the first stands for all.
fn stored_one(name: &str, mut shape: Vec<usize>, blocks: usize) -> Option<Expected> {
    let (stem, kind) = name.rsplit_once('.')?;
    let (layer, last) = stem.rsplit_once('.').unwrap_or(("", stem));
    let of_norm = |name: String, mut shape: Vec<usize>, ones: usize| {
        shape.extend(vec![1; ones]);
        Some((format!("{name}.gamma"), shape))
    };
    match (last, kind) {
        ("to_k" | "to_v", _) => return None,
        ("to_q", _) => {
            shape[0] *= 3;
            shape.extend(if kind == "weight" { &[1, 1][..] } else { &[] });
            return Some((format!("{layer}.to_qkv.{kind}"), shape));
        }
        // to_out.0
        ("0", _) if layer.ends_with(".to_out") => {
            shape.extend(if kind == "weight" { &[1, 1][..] } else { &[] });
            return Some((format!("{}.proj.{kind}", layer.strip_suffix(".to_out")?), shape));
        }
        ("group_norm", _) => return of_norm(format!("{layer}.norm"), shape, 2),
        ("conv_norm_out", _) => return of_norm(format!("{layer}.norm_out"), shape, 3),
        ("norm1" | "norm2", _) => return of_norm(unstaged(stem, blocks)?, shape, 3),
        _ => {}
    }
    if let Some(resizing) = stem.strip_suffix("s.0.conv").filter(|stem| stem.ends_with("sampler")) {
        let flat = match resizing.strip_suffix(".downsampler") {
            Some(stage) => unstaged(&format!("{stage}.downsamplers.0"), blocks)?,
            None => format!("{resizing}s.0"),
        };
        return Some((format!("{flat}.resample.1.{kind}"), shape));
    }
    // As many frames as rows; a convolution of one pixel sees one.
    if let [_, _, rows, _] = shape[..] {
        shape.insert(2, rows);
    }
    Some((format!("{}.{kind}", unstaged(stem, blocks)?), shape))
}

/// A name whose stages of encoder layers have become a flat list.
fn unstaged(stem: &str, blocks: usize) -> Option<String> {
    let Some(rest) = stem.strip_prefix("encoder.down_blocks.") else { return Some(stem.to_owned()) };
    let mut words = rest.splitn(4, '.');
    let (stage, kind, layer) = (words.next()?.parse::<usize>().ok()?, words.next()?, words.next()?);
    let layer = if kind == "downsamplers" { blocks } else { layer.parse().ok()? };
    let tail = words.next().map_or_else(String::new, |tail| format!(".{tail}"));
    Some(format!("encoder.down_blocks.{}{tail}", stage * (blocks + 1) + layer))
}

/// The stage, and the layer in it, of a layer of a flat list, where so many come before the one that resizes.
fn place(index: &str, before: usize) -> Option<(usize, usize)> {
    let index: usize = index.parse().ok()?;
    Some((index / (before + 1), index % (before + 1)))
}
