//! Models that are incomplete, contradictory or of another kind: refused before any weight is loaded.

use std::{fs, path::Path};

use dype::testing::{
    Result,
    models::{ModelRequest, flux1::Flux1, parts::Tokenizers},
};
use serde_json::Value;

use crate::{file, fixture, flux1, models::with_the_rest_of_tiny_flux, refused, refused_with, tiny_flux};

fn resolve(path: &Path) -> Result<Flux1> {
    flux1(&ModelRequest::new(path))
}

/// tiny-flux with one value of one config changed.
fn with_config(config: &str, key: &str, value: Value) -> Result<Flux1> {
    let model = tiny_flux();
    let path = model.path().join(config);
    let mut json: Value = serde_json::from_str(&fs::read_to_string(&path).expect("config")).expect("json");
    json[key] = value;
    fs::write(&path, json.to_string()).expect("written");
    resolve(model.path())
}

/// Tensors' names and shapes.
type Tensors<'a> = &'a [(&'a str, &'a [usize])];

/// A single file whose tensors have these names and shapes, one byte each.
fn single(names: Tensors) -> Result<Flux1> {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("model.safetensors");
    let mut at = 0;
    let entries: Vec<_> = names
        .iter()
        .map(|(name, shape)| {
            let (start, end) = (at, at + shape.iter().product::<usize>());
            at = end;
            format!(r#""{name}":{{"dtype":"F8_E4M3","shape":{shape:?},"data_offsets":[{start},{end}]}}"#)
        })
        .collect();
    fs::write(&path, file(&format!("{{{}}}", entries.join(",")), at)).expect("written");
    resolve(&path)
}

#[test]
fn a_path_to_nothing_is_refused() {
    refused_with(resolve(Path::new("/nowhere/at/all")), &["no file or folder /nowhere/at/all", "owner/name"]);
    let request = ModelRequest::new(fixture("tiny-flux")).with("vae", "/nowhere/ae.safetensors");
    refused_with(flux1(&request), &["/nowhere/ae.safetensors"]);
}

#[test]
fn a_folder_that_lacks_a_part_says_which_and_which_flag_gives_it() {
    let cases: [(&str, &[&str]); 6] = [
        ("transformer", &["lacks transformer (", "transformer/config.json", "--model"]),
        ("vae", &["lacks vae", "vae/config.json or ae.safetensors", "--vae"]),
        ("text_encoder", &["lacks text_encoder (", "text_encoder/config.json", "--text-encoder"]),
        ("text_encoder_2", &["lacks text_encoder_2 (", "--text-encoder-2"]),
        ("tokenizer", &["lacks tokenizer (", "tokenizer/vocab.json and tokenizer/merges.txt", "--tokenizer"]),
        ("tokenizer_2", &["lacks tokenizer_2 (", "tokenizer_2/tokenizer.json", "--tokenizer-2"]),
    ];
    for (part, words) in cases {
        let model = tiny_flux();
        fs::remove_dir_all(model.path().join(part)).expect("removed");
        refused_with(resolve(model.path()), words);
    }
}

#[test]
fn all_missing_parts_are_named_at_once() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("flux1-tiny.safetensors");
    fs::copy(fixture("tiny-bfl/flux1-tiny.safetensors"), &path).expect("copied");
    let (what, hint) = refused(resolve(&path));
    for part in ["vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"] {
        assert!(what.contains(&format!("{part} (looked for")), "{part}: {what}");
        assert!(hint.contains(&format!("--{}", part.replace('_', "-"))), "{part}: {hint}");
    }
}

#[test]
fn a_folder_whose_part_has_no_weights_names_the_folder() {
    for part in ["transformer", "vae", "text_encoder", "text_encoder_2"] {
        let model = tiny_flux();
        for entry in fs::read_dir(model.path().join(part)).expect("folder").flatten() {
            if entry.file_name() != "config.json" {
                fs::remove_file(entry.path()).expect("removed");
            }
        }
        refused_with(resolve(model.path()), &[part, "holds no weights", "safetensors"]);
    }
}

