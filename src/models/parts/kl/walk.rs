//! The decoder's layers in their order, and what is stored between them.
//!
//! A group norm needs the statistics of its whole input before its first output row exists. So the picture is walked in
//! passes: each sends the bands of the last stored map (`base`) through the layers since then (`pending`). What a stage
//! keeps decides how many layers a pass repeats.

use std::{borrow::Cow, collections::VecDeque};

use super::{
    VaeConfig,
    kernels::{Affine, Before, Kernels, Layer, Moments, Reach},
    plan::{DecodeOptions, Keep},
    stream::{Chain, ConvStream, Map, Node},
};
use crate::error::Result;

/// Channels of the picture.
const PICTURE_CHANNELS: usize = 3;

/// A residual block's weights.
struct Residual<K: Kernels> {
    outputs: usize,
    norm1: (Vec<f32>, Vec<f32>),
    conv1: K::Filter,
    norm2: (Vec<f32>, Vec<f32>),
    conv2: K::Filter,
    shortcut: Option<K::Filter>,
}

/// A layer whose output is not stored; its norms are known.
enum Step<K: Kernels> {
    Doubled(K::Filter),
    Residual { weights: Residual<K>, norm1: Affine, norm2: Affine },
}

impl<K: Kernels> Step<K> {
    fn node(&self) -> Node<'_, K> {
        match self {
            Self::Doubled(filter) => Node::Conv(ConvStream::new(filter, None)),
            Self::Residual { weights, norm1, norm2 } => Node::residual(
                ConvStream::new(&weights.conv1, Some(norm1)),
                ConvStream::new(&weights.conv2, Some(norm2)),
                weights.shortcut.as_ref(),
            ),
        }
    }
}

/// Where a decode stands.
pub(super) struct Walk<'a, K: Kernels> {
    kernels: &'a K,
    config: &'a VaeConfig,
    options: &'a DecodeOptions,
    base: Map<K::Rows>,
    pending: Vec<Step<K>>,
    moments: Moments,
}

/// Decodes latents [h, w, C] (scale and shift already undone) into rows of the picture, [rows, W, 3] each.
///
/// The layers are those of diffusers' `Decoder`: conv_in, mid block, four up blocks, norm, SiLU, conv_out.
pub(super) fn decode<K: Kernels>(
    kernels: &K,
    config: &VaeConfig,
    options: &DecodeOptions,
    latents: K::Rows,
    sink: impl FnMut(K::Rows) -> Result<()>,
) -> Result<()> {
    let mut channels = config.block_out_channels.last().copied().unwrap_or(0);
    let mut walk = Walk::begin(kernels, config, options, latents, channels)?;
    let middle = options.keep_at(0).max(Keep::Maps);
    walk.residual("decoder.mid_block.resnets.0", channels, channels, middle)?;
    if config.mid_block_add_attention {
        walk.attention("decoder.mid_block.attentions.0", channels)?;
    }
    walk.residual("decoder.mid_block.resnets.1", channels, channels, middle)?;
    for (stage, &outputs) in config.block_out_channels.iter().rev().enumerate() {
        let (block, keep) = (format!("decoder.up_blocks.{stage}"), options.keep_at(stage));
        for resnet in 0..=config.layers_per_block {
            walk.residual(&format!("{block}.resnets.{resnet}"), channels, outputs, keep)?;
            channels = outputs;
        }
        if stage + 1 < config.block_out_channels.len() {
            walk.double(&format!("{block}.upsamplers.0.conv"), channels, options.keep_at(stage + 1))?;
        }
    }
    walk.finish(channels, sink)
}

impl<'a, K: Kernels> Walk<'a, K> {
    fn begin(
        kernels: &'a K,
        config: &'a VaeConfig,
        options: &'a DecodeOptions,
        latents: K::Rows,
        channels: usize,
    ) -> Result<Self> {
        let mut walk =
            Self { kernels, config, options, base: Map::new(), pending: Vec::new(), moments: Moments::new(channels) };
        let inputs = config.latent_channels;
        let latents = if config.use_post_quant_conv {
            let layer = Layer { name: "post_quant_conv", inputs, outputs: inputs };
            kernels.project(&kernels.projection(layer, true)?, &latents, Before::Nothing, None)?
        } else {
            latents
        };
        walk.base.push(kernels, options.band_rows, latents)?;
        let conv_in = kernels.filter(Layer { name: "decoder.conv_in", inputs, outputs: channels }, Reach::Same)?;
        let chain = Chain::new(kernels, vec![Node::Conv(ConvStream::new(&conv_in, None))]);
        walk.store(chain.measured(channels), options.band_rows)?;
        Ok(walk)
    }

