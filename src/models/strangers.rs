//! What a file is that is not what was asked for, by the names of its tensors.

use crate::weights::TensorSource;

/// Words in tensors' names that give a kind of file away, and the kind.
type Marks = &'static [(&'static str, &'static str)];

/// What changes a model, or was made of one, and shares its names: these are told first.
const DERIVED: Marks = &[
    (".lora_", "a LoRA, which changes a model but is none"),
    ("lora_unet", "a LoRA, which changes a model but is none"),
    ("bitsandbytes__", "a model quantized by bitsandbytes"),
    (".absmax", "a model quantized by bitsandbytes"),
    (".qweight", "a quantized model"),
    ("controlnet_blocks", "a ControlNet"),
    ("controlnet_x_embedder", "a ControlNet"),
    ("double_stream_modulation_img", "a FLUX.2 transformer"),
    ("distilled_guidance_layer", "a Chroma transformer"),
];

/// Other kinds, the telling ones first.
const STRANGERS: Marks = &[
    ("joint_blocks.0.", "Stable Diffusion 3"),
    ("pos_embed.pos_embed", "Stable Diffusion 3"),
    ("conditioner.embedders.", "Stable Diffusion XL"),
    ("add_embedding.linear_1", "Stable Diffusion XL"),
    ("label_emb.0.", "Stable Diffusion XL"),
    ("cond_stage_model.model.", "Stable Diffusion 2"),
    ("cond_stage_model.transformer.", "Stable Diffusion 1"),
    ("input_blocks.0.0.", "the U-Net of a Stable Diffusion"),
    ("down_blocks.0.attentions.0.transformer_blocks", "the U-Net of a Stable Diffusion"),
    ("redux_up", "FLUX.1 Redux, an image adapter"),
    ("encoder.block.0.layer.0.SelfAttention", "a T5 text encoder"),
    ("text_model.encoder.layers.0", "a CLIP text encoder"),
    ("encoder.layers.0.self_attn", "a CLIP text encoder"),
    ("decoder.mid_block.", "an autoencoder (VAE)"),
    ("decoder.mid.", "an autoencoder (VAE)"),
    ("double_blocks.0.", "a FLUX transformer"),
    ("single_transformer_blocks.0.", "a FLUX transformer"),
];

/// The kind of file this is, when it shares names with a transformer but is none that can be run.
pub(crate) fn derived_from_a_model(source: &dyn TensorSource) -> Option<&'static str> {
    first_mark(DERIVED, &source.names())
}

/// "it looks like X", or what its first tensor is called.
pub(crate) fn looks_like(source: &dyn TensorSource) -> String {
    let names = source.names();
    match (first_mark(DERIVED, &names).or_else(|| first_mark(STRANGERS, &names)), names.first()) {
        (Some(kind), _) => format!("it looks like {kind}"),
        (None, Some(first)) => format!("its first tensor is called {first}"),
        (None, None) => "it holds no tensor".into(),
    }
}

fn first_mark(marks: Marks, names: &[String]) -> Option<&'static str> {
    marks.iter().find(|(mark, _)| names.iter().any(|name| name.contains(mark))).map(|&(_, kind)| kind)
}
