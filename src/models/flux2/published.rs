//! What Black Forest Labs published as FLUX.2 \[klein\].

use crate::models::{
    Licence, Published, PublishedWeights,
    parts::published::{QWEN3_4B, QWEN3_4B_PARAMETERS, QWEN3_8B, QWEN3_8B_PARAMETERS},
};

const NON_COMMERCIAL: Licence = Licence { name: "FLUX Non-Commercial", is_commercial: false, is_gated: true };

const DISTILLED: (&str, &str) = ("model_index.json", r#"{"_class_name": "Flux2KleinPipeline", "is_distilled": true}"#);
const BASE: (&str, &str) = ("model_index.json", r#"{"_class_name": "Flux2KleinPipeline"}"#);
const VAE: (&str, &str) = ("vae/config.json", r#"{"_class_name": "AutoencoderKLFlux2"}"#);
const SCHEDULE: (&str, &str) = (
    "scheduler/scheduler_config.json",
    r#"{"use_dynamic_shifting": true, "base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256,
        "max_image_seq_len": 4096, "shift": 3.0}"#,
);
const TRANSFORMER_4B: (&str, &str) = (
    "transformer/config.json",
    r#"{"_class_name": "Flux2Transformer2DModel", "num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24,
        "joint_attention_dim": 7680, "guidance_embeds": false}"#,
);
const TRANSFORMER_9B: (&str, &str) = (
    "transformer/config.json",
    r#"{"_class_name": "Flux2Transformer2DModel", "num_layers": 8, "num_single_layers": 24, "num_attention_heads": 32,
        "joint_attention_dim": 12288, "guidance_embeds": false}"#,
);
const TEXT_4B: (&str, &str) = ("text_encoder/config.json", QWEN3_4B);
const TEXT_9B: (&str, &str) = ("text_encoder/config.json", QWEN3_8B);

const fn weights(transformer: u64, text_encoder: u64) -> [PublishedWeights; 3] {
    [
        PublishedWeights::bf16("transformer", transformer),
        PublishedWeights::bf16("text_encoder", text_encoder),
        PublishedWeights::bf16("vae", 84_046_372),
    ]
}
const WEIGHTS_4B: &[PublishedWeights] = &weights(3_875_544_576, QWEN3_4B_PARAMETERS);
const WEIGHTS_9B: &[PublishedWeights] = &weights(9_078_581_248, QWEN3_8B_PARAMETERS);

pub(super) const PUBLISHED: &[Published] = &[
    Published {
        repo: "black-forest-labs/FLUX.2-klein-4B",
        licence: Licence::APACHE,
        configs: &[DISTILLED, TRANSFORMER_4B, TEXT_4B, VAE, SCHEDULE],
        weights: WEIGHTS_4B,
    },
    Published {
        repo: "black-forest-labs/FLUX.2-klein-9B",
        licence: NON_COMMERCIAL,
        configs: &[DISTILLED, TRANSFORMER_9B, TEXT_9B, VAE, SCHEDULE],
        weights: WEIGHTS_9B,
    },
    Published {
        repo: "black-forest-labs/FLUX.2-klein-base-4B",
        licence: Licence::APACHE,
        configs: &[BASE, TRANSFORMER_4B, TEXT_4B, VAE, SCHEDULE],
        weights: WEIGHTS_4B,
    },
    Published {
        repo: "black-forest-labs/FLUX.2-klein-base-9B",
        licence: NON_COMMERCIAL,
        configs: &[BASE, TRANSFORMER_9B, TEXT_9B, VAE, SCHEDULE],
        weights: WEIGHTS_9B,
    },
];