    /// Rows of the base to send at once, so that bands stay `band_rows` high however often they are doubled.
    fn rows(&self, pending: &[Step<K>]) -> usize {
        let doublings = pending.iter().filter(|step| matches!(step, Step::Doubled(_))).count();
        (self.options.band_rows >> doublings).max(1)
    }

    fn chain<'s>(&self, pending: &'s [Step<K>], more: Option<Node<'s, K>>) -> Chain<'s, K>
    where
        'a: 's,
    {
        Chain::new(self.kernels, pending.iter().map(Step::node).chain(more).collect())
    }

    fn affine(&self, norm: &(Vec<f32>, Vec<f32>)) -> Affine {
        self.moments.affine(self.config.norm_num_groups, &norm.0, &norm.1)
    }

    /// Statistics of what the pending layers (and `more`) make of the base; nothing is stored.
    fn survey(&self, more: Option<Node<'_, K>>, channels: usize) -> Result<Moments> {
        let mut chain = self.chain(&self.pending, more).measured(channels);
        self.base.visit(self.kernels, self.rows(&self.pending), |band| chain.feed(band).map(drop))?;
        Ok(chain.finish(|_| Ok(()))?.unwrap_or_else(|| Moments::new(channels)))
    }

    /// Sends the base, `rows` at a time, through the chain; what comes out is the new base.
    fn store(&mut self, mut chain: Chain<'_, K>, rows: usize) -> Result<()> {
        let (kernels, limit) = (self.kernels, self.options.band_rows);
        let (base, mut output) = (std::mem::replace(&mut self.base, Map::new()), Map::new());
        base.drain(kernels, rows, |band| match chain.feed(band)? {
            Some(band) => output.push(kernels, limit, band),
            None => Ok(()),
        })?;
        if let Some(moments) = chain.finish(|band| output.push(kernels, limit, band))? {
            self.moments = moments;
        }
        self.base = output;
        Ok(())
    }

