//! What pictures are told of their prompts: encoded together, and kept as long as it serves.

use std::time::Instant;

use super::{PROMPTS_AT_ONCE, Runner, Times, pipeline::Texts, runner::Waiting};
use crate::{
    error::{Error, Result},
    recipe::{Loras, Recipe},
};

impl Runner<'_> {
    /// These files, where they change what is told of prompts.
    pub(super) fn texts_of<'l>(&self, loras: &'l Loras) -> Option<&'l Loras> {
        self.of_text.contains(loras).then_some(loras)
    }

    /// What `coming`'s first picture is told of its prompts. If one is not encoded yet, the prompts of the pictures
    /// behind it are encoded with it, and those before are forgotten.
    pub(super) fn embeddings(&mut self, coming: &[Waiting<'_>], times: &mut Times) -> Result<Texts> {
        let Some((item, _)) = coming.first() else {
            return Err(Error::request("no picture to encode a prompt for", ""));
        };
        if let Some(known) = self.known_texts(&item.recipe) {
            return Ok(known);
        }
        let started = Instant::now();
        self.embeddings.clear();
        self.make_room_for(item, item.plan.peak_bytes.text);
        let tokens = item.recipe.max_sequence_length;
        let own = self.texts_of(&item.recipe.lora);
        let is_alike = |other: &&Recipe| self.texts_of(&other.lora) == own;
        let alike = coming.iter().map(|(other, _)| &other.recipe).filter(is_alike);
        let group = encoded_together(alike, tokens);
        let embeddings = self.pipeline.encode(&group, tokens)?;
        self.embeddings = group.into_iter().map(|prompt| (prompt.to_owned(), tokens)).zip(embeddings).collect();
        times.text = started.elapsed();
        let known = self.known_texts(&item.recipe);
        known.ok_or_else(|| Error::request("the text encoders gave nothing", "please report this"))
    }

    /// What a picture is told of its prompts, where all of them are encoded.
    fn known_texts(&self, recipe: &Recipe) -> Option<Texts> {
        let known = |prompt: &str| {
            let is_it = |(text, tokens): &(String, usize)| text == prompt && *tokens == recipe.max_sequence_length;
            self.embeddings.iter().find(|(key, _)| is_it(key)).map(|(_, embeddings)| embeddings.clone())
        };
        let prompt = known(&recipe.prompt)?;
        let negative = match recipe.cfg() {
            Some((_, negative)) => Some(known(negative)?),
            None => None,
        };
        Some(Texts { prompt, negative })
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
