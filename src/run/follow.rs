//! What a picture is denoised with: the transformer behind its decorators, and the sampler that follows it.

use candle_core::Tensor;

use super::{
    denoiser::ModelDenoiser,
    pipeline::{Pipeline, Texts},
};
use crate::{
    base::progress::Event,
    error::{Error, Result},
    models::Velocity,
    recipe::{Recipe, SamplerName, StepCache},
    sampling::{
        self, Cfg, Decision, Denoiser, Dpmpp2m, EasyCache, EasyRule, ErSde, Euler, Guided, Heun, Sampler, ScheduleFor,
    },
};

/// Draws of a seed that the start of a picture may take: its noise, or a sample of a picture's latents and its noise.
const DRAWS_OF_A_START: usize = 2;

/// Which part a step cache takes: it decides, or does as was decided.
type Role<'t> = fn(ModelDenoiser<'t>, EasyRule, Decision) -> EasyCache<ModelDenoiser<'t>>;

impl Pipeline<'_> {
    /// The transformer with the prompt, and where classifier-free guidance is on led away from itself with the negative one. Step
    /// caches stand before each of both; EasyCache decides by the one with the prompt, as other programs do.
    pub(super) fn denoiser<'t>(
        &self,
        transformer: &'t dyn Velocity,
        recipe: &Recipe,
        texts: &'t Texts,
    ) -> Result<Box<dyn Denoiser + 't>> {
        let easy = self.easy_rule(recipe).map(|rule| (rule, Decision::default()));
        let seeing = |text, role: Role<'t>| -> Box<dyn Denoiser + 't> {
            let denoiser = ModelDenoiser::new(self.model, transformer, recipe, text);
            match &easy {
                Some((rule, decision)) => Box::new(role(denoiser, *rule, decision.clone())),
                None => Box::new(denoiser),
            }
        };
        let positive = seeing(&texts.prompt, EasyCache::leading);
        let Some((scale, _)) = recipe.cfg() else { return Ok(positive) };
        let missing = || Error::request("the negative prompt of this picture was not encoded", "please report this");
        let negative = seeing(texts.negative.as_ref().ok_or_else(missing)?, EasyCache::following);
        let (rule, normalizes) = (self.facts().recipe.cfg_rule, recipe.cfg_normalization);
        Ok(Box::new(Guided { positive, negative, cfg: Cfg { scale, rule, normalizes } }))
    }

    /// When EasyCache skips a step, where it is asked for.
    fn easy_rule(&self, recipe: &Recipe) -> Option<EasyRule> {
        let StepCache::Easy(threshold) = recipe.step_cache else { return None };
        let (facts, wanted) = (self.facts(), ScheduleFor::recipe(recipe, self.facts()));
        let [start, end] = EasyRule::WINDOW.map(|part| sampling::sigma_at(&facts.scheduler, &wanted, 1.0 - part));
        Some(EasyRule { threshold, start, end })
    }

    /// The sampler that a recipe asks for.
    pub(super) fn sampler<'r>(&'r self, recipe: &'r Recipe) -> Box<dyn Sampler + 'r> {
        match recipe.sampler {
            SamplerName::Euler => Box::new(Euler),
            SamplerName::Heun => Box::new(Heun),
            SamplerName::Dpmpp2m => Box::new(Dpmpp2m::default()),
            SamplerName::ErSde => Box::new(ErSde::new(|step| self.noise_of_step(recipe, step))),
        }
    }

    /// The noise that a step adds: draws of the seed behind those of the start.
    fn noise_of_step(&self, recipe: &Recipe, step: usize) -> Result<Tensor> {
        let geometry = self.geometry();
        let count = geometry.latents_shape(geometry.tokens(recipe.size())).iter().product();
        self.noise_after(recipe, &vec![count; DRAWS_OF_A_START + step])
    }

    /// Steps of a schedule; tells where there are fewer than asked for.
    pub(super) fn steps(&self, recipe: &Recipe, sigmas: &[f64]) -> usize {
        let steps = sigmas.len().saturating_sub(1);
        if steps < recipe.steps {
            self.observer.on(Event::Note(format!(
                "--schedule {} comes upon the same sigma twice with {} steps: {steps} are made",
                recipe.schedule, recipe.steps
            )));
        }
        steps
    }
}
