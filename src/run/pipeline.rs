//! From prompts to pictures: encode, denoise, decode. The one place that knows the order; each model leaves memory
//! before the next comes.

use candle_core::{DType, Device, Tensor};

use crate::{
    base::geometry::{ImageSize, TokenGrid},
    base::progress::{Event, Observer, Stage},
    error::Result,
    methods::{DypeSchedule, Looks, Moment, PositionScaler},
    models::flux1::text::{PromptEmbeddings, TextEncoders},
    models::flux1::{FluxConfig, RopeTables, Transformer},
    models::parts::kl::{Banding, Decoder, VaeConfig},
    models::parts::{ClipConfig, ClipEncoder, T5Config, T5Encoder, Tokenizers},
    models::{ModelFiles, ModelPart},
    nn::kernels::flash,
    output::Picture,
    plan::{self, Choices},
    recipe::Recipe,
    sampling::{self, After, Denoiser, Progress, SchedulerConfig, StepInfo},
};

/// One model on one device, ready to make pictures.
pub struct Pipeline<'a> {
    files: &'a ModelFiles,
    encoders: TextEncoders,
    scheduler: SchedulerConfig,
    device: Device,
    dtype: DType,
    observer: &'a dyn Observer,
}

impl<'a> Pipeline<'a> {
    /// Opens a model for computing in `dtype` on `device`. Configs and tokenizers are read and checked; no weight is.
    ///
    /// # Errors
    /// [`crate::Error::Model`] when a config or tokenizer is broken.
    pub fn open(files: &'a ModelFiles, device: Device, dtype: DType, observer: &'a dyn Observer) -> Result<Self> {
        let clip: ClipConfig = files.text_encoder.config()?;
        let t5: T5Config = files.text_encoder_2.config()?;
        let tokenizers = Tokenizers::open(&files.tokenizer, clip.vocab_size, &files.tokenizer_2, t5.vocab_size)?;
        let encoders = TextEncoders {
            tokenizers,
            clip: ClipEncoder::open(clip, files.text_encoder_weights(dtype, &device)),
            t5: T5Encoder::open(t5, files.text_encoder_2_weights(dtype, &device)),
        };
        let scheduler = files.scheduler_config()?;
        Ok(Self { files, encoders, scheduler, device, dtype, observer })
    }

    /// The sigmas of a recipe: steps + 1 values, the last 0.
    ///
    /// # Errors
    /// [`crate::Error::Request`] when its steps or mu give no schedule.
    pub fn sigmas(&self, recipe: &Recipe) -> Result<Vec<f64>> {
        sampling::sigmas(&self.scheduler, recipe.steps, recipe.size().tokens().count(), recipe.mu)
    }

    /// Prompts to embeddings, of at most `max_sequence_length` T5 tokens. The encoders' weights come and go here.
    ///
    /// # Errors
    /// What reading weights and computing may fail with.
    pub fn encode(&self, prompts: &[&str], max_sequence_length: usize) -> Result<Vec<PromptEmbeddings>> {
        self.encoders.encode(prompts, max_sequence_length, self.observer)
    }

    /// Loads the transformer.
    ///
    /// # Errors
    /// What reading weights may fail with.
    pub fn load_transformer(&self, choices: &Choices) -> Result<Transformer> {
        let weights = self.files.transformer_weights(self.dtype, &self.device);
        let weights = weights.with_dtype(plan::held_dtype(&weights, self.device.is_cpu(), self.dtype));
        let config = &self.files.transformer.config;
        self.check_attention(config)?;
        Ok(Transformer::load(config, &weights, choices.weights, self.dtype)?.with_options(choices.forward))
    }

    /// Tells how far a kernel's attention is from the plain one, where a kernel takes it; the CPU's is held against it in
    /// the tests.
    fn check_attention(&self, config: &FluxConfig) -> Result<()> {
        let (heads, dim) = (config.num_attention_heads, config.attention_head_dim);
        if self.device.is_cpu() || !flash::takes(self.dtype, dim) {
            return Ok(());
        }
        let error = crate::nn::attention_error(heads, dim, self.dtype, &self.device)?;
        self.observer.on(attention_event(error));
        Ok(())
    }

    /// The noise a recipe starts from: packed latents [1, N, 64], f32.
    ///
    /// # Errors
    /// When the device fails.
    pub fn noise(&self, recipe: &Recipe) -> Result<Tensor> {
        let shape = recipe.size().tokens().latents().shape();
        let noise = sampling::noise(recipe.rng.on(&self.device)?, recipe.seed, &shape);
        sampling::pack(&Tensor::from_vec(noise, &shape, &self.device)?)
    }

    /// Noise to latents [1, N, 64], f32, from where `from` stands; `after_step` is told of each step.
    ///
    /// # Errors
    /// [`crate::Error::Numeric`] when latents are not finite; what computing and `after_step` may fail with.
    pub fn denoise(
        &self,
        transformer: &Transformer,
        recipe: &Recipe,
        embeddings: &PromptEmbeddings,
        from: Progress,
        after_step: &mut dyn FnMut(&After) -> Result<()>,
    ) -> Result<Tensor> {
        let sigmas = self.sigmas(recipe)?;
        let mut denoiser = FluxDenoiser::new(self, transformer, recipe, embeddings);
        let schedule = denoiser.schedule;
        let stage = Stage::Denoise;
        self.observer.on(Event::Begin { stage, total: recipe.steps as u64 });
        let observer = self.observer;
        if from.step > 0 {
            observer.on(Event::Resume { stage, done: from.step as u64 });
        }
        let latents = sampling::denoise(&mut denoiser, &sigmas, from, &mut |after| {
            let detail = moment(after.step.t, schedule);
            observer.on(Event::Advance { stage, done: after.step.index as u64 + 1, detail });
            after_step(after)
        })?;
        let plural = if recipe.steps == 1 { "" } else { "s" };
        observer.on(Event::End { stage, detail: format!("{} step{plural}", recipe.steps) });
        Ok(latents)
    }

