//! FLUX.1 as a family: how its models are recognised, which parts they have, and what opening one means.

use std::{convert::identity, path::Path, sync::Arc};

use candle_core::{DType, Device};
use serde_json::Value;

use super::{
    FluxConfig, Forward, LATENTS, WeightsMode, bfl, exchange, fits, infer,
    published::PUBLISHED,
    schedule::{Schedule, schedule},
    text, transformer_tensors,
};
use crate::{
    base::{device::DeviceKind, geometry::TokenGrid},
    error::{Error, Result},
    models::{
        Confidence, Decode, Examples, Exchange, Facts, Family, Found, Identity, Lender, Model, PartKind, PartSpec,
        Published, Reading, SchedulerConfig, Seen, StepShape,
        parts::{
            Autoencoder, AutoencoderKind, CLIP, CLIP_TOKENS, ClipConfig, KL16_RGB, ModelPart, PromptTokenizer, Source,
            T5, T5Config, Tokenizers, TransformerKind, kl16, text_names, vae_names,
        },
        strangers::{derived_from_a_model, made_for_another},
    },
    weights::{Expected, Files, Renamed, TensorSource, Weights},
};

/// FLUX.1: dev, Krea-dev, schnell, and whatever else has their layout.
pub const FAMILY: Flux1Family = Flux1Family;

/// The family.
pub struct Flux1Family;

/// What it is called.
pub(super) const NAME: &str = "FLUX.1";
/// What GGUF files of it say that they were made for. Source: city96/ComfyUI-GGUF, `tools/convert.py`.
pub(super) const MADE_FOR: &str = "flux";
/// Pipelines of diffusers whose parts are FLUX.1's.
pub(super) const PIPELINES: [&str; 4] =
    ["FluxPipeline", "FluxImg2ImgPipeline", "FluxInpaintPipeline", "FluxKontextPipeline"];
const NOT_FLUX: &str = "give a FLUX.1 transformer, for example flux1-krea-dev.safetensors, or a FLUX.1 model folder";

/// What the transformer's config is called in it, and what to do about another.
const CLASS: [&str; 3] = ["_class_name", "FluxTransformer2DModel", NOT_FLUX];

/// T5's files as ComfyUI's folders have them; of several the one that is rounded least.
const T5_FILES: &[&str] = &[
    "t5xxl.safetensors",
    "t5xxl_fp16.safetensors",
    "t5xxl_bf16.safetensors",
    "t5xxl*.safetensors",
    "t5xxl*.sft",
    "t5*.gguf",
];

/// The authors' repositories, which have all parts and a licence to be accepted.
const OWN: [Lender; 3] = [
    of_the_authors("black-forest-labs/FLUX.1-Krea-dev"),
    of_the_authors("black-forest-labs/FLUX.1-dev"),
    of_the_authors("black-forest-labs/FLUX.1-schnell"),
];

const fn of_the_authors(repo: &'static str) -> Lender {
    Lender { repo, files: &[], is_open: false }
}

/// The authors' repositories, and one that is open to everybody.
macro_rules! lenders {
    ($repo:literal: $($file:literal),+) => {
        &[OWN[0], OWN[1], OWN[2], Lender { repo: $repo, files: &[$($file),+], is_open: true }]
    };
}

pub(super) static PARTS: [PartSpec; 7] = [
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
        lenders: lenders!("Comfy-Org/Lumina_Image_2.0_Repackaged": "split_files/vae/ae.safetensors"),
        ..PartSpec::BARE
    },
    PartSpec {
        name: "text_encoder",
        flag: Some("text-encoder"),
        help: "CLIP text encoder: a file or a folder",
        beside: &["clip_l.safetensors", "clip_l.sft", "clip_l*.safetensors"],
        is_inside: |source| text_names::clip(Arc::clone(source)).is_some(),
        folders: &["text_encoders", "clip"],
        fits: fits::clip,
        lenders: lenders!("comfyanonymous/flux_text_encoders": "clip_l.safetensors"),
        ..PartSpec::BARE
    },
    PartSpec {
        name: "text_encoder_2",
        flag: Some("text-encoder-2"),
        help: "T5 text encoder: a file or a folder",
        beside: T5_FILES,
        is_inside: |source| text_names::t5(Arc::clone(source)).is_some(),
        folders: &["text_encoders", "clip"],
        fits: fits::t5,
        lenders: lenders!("comfyanonymous/flux_text_encoders": "t5xxl_fp16.safetensors"),
        ..PartSpec::BARE
    },
    PartSpec {
        name: "tokenizer",
        kind: PartKind::Tokenizer,
        flag: Some("tokenizer"),
        help: "CLIP tokenizer: a folder, or a tokenizer.json",
        files: &[&["tokenizer.json"], &["vocab.json", "merges.txt"]],
        lenders: lenders!("openai/clip-vit-large-patch14": "vocab.json", "merges.txt", "tokenizer_config.json"),
        ..PartSpec::BARE
    },
    PartSpec {
        name: "tokenizer_2",
        kind: PartKind::Tokenizer,
        flag: Some("tokenizer-2"),
        help: "T5 tokenizer: a folder, a tokenizer.json or a spiece.model",
        files: &[&["spiece.model"], &["tokenizer.json"]],
        // The same pieces as in the authors' tokenizer_2.
        lenders: lenders!("google/t5-v1_1-xxl": "spiece.model", "tokenizer_config.json"),
        ..PartSpec::BARE
    },
    PartSpec::SCHEDULER,
];

