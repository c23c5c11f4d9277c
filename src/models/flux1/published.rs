//! What Black Forest Labs published as FLUX.1.

use crate::models::{
    Licence, Published, PublishedWeights,
    parts::published::{KL16, KL16_PARAMETERS},
};

const NON_COMMERCIAL: Licence = Licence { name: "FLUX.1 [dev] Non-Commercial", is_commercial: false, is_gated: true };

const INDEX: (&str, &str) = ("model_index.json", r#"{"_class_name": "FluxPipeline"}"#);
const VAE: (&str, &str) = ("vae/config.json", KL16);
const CLIP: (&str, &str) = (
    "text_encoder/config.json",
    r#"{"model_type": "clip_text_model", "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12,
        "num_hidden_layers": 12, "eos_token_id": 2}"#,
);
const T5: (&str, &str) = (
    "text_encoder_2/config.json",
    r#"{"model_type": "t5", "d_model": 4096, "d_ff": 10240, "num_layers": 24, "num_heads": 64,
        "feed_forward_proj": "gated-gelu"}"#,
);
const DEV: (&str, &str) =
    ("transformer/config.json", r#"{"_class_name": "FluxTransformer2DModel", "guidance_embeds": true}"#);
const DEV_SCHEDULE: (&str, &str) = (
    "scheduler/scheduler_config.json",
    r#"{"use_dynamic_shifting": true, "base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256,
        "max_image_seq_len": 4096, "shift": 3.0}"#,
);
const DEV_CONFIGS: &[(&str, &str)] = &[INDEX, DEV, VAE, CLIP, T5, DEV_SCHEDULE];

const fn weights(transformer: u64) -> [PublishedWeights; 4] {
    [
        PublishedWeights::bf16("transformer", transformer),
        PublishedWeights::bf16("text_encoder_2", 4_762_310_656),
        PublishedWeights::bf16("text_encoder", 123_060_480),
        PublishedWeights::bf16("vae", KL16_PARAMETERS),
    ]
}
const DEV_WEIGHTS: &[PublishedWeights] = &weights(11_901_408_320);

pub(super) const PUBLISHED: &[Published] = &[
    Published {
        repo: "black-forest-labs/FLUX.1-Krea-dev",
        licence: NON_COMMERCIAL,
        configs: DEV_CONFIGS,
        weights: DEV_WEIGHTS,
    },
    Published {
        repo: "black-forest-labs/FLUX.1-dev",
        licence: NON_COMMERCIAL,
        configs: DEV_CONFIGS,
        weights: DEV_WEIGHTS,
    },
    Published {
        repo: "black-forest-labs/FLUX.1-schnell",
        licence: Licence { is_gated: true, ..Licence::APACHE },
        configs: &[
            INDEX,
            VAE,
            CLIP,
            T5,
            ("transformer/config.json", r#"{"_class_name": "FluxTransformer2DModel", "guidance_embeds": false}"#),
            ("scheduler/scheduler_config.json", r#"{"use_dynamic_shifting": false, "shift": 1.0}"#),
            ("tokenizer_2/tokenizer_config.json", r#"{"model_max_length": 256}"#),
        ],
        // dev's, without the embedding of the guidance.
        weights: &weights(11_891_178_560),
    },
];
