//! FLUX.2 \[klein\] as a family: how its models are recognised, which parts they have, and what opening one means.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use candle_core::{DType, Device};
use serde_json::Value;

use super::{
    Flux2Autoencoder, Flux2Config, LATENTS, bfl, cost::Forward, exchange, fits, infer, published::PUBLISHED, text,
    transformer_tensors,
};
use crate::{
    base::{device::DeviceKind, geometry::TokenGrid},
    error::{Error, Result},
    models::{
        Confidence, Decode, Examples, Exchange, Facts, Family, Found, Identity, Lender, Model, MuRule, PartKind,
        PartSpec, Place, Published, Reading, RgbFactors, SchedulerConfig, Seen, StepShape,
        parts::{
            ChatTokenizer, ModelPart, Qwen3Config, Source, TextEncoderKind, TransformerKind, qwen3, text_names,
            vae_names,
        },
        repository::PIPELINE_INDEX,
        strangers::derived_from_a_model,
    },
    nn::WeightsMode,
    weights::{Expected, Weights},
};

/// FLUX.2 \[klein\]: 4B, 9B, and their base variants.
pub const FAMILY: Flux2Family = Flux2Family;

/// The family.
pub struct Flux2Family;

/// What it is called.
pub(super) const NAME: &str = "FLUX.2 [klein]";
/// Pipelines of diffusers whose parts are klein's.
const PIPELINES: [&str; 2] = ["Flux2KleinPipeline", "Flux2KleinInpaintPipeline"];
/// What the transformer's config is called in it, and what to do about another.
const CLASS: [&str; 3] = [
    "_class_name",
    "Flux2Transformer2DModel",
    "give a FLUX.2 [klein] model, such as black-forest-labs/FLUX.2-klein-4B",
];
/// Rows of the embedding of every Qwen3. Source: its config.json.
const VOCABULARY: usize = 151_936;

pub(super) const TRANSFORMER: TransformerKind<Flux2Config> = TransformerKind {
    class: CLASS,
    of_file: |source| Ok(named(source)),
    // Its fused layers are loaded in parts.
    of_folder: named,
    infer: infer::transformer,
    tensors: transformer_tensors,
};
/// The text encoder, of which nothing behind the last state that is read is asked for.
pub(super) const QWEN: TextEncoderKind<Qwen3Config> = qwen3(text::encoder_tensors);

/// The authors' open repository. Autoencoder and tokenizer are the same in all of theirs.
const OWN: Lender = Lender { repo: "black-forest-labs/FLUX.2-klein-4B", files: &[], is_open: true };
/// Text encoders of both sizes as Qwen publishes them, which klein's are.
const TEXT: &[Lender] = &[
    OWN,
    Lender { repo: "black-forest-labs/FLUX.2-klein-9B", files: &[], is_open: false },
    Lender { repo: "Qwen/Qwen3-4B", files: &[], is_open: true },
    Lender { repo: "Qwen/Qwen3-8B", files: &[], is_open: true },
];

pub(super) static PARTS: [PartSpec; 5] = [
    PartSpec::TRANSFORMER,
    PartSpec {
        name: "vae",
        flag: Some("vae"),
        help: "Autoencoder: a file or a folder",
        class: Some("AutoencoderKLFlux2"),
        beside: &["flux2-vae.safetensors", "flux2-vae.sft"],
        is_inside: |source| vae_names::vae(Arc::clone(source)).is_some(),
        folders: &["vae"],
        fits: fits::vae,
        lenders: &[OWN],
        ..PartSpec::BARE
    },
    PartSpec {
        name: "text_encoder",
        flag: Some("text-encoder"),
        help: "Qwen3 text encoder: a file or a folder",
        beside: &["qwen_3_4b.safetensors", "qwen_3_8b.safetensors", "qwen_3_*.safetensors"],
        is_inside: |source| text_names::qwen3(Arc::clone(source)).is_some(),
        folders: &["text_encoders", "clip"],
        fits: fits::qwen3,
        lenders: TEXT,
        ..PartSpec::BARE
    },
    PartSpec {
        name: "tokenizer",
        kind: PartKind::Tokenizer,
        flag: Some("tokenizer"),
        help: "Qwen3 tokenizer: a folder, or a tokenizer.json",
        files: &[&["vocab.json", "merges.txt"], &["tokenizer.json"]],
        lenders: &[OWN],
        ..PartSpec::BARE
    },
    PartSpec::SCHEDULER,
];

