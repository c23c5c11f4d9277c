//! A plain autoencoder: whole maps, candle's own convolution and group norm, one layer after another.

use std::sync::Arc;

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::ops::softmax_last_dim;
use dype::testing::{
    models::parts::kl::VaeConfig,
    weights::{TensorFiles, Weights},
};

use super::fixture;

/// The tiny model's dimensions and weights.
pub fn tiny() -> (VaeConfig, Weights) {
    let folder = fixture("tiny-flux/vae");
    let shards = [1, 2].map(|i| folder.join(format!("diffusion_pytorch_model-0000{i}-of-00002.safetensors")));
    let store = TensorFiles::open(&shards).expect("the fixture opens");
    let config = VaeConfig::read(&folder.join("config.json")).expect("the fixture's config");
    (config, Weights::new(Arc::new(store), DType::F32, Device::Cpu))
}

/// The plain autoencoder.
pub struct Plain<'a> {
    /// Its dimensions.
    pub config: &'a VaeConfig,
    /// Its weights, diffusers' names.
    pub weights: &'a Weights,
}

impl Plain<'_> {
    fn get(&self, name: &str, shape: &[usize]) -> Tensor {
        self.weights.get(name, shape).expect("the weights hold it")
    }

    fn conv(&self, name: &str, x: &Tensor, outputs: usize, kernel: usize) -> Result<Tensor> {
        self.conv_by(name, x, outputs, (kernel, kernel / 2, 1))
    }

    fn conv_by(
        &self,
        name: &str,
        x: &Tensor,
        outputs: usize,
        (kernel, padding, stride): (usize, usize, usize),
    ) -> Result<Tensor> {
        let inputs = x.dim(1)?;
        let weight = self.get(&format!("{name}.weight"), &[outputs, inputs, kernel, kernel]);
        let bias = self.get(&format!("{name}.bias"), &[outputs]).reshape((1, outputs, 1, 1))?;
        x.conv2d(&weight, padding, stride, 1, 1)?.broadcast_add(&bias)
    }

    fn norm(&self, name: &str, x: &Tensor) -> Result<Tensor> {
        let (batch, channels, height, width) = x.dims4()?;
        let groups = x.reshape((batch, self.config.norm_num_groups, ()))?;
        let centred = groups.broadcast_sub(&groups.mean_keepdim(D::Minus1)?)?;
        let deviation = (centred.sqr()?.mean_keepdim(D::Minus1)? + 1e-6)?.sqrt()?;
        let x = centred.broadcast_div(&deviation)?.reshape((batch, channels, height, width))?;
        let vector = |part: &str| self.get(&format!("{name}.{part}"), &[channels]).reshape((1, channels, 1, 1));
        x.broadcast_mul(&vector("weight")?)?.broadcast_add(&vector("bias")?)
    }

    fn residual(&self, name: &str, x: &Tensor, outputs: usize) -> Result<Tensor> {
        let h = self.conv(&format!("{name}.conv1"), &self.norm(&format!("{name}.norm1"), x)?.silu()?, outputs, 3)?;
        let h = self.conv(&format!("{name}.conv2"), &self.norm(&format!("{name}.norm2"), &h)?.silu()?, outputs, 3)?;
        if x.dim(1)? == outputs { x + h } else { self.conv(&format!("{name}.conv_shortcut"), x, outputs, 1)? + h }
    }

    fn attention(&self, name: &str, x: &Tensor) -> Result<Tensor> {
        let (_, channels, height, width) = x.dims4()?;
        let tokens = self.norm(&format!("{name}.group_norm"), x)?.flatten_from(2)?.squeeze(0)?.t()?.contiguous()?;
        let linear = |part: &str, x: &Tensor| -> Result<Tensor> {
            let weight = self.get(&format!("{name}.{part}.weight"), &[channels, channels]);
            x.matmul(&weight.t()?)?.broadcast_add(&self.get(&format!("{name}.{part}.bias"), &[channels]))
        };
        let (q, k, v) = (linear("to_q", &tokens)?, linear("to_k", &tokens)?, linear("to_v", &tokens)?);
        let scores = (q.matmul(&k.t()?)? / (channels as f64).sqrt())?;
        let out = linear("to_out.0", &softmax_last_dim(&scores)?.matmul(&v)?)?;
        x + out.t()?.contiguous()?.reshape((1, channels, height, width))?
    }

    fn mid_block(&self, name: &str, x: &Tensor, channels: usize) -> Result<Tensor> {
        let mut x = self.residual(&format!("{name}.resnets.0"), x, channels)?;
        if self.config.mid_block_add_attention {
            x = self.attention(&format!("{name}.attentions.0"), &x)?;
        }
        self.residual(&format!("{name}.resnets.1"), &x, channels)
    }

    /// The latents [C, h, w] of a picture [1, 3, H, W]: the mean, less shift, times scale.
    pub fn encode(&self, picture: &Tensor) -> Result<Vec<f32>> {
        let config = self.config;
        let stages = &config.block_out_channels;
        let mut x = self.conv("encoder.conv_in", picture, stages[0], 3)?;
        for (stage, &outputs) in stages.iter().enumerate() {
            for resnet in 0..config.layers_per_block {
                x = self.residual(&format!("encoder.down_blocks.{stage}.resnets.{resnet}"), &x, outputs)?;
            }
            if stage + 1 < stages.len() {
                // diffusers' Downsample2D with padding 0: zeros right and below only.
                x = x.pad_with_zeros(2, 0, 1)?.pad_with_zeros(3, 0, 1)?;
                x =
                    self.conv_by(&format!("encoder.down_blocks.{stage}.downsamplers.0.conv"), &x, outputs, (3, 0, 2))?;
            }
        }
        x = self.mid_block("encoder.mid_block", &x, *stages.last().expect("stages"))?;
        x = self.norm("encoder.conv_norm_out", &x)?.silu()?;
        x = self.conv("encoder.conv_out", &x, 2 * config.latent_channels, 3)?;
        if config.use_quant_conv {
            x = self.conv("quant_conv", &x, 2 * config.latent_channels, 1)?;
        }
        let mean = x.narrow(1, 0, config.latent_channels)?;
        ((mean - config.shift_factor.unwrap_or(0.0))? * config.scaling_factor)?.flatten_all()?.to_vec1()
    }

    /// The picture [H, W, 3] of latents [1, C, h, w].
    pub fn decode(&self, latents: &Tensor) -> Result<Vec<f32>> {
        let config = self.config;
        let last = *config.block_out_channels.last().expect("stages");
        let mut x = latents.affine(1.0 / config.scaling_factor, config.shift_factor.unwrap_or(0.0))?;
        if config.use_post_quant_conv {
            x = self.conv("post_quant_conv", &x, config.latent_channels, 1)?;
        }
        x = self.conv("decoder.conv_in", &x, last, 3)?;
        x = self.mid_block("decoder.mid_block", &x, last)?;
        for (stage, &outputs) in config.block_out_channels.iter().rev().enumerate() {
            for resnet in 0..=config.layers_per_block {
                x = self.residual(&format!("decoder.up_blocks.{stage}.resnets.{resnet}"), &x, outputs)?;
            }
            if stage + 1 < config.block_out_channels.len() {
                let (height, width) = (x.dim(2)?, x.dim(3)?);
                x = x.upsample_nearest2d(2 * height, 2 * width)?;
                x = self.conv(&format!("decoder.up_blocks.{stage}.upsamplers.0.conv"), &x, outputs, 3)?;
            }
        }
        x = self.norm("decoder.conv_norm_out", &x)?.silu()?;
        self.conv("decoder.conv_out", &x, 3, 3)?.squeeze(0)?.permute((1, 2, 0))?.flatten_all()?.to_vec1()
    }
}