#[test]
fn another_pipeline_is_named() {
    let model = tiny_flux();
    fs::write(model.path().join("model_index.json"), r#"{"_class_name": "StableDiffusionXLPipeline"}"#)
        .expect("written");
    refused_with(resolve(model.path()), &["this is a StableDiffusionXLPipeline model, not FLUX.1"]);
    fs::write(model.path().join("model_index.json"), r#"{"_class_name": "FluxFillPipeline"}"#).expect("written");
    refused_with(resolve(model.path()), &["FluxFillPipeline"]);
}

#[test]
fn a_folder_of_single_files_says_to_give_the_file() {
    refused_with(resolve(&fixture("tiny-bfl")), &["model_index.json", "--model", "flux1-tiny.safetensors"]);
    let empty = tempfile::tempdir().expect("folder");
    refused_with(resolve(empty.path()), &["holds no model in diffusers layout"]);
}

#[test]
fn classes_of_other_parts_are_named() {
    let cases = [
        ("transformer/config.json", "_class_name", "Flux2Transformer2DModel", "not FluxTransformer2DModel"),
        ("vae/config.json", "_class_name", "AutoencoderTiny", "not AutoencoderKL"),
        ("text_encoder/config.json", "model_type", "t5", "not clip_text_model"),
        ("text_encoder_2/config.json", "model_type", "mistral", "its model_type is mistral"),
    ];
    for (config, key, class, words) in cases {
        refused_with(with_config(config, key, class.into()), &[config, class, words]);
    }
}

#[test]
fn broken_configs_name_file_and_key() {
    for config in ["transformer", "vae", "text_encoder", "text_encoder_2"].map(|part| format!("{part}/config.json")) {
        for text in ["", "{", "[1]", "null", "\"x\"", "not json", "{}"] {
            let model = tiny_flux();
            fs::write(model.path().join(&config), text).expect("written");
            refused_with(resolve(model.path()), &[&config]);
        }
    }
    // The reference's default is of a larger model: whoever reads that the weights do not fit is told what the config left open.
    let lacking = [
        ("transformer/config.json", "num_layers (19)"),
        ("vae/config.json", "latent_channels (4)"),
        ("text_encoder/config.json", "hidden_size (512)"),
        ("text_encoder_2/config.json", "d_model (512)"),
    ];
    for (config, key) in lacking {
        let model = tiny_flux();
        let path = model.path().join(config);
        let text = fs::read_to_string(&path).expect("config");
        let (name, _) = key.split_once(' ').expect("a name and its default");
        fs::write(&path, text.replace(&format!("\"{name}\""), "\"other\"")).expect("written");
        refused_with(resolve(model.path()), &[key, config]);
    }
}

#[test]
fn dimensions_that_do_not_fit_are_refused() {
    let transformer = |key, value| with_config("transformer/config.json", key, value);
    refused_with(transformer("in_channels", 384.into()), &["384 channels", "FLUX.1 Fill"]);
    refused_with(transformer("in_channels", 128.into()), &["128 channels", "Canny or Depth"]);
    refused_with(transformer("num_layers", 3.into()), &["no tensor transformer_blocks.2.", "and 31 more"]);
    refused_with(transformer("num_attention_heads", 8.into()), &["[128, 64], expected [256, 64]", "config.json"]);
    refused_with(transformer("axes_dims_rope", vec![4, 14, 16].into()), &["[4, 14, 16]", "add up to 32"]);
    refused_with(transformer("axes_dims_rope", vec![5, 13, 14].into()), &["even"]);
    refused_with(transformer("rope_theta", 0.5.into()), &["rope_theta 0.5", "only 10000 is"]);
    refused_with(transformer("num_layers", usize::MAX.into()), &["out of any range"]);
    refused_with(transformer("attention_head_dim", 0.into()), &["out of any range"]);
    refused_with(transformer("num_layers", (-1).into()), &["transformer/config.json"]);

    let vae = |key, value| with_config("vae/config.json", key, value);
    refused_with(
        vae("block_out_channels", vec![32, 32, 64].into()),
        &["down_block_types names 4 stages, block_out_channels has 3"],
    );
    refused_with(vae("block_out_channels", vec![32, 32, 64, 48].into()), &["48 channels", "32 groups"]);
    refused_with(vae("block_out_channels", Vec::<usize>::new().into()), &["out of any range"]);
    refused_with(vae("block_out_channels", vec![32, 64, 64, 64].into()), &["decoder.up_blocks", "expected"]);
    refused_with(vae("scaling_factor", 0.0.into()), &["scaling_factor 0"]);
    refused_with(vae("use_post_quant_conv", true.into()), &["post_quant_conv.weight"]);

    let clip = |key, value| with_config("text_encoder/config.json", key, value);
    refused_with(clip("hidden_size", 36.into()), &["expected [865, 36]"]);
    refused_with(clip("num_hidden_layers", (1_u64 << 40).into()), &["out of any range"]);
    refused_with(clip("num_attention_heads", 3.into()), &["hidden_size 32", "num_attention_heads 3", "text_encoder/"]);
    refused_with(with_config("text_encoder_2/config.json", "num_heads", 5.into()), &["SelfAttention"]);
}

/// A latent of 4 channels, as Stable Diffusion's: the autoencoder is whole, but not this model's.
#[test]
fn parts_of_different_models_are_refused() {
    let with = |part: &str, path: &str| ModelRequest::new(fixture("tiny-flux")).with(part, fixture(path));
    let request = with("text_encoder", "tiny-flux/text_encoder_2/model.safetensors");
    refused_with(flux1(&request), &["its model_type is t5, not clip_text_model", "--text-encoder"]);
    let request = with("vae", "tiny-bfl/flux1-tiny.safetensors");
    refused_with(flux1(&request), &["not an autoencoder", "a FLUX transformer", "--vae"]);
    let request = with("vae", "tiny-flux/tokenizer");
    refused_with(flux1(&request), &["--vae", "folder without config.json"]);
    let request = with("tokenizer_2", "tiny-flux/tokenizer");
    refused_with(flux1(&request), &["--tokenizer-2", "looked for", "tokenizer.json"]);
}

#[test]
fn single_files_of_other_kinds_are_recognised() {
    let cases: [(Tensors, &str); 11] = [
        (
            &[("model.diffusion_model.input_blocks.0.0.weight", &[1]), ("cond_stage_model.transformer.x", &[1])],
            "Stable Diffusion 1",
        ),
        (&[("cond_stage_model.model.x", &[1])], "Stable Diffusion 2"),
        (
            &[("conditioner.embedders.0.x", &[1]), ("model.diffusion_model.input_blocks.0.0.weight", &[1])],
            "Stable Diffusion XL",
        ),
        (&[("model.diffusion_model.joint_blocks.0.x", &[1])], "Stable Diffusion 3"),
        (&[("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", &[1])], "a LoRA"),
        (&[("transformer.transformer_blocks.0.attn.to_q.lora_A.weight", &[1])], "a LoRA"),
        (
            &[
                ("double_blocks.0.img_attn.qkv.weight", &[3, 1]),
                ("img_in.weight", &[1, 1]),
                ("distilled_guidance_layer.x", &[1]),
            ],
            "Chroma",
        ),
        (
            &[("double_blocks.0.img_attn.qkv.weight", &[3, 1]), ("double_blocks.0.img_attn.qkv.weight.absmax", &[1])],
            "bitsandbytes",
        ),
        (&[("text_model.encoder.layers.0.x", &[1])], "a CLIP text encoder"),
        (&[("encoder.block.0.layer.0.SelfAttention.q.weight", &[1])], "a T5 text encoder"),
        (&[("decoder.mid.block_1.conv1.weight", &[1])], "an autoencoder"),
    ];
    for (names, words) in cases {
        refused_with(single(names), &["model.safetensors is not a FLUX.1 ", words]);
    }
    refused_with(single(&[("odd.name", &[1])]), &["its first tensor is called odd.name"]);
    refused_with(single(&[]), &["it holds no tensor"]);
}

#[test]
fn a_damaged_gguf_file_is_told_of_as_such() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("flux1-dev-Q4_0.gguf");
    fs::write(&path, b"GGUF\x03\0\0\0").expect("written");
    refused_with(resolve(&path), &["flux1-dev-Q4_0.gguf", "its header asks for 8 bytes at 8"]);
}

/// FLUX.1 Fill: the same names, 384 channels in.
#[test]
fn a_fill_model_as_a_single_file_is_recognised() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("fill.safetensors");
    let device = candle_core::Device::Cpu;
    let mut tensors =
        candle_core::safetensors::load(fixture("tiny-bfl/flux1-tiny.safetensors"), &device).expect("loads");
    let wide = candle_core::Tensor::zeros((128, 384), candle_core::DType::BF16, &device).expect("zeros");
    tensors.insert("img_in.weight".into(), wide);
    candle_core::safetensors::save(&tensors, &path).expect("written");
    let request = with_the_rest_of_tiny_flux(ModelRequest::new(&path));
    refused_with(flux1(&request), &["fill.safetensors", "384 channels", "FLUX.1 Fill"]);
}

