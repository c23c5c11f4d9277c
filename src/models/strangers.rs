//! What a file is that is not what was asked for, by the names of its tensors.

use candle_core::DType;

use crate::{
    error::{Error, Result},
    weights::{
        TensorSource, is_shard,
        scales::{is_beside_weights, scaled_layer},
    },
};

/// Words in tensors' names that give a kind of file away, and the kind.
type Marks = &'static [(&'static str, &'static str)];

/// What quantizers write beside or in place of weights, the telling ones first: several share names.
const QUANTIZED: Marks = &[
    (".weight_scale_2", "a model quantized to NVFP4"),
    (".smooth_factor", "a model quantized by SVDQuant (Nunchaku)"),
    (".wscales", "a model quantized by SVDQuant (Nunchaku)"),
    (".wcscales", "a model quantized by SVDQuant (Nunchaku)"),
    (".wtscale", "a model quantized by SVDQuant (Nunchaku)"),
    ("bitsandbytes__", "a model quantized by bitsandbytes (4 bits)"),
    (".absmax", "a model quantized by bitsandbytes (4 bits)"),
    (".quant_map", "a model quantized by bitsandbytes (4 bits)"),
    (".SCB", "a model quantized by bitsandbytes (8 bits)"),
    (".g_idx", "a model quantized by GPTQ"),
    (".qzeros", "a model quantized by GPTQ or AWQ"),
    (".qweight", "a quantized model"),
    (".W_q", "a model quantized by HQQ"),
    (".weight._data", "a model quantized by optimum-quanto"),
    (".weight_packed", "a model quantized by compressed-tensors"),
    (".weight_scale_inv", "a model in fp8 with a scale for each block"),
];

/// What changes a model, or was made of one, and shares its names: these are told before other kinds.
const DERIVED: Marks = &[
    ("lokr_w", "a LoKr adapter, which changes a model but is none"),
    ("hada_w", "a LoHa adapter, which changes a model but is none"),
    ("oft_blocks", "an OFT adapter, which changes a model but is none"),
    ("oft_diag", "an OFT adapter, which changes a model but is none"),
    ("ip_adapter", "an IP-Adapter, which changes a model but is none"),
    ("_lora1.", "a LoRA of XLabs, which changes a model but is none"),
    ("_lora2.", "a LoRA of XLabs, which changes a model but is none"),
    (".lora_", "a LoRA, which changes a model but is none"),
    (".lora.", "a LoRA, which changes a model but is none"),
    ("_lora.", "a LoRA, which changes a model but is none"),
    ("lora_unet", "a LoRA, which changes a model but is none"),
    ("lora_te", "a LoRA, which changes a model but is none"),
    ("lora_transformer", "a LoRA, which changes a model but is none"),
    ("lycoris_", "a LyCORIS adapter, which changes a model but is none"),
    ("controlnet_blocks", "a ControlNet"),
    ("controlnet_x_embedder", "a ControlNet"),
    ("control_layers.", "a ControlNet"),
    ("distilled_guidance_layer", "a Chroma transformer"),
    // What ComfyUI knows these two by.
    ("__index_timestep_zero__", "a Qwen-Image-Edit transformer, which changes pictures"),
    ("addition_t_embedding", "a Qwen-Image-Layered transformer, which takes pictures apart"),
    ("siglip_embedder", "a Z-Image-Omni transformer, which takes pictures as prompts"),
];

/// Other kinds, the telling ones first.
const STRANGERS: Marks = &[
    ("double_stream_modulation_img", "a FLUX.2 transformer"),
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
    ("enc.blk.0.attn_rel_b", "a T5 text encoder"),
    ("blk.0.attn_q", "a language model"),
    ("text_model.encoder.layers.0", "a CLIP text encoder"),
    ("encoder.layers.0.self_attn", "a CLIP text encoder"),
    ("decoder.mid_block.", "an autoencoder (VAE)"),
    ("decoder.mid.", "an autoencoder (VAE)"),
    ("double_blocks.0.img_attn.qkv", "a FLUX transformer"),
    ("single_transformer_blocks.0.attn.to_q", "a FLUX transformer"),
    ("double_blocks.", "a part of a FLUX transformer"),
    ("single_blocks.", "a part of a FLUX transformer"),
    ("single_transformer_blocks.", "a part of a FLUX transformer"),
];

/// What gives a LoRA's model away, the telling ones first, in names with dots or with underscores.
const LORAS: Marks = &[
    ("distilled_guidance_layer", "Chroma"),
    ("double_stream_modulation", "FLUX.2"),
    ("to_qkv_mlp_proj", "FLUX.2"),
    ("img_mlp.net", "Qwen-Image"),
    ("img_mlp_net", "Qwen-Image"),
    ("txt_mlp.net", "Qwen-Image"),
    ("txt_mlp_net", "Qwen-Image"),
    ("noise_refiner", "Z-Image or Lumina"),
    ("context_refiner", "Z-Image or Lumina"),
    ("layers.0.attention.", "Z-Image or Lumina"),
    ("layers_0_attention_", "Z-Image or Lumina"),
    ("joint_blocks", "Stable Diffusion 3"),
    ("joint_transformer_blocks", "Stable Diffusion 3"),
    ("cross_attn.", "Wan"),
    ("down_blocks", "a Stable Diffusion U-Net"),
    ("input_blocks", "a Stable Diffusion U-Net"),
    ("mid_block", "a Stable Diffusion U-Net"),
    ("double_blocks", "FLUX.1"),
    ("single_transformer_blocks", "FLUX.1"),
];

/// Beginnings of a FLUX transformer's names, in its two layouts, behind whatever prefix.
const FLUX_NAMES: [&str; 2] = ["double_blocks.0.img_attn.qkv.weight", "transformer_blocks.0.attn.add_q_proj.weight"];