impl Family for Flux2Family {
    fn name(&self) -> &'static str {
        NAME
    }

    fn examples(&self) -> Examples {
        Examples { file: "flux-2-klein-4b.safetensors", hub: "black-forest-labs/FLUX.2-klein-4B" }
    }

    fn recognise(&self, seen: &Seen) -> Option<Confidence> {
        if let Some(tensors) = &seen.tensors {
            let is_flux2 = bfl::transformer(Arc::clone(tensors)).is_some();
            return (is_flux2 && derived_from_a_model(&**tensors).is_none()).then_some(Confidence::Certain);
        }
        let is_ours = match seen.pipeline.as_deref() {
            Some(pipeline) => PIPELINES.contains(&pipeline),
            None => seen.class() == Some(CLASS[1]),
        };
        is_ours.then_some(Confidence::Certain)
    }

    fn parts(&self) -> &'static [PartSpec] {
        &PARTS
    }

    fn facts(&self, found: &Found) -> Result<Facts> {
        Ok(of_config(&TRANSFORMER.config(found)?, schedule(found)?, is_distilled(found)? != Some(false)))
    }

    fn usual(&self) -> Facts {
        of_config(&Flux2Config::klein_4b(), own_schedule(), true)
    }

    fn open(&self, found: Found) -> Result<Box<dyn Model>> {
        Ok(Box::new(Flux2::open(found)?))
    }

    fn tokens(&self, found: &Found, prompt: &str, asked: Option<usize>, usual: usize) -> Result<Vec<Reading>> {
        let length = asked.unwrap_or(usual);
        let tokenizer = ChatTokenizer::qwen(&found.path("tokenizer")?, text::TEMPLATE, VOCABULARY)?;
        Ok(vec![text::READER.reading(&tokenizer, prompt, length)?])
    }

    fn tensors(&self, part: &str, config: &Value, path: &Path) -> Result<Vec<Expected>> {
        match part {
            "transformer" => TRANSFORMER.tensors(config, path),
            "vae" => Flux2Autoencoder::tensors(config, path),
            "text_encoder" => QWEN.tensors(config, path),
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
        Ok(Box::new(Flux2Autoencoder::open(NAME, found.place("vae")?, &found.files)?))
    }
}

/// The transformer's tensors under the names it is loaded by.
fn named(source: Source) -> Source {
    match bfl::transformer(Arc::clone(&source)) {
        Some(renamed) => Arc::new(renamed),
        // What lacks the first of its tensors is told of by the check of all.
        None => source,
    }
}

/// Whether a model is distilled to few steps, where its folder says so: `is_distilled` of model_index.json, which base variants
/// do not have. The tensors of both are alike.
fn is_distilled(found: &Found) -> Result<Option<bool>> {
    let Place::Folder(folder) = found.place("transformer")? else { return Ok(None) };
    let index = folder.parent().map(|root| root.join(PIPELINE_INDEX)).filter(|index| found.files.is_file(index));
    let Some(index) = index.filter(|_| !found.is_given("transformer")) else { return Ok(None) };
    let said = found.files.read_json::<Value>(&index)?;
    Ok(Some(said.get("is_distilled").and_then(Value::as_bool).unwrap_or(false)))
}

/// The schedule of every FLUX.2 \[klein\]. Source: its scheduler_config.json, which is FLUX.1-dev's; base_shift, max_shift and
/// shift are not used (diffusers, `Flux2KleinPipeline.__call__`).
fn own_schedule() -> SchedulerConfig {
    SchedulerConfig { mu_rule: MuRule::Empirical, ..SchedulerConfig::flux1_dev() }
}

