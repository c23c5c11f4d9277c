//! The two kinds of transformer blocks, each two passes over the stream ([`crate::models::parts::streams`]). Nothing in
//! them has a bias, and what modulates them is the same for all blocks of a kind.

use std::ops::Range;

use super::Flux2Config;
use crate::{
    error::Result,
    models::parts::streams::{self, Projections},
    nn::{self, Array, Blocks, Compute, Linear, Parameters, WeightsMode},
};

/// What a stream of a double block is modulated by: shift, scale and gate of attention, then of the feed-forward layers.
pub(super) type StreamModulation = [Array; 6];

/// What all blocks are modulated by, computed once a pass.
pub(super) struct Modulations {
    /// The text's streams of double blocks.
    pub(super) txt: StreamModulation,
    /// The picture's.
    pub(super) img: StreamModulation,
    /// Single blocks: shift, scale, gate.
    pub(super) single: [Array; 3],
    /// Before the output: shift, scale.
    pub(super) out: [Array; 2],
}

/// What one forward pass gives each of its blocks.
pub(super) type Pass = streams::Pass<Modulations>;

/// `down(silu(gate(h)) · value(h))`
#[derive(Debug)]
struct FeedForward {
    gate: Linear,
    value: Linear,
    out: Linear,
}

impl FeedForward {
    fn load(parameters: &Parameters, config: &Flux2Config, compute: Compute) -> Result<Self> {
        let (channels, wide) = (config.hidden_size(), config.feed_forward_size());
        let linear_in = parameters.pp("linear_in");
        Ok(Self {
            gate: linear_in.linear_no_bias("gate", channels, wide, compute)?,
            value: linear_in.linear_no_bias("value", channels, wide, compute)?,
            out: parameters.linear_no_bias("linear_out", wide, channels, compute)?,
        })
    }

    /// For h [C', C].
    fn forward(&self, h: &Array) -> Result<Array> {
        self.out.forward(&gated(&self.gate, &self.value, h)?)
    }
}

/// silu(gate(h)) · value(h) for h [C', C]: [C', F].
fn gated(gate: &Linear, value: &Linear, h: &Array) -> Result<Array> {
    nn::silu_gated(gate.forward(h)?, &value.forward(h)?)
}

/// One stream's half of a double block.
#[derive(Debug)]
struct Stream {
    attn: Projections,
    to_out: Linear,
    ff: FeedForward,
}

impl Stream {
    /// `names`: the attention's output and the feed-forward layers.
    fn load(
        parameters: &Parameters,
        config: &Flux2Config,
        compute: Compute,
        [to_out, ff]: [&str; 2],
        attn: [&str; 5],
    ) -> Result<Self> {
        let (channels, heads) = (config.hidden_size(), parameters.pp("attn"));
        Ok(Self {
            attn: Projections::load(&heads, attn, config.heads(), false, compute)?,
            to_out: heads.linear_no_bias(to_out, channels, channels, compute)?,
            ff: FeedForward::load(&parameters.pp(ff), config, compute)?,
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
            let h = nn::norm_modulate(x, start, count, ff_shift, ff_scale)?; // [C', C]
            nn::add_gated(x, start, ff_gate, &self.ff.forward(&h)?)
        })
    }
}

/// A block in which text and picture have weights of their own and meet in attention.
#[derive(Debug)]
pub(super) struct DoubleBlock {
    txt: Stream,
    img: Stream,
}

impl DoubleBlock {
    fn load(parameters: &Parameters, config: &Flux2Config, compute: Compute) -> Result<Self> {
        let txt_attn = ["add_q_proj", "add_k_proj", "add_v_proj", "norm_added_q", "norm_added_k"];
        let img_attn = ["to_q", "to_k", "to_v", "norm_q", "norm_k"];
        Ok(Self {
            txt: Stream::load(parameters, config, compute, ["to_add_out", "ff_context"], txt_attn)?,
            img: Stream::load(parameters, config, compute, ["to_out.0", "ff"], img_attn)?,
        })
    }

    /// Updates x [N, C] in place.
    fn forward(&self, x: &Array, pass: &Pass) -> Result<()> {
        let ([txt, img], m) = (pass.sides(), &pass.vec);
        self.txt.write_keys_values(x, txt.clone(), &m.txt, pass)?;
        self.img.write_keys_values(x, img.clone(), &m.img, pass)?;
        self.txt.finish(x, txt, &m.txt, pass)?;
        self.img.finish(x, img, &m.img, pass)
    }
}

