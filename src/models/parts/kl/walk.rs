//! An autoencoder's layers as passes over bands, and what is stored between them.
//!
//! A group norm needs the statistics of its whole input before its first output row exists. So the picture is walked in
//! passes: each sends the bands of the last stored map (`base`) through the layers since then (`pending`). What a stage
//! keeps decides how many layers a pass repeats. A norm over channels needs none of it: then layers only pend, and nothing is
//! computed twice. Which layers there are, in which order, say [`super::decoder`] and [`super::encoder`].

use std::{borrow::Cow, collections::VecDeque};

use super::{
    VaeConfig,
    config::Design,
    plan::{Banding, Keep},
};
use crate::{
    error::Result,
    nn::bands::{Before, Chain, ConvStream, Kernels, Layer, Map, Moments, Node, Norm, Reach},
};

/// Weights of a norm.
enum NormWeights {
    /// gamma and beta of a group norm.
    Group(Vec<f32>, Vec<f32>),
    /// A norm over channels, which is known by them.
    Known(Norm),
}

/// A residual block's weights.
struct Residual<K: Kernels> {
    outputs: usize,
    norm1: NormWeights,
    conv1: K::Filter,
    norm2: NormWeights,
    conv2: K::Filter,
    shortcut: Option<K::Projection>,
}

/// A layer whose output is not stored; its norms are known.
enum Step<K: Kernels> {
    Conv { filter: K::Filter, reach: Reach },
    Residual { weights: Box<Residual<K>>, norm1: Norm, norm2: Norm },
}

impl<K: Kernels> Step<K> {
    fn node(&self) -> Node<'_, K> {
        match self {
            Self::Conv { filter, .. } => Node::Conv(ConvStream::new(filter, None)),
            Self::Residual { weights, norm1, norm2 } => Node::residual(
                ConvStream::new(&weights.conv1, Some(norm1)),
                ConvStream::new(&weights.conv2, Some(norm2)),
                weights.shortcut.as_ref(),
            ),
        }
    }
}

/// Where a walk stands.
pub(super) struct Walk<'a, K: Kernels> {
    kernels: &'a K,
    config: &'a VaeConfig,
    options: &'a Banding,
    base: Map<K::Rows>,
    pending: Vec<Step<K>>,
    /// Channels of what the pending layers give.
    channels: usize,
    /// Its statistics, once they are known.
    moments: Option<Moments>,
}

impl<'a, K: Kernels> Walk<'a, K> {
    /// The first layer, a convolution of `input`.
    pub fn begin(
        kernels: &'a K,
        config: &'a VaeConfig,
        options: &'a Banding,
        input: Map<K::Rows>,
        conv_in: Layer<'_>,
        keep: Keep,
    ) -> Result<Self> {
        let (pending, channels) = (Vec::new(), conv_in.inputs);
        let mut walk = Self { kernels, config, options, base: input, pending, channels, moments: None };
        walk.conv(conv_in, Reach::Same, keep > Keep::Nothing)?;
        Ok(walk)
    }

    /// Rows of the base to send at once, so that bands stay `band_rows` high however often they are doubled.
    fn rows(&self, pending: &[Step<K>]) -> usize {
        let doublings = pending.iter().filter(|step| matches!(step, Step::Conv { reach: Reach::Doubled, .. })).count();
        (self.options.band_rows >> doublings).max(1)
    }

    fn chain<'s>(&self, pending: &'s [Step<K>], more: Option<Node<'s, K>>) -> Chain<'s, K>
    where
        'a: 's,
    {
        Chain::new(self.kernels, pending.iter().map(Step::node).chain(more).collect())
    }

    /// Whether norms need statistics of whole maps.
    fn has_statistics(&self) -> bool {
        self.config.design == Design::Kl
    }

    fn load_norm(&self, name: &str, channels: usize) -> Result<NormWeights> {
        let load = |part| self.kernels.norm(name, part, channels);
        Ok(match self.config.design {
            Design::Kl => NormWeights::Group(load("weight")?, load("bias")?),
            Design::Wan => NormWeights::Known(Norm::rms(&load("weight")?)),
        })
    }

    /// The norm of what the pending layers give; they are walked for its statistics where it has any and nobody has yet.
    fn norm(&mut self, weights: &NormWeights) -> Result<Norm> {
        let (gamma, beta) = match weights {
            NormWeights::Group(gamma, beta) => (gamma, beta),
            NormWeights::Known(norm) => return Ok(norm.clone()),
        };
        let moments = match self.moments.take() {
            Some(moments) => moments,
            None => self.survey(None, self.channels)?,
        };
        let affine = moments.affine(self.config.norm_num_groups, gamma, beta);
        self.moments = Some(moments);
        Ok(Norm::Group(affine))
    }

