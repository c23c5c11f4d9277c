//! From prompts to pictures: encode, denoise, decode. The one place that knows the order; each model leaves memory
//! before the next comes.

use candle_core::{DType, Device, Tensor};

use super::denoiser::ModelDenoiser;
use crate::{
    base::geometry::{ImageSize, LatentGeometry},
    base::progress::{Event, Observer, Stage},
    error::{Error, Result},
    methods::DypeSchedule,
    models::{Banding, Conditioning, Decode, Facts, Model, On, TextEncoders, Velocity},
    output::Picture,
    plan::Choices,
    recipe::Recipe,
    sampling::{self, After, Cfg, Denoiser, Euler, Guided, Progress, ScheduleFor},
};

/// What a transformer is told for one picture.
#[derive(Debug, Clone)]
pub struct Texts {
    /// What the prompt became.
    pub prompt: Conditioning,
    /// What the negative prompt became, where classifier-free guidance is on.
    pub negative: Option<Conditioning>,
}

impl From<Conditioning> for Texts {
    /// A prompt alone.
    fn from(prompt: Conditioning) -> Self {
        Self { prompt, negative: None }
    }
}

/// One model on one device, ready to make pictures.
pub struct Pipeline<'a> {
    model: &'a dyn Model,
    text: Box<dyn TextEncoders + 'a>,
    on: On,
    observer: &'a dyn Observer,
}

impl<'a> Pipeline<'a> {
    /// Opens a model for computing in `dtype` on `device`. Configs and tokenizers are read and checked; no weight is. Where
    /// a kernel would compute its attention, it is held against the plain one first: plans made later follow what is decided.
    ///
    /// # Errors
    /// [`crate::Error::Model`] when a config or tokenizer is broken; when the device fails.
    pub fn open(model: &'a dyn Model, device: Device, dtype: DType, observer: &'a dyn Observer) -> Result<Self> {
        let on = On { device, dtype };
        let text = model.text(&on)?;
        model.settle(&on, observer)?;
        Ok(Self { model, text, on, observer })
    }

    /// What the model says about itself.
    pub fn facts(&self) -> &Facts {
        self.model.facts()
    }

    /// How the model's pixels become latents and tokens.
    pub fn geometry(&self) -> LatentGeometry {
        self.facts().latents
    }

    /// The sigmas of a recipe: steps + 1 values, the last 0.
    ///
    /// # Errors
    /// [`crate::Error::Request`] when its steps or mu give no schedule.
    pub fn sigmas(&self, recipe: &Recipe) -> Result<Vec<f64>> {
        let facts = self.facts();
        sampling::sigmas(&facts.scheduler, &ScheduleFor::recipe(recipe, facts))
    }

    /// Prompts to what the transformer is told, of at most `text_tokens` tokens each. The encoders' weights come and go here.
    ///
    /// # Errors
    /// What reading weights and computing may fail with.
    pub fn encode(&self, prompts: &[&str], text_tokens: usize) -> Result<Vec<Conditioning>> {
        self.text.encode(prompts, text_tokens, self.observer)
    }

    /// Loads the transformer.
    ///
    /// # Errors
    /// What reading weights may fail with.
    pub fn load_transformer(&self, choices: &Choices) -> Result<Box<dyn Velocity>> {
        self.model.velocity(&self.on, choices.weights, choices.forward)
    }

    /// The noise a recipe starts from: packed latents [1, N, C·P·P], f32.
    ///
    /// # Errors
    /// When the device fails.
    pub fn noise(&self, recipe: &Recipe) -> Result<Tensor> {
        let geometry = self.geometry();
        let shape = geometry.latents_shape(geometry.tokens(recipe.size()));
        let noise = sampling::noise(recipe.rng.on(&self.on.device)?, recipe.seed, &shape);
        sampling::pack(&Tensor::from_vec(noise, &shape, &self.on.device)?, &geometry)
    }

