//! The two kinds of transformer blocks, each two passes over the stream ([`streams`](crate::models::parts::streams)).

use std::ops::Range;

use super::FluxConfig;
use crate::{
    error::Result,
    models::parts::{
        modulation::Modulation,
        streams::{self, Projections},
    },
    nn::{self, Array, Compute, Linear, Parameters},
};

/// Channels of the feed-forward layers, as a multiple of the streams'. Source: diffusers, mlp_ratio.
pub(super) const FEED_FORWARD_RATIO: usize = 4;

/// What one forward pass gives each of its blocks; what modulates them is silu of the conditioning [1, C].
pub type Pass = streams::Pass<Array>;

/// One stream's half of a double block.
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
    /// `names`: the modulation, the attention's output, the feed-forward layers.
    fn load(
        parameters: &Parameters,
        config: &FluxConfig,
        compute: Compute,
        names: [&str; 3],
        attn: [&str; 5],
    ) -> Result<Self> {
        let channels = config.hidden_size();
        let [norm1, to_out, ff] = names;
        let (heads, ff) = (parameters.pp("attn"), parameters.pp(ff).pp("net"));
        Ok(Self {
            norm1: Modulation::load(parameters, norm1, channels, true, compute)?,
            attn: Projections::load(&heads, attn, config.heads(), true, compute)?,
            to_out: heads.linear(to_out, channels, channels, compute)?,
            ff_in: ff.linear("0.proj", channels, FEED_FORWARD_RATIO * channels, compute)?,
            ff_out: ff.linear("2", FEED_FORWARD_RATIO * channels, channels, compute)?,
        })
    }

    fn write_keys_values(&self, x: &Array, rows: Range<usize>, m: &StreamModulation, pass: &Pass) -> Result<()> {
        let [shift, scale, ..] = m;
        pass.chunks(rows, |start, count| {
            let h = nn::norm_modulate(x, start, count, shift, scale)?; // [C', C]
            self.attn.write_keys_values(&h, start, pass)
        })
    }

    fn finish(&self, x: &Array, rows: Range<usize>, m: &StreamModulation, pass: &Pass) -> Result<()> {
        let [shift, scale, gate, ff_shift, ff_scale, ff_gate] = m;
        pass.chunks(rows, |start, count| {
            let q = self.attn.queries(&nn::norm_modulate(x, start, count, shift, scale)?, start, pass)?;
            nn::add_gated(x, start, gate, &self.to_out.forward(&pass.attend(&q)?)?)?;
            drop(q);
            let h = self.ff_in.forward_gelu(&nn::norm_modulate(x, start, count, ff_shift, ff_scale)?)?; // [C', 4·C]
            nn::add_gated(x, start, ff_gate, &self.ff_out.forward(&h)?)
        })
    }
}

/// A block in which text and image have weights of their own and meet in attention.
#[derive(Debug)]
pub struct DoubleBlock {
    txt: Stream,
    img: Stream,
}

impl DoubleBlock {
    /// `transformer_blocks.{i}`, which `parameters` stands at.
    ///
    /// # Errors
    /// [`crate::Error::Model`] when a tensor is missing or has another shape.
    pub fn load(parameters: &Parameters, config: &FluxConfig, compute: Compute) -> Result<Self> {
        let txt_attn = ["add_q_proj", "add_k_proj", "add_v_proj", "norm_added_q", "norm_added_k"];
        let img_attn = ["to_q", "to_k", "to_v", "norm_q", "norm_k"];
        let txt_names = ["norm1_context.linear", "to_add_out", "ff_context"];
        let img_names = ["norm1.linear", "to_out.0", "ff"];
        Ok(Self {
            txt: Stream::load(parameters, config, compute, txt_names, txt_attn)?,
            img: Stream::load(parameters, config, compute, img_names, img_attn)?,
        })
    }

    /// Updates x [N, C] in place.
    ///
    /// # Errors
    /// When the device fails.
    pub fn forward(&self, x: &Array, pass: &Pass) -> Result<()> {
        let [txt, img] = pass.sides();
        let (txt_m, img_m) = (self.txt.norm1.forward(&pass.vec)?, self.img.norm1.forward(&pass.vec)?);
        self.txt.write_keys_values(x, txt.clone(), &txt_m, pass)?;
        self.img.write_keys_values(x, img.clone(), &img_m, pass)?;
        self.txt.finish(x, txt, &txt_m, pass)?;
        self.img.finish(x, img, &img_m, pass)
    }
}

/// A block in which all tokens share weights, and attention and feed-forward layers run side by side.
#[derive(Debug)]
pub struct SingleBlock {
    norm: Modulation<3>,
    attn: Projections,
    proj_mlp: Linear,
    /// The part of proj_out that takes the attention's output.
    out_attn: Linear,
    /// The part of proj_out that takes the feed-forward activations.
    out_mlp: Linear,
}

impl SingleBlock {
    /// `single_transformer_blocks.{i}`, which `parameters` stands at.
    ///
    /// # Errors
    /// [`crate::Error::Model`] when a tensor is missing or has another shape.
    pub fn load(parameters: &Parameters, config: &FluxConfig, compute: Compute) -> Result<Self> {
        let (channels, ff) = (config.hidden_size(), FEED_FORWARD_RATIO * config.hidden_size());
        let names = ["to_q", "to_k", "to_v", "norm_q", "norm_k"];
        let proj_out = parameters.linear("proj_out", channels + ff, channels, compute)?;
        let (out_attn, out_mlp) = proj_out.split_inputs(channels)?;
        Ok(Self {
            norm: Modulation::load(parameters, "norm.linear", channels, true, compute)?,
            attn: Projections::load(&parameters.pp("attn"), names, config.heads(), true, compute)?,
            proj_mlp: parameters.linear("proj_mlp", channels, ff, compute)?,
            out_attn,
            out_mlp,
        })
    }

    /// Updates x [N, C] in place.
    ///
    /// # Errors
    /// When the device fails.
    pub fn forward(&self, x: &Array, pass: &Pass) -> Result<()> {
        let [shift, scale, gate] = self.norm.forward(&pass.vec)?;
        pass.chunks(pass.all(), |start, count| {
            let h = nn::norm_modulate(x, start, count, &shift, &scale)?; // [C', C]
            self.attn.write_keys_values(&h, start, pass)
        })?;
        pass.chunks(pass.all(), |start, count| {
            let h = nn::norm_modulate(x, start, count, &shift, &scale)?; // [C', C]
            let attended = pass.attend(&self.attn.queries(&h, start, pass)?)?; // [C', C]
            let mlp = self.proj_mlp.forward_gelu(&h)?; // [C', 4·C]
            drop(h);
            // The gate is linear: both halves of proj_out can be added one after the other, without their sum or their cat.
            nn::add_gated(x, start, &gate, &self.out_attn.forward(&attended)?)?;
            nn::add_gated(x, start, &gate, &self.out_mlp.forward(&mlp)?)
        })
    }
}