/// A block in which all tokens share weights, and attention and feed-forward layers run side by side.
#[derive(Debug)]
pub(super) struct SingleBlock {
    attn: Projections,
    gate: Linear,
    value: Linear,
    /// The part of to_out that takes the attention's output.
    out_attn: Linear,
    /// The part of to_out that takes the feed-forward activations.
    out_mlp: Linear,
}

impl SingleBlock {
    fn load(parameters: &Parameters, config: &Flux2Config, compute: Compute) -> Result<Self> {
        let (channels, wide) = (config.hidden_size(), config.feed_forward_size());
        let parameters = parameters.pp("attn");
        let fused = |name: &str| format!("to_qkv_mlp_proj.{name}");
        let [q, k, v] = ["q", "k", "v"].map(fused);
        let names = [q.as_str(), k.as_str(), v.as_str(), "norm_q", "norm_k"];
        let to_out = parameters.linear_no_bias("to_out", channels + wide, channels, compute)?;
        let (out_attn, out_mlp) = to_out.split_inputs(channels)?;
        Ok(Self {
            attn: Projections::load(&parameters, names, config.heads(), false, compute)?,
            gate: parameters.linear_no_bias(&fused("gate"), channels, wide, compute)?,
            value: parameters.linear_no_bias(&fused("value"), channels, wide, compute)?,
            out_attn,
            out_mlp,
        })
    }

    /// Updates x [N, C] in place.
    fn forward(&self, x: &Array, pass: &Pass) -> Result<()> {
        let [shift, scale, gate] = &pass.vec.single;
        pass.chunks(pass.all(), |start, count| {
            let h = nn::norm_modulate(x, start, count, shift, scale)?; // [C', C]
            self.attn.write_keys_values(&h, start, pass)
        })?;
        pass.chunks(pass.all(), |start, count| {
            let h = nn::norm_modulate(x, start, count, shift, scale)?; // [C', C]
            let attended = pass.attend(&self.attn.queries(&h, start, pass)?)?; // [C', C]
            let mlp = gated(&self.gate, &self.value, &h)?; // [C', F]
            drop(h);
            // The gate is linear: both halves of to_out can be added one after the other, without their sum or their cat.
            nn::add_gated(x, start, gate, &self.out_attn.forward(&attended)?)?;
            nn::add_gated(x, start, gate, &self.out_mlp.forward(&mlp)?)
        })
    }
}

/// A block of either kind.
#[derive(Debug)]
pub(super) enum Block {
    /// `transformer_blocks.{i}`
    Double(Box<DoubleBlock>),
    /// `single_transformer_blocks.{i}`
    Single(Box<SingleBlock>),
}

impl Block {
    /// Block `index` in the order of the forward pass: the double blocks, then the single ones.
    fn load(index: usize, config: &Flux2Config, parameters: &Parameters, compute: Compute) -> Result<Self> {
        let (block, parameters) = match index.checked_sub(config.num_layers) {
            None => {
                let parameters = parameters.pp("transformer_blocks").pp(index);
                (Self::Double(Box::new(DoubleBlock::load(&parameters, config, compute)?)), parameters)
            }
            Some(single) => {
                let parameters = parameters.pp("single_transformer_blocks").pp(single);
                (Self::Single(Box::new(SingleBlock::load(&parameters, config, compute)?)), parameters)
            }
        };
        // What was read is copied: its mapped pages would only make the process look, and be, larger than it is.
        parameters.release();
        Ok(block)
    }

    /// Updates x [N, C] in place.
    ///
    /// # Errors
    /// When the device fails.
    pub(super) fn forward(&self, x: &Array, pass: &Pass) -> Result<()> {
        match self {
            Self::Double(block) => block.forward(x, pass),
            Self::Single(block) => block.forward(x, pass),
        }
    }
}

/// All blocks of one model; `parameters` stands at its root.
///
/// # Errors
/// [`crate::Error::Model`] when a tensor is missing or has another shape (resident blocks only: streamed ones say so in the
/// forward pass).
pub(super) fn blocks(
    config: &Flux2Config,
    parameters: &Parameters,
    mode: WeightsMode,
    compute: Compute,
) -> Result<Blocks<Block>> {
    let kinds = [config.num_layers, config.num_single_layers];
    let config = config.clone();
    Blocks::new(&kinds, mode, parameters, move |index, parameters| Block::load(index, &config, parameters, compute))
}
