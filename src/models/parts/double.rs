//! Blocks in which text and picture have weights of their own and meet in attention, each stream modulated by itself: FLUX.1's
//! double blocks, and all of Qwen-Image's.

use std::ops::Range;

use super::{
    modulation::Modulation,
    streams::{Heads, Pass, Projections},
};
use crate::{
    error::Result,
    nn::{self, Array, Compute, Linear, Parameters},
};

/// Channels of the feed-forward layers, as a multiple of the streams'. Source: diffusers, mlp_ratio.
pub(crate) const FEED_FORWARD_RATIO: usize = 4;

/// How a block calls what one of its streams is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StreamNames {
    /// Its modulation.
    pub norm1: &'static str,
    /// The attention's output, below `attn`.
    pub to_out: &'static str,
    /// The feed-forward layers.
    pub ff: &'static str,
    /// to_q, to_k, to_v, norm_q, norm_k, below `attn`.
    pub attn: [&'static str; 5],
}

/// The same of both.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DoubleNames {
    /// The text's.
    pub txt: StreamNames,
    /// The picture's.
    pub img: StreamNames,
}

/// One stream's half of a block.
#[derive(Debug)]
struct Stream {
    norm1: Modulation<6>,
    attn: Projections,
    to_out: Linear,
    ff_in: Linear,
    ff_out: Linear,
}

/// What a stream's modulation says: before and after attention, before and after the feed-forward layers.
type StreamModulation = [Array; 6];

impl Stream {
    fn load(parameters: &Parameters, names: &StreamNames, of: Heads, compute: Compute) -> Result<Self> {
        let channels = of.channels();
        let (heads, ff) = (parameters.pp("attn"), parameters.pp(names.ff).pp("net"));
        Ok(Self {
            norm1: Modulation::load(parameters, names.norm1, channels, true, compute)?,
            attn: Projections::load(&heads, names.attn, of, true, compute)?,
            to_out: heads.linear(names.to_out, channels, channels, compute)?,
            ff_in: ff.linear("0.proj", channels, FEED_FORWARD_RATIO * channels, compute)?,
            ff_out: ff.linear("2", FEED_FORWARD_RATIO * channels, channels, compute)?,
        })
    }

    fn write_keys_values(&self, x: &Array, rows: Range<usize>, m: &StreamModulation, pass: &Pass<Array>) -> Result<()> {
        let [shift, scale, ..] = m;
        pass.chunks(rows, |start, count| {
            let h = nn::norm_modulate(x, start, count, shift, scale)?; // [C', C]
            self.attn.write_keys_values(&h, start, pass)
        })
    }

    fn finish(&self, x: &Array, rows: Range<usize>, m: &StreamModulation, pass: &Pass<Array>) -> Result<()> {
        let [shift, scale, gate, ff_shift, ff_scale, ff_gate] = m;
        pass.chunks(rows, |start, count| {
            let q = self.attn.queries(&nn::norm_modulate(x, start, count, shift, scale)?, start, pass)?;
            nn::add_gated(x, start, gate, self.to_out.forward_unbiased(&pass.attend(&q)?)?)?;
            drop(q);
            let h = self.ff_in.forward_gelu(&nn::norm_modulate(x, start, count, ff_shift, ff_scale)?)?; // [C', 4·C]
            nn::add_gated(x, start, ff_gate, self.ff_out.forward_unbiased(&h)?)
        })
    }
}

/// A block of both streams.
#[derive(Debug)]
pub struct DoubleBlock {
    txt: Stream,
    img: Stream,
}

impl DoubleBlock {
    /// The block that `parameters` stands at.
    ///
    /// # Errors
    /// [`crate::Error::Model`] when a tensor is missing or has another shape.
    pub(crate) fn load(parameters: &Parameters, names: &DoubleNames, heads: Heads, compute: Compute) -> Result<Self> {
        Ok(Self {
            txt: Stream::load(parameters, &names.txt, heads, compute)?,
            img: Stream::load(parameters, &names.img, heads, compute)?,
        })
    }

    /// Updates x [N, C] in place; the text's rows only where somebody `reads_text` of them.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn forward(&self, x: &Array, pass: &Pass<Array>, reads_text: bool) -> Result<()> {
        let [txt, img] = pass.sides();
        let (txt_m, img_m) = (self.txt.norm1.forward(&pass.vec)?, self.img.norm1.forward(&pass.vec)?);
        self.txt.write_keys_values(x, txt.clone(), &txt_m, pass)?;
        self.img.write_keys_values(x, img.clone(), &img_m, pass)?;
        if reads_text {
            self.txt.finish(x, txt, &txt_m, pass)?;
        }
        self.img.finish(x, img, &img_m, pass)
    }
}
