//! What Tongyi-MAI published as Z-Image.

use candle_core::DType;

use crate::models::{
    Licence, Published, PublishedWeights,
    parts::published::{KL16, KL16_PARAMETERS, QWEN3_4B, QWEN3_4B_PARAMETERS},
};

const INDEX: (&str, &str) = ("model_index.json", r#"{"_class_name": "ZImagePipeline"}"#);
const TRANSFORMER: (&str, &str) =
    ("transformer/config.json", r#"{"_class_name": "ZImageTransformer2DModel", "axes_lens": [1536, 512, 512]}"#);
const TEXT: (&str, &str) = ("text_encoder/config.json", QWEN3_4B);
const VAE: (&str, &str) = ("vae/config.json", KL16);
const SCHEDULE: &str = "scheduler/scheduler_config.json";

/// The number type of the transformer is all that differs.
const fn weights(dtype: DType) -> [PublishedWeights; 3] {
    [
        PublishedWeights { part: "transformer", dtype, parameters: 6_154_908_736 },
        PublishedWeights::bf16("text_encoder", QWEN3_4B_PARAMETERS),
        PublishedWeights::bf16("vae", KL16_PARAMETERS),
    ]
}

pub(super) const PUBLISHED: &[Published] = &[
    Published {
        repo: "Tongyi-MAI/Z-Image-Turbo",
        licence: Licence::APACHE,
        configs: &[INDEX, TRANSFORMER, TEXT, VAE, (SCHEDULE, r#"{"use_dynamic_shifting": false, "shift": 3.0}"#)],
        weights: &weights(DType::F32),
    },
    Published {
        repo: "Tongyi-MAI/Z-Image",
        licence: Licence::APACHE,
        configs: &[INDEX, TRANSFORMER, TEXT, VAE, (SCHEDULE, r#"{"use_dynamic_shifting": false, "shift": 6.0}"#)],
        weights: &weights(DType::BF16),
    },
];
