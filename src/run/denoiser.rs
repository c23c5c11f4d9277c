//! A model's transformer as the sampler sees it: what a method makes of a step is asked for outside the transformer.

use std::{cell::RefCell, rc::Rc};

use candle_core::Tensor;

use crate::{
    base::geometry::TokenGrid,
    error::Result,
    methods::{self, Looks, Moment, PositionScaler, Spectrum, TextBias},
    models::{Conditioning, FirstBlock, Model, Velocity, VelocityAt},
    nn::{PositionIds, RopeTables},
    recipe::{Recipe, StepCache},
    sampling::{self, Denoiser, Skips, StepInfo},
};

/// One picture's velocity field.
pub(super) struct ModelDenoiser<'a> {
    transformer: &'a dyn Velocity,
    text: &'a Conditioning,
    guidance: Option<f64>,
    grid: TokenGrid,
    positions: PositionIds,
    base_patches: usize,
    scaler: Box<dyn PositionScaler>,
    /// What logits are multiplied by.
    logit_scale: f64,
    /// The tables of a scaler that looks at nothing: they hold for all steps.
    tables: Option<RopeTables>,
    /// How a token is read as one number, once a scaler has looked at the latents' spectrum.
    reading: Option<Vec<f64>>,
    /// What may leave blocks out.
    first_block: Option<Rc<RefCell<FirstBlock>>>,
    skips: Skips,
}

impl<'a> ModelDenoiser<'a> {
    /// For a recipe of this model.
    pub fn new(model: &dyn Model, transformer: &'a dyn Velocity, recipe: &Recipe, text: &'a Conditioning) -> Self {
        let facts = model.facts();
        let grid = facts.latents.tokens(recipe.size());
        let base_patches = facts.patches(recipe.base_resolution);
        let sharper =
            methods::proportional(grid.count() + text.text_tokens(), base_patches.pow(2) + text.text_tokens());
        Self {
            transformer,
            text,
            guidance: recipe.guidance,
            grid,
            positions: model.positions(grid, text),
            base_patches,
            scaler: recipe.scaler(),
            logit_scale: if recipe.proportional_attention { sharper } else { 1.0 },
            tables: None,
            reading: None,
            first_block: match recipe.step_cache {
                StepCache::FirstBlock(threshold) => Some(Rc::new(RefCell::new(FirstBlock::new(threshold)))),
                StepCache::Off | StepCache::Easy(_) => None,
            },
            skips: Skips::default(),
        }
    }

    /// The latents' spectrum, where the scaler looks at it.
    fn spectrum(&mut self, latents: &Tensor) -> Result<Option<Spectrum>> {
        if self.scaler.looks() != Looks::Spectrum {
            return Ok(None);
        }
        let reading = match self.reading.take() {
            Some(known) => known,
            None => self.transformer.token_reading(latents.device())?,
        };
        sampling::spectrum(latents, self.grid, self.reading.insert(reading)).map(Some)
    }

    /// How strongly the method has text attended to at this moment.
    fn text_bias(&self, at: &Moment) -> Option<TextBias> {
        let axes = self.positions.picture_axes(self.base_patches)?;
        self.scaler.key_bias(&axes, at)
    }

    fn tables(&mut self, at: &Moment, latents: &Tensor) -> Result<RopeTables> {
        if let Some(tables) = &self.tables {
            return Ok(tables.clone());
        }
        let scaler = self.scaler.as_ref();
        let tables = RopeTables::new(&self.positions, self.base_patches, scaler, at, latents.device())?;
        if scaler.looks() == Looks::Nothing {
            self.tables = Some(tables.clone());
        }
        Ok(tables)
    }
}

impl Denoiser for ModelDenoiser<'_> {
    fn velocity(&mut self, latents: &Tensor, step: &StepInfo) -> Result<Tensor> {
        let spectrum = self.spectrum(latents)?;
        let moment = Moment { spectrum: spectrum.as_ref(), ..step.moment() };
        let rope = self.tables(&moment, latents)?;
        let text_bias = self.text_bias(&moment);
        let first_block = self.first_block.as_ref();
        if let Some(cache) = first_block {
            cache.borrow_mut().begin(step.evaluation == 0);
        }
        let at = VelocityAt {
            t: step.t,
            guidance: self.guidance,
            text: self.text,
            rope: &rope,
            text_bias,
            logit_scale: self.logit_scale,
            first_block,
        };
        let velocity = self.transformer.velocity(latents, &at)?;
        if first_block.is_some_and(|cache| cache.borrow().skipped()) {
            self.skips.count(step);
        }
        Ok(velocity)
    }

    fn skips(&self) -> Skips {
        self.skips
    }
}
