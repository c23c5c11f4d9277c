//! Every tensor a model of given dimensions has, by diffusers' (and transformers') names: what to check for before
//! anything is loaded, and what a plan sums up.

use crate::{
    error::{Error, Result},
    models::flux1::FluxConfig,
    models::parts::kl::VaeConfig,
    models::parts::{ClipConfig, T5Config},
    weights::{DO_NOT_FIT, TensorSource, check_shape},
};

/// A tensor's name and shape.
pub type Expected = (String, Vec<usize>);

/// Channels of the sinusoidal embedding of a timestep. Source: black-forest-labs/flux, `MLPEmbedder(in_dim=256, ..)`.
const TIMESTEP_CHANNELS: usize = 256;
/// Width of the feed-forward part over the streams' width. Source: black-forest-labs/flux, `mlp_ratio`.
const MLP_RATIO: usize = 4;

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

/// The transformer's tensors.
pub fn transformer(config: &FluxConfig) -> Vec<Expected> {
    let c = config.hidden_size();
    let mut list = List::default();
    list.linear("x_embedder", [c, config.in_channels]);
    list.linear("context_embedder", [c, config.joint_attention_dim]);
    let guidance = config.guidance_embeds.then_some(("guidance_embedder", TIMESTEP_CHANNELS));
    let embedders = [("timestep_embedder", TIMESTEP_CHANNELS), ("text_embedder", config.pooled_projection_dim)];
    for (embedder, width) in embedders.into_iter().chain(guidance) {
        list.linear(&format!("time_text_embed.{embedder}.linear_1"), [c, width]);
        list.linear(&format!("time_text_embed.{embedder}.linear_2"), [c, c]);
    }
    for i in 0..config.num_layers {
        double_block(&mut list, &format!("transformer_blocks.{i}"), c, config.attention_head_dim);
    }
    for i in 0..config.num_single_layers {
        single_block(&mut list, &format!("single_transformer_blocks.{i}"), c, config.attention_head_dim);
    }
    list.linear("norm_out.linear", [2 * c, c]);
    list.linear("proj_out", [config.in_channels, c]);
    list.0
}

fn double_block(list: &mut List, block: &str, c: usize, head_dim: usize) {
    for norm in ["norm1", "norm1_context"] {
        list.linear(&format!("{block}.{norm}.linear"), [6 * c, c]);
    }
    for norm in ["norm_q", "norm_k", "norm_added_q", "norm_added_k"] {
        list.add(format!("{block}.attn.{norm}.weight"), &[head_dim]);
    }
    for projection in ["to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"] {
        list.linear(&format!("{block}.attn.{projection}"), [c, c]);
    }
    for ff in ["ff", "ff_context"] {
        list.linear(&format!("{block}.{ff}.net.0.proj"), [MLP_RATIO * c, c]);
        list.linear(&format!("{block}.{ff}.net.2"), [c, MLP_RATIO * c]);
    }
}

fn single_block(list: &mut List, block: &str, c: usize, head_dim: usize) {
    list.linear(&format!("{block}.norm.linear"), [3 * c, c]);
    list.linear(&format!("{block}.proj_mlp"), [MLP_RATIO * c, c]);
    list.linear(&format!("{block}.proj_out"), [c, (1 + MLP_RATIO) * c]);
    for norm in ["norm_q", "norm_k"] {
        list.add(format!("{block}.attn.{norm}.weight"), &[head_dim]);
    }
    for projection in ["to_q", "to_k", "to_v"] {
        list.linear(&format!("{block}.attn.{projection}"), [c, c]);
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

/// A CLIP text encoder's tensors.
pub fn clip(config: &ClipConfig) -> Vec<Expected> {
    let c = config.hidden_size;
    let mut list = List::default();
    list.add("text_model.embeddings.token_embedding.weight".into(), &[config.vocab_size, c]);
    list.add("text_model.embeddings.position_embedding.weight".into(), &[config.max_position_embeddings, c]);
    for i in 0..config.num_hidden_layers {
        let layer = format!("text_model.encoder.layers.{i}");
        for projection in ["q_proj", "k_proj", "v_proj", "out_proj"] {
            list.linear(&format!("{layer}.self_attn.{projection}"), [c, c]);
        }
        list.norm(&format!("{layer}.layer_norm1"), c);
        list.linear(&format!("{layer}.mlp.fc1"), [config.intermediate_size, c]);
        list.linear(&format!("{layer}.mlp.fc2"), [c, config.intermediate_size]);
        list.norm(&format!("{layer}.layer_norm2"), c);
    }
    list.norm("text_model.final_layer_norm", c);
    list.0
}

/// A T5 encoder's tensors.
pub fn t5(config: &T5Config) -> Vec<Expected> {
    let (c, inner) = (config.d_model, config.num_heads * config.d_kv);
    let mut list = List::default();
    list.add("shared.weight".into(), &[config.vocab_size, c]);
    for i in 0..config.num_layers {
        let (attention, ff) = (format!("encoder.block.{i}.layer.0"), format!("encoder.block.{i}.layer.1"));
        for projection in ["q", "k", "v"] {
            list.add(format!("{attention}.SelfAttention.{projection}.weight"), &[inner, c]);
        }
        list.add(format!("{attention}.SelfAttention.o.weight"), &[c, inner]);
        if i == 0 {
            let shape = [config.relative_attention_num_buckets, config.num_heads];
            list.add(format!("{attention}.SelfAttention.relative_attention_bias.weight"), &shape);
        }
        list.add(format!("{attention}.layer_norm.weight"), &[c]);
        for wi in ["wi_0", "wi_1"] {
            list.add(format!("{ff}.DenseReluDense.{wi}.weight"), &[config.d_ff, c]);
        }
        list.add(format!("{ff}.DenseReluDense.wo.weight"), &[c, config.d_ff]);
        list.add(format!("{ff}.layer_norm.weight"), &[c]);
    }
    list.add("encoder.final_layer_norm.weight".into(), &[c]);
    list.0
}

/// The source has every tensor, in its shape and in a type that can be loaded.
///
/// # Errors
/// [`Error::Model`] for the first that is not so; when more are missing it says how many.
pub fn check(source: &dyn TensorSource, expected: &[Expected]) -> Result<()> {
    let missing = expected.iter().filter(|(name, _)| source.shape(name).is_none()).count();
    for (name, shape) in expected {
        match check_shape(source, name, shape) {
            Err(Error::Model { what, .. }) if missing > 1 && source.shape(name).is_none() => {
                return Err(Error::model(format!("{what} and {} more", missing - 1), DO_NOT_FIT));
            }
            other => other?,
        }
        if !source.is_weight(name) {
            let what = format!("{}: tensor {name} is stored in a type that is no float", source.describe());
            return Err(Error::model(what, "quantized models are not supported; give the model in bf16, f16 or f32"));
        }
    }
    Ok(())
}