#[test]
fn integer_weights_are_refused_before_loading() {
    let model = tiny_flux();
    let path = model.path().join("text_encoder/model.safetensors");
    let mut bytes = fs::read(&path).expect("file");
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let header = String::from_utf8(bytes[8..8 + length].to_vec()).expect("text");
    // A type of the same width, so that everything else stays true.
    let changed = header.replacen("BF16", "I16 ", 1).replace("\"I16 \"", "\"I16\" ");
    assert_eq!(changed.len(), length);
    bytes[8..8 + length].copy_from_slice(changed.as_bytes());
    fs::write(&path, bytes).expect("written");
    refused_with(resolve(model.path()), &["text_encoder", "I16: no float", "give the model in bf16"]);
}

/// What would be computed otherwise than the reference does, or crash, is refused by the name of its key.
#[test]
fn configs_that_would_be_computed_wrongly_are_refused_by_name() {
    let t5 = "text_encoder_2/config.json";
    let cases: [(&str, &str, Value); 18] = [
        (t5, "feed_forward_proj", "gated-silu".into()),
        (t5, "feed_forward_proj", "gated-relu".into()),
        (t5, "feed_forward_proj", "relu".into()),
        (t5, "feed_forward_proj", Value::Null),
        (t5, "dense_act_fn", "silu".into()),
        (t5, "is_gated_act", false.into()),
        (t5, "relative_attention_num_buckets", 1.into()),
        (t5, "relative_attention_num_buckets", 3.into()),
        (t5, "relative_attention_max_distance", 0.into()),
        (t5, "relative_attention_max_distance", 2.into()),
        ("text_encoder/config.json", "hidden_act", "gelu_new".into()),
        ("text_encoder/config.json", "eos_token_id", vec![1, 2].into()),
        ("vae/config.json", "act_fn", "gelu".into()),
        ("vae/config.json", "up_block_types", vec!["AttnUpDecoderBlock2D"; 4].into()),
        ("vae/config.json", "up_block_types", vec!["UpDecoderBlock2D"; 3].into()),
        ("vae/config.json", "out_channels", 4.into()),
        ("transformer/config.json", "patch_size", 2.into()),
        ("transformer/config.json", "dype_scale", (-3e9).into()),
    ];
    for (config, key, value) in cases {
        refused_with(with_config(config, key, value), &[config, key]);
    }
    refused_with(with_config("vae/config.json", "use_post_quant_conv", true.into()), &["post_quant_conv.weight"]);
}

