//! From prompts to pictures: encode, denoise, decode. The one place that knows the order; each model leaves memory
//! before the next comes.

use candle_core::{DType, Device, Tensor};

use super::room::in_room;
use crate::{
    base::allocator,
    base::device::DeviceKind,
    base::geometry::{ImageSize, LatentGeometry},
    base::progress::{Event, Observer, Stage},
    error::Result,
    methods::DypeSchedule,
    models::{
        Banding, Conditioning, Decode, Encode, Facts, Model, On, Posterior, RowSink, RowSource, TextEncoders, Velocity,
    },
    nn::{self, CodeProducts},
    output::Picture,
    plan::{self, Choices},
    recipe::{Recipe, StepCache},
    sampling::{
        self, After, Progress, ScheduleFor,
        ladder::{Climb, Climbing},
    },
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

/// What a pass follows.
pub struct Course<'a> {
    /// The recipe at its size.
    pub recipe: &'a Recipe,
    /// Steps of its schedule that are left out.
    pub first: usize,
    /// What it has to do with the passes below and above it.
    pub climb: Option<Climb>,
    /// Which of several it is, in words.
    pub stage: Option<String>,
}

/// One model on one device, ready to make pictures.
pub struct Pipeline<'a> {
    pub(super) model: &'a dyn Model,
    text: Box<dyn TextEncoders + 'a>,
    on: On,
    pub(super) observer: &'a dyn Observer,
}

impl<'a> Pipeline<'a> {
    /// Opens a model for computing in `dtype` on `device`. Configs and tokenizers are read and checked; no weight is. Kernels
    /// of a device that would compute in it are held against plain operations first: plans made later follow what is decided.
    ///
    /// # Errors
    /// [`crate::Error::Model`] when a config or tokenizer is broken; when the device fails.
    pub fn open(model: &'a dyn Model, device: Device, dtype: DType, observer: &'a dyn Observer) -> Result<Self> {
        let on = On::new(device, dtype);
        let text = model.text(&on)?;
        nn::settle_kernels(dtype, &on.device, observer);
        nn::settle_maps(dtype, &on.device, observer);
        nn::settle_weights(|| model.networks(), dtype, &on.device, observer)?;
        model.settle(&on, observer);
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

    /// Whose latents the model's are: its autoencoder's class.
    pub fn latents_of(&self) -> Option<&'static str> {
        self.model.decoder().class()
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
        let encoded = self.text.encode(prompts, text_tokens, self.observer);
        allocator::give_back();
        encoded
    }

    /// Loads the transformer, with these products of codes.
    ///
    /// # Errors
    /// What reading weights may fail with.
    pub fn load_transformer(&self, choices: &Choices, products: CodeProducts) -> Result<Box<dyn Velocity>> {
        let on = On { products, ..self.on.clone() };
        self.model.velocity(&on, choices.weights, choices.forward)
    }

    /// The noise a recipe starts from: packed latents [1, N, C·P·P], f32.
    ///
    /// # Errors
    /// When the device fails.
    pub fn noise(&self, recipe: &Recipe) -> Result<Tensor> {
        self.noise_after(recipe, &[])
    }

    /// The same after draws of so many numbers each of the recipe's seed: packed latents [1, N, C·P·P], f32.
    ///
    /// # Errors
    /// When the device fails.
    pub fn noise_after(&self, recipe: &Recipe, before: &[usize]) -> Result<Tensor> {
        let geometry = self.geometry();
        let shape = geometry.latents_shape(geometry.tokens(recipe.size()));
        sampling::pack(&Tensor::from_vec(self.draw(recipe, before)?, &shape, &self.on.device)?, &geometry)
    }

    /// The same as numbers [C, h, w], before they are packed.
    ///
    /// # Errors
    /// When the device fails.
    pub fn draw(&self, recipe: &Recipe, before: &[usize]) -> Result<Vec<f32>> {
        let geometry = self.geometry();
        let shape = geometry.latents_shape(geometry.tokens(recipe.size()));
        Ok(sampling::noise_after(recipe.rng.on(&self.on.device)?, recipe.seed, before, &shape))
    }

