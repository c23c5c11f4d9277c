//! The two kinds of transformer blocks, each two passes over the stream ([`crate::models::parts::streams`]).

use super::FluxConfig;
use crate::{
    error::Result,
    models::parts::{
        double::{DoubleNames, StreamNames},
        modulation::Modulation,
        streams::{self, Projections},
    },
    nn::{self, Array, Compute, Linear, Parameters},
};

pub(super) use crate::models::parts::double::FEED_FORWARD_RATIO;

/// What one forward pass gives each of its blocks; what modulates them is silu of the conditioning [1, C].
pub type Pass = streams::Pass<Array>;

/// How a double block calls what its streams are made of. Source: diffusers, FluxTransformerBlock.
pub(super) const NAMES: DoubleNames = DoubleNames {
    txt: StreamNames {
        norm1: "norm1_context.linear",
        to_out: "to_add_out",
        ff: "ff_context",
        attn: ["add_q_proj", "add_k_proj", "add_v_proj", "norm_added_q", "norm_added_k"],
    },
    img: StreamNames {
        norm1: "norm1.linear",
        to_out: "to_out.0",
        ff: "ff",
        attn: ["to_q", "to_k", "to_v", "norm_q", "norm_k"],
    },
};

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
            nn::add_gated(x, start, &gate, self.out_attn.forward_unbiased(&attended)?)?;
            nn::add_gated(x, start, &gate, self.out_mlp.forward_unbiased(&mlp)?)
        })
    }
}
