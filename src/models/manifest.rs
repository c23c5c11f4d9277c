//! Every tensor an autoencoder's decoder of given dimensions has, by diffusers' names: what to check for before anything is
//! loaded, and what a plan sums up.

use crate::models::parts::kl::VaeConfig;

pub use crate::weights::{Expected, check_all as check};

/// Collects names and shapes.
#[derive(Default)]
struct List(Vec<Expected>);

impl List {
    fn add(&mut self, name: String, shape: &[usize]) {
        self.0.push((name, shape.to_vec()));
    }

    fn linear(&mut self, name: &str, [out, into]: [usize; 2]) {
        self.add(format!("{name}.weight"), &[out, into]);
        self.add(format!("{name}.bias"), &[out]);
    }

    fn conv(&mut self, name: &str, [out, into]: [usize; 2], kernel: usize) {
        self.add(format!("{name}.weight"), &[out, into, kernel, kernel]);
        self.add(format!("{name}.bias"), &[out]);
    }

    /// A layer or group norm with weight and bias.
    fn norm(&mut self, name: &str, channels: usize) {
        self.add(format!("{name}.weight"), &[channels]);
        self.add(format!("{name}.bias"), &[channels]);
    }
}

/// The autoencoder's decoder.
pub fn decoder(config: &VaeConfig) -> Vec<Expected> {
    let mut list = List::default();
    let latent = config.latent_channels;
    if config.use_post_quant_conv {
        list.conv("post_quant_conv", [latent, latent], 1);
    }
    let coarsest = config.block_out_channels.last().copied().unwrap_or(0);
    let finest = config.block_out_channels.first().copied().unwrap_or(0);
    list.conv("decoder.conv_in", [coarsest, latent], 3);
    for i in 0..2 {
        resnet(&mut list, &format!("decoder.mid_block.resnets.{i}"), coarsest, coarsest);
    }
    if config.mid_block_add_attention {
        let attention = "decoder.mid_block.attentions.0";
        list.norm(&format!("{attention}.group_norm"), coarsest);
        for projection in ["to_q", "to_k", "to_v", "to_out.0"] {
            list.linear(&format!("{attention}.{projection}"), [coarsest, coarsest]);
        }
    }
    let stages = config.block_out_channels.len();
    let mut into = coarsest;
    for (i, &out) in config.block_out_channels.iter().rev().enumerate() {
        let block = format!("decoder.up_blocks.{i}");
        for j in 0..=config.layers_per_block {
            resnet(&mut list, &format!("{block}.resnets.{j}"), if j == 0 { into } else { out }, out);
        }
        if i + 1 < stages {
            list.conv(&format!("{block}.upsamplers.0.conv"), [out, out], 3);
        }
        into = out;
    }
    list.norm("decoder.conv_norm_out", finest);
    list.conv("decoder.conv_out", [3, finest], 3);
    list.0
}

fn resnet(list: &mut List, name: &str, into: usize, out: usize) {
    list.norm(&format!("{name}.norm1"), into);
    list.conv(&format!("{name}.conv1"), [out, into], 3);
    list.norm(&format!("{name}.norm2"), out);
    list.conv(&format!("{name}.conv2"), [out, out], 3);
    if into != out {
        list.conv(&format!("{name}.conv_shortcut"), [out, into], 1);
    }
}
