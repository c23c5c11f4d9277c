//! Z-Image as a family: how its models are recognised, which parts they have, and what opening one means.

use std::{convert::identity, path::Path, sync::Arc};

use candle_core::{DType, Device};
use serde_json::Value;

use super::{
    Forward, LATENTS, ZImageConfig, comfy,
    config::{BASE_RESOLUTION_PX, TEXT_TOKENS},
    exchange, fits, infer,
    published::PUBLISHED,
    schedule::{Schedule, is_base, schedule, turbo},
    text, transformer_tensors,
};
use crate::{
    base::device::DeviceKind,
    error::{Error, Result},
    models::{
        Confidence, Decode, Examples, Exchange, Facts, Family, Found, Identity, Lender, Model, PartKind, PartSpec,
        Published, Reading, SchedulerConfig, Seen, StepShape,
        parts::{
            Autoencoder, AutoencoderKind, ChatTokenizer, KL16_RGB, ModelPart, Qwen3Config, Source, TextEncoderKind,
            TransformerKind, kl16, qwen3, text_names, vae_names,
        },
        strangers::derived_from_a_model,
    },
    nn::WeightsMode,
    recipe::{CfgRescale, CfgRule, CfgStart, ModelFacts},
    weights::{Expected, Weights},
};

/// Z-Image, Z-Image-Turbo, and whatever else has their layout.
pub const FAMILY: ZImageFamily = ZImageFamily;

/// The family.
pub struct ZImageFamily;

/// What it is called.
pub(super) const NAME: &str = "Z-Image";
/// Pipelines of diffusers whose parts are Z-Image's.
pub(super) const PIPELINES: [&str; 3] = ["ZImagePipeline", "ZImageImg2ImgPipeline", "ZImageInpaintPipeline"];
const NOT_OURS: &str =
    "give a Z-Image transformer, for example z_image_turbo_bf16.safetensors, or a Z-Image model folder";

/// What the transformer's config is called in it, and what to do about another.
const CLASS: [&str; 3] = ["_class_name", "ZImageTransformer2DModel", NOT_OURS];

/// The authors' open repository; all parts but the transformer are the same in both of theirs.
const OWN: &[Lender] = &[Lender { repo: "Tongyi-MAI/Z-Image-Turbo", files: &[], is_open: true }];

pub(super) static PARTS: [PartSpec; 5] = [
    PartSpec::TRANSFORMER,
    PartSpec {
        name: "vae",
        flag: Some("vae"),
        help: "Autoencoder: a file or a folder",
        class: Some("AutoencoderKL"),
        beside: &["ae.safetensors", "ae.sft"],
        is_inside: |source| vae_names::vae(Arc::clone(source)).is_some(),
        folders: &["vae"],
        fits: fits::vae,
        lenders: OWN,
        ..PartSpec::BARE
    },
    PartSpec {
        name: "text_encoder",
        flag: Some("text-encoder"),
        help: "Qwen3 text encoder: a file or a folder",
        beside: &["qwen_3_4b.safetensors", "qwen_3_4b*.safetensors", "qwen3_4b*.safetensors"],
        is_inside: |source| text_names::qwen3(Arc::clone(source)).is_some(),
        folders: &["text_encoders", "clip"],
        fits: fits::qwen3,
        lenders: OWN,
        ..PartSpec::BARE
    },
    PartSpec {
        name: "tokenizer",
        kind: PartKind::Tokenizer,
        flag: Some("tokenizer"),
        help: "Qwen3 tokenizer: a folder, or a tokenizer.json",
        files: &[&["vocab.json", "merges.txt"], &["tokenizer.json"]],
        lenders: OWN,
        ..PartSpec::BARE
    },
    PartSpec::SCHEDULER,
];

pub(super) const TRANSFORMER: TransformerKind<ZImageConfig> = TransformerKind {
    class: CLASS,
    of_file: named,
    of_folder: identity,
    infer: infer::transformer,
    tensors: transformer_tensors,
};
const AUTOENCODER: AutoencoderKind =
    AutoencoderKind { family: NAME, example: "ae.safetensors", like: kl16, geometry: LATENTS };
pub(super) const TEXT_ENCODER: TextEncoderKind<Qwen3Config> = qwen3(text::text_tensors);