    /// Latents [1, N, 64] to a picture, cropped to `size`. The autoencoder's weights come and go here.
    ///
    /// # Errors
    /// [`crate::Error::Numeric`] when a pixel is not finite; what reading weights and computing may fail with.
    pub fn decode(&self, latents: &Tensor, size: ImageSize, choices: &Choices) -> Result<Picture> {
        decode(&self.files.vae, latents, size, &choices.decode, self.dtype, self.observer)
    }
}

/// Latents [1, N, 64] to a picture, cropped to `size`, with an autoencoder alone; it computes in `dtype` where the latents are.
///
/// # Errors
/// As [`Pipeline::decode`].
pub fn decode(
    vae: &ModelPart<VaeConfig>,
    latents: &Tensor,
    size: ImageSize,
    options: &Banding,
    dtype: DType,
    observer: &dyn Observer,
) -> Result<Picture> {
    let grid = size.tokens();
    let decoder = Decoder::open(vae.config.clone(), vae.weights(dtype, latents.device()))?;
    let latents = sampling::unpack(latents, grid)?; // [1, 16, h, w]
    let mut picture = Picture::blank(grid.image());
    decoder.decode(&latents, options, observer, &mut |first_row, rows| picture.set_rows(first_row, rows))?;
    let detail = format!("{} x {} px", size.height_px, size.width_px);
    observer.on(Event::End { stage: Stage::Decode, detail });
    Ok(picture.crop(size))
}

/// The most that a kernel's attention may be from the plain one: some roundings to bf16, which are 0.4% each.
const MOST_ATTENTION_ERROR: f64 = 0.02;

/// What is told of a kernel's attention that is so far from the plain one.
fn attention_event(error: f64) -> Event {
    let found = format!("attention by flash-attn is {error:.1e} from the plain one");
    // NaN too is more than it may be.
    if error <= MOST_ATTENTION_ERROR {
        return Event::Detail(found);
    }
    Event::Warning(format!("{found} on this card, more than rounding: pictures may be wrong; build without flash-attn"))
}

/// What a bar shows of a moment: t, and kappa where DyPE is on.
fn moment(t: f64, schedule: Option<DypeSchedule>) -> String {
    match schedule {
        Some(schedule) => format!("t {t:.3}  kappa {:.3}", schedule.kappa(t)),
        None => format!("t {t:.3}"),
    }
}

/// The transformer as the sampler sees it: it asks for the position tables once a step, outside the transformer.
struct FluxDenoiser<'a> {
    transformer: &'a Transformer,
    embeddings: &'a PromptEmbeddings,
    guidance: Option<f64>,
    config: FluxConfig,
    grid: TokenGrid,
    scaler: Box<dyn PositionScaler>,
    schedule: Option<DypeSchedule>,
    /// The tables of a static scaler, which hold for all steps.
    tables: Option<RopeTables>,
}

impl<'a> FluxDenoiser<'a> {
    fn new(
        pipeline: &Pipeline<'_>,
        transformer: &'a Transformer,
        recipe: &Recipe,
        embeddings: &'a PromptEmbeddings,
    ) -> Self {
        let own = &pipeline.files.transformer.config;
        Self {
            transformer,
            embeddings,
            guidance: recipe.guidance,
            config: FluxConfig { base_resolution: Some(recipe.base_resolution), ..own.clone() },
            grid: recipe.size().tokens(),
            scaler: recipe.scaler(),
            schedule: recipe.schedule(),
            tables: None,
        }
    }

    fn tables(&mut self, at: &Moment, device: &Device) -> Result<RopeTables> {
        if let Some(tables) = &self.tables {
            return Ok(tables.clone());
        }
        let text_tokens = self.embeddings.prompt_embeds.dim(1)?;
        let tables = RopeTables::new(&self.config, self.grid, text_tokens, self.scaler.as_ref(), at, device)?;
        if self.scaler.looks() == Looks::Nothing {
            self.tables = Some(tables.clone());
        }
        Ok(tables)
    }
}

impl Denoiser for FluxDenoiser<'_> {
    fn velocity(&mut self, latents: &Tensor, step: &StepInfo) -> Result<Tensor> {
        let rope = self.tables(&step.moment(), latents.device())?;
        let PromptEmbeddings { prompt_embeds, pooled } = self.embeddings;
        self.transformer.forward(latents, prompt_embeds, pooled, step.t, self.guidance, &rope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attention_that_is_far_off_is_warned_of() {
        assert!(matches!(attention_event(4e-3), Event::Detail(_)));
        for error in [0.1, f64::NAN, f64::INFINITY] {
            assert!(matches!(attention_event(error), Event::Warning(_)), "{error}");
        }
    }
}