pub(super) const TRANSFORMER: TransformerKind<FluxConfig> = TransformerKind {
    class: CLASS,
    of_file: named,
    of_folder: identity,
    infer: infer::transformer,
    tensors: transformer_tensors,
};
const AUTOENCODER: AutoencoderKind =
    AutoencoderKind { family: NAME, example: "ae.safetensors", like: kl16, geometry: LATENTS };

impl Family for Flux1Family {
    fn name(&self) -> &'static str {
        NAME
    }

    fn examples(&self) -> Examples {
        Examples { file: "flux1-krea-dev.safetensors", hub: "black-forest-labs/FLUX.1-Krea-dev" }
    }

    fn recognise(&self, seen: &Seen) -> Option<Confidence> {
        if let Some(tensors) = &seen.tensors {
            let is_another = made_for_another(&**tensors, &[MADE_FOR]).is_some();
            if is_another || derived_from_a_model(&**tensors).is_some() {
                return None;
            }
            let named = bfl::transformer(Arc::clone(tensors));
            // Successors have the same blocks, but no modulation in each.
            let modulates = |named: &Renamed| named.shape("transformer_blocks.0.norm1.linear.weight").is_some();
            let is_certain = has_diffusers_names(&**tensors) || named.as_ref().is_some_and(modulates);
            // What it lacks is told when it is opened.
            let is_possible = named.is_some() || tensors.made_for() == Some(MADE_FOR);
            return if is_certain { Some(Confidence::Certain) } else { is_possible.then_some(Confidence::Possible) };
        }
        match (seen.pipeline.as_deref(), seen.class()) {
            (Some(pipeline), _) => PIPELINES.contains(&pipeline).then_some(Confidence::Certain),
            (None, Some("FluxTransformer2DModel")) => Some(Confidence::Certain),
            // A transformer of another class is told of when its config is read.
            (None, _) => Some(Confidence::Possible),
        }
    }

    fn parts(&self) -> &'static [PartSpec] {
        &PARTS
    }

    fn facts(&self, found: &Found) -> Result<Facts> {
        let config = TRANSFORMER.config(found)?;
        Ok(of_config(&config, schedule(&config, found)?.config))
    }

    fn usual(&self) -> Facts {
        of_config(&FluxConfig::flux1_dev(), SchedulerConfig::flux1_dev())
    }

    fn open(&self, found: Found) -> Result<Box<dyn Model>> {
        Ok(Box::new(Flux1::open(found)?))
    }

    fn tokens(&self, found: &Found, prompt: &str, asked: Option<usize>, usual: usize) -> Result<Vec<Reading>> {
        let (clip, t5) = (found.path("tokenizer")?, found.path("tokenizer_2")?);
        let most = text_tokens(&t5, &found.files)?.unwrap_or(usual);
        let length = asked.unwrap_or(usual.min(most));
        text::check_sequence_length(length)?;
        let vocabularies = (ClipConfig::clip_l().vocab_size, T5Config::t5_xxl().vocab_size);
        let tokenizers = Tokenizers::open(&clip, vocabularies.0, &t5, vocabularies.1)?;
        let read = |encoder, tokenizer: &PromptTokenizer, length| -> Result<Reading> {
            let (tokens, padding, cut) = tokenizer.pieces(prompt, length)?;
            Ok(Reading { encoder, length, tokens, padding, cut })
        };
        Ok(vec![read("CLIP", &tokenizers.clip, CLIP_TOKENS)?, read("T5", &tokenizers.t5, length)?])
    }

    fn tensors(&self, part: &str, config: &Value, path: &Path) -> Result<Vec<Expected>> {
        match part {
            "transformer" => TRANSFORMER.tensors(config, path),
            "vae" => AutoencoderKind::tensors(config, path),
            "text_encoder" => CLIP.tensors(config, path),
            "text_encoder_2" => T5.tensors(config, path),
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

fn has_diffusers_names(source: &dyn TensorSource) -> bool {
    let has = |name| source.shape(name).is_some();
    has("transformer_blocks.0.attn.add_q_proj.weight") && has("single_transformer_blocks.0.proj_mlp.weight")
}

/// A single file's tensors under diffusers' names.
fn named(source: Source) -> Result<Source> {
    match bfl::transformer(Arc::clone(&source)) {
        Some(renamed) => Ok(Arc::new(renamed)),
        None if has_diffusers_names(&*source) => Ok(source),
        None => Err(bfl::lacks(&*source)),
    }
}

fn of_config(config: &FluxConfig, scheduler: SchedulerConfig) -> Facts {
    let axes = config.position_ids(TokenGrid { height_patches: 1, width_patches: 1 }, 0).axes;
    Facts { latents: LATENTS, axes, recipe: config.recipe_facts(None), scheduler, latent_rgb: KL16_RGB }
}

/// A FLUX.1, open but not loaded.
#[derive(Clone)]
pub struct Flux1 {
    /// Which model it is.
    pub identity: Identity,
    /// What it says about itself.
    pub facts: Facts,
    /// The transformer.
    pub transformer: ModelPart<FluxConfig>,
    /// The autoencoder.
    pub vae: Autoencoder,
    /// CLIP; it answers to names with and without `text_model.`.
    pub text_encoder: ModelPart<ClipConfig>,
    /// T5; it answers to both names of its embedding table.
    pub text_encoder_2: ModelPart<T5Config>,
    /// CLIP's tokenizer: a `tokenizer.json`, or a folder that holds one or `vocab.json` and `merges.txt`.
    pub tokenizer: std::path::PathBuf,
    /// T5's tokenizer: a `tokenizer.json` or `spiece.model`, or a folder that holds one.
    pub tokenizer_2: std::path::PathBuf,
    /// The scheduler's config, where one was taken.
    pub scheduler: Option<std::path::PathBuf>,
    /// Why the one that lies there was not.
    pub remark: Option<String>,
    /// Where all of it is.
    pub found: Found,
}

impl Flux1 {
    /// Opens and checks the parts that were found. Reads configs and headers only.
    ///
    /// # Errors
    /// As [`Family::open`].
    pub fn open(found: Found) -> Result<Self> {
        let files = &found.files;
        let transformer = TRANSFORMER.open(&found)?;
        let config = &transformer.config;
        let vae = AUTOENCODER.open(found.place("vae")?, files)?;
        let text_encoder = CLIP.open(found.place("text_encoder")?, files, NAME, "--text-encoder")?;
        let text_encoder_2 = T5.open(found.place("text_encoder_2")?, files, NAME, "--text-encoder-2")?;
        let (tokenizer, tokenizer_2) = (found.path("tokenizer")?, found.path("tokenizer_2")?);
        let Schedule { config: numbers, file: scheduler, remark } = schedule(config, &found)?;
        let mut facts = of_config(config, numbers);
        facts.recipe = config.recipe_facts(text_tokens(&tokenizer_2, files)?);
        facts.latent_rgb = vae.latent_rgb.clone().unwrap_or(KL16_RGB);
        let identity = found.identity.clone();
        let model = Self {
            identity,
            facts,
            transformer,
            vae,
            text_encoder,
            text_encoder_2,
            tokenizer,
            tokenizer_2,
            scheduler,
            remark,
            found,
        };
        model.check_widths()?;
        Ok(model)
    }

    /// Whether this is a model without guidance embedding, distilled to few steps, as FLUX.1-schnell is.
    pub fn is_schnell(&self) -> bool {
        !self.transformer.config.guidance_embeds
    }

    /// The transformer's tensors as `dtype` on `device`.
    pub fn transformer_weights(&self, dtype: DType, device: &Device) -> Weights {
        self.transformer.weights(dtype, device)
    }

    /// The autoencoder's tensors as `dtype` on `device`.
    pub fn vae_weights(&self, dtype: DType, device: &Device) -> Weights {
        self.vae.part.weights(dtype, device)
    }

    /// CLIP's tensors as `dtype` on `device`.
    pub fn text_encoder_weights(&self, dtype: DType, device: &Device) -> Weights {
        self.text_encoder.weights(dtype, device)
    }

    /// T5's tensors as `dtype` on `device`.
    pub fn text_encoder_2_weights(&self, dtype: DType, device: &Device) -> Weights {
        self.text_encoder_2.weights(dtype, device)
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

    /// What one part gives is as wide as what the next takes.
    fn check_widths(&self) -> Result<()> {
        let transformer = &self.transformer.config;
        let (clip, t5) = (&self.text_encoder, &self.text_encoder_2);
        let advice = |flag| format!("FLUX.1's with {flag}");
        clip.check_width(clip.config.hidden_size, transformer.pooled_projection_dim, &advice("--text-encoder"))?;
        t5.check_width(t5.config.d_model, transformer.joint_attention_dim, &advice("--text-encoder-2"))
    }
}

/// The most T5 tokens the model reads, where its tokenizer's config says so (`model_max_length`).
fn text_tokens(tokenizer: &Path, files: &Files) -> Result<Option<usize>> {
    let folder = if files.is_dir(tokenizer) { Some(tokenizer) } else { tokenizer.parent() };
    let config = folder.map(|folder| folder.join("tokenizer_config.json")).filter(|config| files.is_file(config));
    let Some(config) = config else { return Ok(None) };
    // transformers writes 1e30 for "no limit", which is no u64.
    let most = files.read_json::<Value>(&config)?.get("model_max_length").and_then(Value::as_u64);
    Ok(most.and_then(|most| usize::try_from(most).ok()).filter(|most| *most > 0))
}
