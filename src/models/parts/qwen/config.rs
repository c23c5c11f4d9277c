//! The dimensions of Qwen's language models, and how their configs say them.

use std::path::Path;

use serde::Deserialize;

use crate::{
    error::{Error, Result},
    models::parts::{
        config::{self, Config, Key, computed, each, idle, one_of},
        infer::Shapes,
        layers::{PRETRAINED, check_epsilon},
        open,
    },
    weights::TensorSource,
};

/// Dimensions of one of Qwen's language models.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct QwenConfig {
    /// Rows of the token embedding; more than the tokenizer has tokens: 151936, 152064.
    pub vocab_size: usize,
    /// C: width of the residual stream and of its hidden states; 2560, 3584.
    pub hidden_size: usize,
    /// Width of the feed-forward part; 9728, 18944.
    pub intermediate_size: usize,
    /// Layers; 36, 28.
    pub num_hidden_layers: usize,
    /// H: heads of queries; 32, 28.
    pub num_attention_heads: usize,
    /// K: heads of keys and values, each of which H/K heads of queries share; 8, 4.
    pub num_key_value_heads: usize,
    /// D: channels of a head; C/H where nothing says it.
    #[serde(default)]
    head_dim: Option<usize>,
    /// Epsilon of all norms; 1e-6.
    pub rms_norm_eps: f64,
    /// theta: the base of the geometric progression of frequencies; 1e6.
    pub rope_theta: f64,
    /// Whether each head's queries and keys are normed: Qwen3.
    #[serde(skip)]
    pub qk_norm: bool,
    /// Whether queries, keys and values have a bias: Qwen2.5.
    #[serde(skip)]
    pub qkv_bias: bool,
}

/// The dimensions of a Qwen3.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(from = "QwenConfig")]
pub struct Qwen3Config(pub QwenConfig);

/// The dimensions of the language part of a Qwen2.5-VL. All three sections of its rotary embedding see the same positions of a
/// text, so that it is a plain one.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(from = "QwenConfig")]
pub struct Qwen25VlConfig(pub QwenConfig);

impl From<QwenConfig> for Qwen3Config {
    fn from(config: QwenConfig) -> Self {
        Self(QwenConfig { qk_norm: true, qkv_bias: false, ..config })
    }
}

impl From<QwenConfig> for Qwen25VlConfig {
    fn from(config: QwenConfig) -> Self {
        Self(QwenConfig { qk_norm: false, qkv_bias: true, ..config })
    }
}

const ADVICE: &str = "check that this file is the config.json of the text encoder, or fetch it again";

/// Of both: what is not asked of an encoder, and what is the same in every one. Source: transformers, `Qwen3Config` and
/// `Qwen2_5_VLTextConfig`.
const QWEN: &[Key] = &[
    one_of("hidden_act", r#""silu""#, &[r#""silu""#]),
    // How far it was trained to read: beyond any prompt.
    idle("max_position_embeddings", "32768"),
    // Training.
    idle("initializer_range", "0.02"),
    idle("attention_dropout", "0.0"),
    // Text that is generated.
    idle("use_cache", "true"),
    idle("tie_word_embeddings", "false"),
    // All layers see everything before them.
    one_of("use_sliding_window", "false", &["false"]),
    idle("sliding_window", "4096"),
    each("layer_types", "null", "full_attention"),
    // What these say counts as said beside them.
    one_of("rope_parameters", "null", &["null"]),
    one_of("rope_scaling", "null", &["null"]),
    one_of("rope_type", r#""default""#, &[r#""default""#]),
    one_of("type", r#""default""#, &[r#""default""#, r#""mrope""#]),
    one_of("partial_rotary_factor", "null", &["null", "1.0"]),
    // The tokenizer's own files say these.
    idle("pad_token_id", "null"),
];

const QWEN_3: &[Key] = &[
    computed("vocab_size", "151936"),
    computed("hidden_size", "4096"),
    computed("intermediate_size", "22016"),
    computed("num_hidden_layers", "32"),
    computed("num_attention_heads", "32"),
    computed("num_key_value_heads", "32"),
    computed("head_dim", "128"),
    computed("rms_norm_eps", "1e-6"),
    computed("rope_theta", "10000.0"),
    one_of("attention_bias", "false", &["false"]),
    idle("max_window_layers", "28"),
    idle("bos_token_id", "null"),
    idle("eos_token_id", "null"),
];

const QWEN_25_VL: &[Key] = &[
    computed("vocab_size", "152064"),
    computed("hidden_size", "8192"),
    computed("intermediate_size", "29568"),
    computed("num_hidden_layers", "80"),
    computed("num_attention_heads", "64"),
    computed("num_key_value_heads", "8"),
    computed("rms_norm_eps", "1e-5"),
    computed("rope_theta", "1000000.0"),
    idle("max_window_layers", "80"),
    idle("bos_token_id", "151643"),
    idle("eos_token_id", "151645"),
];

/// Where newer files say what older ones say on top: transformers 5 keeps a rotary embedding in one object.
const ROPE: [&str; 2] = ["rope_scaling", "rope_parameters"];

impl Config for Qwen3Config {
    const KEYS: &'static [&'static [Key]] = &[PRETRAINED, QWEN, QWEN_3];
    // Qwen3-VL keeps its language part in an object, as Qwen2.5-VL does.
    const WITHIN: &'static [&'static str] = &["text_config", ROPE[0], ROPE[1]];
    const ADVICE: &'static str = ADVICE;

    fn check(&self) -> Result<()> {
        self.0.check()
    }
}

impl Config for Qwen25VlConfig {
    const KEYS: &'static [&'static [Key]] = &[PRETRAINED, QWEN, QWEN_25_VL];
    const WITHIN: &'static [&'static str] = &["text_config", ROPE[0], ROPE[1]];
    const ADVICE: &'static str = ADVICE;

    fn check(&self) -> Result<()> {
        self.0.check()
    }
}