#[test]
fn quantized_folders_are_called_what_they_are() {
    let bitsandbytes = |bits: &str| serde_json::json!({ "quant_method": "bitsandbytes", bits: true });
    let cases = [
        (bitsandbytes("load_in_4bit"), "quantized by bitsandbytes (4 bits)"),
        (bitsandbytes("load_in_8bit"), "quantized by bitsandbytes (8 bits)"),
        (serde_json::json!({ "quant_method": "torchao" }), "quantized by torchao"),
    ];
    for config in ["transformer/config.json", "text_encoder_2/config.json"] {
        for (value, words) in &cases {
            refused_with(with_config(config, "quantization_config", value.clone()), &[config, words, "bf16"]);
        }
    }
    with_config("transformer/config.json", "quantization_config", Value::Null).expect("null is none");
}

#[test]
fn nulls_and_keys_that_are_missing_are_the_reference_s_defaults() {
    for (config, key) in [
        ("text_encoder_2/config.json", "dense_act_fn"),
        ("text_encoder_2/config.json", "relative_attention_num_buckets"),
        ("text_encoder_2/config.json", "layer_norm_epsilon"),
        ("text_encoder/config.json", "layer_norm_eps"),
        ("text_encoder/config.json", "hidden_act"),
        ("vae/config.json", "norm_num_groups"),
        ("vae/config.json", "act_fn"),
        ("vae/config.json", "use_post_quant_conv"),
        ("transformer/config.json", "out_channels"),
        ("transformer/config.json", "dype_scale"),
    ] {
        let plain = with_config(config, "nothing", Value::Null).expect("tiny-flux");
        let found = with_config(config, key, Value::Null).expect(key);
        assert_eq!(found.transformer.config, plain.transformer.config, "{key}");
        assert_eq!(found.vae.part.config, plain.vae.part.config, "{key}");
        assert_eq!(found.text_encoder.config, plain.text_encoder.config, "{key}");
        assert_eq!(found.text_encoder_2.config, plain.text_encoder_2.config, "{key}");
    }
}

