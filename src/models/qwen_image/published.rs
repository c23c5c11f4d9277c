//! What Qwen published as Qwen-Image.

use crate::models::{Licence, Published, PublishedWeights};

pub(super) const PUBLISHED: &[Published] = &[Published {
    repo: "Qwen/Qwen-Image",
    licence: Licence::APACHE,
    configs: &[
        ("model_index.json", r#"{"_class_name": "QwenImagePipeline"}"#),
        ("transformer/config.json", r#"{"_class_name": "QwenImageTransformer2DModel"}"#),
        ("vae/config.json", r#"{"_class_name": "AutoencoderKLQwenImage"}"#),
        (
            "text_encoder/config.json",
            r#"{"model_type": "qwen2_5_vl", "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
                "num_attention_heads": 28, "num_key_value_heads": 4, "rms_norm_eps": 1e-6}"#,
        ),
        (
            "scheduler/scheduler_config.json",
            r#"{"use_dynamic_shifting": true, "base_shift": 0.5, "max_shift": 0.9, "base_image_seq_len": 256,
                "max_image_seq_len": 8192, "shift": 1.0, "shift_terminal": 0.02}"#,
        ),
    ],
    weights: &[
        PublishedWeights::bf16("transformer", 20_430_401_088),
        PublishedWeights::bf16("text_encoder", 8_292_166_656),
        PublishedWeights::bf16("vae", 126_892_531),
    ],
}];