impl QwenConfig {
    /// D: channels of a head.
    pub fn head_dim(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    fn check(&self) -> Result<()> {
        let (layers, heads) = (("num_hidden_layers", self.num_hidden_layers), self.num_attention_heads);
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_attention_heads", heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim()),
            layers,
        ];
        open::check_range(&sizes, &[layers], ADVICE)?;
        let refuse = |what: String| Err(Error::model(what, ADVICE));
        if !heads.is_multiple_of(self.num_key_value_heads) {
            let groups = self.num_key_value_heads;
            return refuse(format!("num_attention_heads is {heads}, no multiple of num_key_value_heads {groups}"));
        }
        if !self.head_dim().is_multiple_of(2) || (self.head_dim.is_none() && !self.hidden_size.is_multiple_of(heads)) {
            return refuse(format!("heads of width {} / {heads} cannot be turned in pairs", self.hidden_size));
        }
        if !(self.rope_theta > 1.0 && self.rope_theta.is_finite()) {
            return refuse(format!("rope_theta is {}, expected a number above 1", self.rope_theta));
        }
        check_epsilon("rms_norm_eps", self.rms_norm_eps, ADVICE)
    }

    /// The dimensions that the shapes of a file's tensors show; `source` answers to names with `model.`. What they do not show
    /// is as in every Qwen3 and Qwen2.5-VL: heads of 128 channels, theta 1e6, eps 1e-6.
    ///
    /// # Errors
    /// [`Error::Model`] when the tensors that show them are missing.
    fn infer(source: &dyn TensorSource) -> Result<Self> {
        /// Source: Qwen/Qwen2.5-VL-7B-Instruct, config.json: 3584 / 28.
        const HEAD_DIM: usize = 128;
        let shapes = Shapes(source);
        let attention = "model.layers.0.self_attn";
        let q_norm = format!("{attention}.q_norm.weight");
        let head_dim = if shapes.has(&q_norm) { shapes.dim(&q_norm, 0)? } else { HEAD_DIM };
        let heads = |name: &str| {
            let rows = shapes.dim(&format!("{attention}.{name}.weight"), 0)?;
            if rows.is_multiple_of(head_dim) {
                return Ok(rows / head_dim);
            }
            let what = format!("{}: {name} of {rows} rows has no heads of {head_dim}", source.describe());
            Err(Error::model(what, "put its config.json beside it, or give its folder"))
        };
        Ok(Self {
            vocab_size: shapes.dim("model.embed_tokens.weight", 0)?,
            hidden_size: shapes.dim("model.embed_tokens.weight", 1)?,
            intermediate_size: shapes.dim("model.layers.0.mlp.gate_proj.weight", 0)?,
            num_hidden_layers: shapes.count(|i| format!("model.layers.{i}.input_layernorm.weight")),
            num_attention_heads: heads("q_proj")?,
            num_key_value_heads: heads("k_proj")?,
            head_dim: Some(head_dim),
            rms_norm_eps: 1e-6,
            rope_theta: 1e6,
            qk_norm: false,
            qkv_bias: false,
        })
    }
}

impl Qwen3Config {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`Error::Disk`] when it cannot be read, [`Error::Model`] when it is not JSON or says what is not computed.
    pub fn read(path: &Path) -> Result<Self> {
        config::read(path)
    }

    /// From the shapes of a file's tensors.
    ///
    /// # Errors
    /// [`Error::Model`] when the tensors that show them are missing.
    pub(crate) fn infer(source: &dyn TensorSource) -> Result<Self> {
        QwenConfig::infer(source).map(Self::from)
    }
}

impl Qwen25VlConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// As [`Qwen3Config::read`].
    pub fn read(path: &Path) -> Result<Self> {
        config::read(path)
    }

    /// From the shapes of a file's tensors.
    ///
    /// # Errors
    /// [`Error::Model`] when the tensors that show them are missing.
    pub(crate) fn infer(source: &dyn TensorSource) -> Result<Self> {
        QwenConfig::infer(source).map(Self::from)
    }
}