#[test]
fn a_byte_order_mark_in_any_config_is_skipped() {
    let model = tiny_flux();
    let configs = ["model_index.json", "transformer/config.json", "vae/config.json", "text_encoder/config.json"];
    let others = ["text_encoder_2/config.json", "scheduler/scheduler_config.json", "tokenizer/vocab.json"];
    let more = ["tokenizer_2/tokenizer_config.json", "transformer/diffusion_pytorch_model.safetensors.index.json"];
    let texts = ["tokenizer/merges.txt", "tokenizer_2/tokenizer.json"];
    for config in configs.iter().chain(&others).chain(&more).chain(&texts) {
        let path = model.path().join(config);
        let bytes = fs::read(&path).expect("config");
        fs::write(&path, [b"\xef\xbb\xbf".as_slice(), &bytes].concat()).expect("written");
    }
    let model = resolve(model.path()).expect("opens");
    let (clip, t5) = (model.text_encoder.config.vocab_size, model.text_encoder_2.config.vocab_size);
    Tokenizers::open(&model.tokenizer, clip, &model.tokenizer_2, t5).expect("opens");
}

/// Files that share names with FLUX.1 and are something else are called what they are, whichever way they come.
#[test]
fn quantized_files_and_adapters_are_called_what_they_are() {
    let qkv = ("double_blocks.0.img_attn.qkv.weight", [3_usize, 1].as_slice());
    let img = ("img_in.weight", [1_usize, 1].as_slice());
    let cases: [(&str, &[usize], &str); 19] = [
        ("double_blocks.0.img_attn.qkv.weight_scale_2", &[1], "quantized to NVFP4"),
        ("double_blocks.0.img_attn.qkv.weight_scale", &[3, 2], "quantized to NVFP4"),
        ("double_blocks.0.img_attn.qkv.weight_scale_inv", &[1], "a scale for each block"),
        ("double_blocks.0.img_attn.qkv.weight.quant_state.bitsandbytes__nf4", &[1], "bitsandbytes (4 bits)"),
        ("double_blocks.0.img_attn.qkv.weight.absmax", &[1], "bitsandbytes (4 bits)"),
        ("double_blocks.0.img_attn.qkv.SCB", &[3], "bitsandbytes (8 bits)"),
        ("double_blocks.0.img_attn.qkv.wscales", &[3], "SVDQuant"),
        ("double_blocks.0.img_attn.qkv.smooth_factor", &[3], "SVDQuant"),
        ("double_blocks.0.img_attn.qkv.g_idx", &[3], "GPTQ"),
        ("double_blocks.0.img_attn.qkv.qzeros", &[3], "GPTQ or AWQ"),
        ("double_blocks.0.img_attn.qkv.W_q", &[3], "HQQ"),
        ("double_blocks.0.img_attn.qkv.weight._data", &[3], "optimum-quanto"),
        ("double_blocks.0.processor.qkv_lora1.down.weight", &[1], "a LoRA of XLabs"),
        ("double_blocks.0.processor.ip_adapter_double_stream_k_proj.weight", &[1], "an IP-Adapter"),
        ("lora_unet_double_blocks_0_img_attn_qkv.lokr_w1", &[1], "a LoKr adapter"),
        ("lycoris_transformer_blocks_0_attn_to_q.hada_w1_a", &[1], "a LoHa adapter"),
        ("transformer.transformer_blocks.0.attn.to_q.lora.down.weight", &[1], "a LoRA"),
        ("lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha", &[1], "a LoRA"),
        ("transformer_blocks.0.attn.to_q.oft_blocks", &[1], "an OFT adapter"),
    ];
    for (name, shape, words) in cases {
        // Alone, as adapters are, and beside the model's own names, as what quantizers write is.
        for tensors in [vec![(name, shape)], vec![qkv, img, (name, shape)]] {
            refused_with(single(&tensors), &["model.safetensors is not a FLUX.1 ", words]);
        }
    }
    let nunchaku = [("transformer_blocks.0.qkv_proj.qweight", [1_usize].as_slice())];
    let names = [nunchaku[0], ("transformer_blocks.0.qkv_proj.wscales", &[1]), ("single.0.lora_down", &[1])];
    refused_with(single(&names), &["SVDQuant"]);
    refused_with(single(&[("double_blocks.3.img_mlp.0.weight", &[1])]), &["a part of a FLUX transformer"]);
}