    /// Noise to latents [1, N, C·P·P], f32, from where `from` stands; `after_step` is told of each step.
    ///
    /// # Errors
    /// [`crate::Error::Numeric`] when latents are not finite; what computing and `after_step` may fail with.
    pub fn denoise(
        &self,
        transformer: &dyn Velocity,
        recipe: &Recipe,
        texts: &Texts,
        from: Progress,
        after_step: &mut dyn FnMut(&After) -> Result<()>,
    ) -> Result<Tensor> {
        let sigmas = self.sigmas(recipe)?;
        let mut denoiser = self.denoiser(transformer, recipe, texts)?;
        let schedule = recipe.schedule();
        let stage = Stage::Denoise;
        self.observer.on(Event::Begin { stage, total: recipe.steps as u64 });
        let observer = self.observer;
        if from.step > 0 {
            observer.on(Event::Resume { stage, done: from.step as u64 });
        }
        let latents = sampling::denoise(&mut *denoiser, &mut Euler, &sigmas, from, &mut |after| {
            let detail = moment(after.step.t, schedule);
            observer.on(Event::Advance { stage, done: after.step.index as u64 + 1, detail });
            after_step(after)
        })?;
        let plural = if recipe.steps == 1 { "" } else { "s" };
        observer.on(Event::End { stage, detail: format!("{} step{plural}", recipe.steps) });
        Ok(latents)
    }

    /// The transformer with the prompt, and where classifier-free guidance is on led away from itself with the negative one.
    fn denoiser<'t>(
        &self,
        transformer: &'t dyn Velocity,
        recipe: &Recipe,
        texts: &'t Texts,
    ) -> Result<Box<dyn Denoiser + 't>> {
        let seeing = |text| ModelDenoiser::new(self.model, transformer, recipe, text);
        let positive = seeing(&texts.prompt);
        let Some((scale, _)) = recipe.cfg() else { return Ok(Box::new(positive)) };
        let missing = || Error::request("the negative prompt of this picture was not encoded", "please report this");
        let negative = seeing(texts.negative.as_ref().ok_or_else(missing)?);
        let (rule, normalizes) = (self.facts().recipe.cfg_rule, recipe.cfg_normalization);
        Ok(Box::new(Guided { positive, negative, cfg: Cfg { scale, rule, normalizes } }))
    }

    /// Latents [1, N, C·P·P] of a picture of this size as the family's reference holds them.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn to_save(&self, latents: &Tensor, size: ImageSize) -> Result<Tensor> {
        if !self.model.saves_unpacked() {
            return Ok(latents.clone());
        }
        let geometry = self.geometry();
        sampling::unpack(latents, geometry.tokens(size), &geometry) // [1, C, h, w]
    }

    /// Latents [1, N, C·P·P] to a picture, cropped to `size`. The autoencoder's weights come and go here.
    ///
    /// # Errors
    /// [`crate::Error::Numeric`] when a pixel is not finite; what reading weights and computing may fail with.
    pub fn decode(&self, latents: &Tensor, size: ImageSize, choices: &Choices) -> Result<Picture> {
        decode(self.model.decoder(), latents, size, &choices.decode, self.on.dtype, self.observer)
    }
}

/// Latents [1, N, C·P·P] to a picture, cropped to `size`, with an autoencoder alone; it computes in `dtype` where the latents
/// are.
///
/// # Errors
/// As [`Pipeline::decode`].
pub fn decode(
    decoder: &dyn Decode,
    latents: &Tensor,
    size: ImageSize,
    options: &Banding,
    dtype: DType,
    observer: &dyn Observer,
) -> Result<Picture> {
    let geometry = decoder.geometry();
    let grid = geometry.tokens(size);
    let latents = sampling::unpack(latents, grid, &geometry)?; // [1, C, h, w]
    let mut picture = Picture::blank(geometry.image(grid));
    decoder.decode(&latents, options, dtype, observer, &mut |first_row, rows| picture.set_rows(first_row, rows))?;
    let detail = format!("{} x {} px", size.height_px, size.width_px);
    observer.on(Event::End { stage: Stage::Decode, detail });
    Ok(picture.crop(size))
}

/// What a bar shows of a moment: t, and kappa where DyPE is on.
fn moment(t: f64, schedule: Option<DypeSchedule>) -> String {
    match schedule {
        Some(schedule) => format!("t {t:.3}  kappa {:.3}", schedule.kappa(t)),
        None => format!("t {t:.3}"),
    }
}
