//! Configs of parts that several families published, word for word where it matters; what they leave out is the default of the
//! reference's class.

/// FLUX.1's autoencoder. Source: black-forest-labs/FLUX.1-dev, vae/config.json, which Tongyi-MAI/Z-Image-Turbo has too.
pub(crate) const KL16: &str = r#"{"_class_name": "AutoencoderKL",
    "block_out_channels": [128, 256, 512, 512], "latent_channels": 16, "layers_per_block": 2, "norm_num_groups": 32,
    "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"],
    "scaling_factor": 0.3611, "shift_factor": 0.1159, "use_quant_conv": false, "use_post_quant_conv": false}"#;
/// Numbers in it.
pub(crate) const KL16_PARAMETERS: u64 = 83_819_683;

/// Qwen3-4B. Source: Qwen/Qwen3-4B, config.json.
pub(crate) const QWEN3_4B: &str = r#"{"model_type": "qwen3", "hidden_size": 2560, "intermediate_size": 9728,
    "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "rope_theta": 1000000,
    "tie_word_embeddings": true}"#;
/// Numbers in it.
pub(crate) const QWEN3_4B_PARAMETERS: u64 = 4_022_468_096;

/// Qwen3-8B. Source: Qwen/Qwen3-8B, config.json.
pub(crate) const QWEN3_8B: &str = r#"{"model_type": "qwen3", "hidden_size": 4096, "intermediate_size": 12288,
    "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "rope_theta": 1000000}"#;
/// Numbers in it, a head that no picture needs among them.
pub(crate) const QWEN3_8B_PARAMETERS: u64 = 8_190_735_360;