/// As ComfyUI writes them, beside settings in JSON.
#[test]
fn numbers_of_8_bits_that_are_not_read_are_refused_by_their_kind() {
    for (weight, scale, scales, words) in [
        ("I8", "F32", 1, "whole numbers of 8 bits (int8)"),
        ("F8_E4M3", "U8", 3, "a microscaling format (MX)"),
        ("F8_E4M3", "F8_E8M0", 3, "a microscaling format (MX)"),
    ] {
        let width = if scale == "F32" { 4 } else { 1 };
        let (first, second) = (5 + scales * width, 5 + scales * width + 2);
        let layer = "double_blocks.0.img_attn.qkv";
        let header = format!(
            r#"{{"{layer}.weight":{{"dtype":"{weight}","shape":[3,1],"data_offsets":[0,3]}},
                "img_in.weight":{{"dtype":"BF16","shape":[1],"data_offsets":[3,5]}},
                "{layer}.weight_scale":{{"dtype":"{scale}","shape":[{scales}],"data_offsets":[5,{first}]}},
                "{layer}.comfy_quant":{{"dtype":"U8","shape":[2],"data_offsets":[{first},{second}]}}}}"#
        );
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("x.safetensors");
        fs::write(&path, file(&header, second)).expect("written");
        let (what, _) = refused(resolve(&path));
        assert!(what.contains(words), "{weight} {scale}: {what}");
    }
}