    /// Stores the output of the pending layers, so that none is pending.
    fn settle(&mut self, channels: usize) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let pending = std::mem::take(&mut self.pending);
        let chain = self.chain(&pending, None).measured(channels);
        self.store(chain, self.rows(&pending))
    }

    fn load_residual(&self, name: &str, inputs: usize, outputs: usize) -> Result<Residual<K>> {
        let filter = |part: &str, inputs| {
            let name = format!("{name}.{part}");
            self.kernels.filter(Layer { name: &name, inputs, outputs }, Reach::Same)
        };
        let shortcut = format!("{name}.conv_shortcut");
        Ok(Residual {
            outputs,
            norm1: self.kernels.norm(&format!("{name}.norm1"), inputs)?,
            conv1: filter("conv1", inputs)?,
            norm2: self.kernels.norm(&format!("{name}.norm2"), outputs)?,
            conv2: filter("conv2", outputs)?,
            shortcut: (inputs != outputs)
                .then(|| self.kernels.projection(Layer { name: &shortcut, inputs, outputs }, true))
                .transpose()?,
        })
    }

    /// x + conv2(silu(norm2(conv1(silu(norm1(x))))))  (diffusers' `ResnetBlock2D`).
    fn residual(&mut self, name: &str, inputs: usize, outputs: usize, keep: Keep) -> Result<()> {
        let weights = self.load_residual(name, inputs, outputs)?;
        if keep == Keep::All {
            self.settle(inputs)?;
            return self.residual_kept(&weights);
        }
        let norm1 = self.affine(&weights.norm1);
        let conv1 = Node::Conv(ConvStream::new(&weights.conv1, Some(&norm1)));
        self.moments = self.survey(Some(conv1), outputs)?;
        let norm2 = self.affine(&weights.norm2);
        self.pending.push(Step::Residual { weights, norm1, norm2 });
        self.settle_or_survey(outputs, keep)
    }

    /// The same, keeping the inner map: nothing is computed twice.
    fn residual_kept(&mut self, weights: &Residual<K>) -> Result<()> {
        let (kernels, rows) = (self.kernels, self.options.band_rows);
        let (mut hidden, mut shortcuts) = (Map::new(), VecDeque::new());
        let norm1 = self.affine(&weights.norm1);
        let conv1 = Node::Conv(ConvStream::new(&weights.conv1, Some(&norm1)));
        let mut chain = self.chain(&[], Some(conv1)).measured(weights.outputs);
        std::mem::replace(&mut self.base, Map::new()).drain(kernels, rows, |band| {
            if let Some(band) = chain.feed(Cow::Borrowed(&band))? {
                hidden.push(kernels, rows, band)?;
            }
            shortcuts.push_back(match &weights.shortcut {
                Some(filter) => kernels.project(filter, &band, Before::Nothing, None)?,
                None => band.into_owned(),
            });
            Ok(())
        })?;
        if let Some(moments) = chain.finish(|band| hidden.push(kernels, rows, band))? {
            self.moments = moments;
        }
        self.base = hidden;
        let norm2 = self.affine(&weights.norm2);
        let conv2 = ConvStream::new(&weights.conv2, Some(&norm2)).with_residual(shortcuts);
        let chain = self.chain(&[], Some(Node::Conv(conv2))).measured(weights.outputs);
        self.store(chain, rows)
    }

    fn settle_or_survey(&mut self, channels: usize, keep: Keep) -> Result<()> {
        if keep > Keep::Nothing {
            self.settle(channels)
        } else {
            self.moments = self.survey(None, channels)?;
            Ok(())
        }
    }

    /// Nearest-neighbour doubling, then a 3 x 3 convolution (diffusers' `Upsample2D`).
    fn double(&mut self, name: &str, channels: usize, keep: Keep) -> Result<()> {
        let layer = Layer { name, inputs: channels, outputs: channels };
        self.pending.push(Step::Doubled(self.kernels.filter(layer, Reach::Doubled)?));
        // The doubled map is stored only where everything is: it is the largest of its stage.
        if keep == Keep::All {
            self.settle(channels)
        } else {
            self.moments = self.survey(None, channels)?;
            Ok(())
        }
    }

    /// x + to_out(attention(norm(x))), every latent pixel looking at all others (diffusers' `Attention`, one head).
    fn attention(&mut self, name: &str, channels: usize) -> Result<()> {
        let kernels = self.kernels;
        let load = |part: &str| {
            let name = format!("{name}.{part}");
            kernels.projection(Layer { name: &name, inputs: channels, outputs: channels }, false)
        };
        let norm = self.affine(&kernels.norm(&format!("{name}.group_norm"), channels)?);
        let (norm, rows) = (Before::Norm(&norm), self.options.band_rows);
        let (to_q, to_k, to_v, to_out) = (load("to_q")?, load("to_k")?, load("to_v")?, load("to_out.0")?);
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        self.base.visit(kernels, rows, |band| {
            keys.push(kernels.project(&to_k, &band, norm, None)?);
            values.push(kernels.project(&to_v, &band, norm, None)?);
            Ok(())
        })?;
        let keys = kernels.keys(keys, values)?;
        let (mut output, mut moments) = (Map::new(), Moments::new(channels));
        std::mem::replace(&mut self.base, Map::new()).drain(kernels, rows, |band| {
            let queries = kernels.project(&to_q, &band, norm, None)?;
            let attended = kernels.attend(&queries, &keys)?;
            let sum = kernels.project(&to_out, &attended, Before::Nothing, Some(&band))?;
            kernels.measure(&sum, &mut moments)?;
            output.push(kernels, rows, sum)
        })?;
        (self.base, self.moments) = (output, moments);
        Ok(())
    }

    /// norm, SiLU, conv_out: rows of the picture.
    fn finish(mut self, channels: usize, mut sink: impl FnMut(K::Rows) -> Result<()>) -> Result<()> {
        let norm = self.affine(&self.kernels.norm("decoder.conv_norm_out", channels)?);
        let layer = Layer { name: "decoder.conv_out", inputs: channels, outputs: PICTURE_CHANNELS };
        let conv_out = self.kernels.filter(layer, Reach::Same)?;
        let (kernels, rows) = (self.kernels, self.rows(&self.pending));
        let base = std::mem::replace(&mut self.base, Map::new());
        let mut chain = self.chain(&self.pending, Some(Node::Conv(ConvStream::new(&conv_out, Some(&norm)))));
        base.drain(kernels, rows, |band| chain.feed(band)?.map_or(Ok(()), &mut sink))?;
        chain.finish(sink).map(drop)
    }
}