impl Family for ZImageFamily {
    fn name(&self) -> &'static str {
        NAME
    }

    fn examples(&self) -> Examples {
        Examples { file: "z_image_turbo_bf16.safetensors", hub: "Tongyi-MAI/Z-Image-Turbo" }
    }

    fn recognise(&self, seen: &Seen) -> Option<Confidence> {
        let is_ours = match &seen.tensors {
            Some(tensors) => {
                let is_named = comfy::transformer(Arc::clone(tensors)).is_some();
                (is_named || comfy::has_diffusers_names(&**tensors)) && derived_from_a_model(&**tensors).is_none()
            }
            None => match seen.pipeline.as_deref() {
                Some(pipeline) => PIPELINES.contains(&pipeline),
                None => seen.class() == Some(CLASS[1]),
            },
        };
        is_ours.then_some(Confidence::Certain)
    }

    fn parts(&self) -> &'static [PartSpec] {
        &PARTS
    }

    fn facts(&self, found: &Found) -> Result<Facts> {
        Ok(of_config(&TRANSFORMER.config(found)?, schedule(found)?.config))
    }

    fn usual(&self) -> Facts {
        of_config(&ZImageConfig::z_image(), turbo())
    }

    fn open(&self, found: Found) -> Result<Box<dyn Model>> {
        Ok(Box::new(ZImage::open(found)?))
    }

    fn tokens(&self, found: &Found, prompt: &str, asked: Option<usize>, usual: usize) -> Result<Vec<Reading>> {
        let length = asked.unwrap_or(usual.min(TEXT_TOKENS));
        let tokenizer = ChatTokenizer::qwen(&found.path("tokenizer")?, text::TEMPLATE, usize::MAX)?;
        Ok(vec![text::READER.reading(&tokenizer, prompt, length)?])
    }

    fn tensors(&self, part: &str, config: &Value, path: &Path) -> Result<Vec<Expected>> {
        match part {
            "transformer" => TRANSFORMER.tensors(config, path),
            "vae" => AutoencoderKind::tensors(config, path),
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

/// A single file's tensors under diffusers' names.
fn named(source: Source) -> Result<Source> {
    match comfy::transformer(Arc::clone(&source)) {
        Some(renamed) => Ok(Arc::new(renamed)),
        None => Ok(source),
    }
}

fn of_config(config: &ZImageConfig, scheduler: SchedulerConfig) -> Facts {
    let recipe = recipe_facts(config, is_base(&scheduler));
    Facts { latents: LATENTS, axes: config.axes(), recipe, scheduler, latent_rgb: KL16_RGB }
}

/// What fills the gaps of a recipe. Sources: the cards of Tongyi-MAI/Z-Image-Turbo (8 forward passes, guidance 0) and
/// Tongyi-MAI/Z-Image (50 steps, guidance 4), whose scales diffusers' `ZImagePipeline` adds to the velocity with the prompt.
fn recipe_facts(config: &ZImageConfig, is_base: bool) -> ModelFacts {
    let (steps, cfg) = if is_base { (50, Some(4.0)) } else { (8, None) };
    ModelFacts {
        text_tokens: TEXT_TOKENS,
        steps,
        cfg,
        cfg_rule: CfgRule { start: CfgStart::Positive, rescale: CfgRescale::OnRequest },
        most_side_px: config.most_side_px(),
        ..ModelFacts::of(BASE_RESOLUTION_PX)
    }
}

/// A Z-Image, open but not loaded.
#[derive(Clone)]
pub struct ZImage {
    /// Which model it is.
    pub identity: Identity,
    /// What it says about itself.
    pub facts: Facts,
    /// The transformer.
    pub transformer: ModelPart<ZImageConfig>,
    /// The autoencoder.
    pub vae: Autoencoder,
    /// Qwen3.
    pub text_encoder: ModelPart<Qwen3Config>,
    /// Its tokenizer: a `tokenizer.json`, or a folder that holds one or `vocab.json` and `merges.txt`.
    pub tokenizer: std::path::PathBuf,
    /// What is to be told of how it was opened.
    pub remark: Option<String>,
    /// Where all of it is.
    pub found: Found,
}

impl ZImage {
    /// Opens and checks the parts that were found. Reads configs and headers only.
    ///
    /// # Errors
    /// As [`Family::open`].
    pub fn open(found: Found) -> Result<Self> {
        let files = &found.files;
        let transformer = TRANSFORMER.open(&found)?;
        let vae = AUTOENCODER.open(found.place("vae")?, files)?;
        let text_encoder = TEXT_ENCODER.open(found.place("text_encoder")?, files, NAME, "--text-encoder")?;
        let tokenizer = found.path("tokenizer")?;
        let Schedule { config: numbers, remark } = schedule(&found)?;
        let mut facts = of_config(&transformer.config, numbers);
        facts.latent_rgb = vae.latent_rgb.clone().unwrap_or(KL16_RGB);
        let identity = found.identity.clone();
        let model = Self { identity, facts, transformer, vae, text_encoder, tokenizer, remark, found };
        let (gives, takes) = (model.text_encoder.config.0.hidden_size, model.transformer.config.cap_feat_dim);
        model.text_encoder.check_width(gives, takes, "Z-Image's, Qwen3-4B, with --text-encoder")?;
        Ok(model)
    }

    /// The transformer's tensors as `dtype` on `device`.
    pub fn transformer_weights(&self, dtype: DType, device: &Device) -> Weights {
        self.transformer.weights(dtype, device)
    }

    /// A step that is asked about.
    pub(super) fn forward(
        &self,
        (kind, dtype): (DeviceKind, DType),
        mode: WeightsMode,
        step: StepShape,
    ) -> Forward<'_> {
        // Headers are read, wherever the numbers will go.
        let weights = self.transformer_weights(dtype, &Device::Cpu);
        let compute = step.compute((kind, dtype));
        Forward { config: &self.transformer.config, kind, compute, weights, mode, step }
    }
}