/// Numbers of 8 bits without the scale they need would make another picture.
#[test]
fn scales_of_names_that_are_not_known_are_no_plain_fp8() {
    for (name, is_scale) in [
        ("double_blocks.0.img_attn.qkv.weight.scale", true),
        ("double_blocks.0.img_attn.qkv.scaler", true),
        ("double_blocks.0.img_attn.norm.key_norm.scale", false),
    ] {
        let weight = "double_blocks.0.img_attn.qkv.weight";
        let header = format!(
            r#"{{"{weight}":{{"dtype":"F8_E4M3","shape":[3,1],"data_offsets":[0,3]}},
                "img_in.weight":{{"dtype":"BF16","shape":[1],"data_offsets":[3,5]}},
                "{name}":{{"dtype":"F32","shape":[1],"data_offsets":[5,9]}}}}"#
        );
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("x.safetensors");
        fs::write(&path, file(&header, 9)).expect("written");
        let (what, _) = refused(resolve(&path));
        assert_eq!(what.contains("fp8 whose scales have names that are not known"), is_scale, "{what}");
    }
}

#[test]
fn one_file_of_several_is_not_taken_for_the_model() {
    let shard = fixture("tiny-flux/transformer/diffusion_pytorch_model-00001-of-00003.safetensors");
    refused_with(resolve(&shard), &["-00001-of-00003", "one of several files", "whose folder is the model"]);
}

/// In a folder, and as any part, the quantizer is told before shapes that do not fit.
#[test]
fn quantized_parts_of_a_folder_are_called_what_they_are() {
    for (part, weights) in [("transformer", "diffusion_pytorch_model"), ("text_encoder_2", "model"), ("vae", "x")] {
        let model = tiny_flux();
        let folder = model.path().join(part);
        for entry in fs::read_dir(&folder).expect("folder").flatten() {
            if entry.file_name() != "config.json" {
                fs::remove_file(entry.path()).expect("removed");
            }
        }
        let weights = if part == "vae" { "diffusion_pytorch_model" } else { weights };
        let header = r#"{"a.weight":{"dtype":"U8","shape":[4,1],"data_offsets":[0,4]},
            "a.weight.quant_map":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#;
        fs::write(folder.join(format!("{weights}.safetensors")), file(header, 8)).expect("written");
        refused_with(resolve(model.path()), &[part, "this is a model quantized by bitsandbytes (4 bits)", "bf16"]);
    }
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("t5xxl.safetensors");
    let header = r#"{"encoder.block.0.layer.0.SelfAttention.q.weight":{"dtype":"F8_E4M3","shape":[2,32],"data_offsets":[0,64]},
        "encoder.block.0.layer.0.SelfAttention.q.weight_scale":{"dtype":"F8_E8M0","shape":[2,1],"data_offsets":[64,66]}}"#;
    fs::write(&path, file(header, 66)).expect("written");
    let request = ModelRequest::new(fixture("tiny-flux")).with("text_encoder_2", &path);
    refused_with(flux1(&request), &["t5xxl.safetensors", "microscaling format (MX)"]);
}

/// A transformer under a prefix that nobody uses, or twice under a usual one, is told so, not that it is none.
#[test]
fn prefixes_that_are_not_known_are_told() {
    let twice = "model.diffusion_model.model.diffusion_model.";
    for (prefix, words) in [(twice, "the prefix \"model.diffusion_model.\" twice"), ("odd.", "the prefix \"odd.\"")] {
        for name in ["double_blocks.0.img_attn.qkv.weight", "transformer_blocks.0.attn.add_q_proj.weight"] {
            let name = format!("{prefix}{name}");
            refused_with(single(&[(&name, &[3, 1])]), &["model.safetensors: the names", words, "plain names"]);
        }
    }
}