    /// A chain that gathers the statistics of its output, where anybody looks at them.
    fn measured<'s>(&self, chain: Chain<'s, K>, channels: usize) -> Chain<'s, K> {
        if self.has_statistics() { chain.measured(channels) } else { chain }
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
        self.moments = chain.finish(|band| output.push(kernels, limit, band))?;
        self.base = output;
        Ok(())
    }

    /// Stores the output of the pending layers, so that none is pending.
    fn settle(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let pending = std::mem::take(&mut self.pending);
        let chain = self.measured(self.chain(&pending, None), self.channels);
        self.store(chain, self.rows(&pending))
    }

    fn load_residual(&self, name: &str, outputs: usize) -> Result<Residual<K>> {
        let inputs = self.channels;
        let filter = |part: &str, inputs| {
            let name = format!("{name}.{part}");
            self.kernels.filter(Layer { name: &name, inputs, outputs }, Reach::Same)
        };
        let shortcut = format!("{name}.conv_shortcut");
        Ok(Residual {
            outputs,
            norm1: self.load_norm(&format!("{name}.norm1"), inputs)?,
            conv1: filter("conv1", inputs)?,
            norm2: self.load_norm(&format!("{name}.norm2"), outputs)?,
            conv2: filter("conv2", outputs)?,
            shortcut: (inputs != outputs)
                .then(|| self.kernels.projection(Layer { name: &shortcut, inputs, outputs }, true))
                .transpose()?,
        })
    }

    /// x + conv2(silu(norm2(conv1(silu(norm1(x))))))  (diffusers' `ResnetBlock2D`).
    pub fn residual(&mut self, name: &str, outputs: usize, keep: Keep) -> Result<()> {
        let weights = Box::new(self.load_residual(name, outputs)?);
        if keep == Keep::All && self.has_statistics() {
            self.settle()?;
            return self.residual_kept(&weights);
        }
        let norm1 = self.norm(&weights.norm1)?;
        if self.has_statistics() {
            let conv1 = Node::Conv(ConvStream::new(&weights.conv1, Some(&norm1)));
            self.moments = Some(self.survey(Some(conv1), outputs)?);
        }
        let norm2 = self.norm(&weights.norm2)?;
        self.advance(Step::Residual { weights, norm1, norm2 }, outputs, keep > Keep::Nothing)
    }

    /// The same, keeping the inner map: nothing is computed twice.
    fn residual_kept(&mut self, weights: &Residual<K>) -> Result<()> {
        let (kernels, rows) = (self.kernels, self.options.band_rows);
        let (mut hidden, mut shortcuts) = (Map::new(), VecDeque::new());
        let norm1 = self.norm(&weights.norm1)?;
        let conv1 = Node::Conv(ConvStream::new(&weights.conv1, Some(&norm1)));
        let mut chain = self.chain(&[], Some(conv1)).measured(weights.outputs);
        std::mem::replace(&mut self.base, Map::new()).drain(kernels, rows, |band| {
            if let Some(band) = chain.feed(Cow::Borrowed(&band))? {
                hidden.push(kernels, rows, band)?;
            }
            shortcuts.push_back(match &weights.shortcut {
                Some(filter) => kernels.kept(kernels.project(filter, &band, Before::Nothing, None)?)?,
                None => band.into_owned(),
            });
            Ok(())
        })?;
        let moments = chain.finish(|band| hidden.push(kernels, rows, band))?;
        (self.base, self.moments, self.channels) = (hidden, moments, weights.outputs);
        let norm2 = self.norm(&weights.norm2)?;
        let conv2 = ConvStream::new(&weights.conv2, Some(&norm2)).with_residual(shortcuts);
        let chain = self.chain(&[], Some(Node::Conv(conv2))).measured(weights.outputs);
        self.store(chain, rows)
    }

    /// One more pending layer; its output is stored where `stores` says so.
    fn advance(&mut self, step: Step<K>, channels: usize, stores: bool) -> Result<()> {
        self.pending.push(step);
        (self.channels, self.moments) = (channels, None);
        if stores { self.settle() } else { Ok(()) }
    }

    /// A layer that keeps the number of channels.
    fn square<'n>(&self, name: &'n str) -> Layer<'n> {
        Layer { name, inputs: self.channels, outputs: self.channels }
    }

    /// A 3 x 3 convolution without norm.
    fn conv(&mut self, layer: Layer<'_>, reach: Reach, stores: bool) -> Result<()> {
        let filter = self.kernels.filter(layer, reach)?;
        self.advance(Step::Conv { filter, reach }, layer.outputs, stores)
    }

    /// Nearest-neighbour doubling, then a 3 x 3 convolution (diffusers' `Upsample2D`; Wan's gives half the channels); the next
    /// stage keeps `keep`.
    pub fn double(&mut self, name: &str, keep: Keep) -> Result<()> {
        let layer = match self.config.design {
            Design::Kl => self.square(name),
            Design::Wan => Layer { outputs: self.channels / 2, ..self.square(name) },
        };
        // The doubled map is stored only where everything is: it is the largest of its stage.
        self.conv(layer, Reach::Doubled, keep == Keep::All)
    }

    /// A 3 x 3 convolution of each second row and column (diffusers' `Downsample2D`); the next stage keeps `keep`.
    pub fn halve(&mut self, name: &str, keep: Keep) -> Result<()> {
        self.conv(self.square(name), Reach::Halved, keep > Keep::Nothing)
    }

    /// Two residual blocks, with attention between them where the configuration has it (diffusers' `UNetMidBlock2D`).
    pub fn mid_block(&mut self, name: &str) -> Result<()> {
        // Attention looks at all of the map, so one is kept in any case.
        let keep = self.options.keep_at(0).max(Keep::Maps);
        self.residual(&format!("{name}.resnets.0"), self.channels, keep)?;
        if self.config.mid_block_add_attention {
            self.attention(&format!("{name}.attentions.0"))?;
        }
        self.residual(&format!("{name}.resnets.1"), self.channels, keep)
    }

    /// x + to_out(attention(norm(x))), every latent pixel looking at all others (diffusers' `Attention`, one head).
    fn attention(&mut self, name: &str) -> Result<()> {
        let (kernels, channels) = (self.kernels, self.channels);
        let load = |part: &str| {
            let name = format!("{name}.{part}");
            kernels.projection(Layer { name: &name, inputs: channels, outputs: channels }, false)
        };
        let norm = self.norm(&self.load_norm(&format!("{name}.group_norm"), channels)?)?;
        let (norm, rows) = (Before::Norm(&norm), self.options.band_rows);
        let (to_q, to_k, to_v, to_out) = (load("to_q")?, load("to_k")?, load("to_v")?, load("to_out.0")?);
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        self.base.visit(kernels, rows, |band| {
            keys.push(kernels.project(&to_k, &band, norm, None)?);
            values.push(kernels.project(&to_v, &band, norm, None)?);
            Ok(())
        })?;
        let keys = kernels.keys(keys, values)?;
        let (mut output, mut moments) = (Map::new(), self.has_statistics().then(|| Moments::new(channels)));
        std::mem::replace(&mut self.base, Map::new()).drain(kernels, rows, |band| {
            let queries = kernels.project(&to_q, &band, norm, None)?;
            let attended = kernels.attend(&queries, &keys)?;
            let sum = kernels.project(&to_out, &attended, Before::Nothing, Some(&band))?;
            if let Some(moments) = &mut moments {
                kernels.measure(&sum, moments)?;
            }
            output.push(kernels, rows, sum)
        })?;
        (self.base, self.moments) = (output, moments);
        Ok(())
    }

    /// conv_norm_out, SiLU and conv_out of this side (`encoder` or `decoder`): the rows they give, of `outputs` channels.
    pub fn finish(mut self, side: &str, outputs: usize, mut sink: impl FnMut(K::Rows) -> Result<()>) -> Result<()> {
        let norm = self.norm(&self.load_norm(&format!("{side}.conv_norm_out"), self.channels)?)?;
        let layer = Layer { name: &format!("{side}.conv_out"), inputs: self.channels, outputs };
        let conv_out = self.kernels.filter(layer, Reach::Same)?;
        let (kernels, rows) = (self.kernels, self.rows(&self.pending));
        let base = std::mem::replace(&mut self.base, Map::new());
        let mut chain = self.chain(&self.pending, Some(Node::Conv(ConvStream::new(&conv_out, Some(&norm)))));
        base.drain(kernels, rows, |band| chain.feed(band)?.map_or(Ok(()), &mut sink))?;
        chain.finish(sink).map(drop)
    }
}