/// The schedule that the model's own folder has, or one that was given; else that of every model.
fn schedule(found: &Found) -> Result<SchedulerConfig> {
    let Some((file, _)) = found.scheduler()?.filter(|(_, is_meant)| *is_meant) else { return Ok(own_schedule()) };
    Ok(SchedulerConfig { mu_rule: MuRule::Empirical, ..SchedulerConfig::read_among(&file, &found.files)? })
}

fn of_config(config: &Flux2Config, scheduler: SchedulerConfig, is_distilled: bool) -> Facts {
    let axes = config.position_ids(TokenGrid { height_patches: 1, width_patches: 1 }, 0).axes;
    let recipe = Flux2Config::recipe_facts(is_distilled);
    // None could be fitted without the real weights; the autoencoder's config may bring some.
    Facts { latents: LATENTS, axes, recipe, scheduler, latent_rgb: RgbFactors::UNKNOWN }
}

/// A FLUX.2 \[klein\], open but not loaded.
#[derive(Clone)]
pub struct Flux2 {
    /// Which model it is.
    pub identity: Identity,
    /// What it says about itself.
    pub facts: Facts,
    /// The transformer, under the names it is loaded by.
    pub transformer: ModelPart<Flux2Config>,
    /// The autoencoder.
    pub vae: Flux2Autoencoder,
    /// Qwen3.
    pub text_encoder: ModelPart<Qwen3Config>,
    /// Its tokenizer.
    pub tokenizer: PathBuf,
    /// What to tell of how it was opened.
    pub remark: Option<String>,
    /// Where all of it is.
    pub found: Found,
}

impl Flux2 {
    /// Opens and checks the parts that were found. Reads configs and headers only.
    ///
    /// # Errors
    /// As [`Family::open`].
    pub fn open(found: Found) -> Result<Self> {
        let files = &found.files;
        let transformer = TRANSFORMER.open(&found)?;
        let vae = Flux2Autoencoder::open(NAME, found.place("vae")?, files)?;
        let text_encoder = QWEN.open(found.place("text_encoder")?, files, NAME, "--text-encoder")?;
        let is_distilled = is_distilled(&found)?;
        let mut facts = of_config(&transformer.config, schedule(&found)?, is_distilled != Some(false));
        facts.latent_rgb = vae.latent_rgb().unwrap_or(facts.latent_rgb);
        let remark = is_distilled.is_none().then(|| {
            "whether this FLUX.2 [klein] is distilled or a base variant does not show in its tensors: taken as distilled; for a base \
             variant give --steps 50 --cfg 4"
                .to_owned()
        });
        let model = Self {
            identity: found.identity.clone(),
            facts,
            transformer,
            vae,
            text_encoder,
            tokenizer: found.path("tokenizer")?,
            remark,
            found,
        };
        let (gives, takes) = (text::width(&model.text_encoder.config), model.transformer.config.joint_attention_dim);
        let advice = "Qwen3-4B to klein 4B, Qwen3-8B to klein 9B, with --text-encoder";
        model.text_encoder.check_width(gives, takes, advice)?;
        Ok(model)
    }

    /// The transformer's tensors as `dtype` on `device`.
    pub fn transformer_weights(&self, dtype: DType, device: &Device) -> Weights {
        self.transformer.weights(dtype, device)
    }

    /// A step that is asked about.
    pub(super) fn forward(&self, on: (DeviceKind, DType), mode: WeightsMode, step: StepShape) -> Forward<'_> {
        let (kind, dtype) = on;
        // Headers are read, wherever the numbers will go.
        let weights = self.transformer_weights(dtype, &Device::Cpu);
        let compute = step.compute((kind, dtype));
        Forward { config: &self.transformer.config, kind, compute, weights, mode, step }
    }
}