    /// A picture to packed latents [1, N, C·P·P] without noise, f32, of the size of a picture of `size`. `picture` gives the rows
    /// of the size that is computed ([`LatentGeometry::computed`]), from -1 to 1. The encoder's weights come and go here.
    ///
    /// # Errors
    /// [`crate::Error::Request`] where the model has no encoder; [`crate::Error::Numeric`] when a latent is not finite; what reading weights,
    /// computing and `picture` may fail with.
    pub fn encode_picture(
        &self,
        (posterior, size): (Posterior<'_>, ImageSize),
        picture: &mut RowSource<'_>,
        choices: &Choices,
    ) -> Result<Tensor> {
        let encoder = self.encoder()?;
        let geometry = encoder.geometry();
        let latents = geometry.latents(geometry.tokens(size));
        let options = choices.encode.clone().unwrap_or_default();
        let ways = || encoder.ways((DeviceKind::of(&self.on.device), self.on.dtype), latents);
        let encoded = in_room(&options, ways, (&self.on.device, self.observer), |options| {
            encoder.encode((posterior, latents), picture, options, &self.on, self.observer)
        });
        allocator::give_back();
        let encoded = encoded?; // [1, C, h, w]
        let ImageSize { height_px, width_px } = geometry.computed(size);
        self.observer.on(Event::End { stage: Stage::Encode, detail: format!("{height_px} x {width_px} px") });
        sampling::pack(&encoded, &geometry)
    }

    /// What makes latents of pictures.
    ///
    /// # Errors
    /// [`crate::Error::Request`] where the model has no encoder.
    pub fn encoder(&self) -> Result<&dyn Encode> {
        self.model.encoder().ok_or_else(plan::no_encoder)
    }

    /// Noise to latents [1, N, C·P·P], f32, from where `from` stands on a schedule of which the first `first` steps are left out;
    /// `after_step` is told of each step.
    ///
    /// # Errors
    /// [`crate::Error::Numeric`] when latents are not finite; what computing and `after_step` may fail with.
    pub fn denoise(
        &self,
        transformer: &dyn Velocity,
        (recipe, first): (&Recipe, usize),
        texts: &Texts,
        from: Progress,
        after_step: &mut dyn FnMut(&After) -> Result<()>,
    ) -> Result<Tensor> {
        let course = Course { recipe, first, climb: None, stage: None };
        self.denoise_along(transformer, course, texts, from, after_step)
    }

    /// The same as a pass of several.
    ///
    /// # Errors
    /// As [`Pipeline::denoise`].
    pub fn denoise_along(
        &self,
        transformer: &dyn Velocity,
        Course { recipe, first, climb, stage: name }: Course<'_>,
        texts: &Texts,
        from: Progress,
        after_step: &mut dyn FnMut(&After) -> Result<()>,
    ) -> Result<Tensor> {
        let sigmas = self.sigmas(recipe)?;
        let (mut denoiser, mut sampler) = (self.denoiser(transformer, recipe, texts)?, self.sampler(recipe));
        if let Some(climb) = climb {
            denoiser = Box::new(Climbing::new(denoiser, climb));
        }
        let name = name.map(|name| format!(", {name}")).unwrap_or_default();
        let schedule = recipe.dype_schedule();
        let stage = Stage::Denoise;
        let steps = self.steps(recipe, &sigmas);
        let done = |step: usize| step.saturating_sub(first) as u64;
        self.observer.on(Event::Begin { stage, total: done(steps) });
        let observer = self.observer;
        if from.step > first {
            observer.on(Event::Resume { stage, done: done(from.step) });
        }
        let mut skipped = 0;
        let latents = sampling::denoise(&mut *denoiser, &mut *sampler, &sigmas, from, &mut |after| {
            let detail = format!("{}{name}", moment(after.step.t, schedule));
            observer.on(Event::Advance { stage, done: done(after.step.index + 1), detail });
            skipped = after.skips().steps;
            after_step(after)
        })?;
        observer.on(Event::End {
            stage,
            detail: in_words(done(steps), (recipe.step_cache != StepCache::Off).then_some(skipped)) + &name,
        });
        Ok(latents)
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

    /// The same as numbers about -1 to 1 that are neither cut nor rounded, of the size that is computed: [H, W, 3].
    ///
    /// # Errors
    /// As [`Pipeline::decode`].
    pub fn decode_unclamped(&self, latents: &Tensor, size: ImageSize, choices: &Choices) -> Result<Vec<f32>> {
        let ImageSize { height_px, width_px } = self.geometry().computed(size);
        let mut picture = Vec::with_capacity(3 * height_px * width_px);
        let mut take = |first: usize, rows: &[f32]| {
            picture.truncate(3 * first * width_px); // a try that ended early began with the same rows
            picture.extend_from_slice(rows);
            Ok(())
        };
        let (decoder, options, on) = (self.model.decoder(), &choices.decode, &self.on);
        decode_rows(decoder, latents, size, options, (on.dtype, self.observer), &mut take)?;
        Ok(picture)
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
    let mut picture = Picture::blank(decoder.geometry().computed(size));
    let mut set = |first: usize, rows: &[f32]| picture.set_rows(first, rows);
    decode_rows(decoder, latents, size, options, (dtype, observer), &mut set)?;
    Ok(picture.crop(size))
}

/// The rows of the picture as it is computed.
fn decode_rows(
    decoder: &dyn Decode,
    latents: &Tensor,
    size: ImageSize,
    options: &Banding,
    (dtype, observer): (DType, &dyn Observer),
    sink: &mut RowSink<'_>,
) -> Result<()> {
    let geometry = decoder.geometry();
    let grid = geometry.tokens(size);
    let latents = sampling::unpack(latents, grid, &geometry)?; // [1, C, h, w]
    let ways = || decoder.ways((DeviceKind::of(latents.device()), dtype), geometry.latents(grid));
    // What the transformer has left, whose allocations are of other sizes.
    allocator::give_back();
    let decoded = in_room(options, ways, (latents.device(), observer), |options| {
        decoder.decode(&latents, options, dtype, observer, sink)
    });
    allocator::give_back();
    decoded?;
    let detail = format!("{} x {} px", size.height_px, size.width_px);
    observer.on(Event::End { stage: Stage::Decode, detail });
    Ok(())
}

/// So many steps, and how many of them a step cache has skipped.
fn in_words(steps: u64, skipped: Option<usize>) -> String {
    let plural = if steps == 1 { "" } else { "s" };
    let skipped = skipped.map_or_else(String::new, |skipped| format!(", {skipped} skipped"));
    format!("{steps} step{plural}{skipped}")
}

/// What a bar shows of a moment: t, and kappa where DyPE is on.
fn moment(t: f64, schedule: Option<DypeSchedule>) -> String {
    match schedule {
        Some(schedule) => format!("t {t:.3}  kappa {:.3}", schedule.kappa(t)),
        None => format!("t {t:.3}"),
    }
}
