//! The autoencoder's tensors under the names of diffusers, where a file has those it was trained with (CompVis' latent-diffusion,
//! which black-forest-labs' `ae.safetensors` has too), or diffusers' own.
//!
//! One thing is more than a new name: the attention projections are 1 x 1 convolutions. Source: huggingface/diffusers,
//! `scripts/convert_diffusers_to_original_stable_diffusion.py`.

use std::sync::Arc;

use crate::weights::{Cut, Renamed, TensorSource, lookup};

/// Prefixes an autoencoder's names may carry.
const VAE_PREFIXES: [&str; 3] = ["", "vae.", "first_stage_model."];

/// A tensor of CompVis' layout, and the same of diffusers'.
const FIRST_RESNET: [&str; 2] = ["decoder.mid.block_1.conv1.weight", "decoder.mid_block.resnets.0.conv1.weight"];

/// The autoencoder of a single file under diffusers' names, whichever prefix it carries; `None` if it holds none.
pub fn vae(source: Arc<dyn TensorSource>) -> Option<Renamed> {
    let has = |prefix: &str, name: &str| source.shape(&format!("{prefix}{name}")).is_some();
    let Some(prefix) = VAE_PREFIXES.into_iter().find(|prefix| has(prefix, FIRST_RESNET[0])) else {
        let prefix = VAE_PREFIXES.into_iter().find(|prefix| has(prefix, FIRST_RESNET[1]))?;
        return Some(Renamed::by(&source, prefix, |name| Some(vec![(name.to_owned(), Cut::Whole)])));
    };
    let stages =
        (0..).take_while(|i| source.shape(&format!("{prefix}decoder.up.{i}.block.0.conv1.weight")).is_some()).count();
    Some(Renamed::by(&source, prefix, |name| vae_name(name, stages).map(|pair| vec![pair])))
}

/// diffusers' name for one tensor of an autoencoder with `stages` resolutions.
fn vae_name(name: &str, stages: usize) -> Option<(String, Cut)> {
    // FLUX.2's statistics, and its convolutions at the seam, which belong to the sides there.
    if name.starts_with("bn.") {
        return Some((name.to_owned(), Cut::Whole));
    }
    let seam = |side: &str| name.strip_prefix(side).filter(|rest| rest.contains("quant_conv."));
    if let Some(rest) = seam("encoder.").or(seam("decoder.")) {
        return Some((rest.to_owned(), Cut::Whole));
    }
    let (side, rest) = name.split_once('.').filter(|(side, _)| matches!(*side, "encoder" | "decoder"))?;
    let (stem, kind) = rest.rsplit_once('.')?;
    let words: Vec<&str> = stem.split('.').collect();
    let (new, part) = match words.as_slice() {
        ["conv_in" | "conv_out"] => (stem.to_owned(), Cut::Whole),
        ["norm_out"] => ("conv_norm_out".into(), Cut::Whole),
        ["mid", "attn_1", "norm"] => ("mid_block.attentions.0.group_norm".into(), Cut::Whole),
        ["mid", "attn_1", projection] => {
            let projection = lookup(VAE_ATTENTION, projection)?;
            let part = if kind == "weight" { Cut::Matrix } else { Cut::Whole };
            (format!("mid_block.attentions.0.{projection}"), part)
        }
        ["mid", "block_1", layer] => (format!("mid_block.resnets.0.{}", resnet_layer(layer)), Cut::Whole),
        ["mid", "block_2", layer] => (format!("mid_block.resnets.1.{}", resnet_layer(layer)), Cut::Whole),
        ["down", i, "block", j, layer] => (format!("down_blocks.{i}.resnets.{j}.{}", resnet_layer(layer)), Cut::Whole),
        ["down", i, "downsample", "conv"] => (format!("down_blocks.{i}.downsamplers.0.conv"), Cut::Whole),
        // Stored finest first, diffusers counts in the order of decoding.
        ["up", i, "block", j, layer] => {
            (format!("up_blocks.{}.resnets.{j}.{}", from_coarsest(i, stages)?, resnet_layer(layer)), Cut::Whole)
        }
        ["up", i, "upsample", "conv"] => {
            (format!("up_blocks.{}.upsamplers.0.conv", from_coarsest(i, stages)?), Cut::Whole)
        }
        _ => return None,
    };
    Some((format!("{side}.{new}.{kind}"), part))
}

const VAE_ATTENTION: &[(&str, &str)] = &[("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out.0")];

fn resnet_layer(layer: &str) -> &str {
    if layer == "nin_shortcut" { "conv_shortcut" } else { layer }
}

fn from_coarsest(i: &str, stages: usize) -> Option<usize> {
    (stages.checked_sub(1)?).checked_sub(i.parse().ok()?)
}
