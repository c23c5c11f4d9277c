//! What pictures are told of their prompts: encoded together, and kept as long as it serves.

use std::time::Instant;

use super::{PROMPTS_AT_ONCE, Runner, Times, loras::Adapted, pipeline::Texts, runner::Waiting};
use crate::{
    error::{Error, Result},
    models::{Conditioning, Model},
    recipe::{Loras, Recipe},
    weights::lora::{Network, TRANSFORMER},
};

/// What prompts became, of the model that computes.
#[derive(Default)]
pub(super) struct Encoded {
    /// The LoRA files that change it.
    changing: Vec<Loras>,
    /// It, by prompt and number of tokens.
    held: Vec<((String, usize), Conditioning)>,
}

impl Encoded {
    /// Nothing yet, of models with these LoRA files.
    pub(super) fn new(adapted: &[Adapted]) -> Self {
        let is_text = |network: &Network| network.part != TRANSFORMER && network.source.is_adapted();
        let changes = |model: &dyn Model| model.networks().map_or(true, |networks| networks.iter().any(is_text));
        let changing = adapted.iter().filter(|(_, model)| changes(&**model)).map(|(loras, _)| loras.clone()).collect();
        Self { changing, held: Vec::new() }
    }

    /// These files, where they change what prompts become.
    fn changing<'l>(&self, loras: &'l Loras) -> Option<&'l Loras> {
        self.changing.contains(loras).then_some(loras)
    }

    /// Forgets what prompts became with `before`, where `now` makes something else of them.
    pub(super) fn change(&mut self, before: &Loras, now: &Loras) {
        if self.changing(before) != self.changing(now) {
            self.held.clear();
        }
    }

    /// The recipes whose prompts become what `own`'s would.
    fn alike<'r>(&self, own: &Recipe, coming: impl Iterator<Item = &'r Recipe>) -> impl Iterator<Item = &'r Recipe> {
        coming.filter(|other| self.changing(&other.lora) == self.changing(&own.lora))
    }

    /// What a picture is told of its prompts, where all of them are encoded.
    fn of(&self, recipe: &Recipe) -> Option<Texts> {
        let known = |prompt: &str| {
            let is_it = |(text, tokens): &(String, usize)| text == prompt && *tokens == recipe.max_sequence_length;
            self.held.iter().find(|(key, _)| is_it(key)).map(|(_, embeddings)| embeddings.clone())
        };
        let prompt = known(&recipe.prompt)?;
        let negative = match recipe.cfg() {
            Some((_, negative)) => Some(known(negative)?),
            None => None,
        };
        Some(Texts { prompt, negative })
    }
}

impl Runner<'_> {
    /// What `coming`'s first picture is told of its prompts. If one is not encoded yet, the prompts of the pictures
    /// behind it are encoded with it, and those before are forgotten.
    pub(super) fn texts(&mut self, coming: &[Waiting<'_>], times: &mut Times) -> Result<Texts> {
        let Some((item, _)) = coming.first() else {
            return Err(Error::request("no picture to encode a prompt for", ""));
        };
        if let Some(known) = self.encoded.of(&item.recipe) {
            return Ok(known);
        }
        let started = Instant::now();
        self.encoded.held.clear();
        self.make_room_for(item, item.plan.peak_bytes.text);
        let tokens = item.recipe.max_sequence_length;
        let alike = self.encoded.alike(&item.recipe, coming.iter().map(|(other, _)| &other.recipe));
        let group = encoded_together(alike, tokens);
        let embeddings = self.pipeline.encode(&group, tokens)?;
        self.encoded.held = group.into_iter().map(|prompt| (prompt.to_owned(), tokens)).zip(embeddings).collect();
        times.text = started.elapsed();
        let known = self.encoded.of(&item.recipe);
        known.ok_or_else(|| Error::request("the text encoders gave nothing", "please report this"))
    }
}

/// The prompts, negative ones among them, of the first pictures of so many tokens, each once: one pass over an encoder makes
/// embeddings of one length. Those of one picture are not parted.
fn encoded_together<'r>(recipes: impl Iterator<Item = &'r Recipe>, tokens: usize) -> Vec<&'r str> {
    let mut group: Vec<&str> = Vec::new();
    for recipe in recipes.filter(|recipe| recipe.max_sequence_length == tokens) {
        let mut all = group.clone();
        for prompt in [Some(recipe.prompt.as_str()), recipe.cfg().map(|(_, negative)| negative)].into_iter().flatten() {
            if !all.contains(&prompt) {
                all.push(prompt);
            }
        }
        if all.len() > PROMPTS_AT_ONCE {
            break;
        }
        group = all;
    }
    group
}
