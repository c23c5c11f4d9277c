//! The autoencoder's dimensions, as its `config.json` in diffusers layout gives them.

use std::path::Path;

use serde::Deserialize;

use crate::{
    error::{Error, Result},
    models::parts::{
        config::{self, Config, Key, computed, idle, one_of},
        infer,
        kl::{DOWN_BLOCK, Design, LatentStatistics, UP_BLOCK, VaeConfig},
        open,
    },
    weights::TensorSource,
};

/// Dimensions of a Wan autoencoder.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct WanConfig {
    /// Channels of the finest stage; 96.
    pub base_dim: usize,
    /// Channels of the latents; 16.
    pub z_dim: usize,
    /// Channels of the stages as multiples of the finest, which comes first; 1, 2, 4, 4.
    pub dim_mult: Vec<usize>,
    /// Residual blocks of an encoder stage; a decoder stage has one more.
    pub num_res_blocks: usize,
    /// Mean of each channel of the latents.
    pub latents_mean: Vec<f64>,
    /// Standard deviation of each channel of the latents.
    pub latents_std: Vec<f64>,
}

/// Source: diffusers, `AutoencoderKLQwenImage.__init__`; the statistics are those of Wan 2.1.
const MEAN: &str = "[-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, \
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921]";
const STD: &str = "[2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, \
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160]";
const KEYS: &[Key] = &[
    computed("base_dim", "96"),
    computed("z_dim", "16"),
    computed("dim_mult", "[1, 2, 4, 4]"),
    computed("num_res_blocks", "2"),
    // Attention beside that of the middle block.
    one_of("attn_scales", "[]", &["[]"]),
    // Between frames.
    idle("temperal_downsample", "[false, true, true]"),
    // Training.
    idle("dropout", "0.0"),
    // Red, green and blue.
    one_of("input_channels", "3", &["3"]),
    computed("latents_mean", MEAN),
    computed("latents_std", STD),
];

impl WanConfig {
    /// Those of Wan 2.1.
    pub fn wan_2_1() -> Self {
        let numbers = |text: &str| serde_json::from_str(text).unwrap_or_default();
        Self {
            base_dim: 96,
            z_dim: 16,
            dim_mult: vec![1, 2, 4, 4],
            num_res_blocks: 2,
            latents_mean: numbers(MEAN),
            latents_std: numbers(STD),
        }
    }

    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`Error::Disk`] when it cannot be read, [`Error::Model`] when it is not JSON, says what is not computed, or is no
    /// autoencoder's.
    pub fn read(path: &Path) -> Result<Self> {
        config::read(path)
    }

    /// From the shapes of tensors under [`super::names`]; they do not show the statistics, which are Wan 2.1's.
    ///
    /// # Errors
    /// [`Error::Model`] when the tensors that show them are missing.
    pub(super) fn infer(source: &dyn TensorSource) -> Result<Self> {
        let like = Self::wan_2_1();
        let found = infer::vae(source, &like.dimensions())?;
        let base_dim = found.block_out_channels.first().copied().unwrap_or(1).max(1);
        Ok(Self {
            base_dim,
            z_dim: found.latent_channels,
            dim_mult: found.block_out_channels.iter().map(|channels| channels / base_dim).collect(),
            num_res_blocks: found.layers_per_block,
            ..like
        })
    }

    /// The same as the walk of an autoencoder takes it.
    pub fn dimensions(&self) -> VaeConfig {
        VaeConfig {
            block_out_channels: self.dim_mult.iter().map(|times| times * self.base_dim).collect(),
            down_block_types: vec![DOWN_BLOCK.into(); self.dim_mult.len()],
            up_block_types: vec![UP_BLOCK.into(); self.dim_mult.len()],
            layers_per_block: self.num_res_blocks,
            latent_channels: self.z_dim,
            norm_num_groups: 1,
            use_quant_conv: true,
            use_post_quant_conv: true,
            design: Design::Wan,
            latents: Some(LatentStatistics { mean: self.latents_mean.clone(), std: self.latents_std.clone() }),
            ..VaeConfig::default()
        }
    }
}

impl Config for WanConfig {
    const KEYS: &'static [&'static [Key]] = &[KEYS];
    const ADVICE: &'static str = "check the vae's config.json, or use the original model's";

    fn check(&self) -> Result<()> {
        let layers = ("num_res_blocks", self.num_res_blocks);
        let widest = self.dim_mult.iter().copied().max().unwrap_or(0);
        let odd = self.dim_mult.contains(&0);
        let sizes = [("base_dim", self.base_dim), ("z_dim", self.z_dim), ("dim_mult", widest), layers];
        open::check_range(&sizes, &[layers], Self::ADVICE)?;
        let refuse = |what: String| Err(Error::model(what, Self::ADVICE));
        if odd {
            return refuse(format!("dim_mult is {:?}, and every stage has channels", self.dim_mult));
        }
        for (name, numbers) in [("latents_mean", &self.latents_mean), ("latents_std", &self.latents_std)] {
            if numbers.len() != self.z_dim || numbers.iter().any(|number| !number.is_finite()) {
                return refuse(format!("{name} is {numbers:?}, expected {} numbers", self.z_dim));
            }
        }
        if self.latents_std.iter().any(|std| *std <= 0.0) {
            return refuse(format!("latents_std is {:?}, expected numbers above 0", self.latents_std));
        }
        self.dimensions().check()
    }
}
