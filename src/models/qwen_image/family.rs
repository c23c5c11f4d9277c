//! Qwen-Image as a family: how its models are recognised, which parts they have, and what opening one means.

use std::{
    convert::identity,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::Value;

use super::{
    LATENTS, QwenImageConfig, exchange, fits, latent_rgb::LATENT_RGB, published::PUBLISHED, text, transformer_tensors,
};
use crate::{
    base::geometry::TokenGrid,
    error::{Error, Result},
    models::{
        Confidence, Decode, Examples, Exchange, Facts, Family, Found, Identity, Lender, Model, MuRule, PartKind,
        PartSpec, Published, Reading, SchedulerConfig, Seen,
        parts::{
            Autoencoder, ChatTokenizer, HiddenStates, ModelPart, Qwen25VlConfig, Source, TextEncoderKind,
            TransformerKind, qwen_tensors, qwen25_vl,
            single_file::TRANSFORMER_PREFIXES,
            text_names,
            wan::{self, WanKind},
        },
        strangers::derived_from_a_model,
    },
    weights::{Cut, Expected, Renamed},
};

/// Qwen-Image.
pub const FAMILY: QwenImageFamily = QwenImageFamily;

/// The family.
pub struct QwenImageFamily;

/// What it is called.
pub(super) const NAME: &str = "Qwen-Image";
/// The pipeline of diffusers whose parts are Qwen-Image's.
const PIPELINE: &str = "QwenImagePipeline";
const NOT_QWEN: &str =
    "give a Qwen-Image transformer, for example qwen_image_bf16.safetensors, or a Qwen-Image model folder";
/// What the transformer's config is called in it, and what to do about another.
const CLASS: [&str; 3] = ["_class_name", "QwenImageTransformer2DModel", NOT_QWEN];
/// A tensor that no other family's transformer has.
const KNOWN_BY: &str = "transformer_blocks.0.img_mod.1.weight";
/// Picture tokens up to which mu follows the stock formula: 3072 x 3072 px, the largest that the method's authors made.
const MU_TOKENS: usize = 36_864;

/// The authors' open repository.
const OWN: &[Lender] = &[Lender { repo: "Qwen/Qwen-Image", files: &[], is_open: true }];

pub(super) static PARTS: [PartSpec; 5] = [
    PartSpec::TRANSFORMER,
    PartSpec {
        name: "vae",
        flag: Some("vae"),
        help: "Autoencoder: a file or a folder",
        class: Some("AutoencoderKLQwenImage"),
        beside: &["qwen_image_vae.safetensors", "qwen_image_vae*.safetensors", "wan_2.1_vae.safetensors"],
        is_inside: |source| wan::names::wan(Arc::clone(source)).is_some(),
        folders: &["vae"],
        fits: fits::vae,
        lenders: OWN,
        ..PartSpec::BARE
    },
    PartSpec {
        name: "text_encoder",
        flag: Some("text-encoder"),
        help: "Qwen2.5-VL text encoder: a file or a folder",
        beside: &["qwen_2.5_vl_7b.safetensors", "qwen_2.5_vl_7b*.safetensors", "qwen2.5*vl*.safetensors"],
        is_inside: |source| text_names::qwen25_vl(Arc::clone(source)).is_some(),
        folders: &["text_encoders", "clip"],
        fits: fits::qwen25_vl,
        lenders: OWN,
        ..PartSpec::BARE
    },
    PartSpec {
        name: "tokenizer",
        kind: PartKind::Tokenizer,
        flag: Some("tokenizer"),
        help: "Qwen tokenizer: a folder, or a tokenizer.json",
        files: &[&["vocab.json", "merges.txt"], &["tokenizer.json"]],
        lenders: OWN,
        ..PartSpec::BARE
    },
    PartSpec::SCHEDULER,
];

pub(super) const TRANSFORMER: TransformerKind<QwenImageConfig> = TransformerKind {
    class: CLASS,
    of_file: named_or_refused,
    of_folder: identity,
    infer: QwenImageConfig::infer,
    tensors: transformer_tensors,
};
const AUTOENCODER: WanKind = WanKind { family: NAME, example: "qwen_image_vae.safetensors", geometry: LATENTS };
/// What is read of the text encoder: its last hidden states, after the final norm. Source: diffusers, `hidden_states[-1]`.
pub(super) const READS: HiddenStates = HiddenStates::Last;
pub(super) const TEXT_ENCODER: TextEncoderKind<Qwen25VlConfig> = qwen25_vl(|config| qwen_tensors(&config.0, &READS));

/// The schedule of the published model. Source: Qwen/Qwen-Image, scheduler_config.json; mu is the stock formula's up to the
/// largest size of the method's authors, and held at its value there.
fn own_schedule() -> SchedulerConfig {
    SchedulerConfig {
        use_dynamic_shifting: true,
        max_shift: 0.9,
        max_image_seq_len: 8192,
        shift_terminal: Some(0.02),
        mu_rule: MuRule::LineUpTo(MU_TOKENS),
        ..SchedulerConfig::default()
    }
}

impl Family for QwenImageFamily {
    fn name(&self) -> &'static str {
        NAME
    }

    fn examples(&self) -> Examples {
        Examples { file: "qwen_image_bf16.safetensors", hub: "Qwen/Qwen-Image" }
    }

    fn recognise(&self, seen: &Seen) -> Option<Confidence> {
        if let Some(tensors) = &seen.tensors {
            let is_own = named(tensors).is_some() && derived_from_a_model(&**tensors).is_none();
            return is_own.then_some(Confidence::Certain);
        }
        let is_own = match (seen.pipeline.as_deref(), seen.class()) {
            (Some(pipeline), _) => pipeline == PIPELINE,
            (None, class) => class == Some(CLASS[1]),
        };
        is_own.then_some(Confidence::Certain)
    }

    fn parts(&self) -> &'static [PartSpec] {
        &PARTS
    }

    fn facts(&self, found: &Found) -> Result<Facts> {
        Ok(of_config(&TRANSFORMER.config(found)?, schedule(found)?))
    }

    fn usual(&self) -> Facts {
        of_config(&QwenImageConfig::qwen_image(), own_schedule())
    }

    fn open(&self, found: Found) -> Result<Box<dyn Model>> {
        Ok(Box::new(QwenImage::open(found)?))
    }

    fn tokens(&self, found: &Found, prompt: &str, asked: Option<usize>, usual: usize) -> Result<Vec<Reading>> {
        /// Rows of the published encoder's table. Source: Qwen/Qwen2.5-VL-7B-Instruct, config.json.
        const ROWS: usize = 152_064;
        let tokenizer = ChatTokenizer::qwen(&found.path("tokenizer")?, text::TEMPLATE, ROWS)?;
        Ok(vec![text::READER.reading(&tokenizer, prompt, asked.unwrap_or(usual))?])
    }

    fn tensors(&self, part: &str, config: &Value, path: &Path) -> Result<Vec<Expected>> {
        match part {
            "transformer" => TRANSFORMER.tensors(config, path),
            "vae" => AUTOENCODER.tensors(config, path),
            "text_encoder" => TEXT_ENCODER.tensors(config, path),
            _ => Err(Error::model(format!("{NAME} models have no network {part}"), "please report this")),
        }
    }

    fn published(&self) -> &'static [Published] {
        PUBLISHED
    }

    fn exchange(&self, found: &Found, part: &str) -> Result<Exchange> {
        exchange::of(found, part)
    }

    fn autoencoder(&self, found: &Found) -> Result<Box<dyn Decode>> {
        Ok(Box::new(AUTOENCODER.open(found.place("vae")?, &found.files)?))
    }
}