/// The kind of file this is, when it shares names with a transformer but is none that can be run.
pub(crate) fn derived_from_a_model(source: &dyn TensorSource) -> Option<&'static str> {
    let names = source.names();
    quantized_by(source, &names).or_else(|| first_mark(DERIVED, &names))
}

/// Refuses quantized weights by what they are, before their shapes are held against a model's.
///
/// # Errors
/// [`Error::Model`] that names the file and the kind.
pub(crate) fn check_not_quantized(source: &dyn TensorSource) -> Result<()> {
    match quantized_by(source, &source.names()) {
        Some(kind) => Err(Error::model(
            format!("{}: this is {kind}", source.describe()),
            "this kind is not read; give the model in bf16, f16, f32, or fp8 with one scale a tensor or a row, or as GGUF",
        )),
        None => Ok(()),
    }
}

/// What converters write into GGUF files that does not say what they were made for.
const SAYS_NOTHING: [&str; 2] = ["pig", "cow"];

/// What the source says it was made for, where that is none of `own`.
pub(crate) fn made_for_another<'a>(source: &'a dyn TensorSource, own: &[&str]) -> Option<&'a str> {
    source.made_for().filter(|said| !own.contains(said) && !SAYS_NOTHING.contains(said))
}

/// "it looks like X", or what its first tensor is called; before it what it says of itself.
pub(crate) fn looks_like(source: &dyn TensorSource) -> String {
    let says = made_for_another(source, &[]).map(|said| format!("it says that it was made for {said}, and "));
    format!("{}{}", says.unwrap_or_default(), looks_by_names(source))
}

fn looks_by_names(source: &dyn TensorSource) -> String {
    let names = source.names();
    let kind = quantized_by(source, &names).or_else(|| first_mark(DERIVED, &names));
    match (kind.or_else(|| first_mark(STRANGERS, &names)), names.first()) {
        (Some(kind), _) => format!("it looks like {kind}"),
        (None, Some(_)) if is_shard(&source.describe()) => {
            "it is one of several files that hold a model together, whose folder is the model".into()
        }
        (None, Some(first)) => format!("its first tensor is called {first}"),
        (None, None) => "it holds no tensor".into(),
    }
}

/// What stands before the names of a FLUX transformer that is whole but for this: "the prefix X", or "the prefix X twice".
pub(crate) fn prefix_of_flux(source: &dyn TensorSource) -> Option<String> {
    let names = source.names();
    let prefix = |name: &String| FLUX_NAMES.iter().find_map(|end| name.strip_suffix(end)).map(str::to_owned);
    let prefix = names.iter().find_map(prefix).filter(|prefix| !prefix.is_empty())?;
    let (first, second) = prefix.split_at_checked(prefix.len() / 2).unwrap_or_default();
    Some(if first == second { format!("the prefix {first:?} twice") } else { format!("the prefix {prefix:?}") })
}

/// How the weights are quantized, by names and, for scales of many numbers, by their types.
fn quantized_by(source: &dyn TensorSource, names: &[String]) -> Option<&'static str> {
    let weight_of = |name: &str| source.shape(&format!("{}.weight", scaled_layer(name)?));
    let is_scale = |name: &&String| scaled_layer(name).is_some();
    // One number, or one of each row, which is what fp8 has at most.
    let many = |name: &&String| {
        let count = source.shape(name).map_or(1, |shape| shape.iter().product::<usize>());
        let is_float = matches!(source.file_dtype(name), Some(DType::F32 | DType::BF16 | DType::F16));
        count > 1 && !(is_float && weight_of(name).is_some_and(|shape| shape.first() == Some(&count)))
    };
    let by_scale = |name: &String| match source.file_dtype(name) {
        // Powers of two in a byte each, under their own type and as ComfyUI writes them.
        Some(DType::F8E8M0 | DType::U8) => MICROSCALING,
        Some(DType::F8E4M3) => "a model quantized to NVFP4",
        _ => "a model in fp8 with many scales a tensor",
    };
    let is_whole = |name: &str| name.ends_with(".weight") && source.type_name(name).is_some_and(|kind| kind == "I8");
    let by_type = |name: &String| match source.file_dtype(name) {
        Some(DType::F8E8M0 | DType::F4 | DType::F6E2M3 | DType::F6E3M2) => Some(MICROSCALING),
        _ => is_whole(name).then_some("a model quantized to whole numbers of 8 bits (int8)"),
    };
    first_mark(QUANTIZED, names)
        .or_else(|| names.iter().filter(is_scale).find(many).map(by_scale))
        .or_else(|| names.iter().find_map(by_type))
        .or_else(|| names.iter().any(|name| is_unread_scale(source, name)).then_some(UNREAD_SCALES))
}

const MICROSCALING: &str = "a model in a microscaling format (MX)";
const UNREAD_SCALES: &str = "a model in fp8 whose scales have names that are not known";

/// Whether a tensor is called a scale, in a way that is not known, of a weight in 8 bits.
fn is_unread_scale(source: &dyn TensorSource, name: &str) -> bool {
    let is_in_8_bits = |layer: &str| source.float8(&format!("{layer}.weight")).is_some();
    let mut layers = name.match_indices('.').map(|(at, _)| &name[..at]);
    name.contains("scale") && !is_beside_weights(name) && layers.any(is_in_8_bits)
}

/// The family of models that a LoRA with tensors of these names was made for, as far as they give it away.
pub(super) fn lora_of(names: &[String]) -> Option<&'static str> {
    first_mark(LORAS, names)
}

fn first_mark(marks: Marks, names: &[String]) -> Option<&'static str> {
    marks.iter().find(|(mark, _)| names.iter().any(|name| name.contains(mark))).map(|&(_, kind)| kind)
}