/// A transformer's tensors under diffusers' names, which single files have too, behind a prefix.
pub(super) fn named(source: &Source) -> Option<Source> {
    let prefix =
        TRANSFORMER_PREFIXES.into_iter().find(|prefix| source.shape(&format!("{prefix}{KNOWN_BY}")).is_some())?;
    if prefix.is_empty() {
        return Some(Arc::clone(source));
    }
    Some(Arc::new(Renamed::by(source, prefix, |name| Some(vec![(name.to_owned(), Cut::Whole)]))))
}

fn named_or_refused(source: Source) -> Result<Source> {
    let none = || Error::model(format!("{} is no Qwen-Image transformer", source.describe()), NOT_QWEN);
    named(&source).ok_or_else(none)
}

/// What a scheduler's file says that was given or came with the transformer's folder, else the published model's; which mu a
/// size gets, no file says.
fn schedule(found: &Found) -> Result<SchedulerConfig> {
    let own = own_schedule();
    match found.scheduler()?.filter(|(_, is_meant)| *is_meant) {
        Some((file, _)) => {
            Ok(SchedulerConfig { mu_rule: own.mu_rule, ..SchedulerConfig::read_among(&file, &found.files)? })
        }
        None => Ok(own),
    }
}

fn of_config(config: &QwenImageConfig, scheduler: SchedulerConfig) -> Facts {
    let axes = config.position_ids(TokenGrid { height_patches: 1, width_patches: 1 }, 0).axes;
    Facts { latents: LATENTS, axes, recipe: QwenImageConfig::recipe_facts(), scheduler, latent_rgb: LATENT_RGB }
}

/// A Qwen-Image, open but not loaded.
#[derive(Clone)]
pub struct QwenImage {
    /// Which model it is.
    pub identity: Identity,
    /// What it says about itself.
    pub facts: Facts,
    /// The transformer.
    pub transformer: ModelPart<QwenImageConfig>,
    /// The autoencoder.
    pub vae: Autoencoder,
    /// The language part of a Qwen2.5-VL.
    pub text_encoder: ModelPart<Qwen25VlConfig>,
    /// Its tokenizer: a folder, or a tokenizer.json.
    pub tokenizer: PathBuf,
    /// Where all of it is.
    pub found: Found,
}

impl QwenImage {
    /// Opens and checks the parts that were found. Reads configs and headers only.
    ///
    /// # Errors
    /// As [`Family::open`].
    pub fn open(found: Found) -> Result<Self> {
        let files = &found.files;
        let transformer = TRANSFORMER.open(&found)?;
        let facts = of_config(&transformer.config, schedule(&found)?);
        let model = Self {
            identity: found.identity.clone(),
            facts,
            transformer,
            vae: AUTOENCODER.open(found.place("vae")?, files)?,
            text_encoder: TEXT_ENCODER.open(found.place("text_encoder")?, files, NAME, "--text-encoder")?,
            tokenizer: found.path("tokenizer")?,
            found,
        };
        let (gives, takes) = (model.text_encoder.config.0.hidden_size, model.transformer.config.joint_attention_dim);
        model.text_encoder.check_width(gives, takes, "Qwen-Image's with --text-encoder")?;
        Ok(model)
    }
}
