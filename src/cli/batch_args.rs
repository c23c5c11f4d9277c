//! The flags of many pictures: which, and how the run keeps them.

use std::{collections::HashSet, path::PathBuf};

use clap::Args;

use super::values;
use crate::{
    recipe::Shard,
    run::{self, Preview},
};

/// Which pictures: all combinations of prompts and seeds.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Batch")]
pub struct SelectArgs {
    /// Prompts, one a line, or JSON objects with flags as keys; "-" reads stdin
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    pub prompts: Option<PathBuf>,
    /// Seeds of every prompt, such as 1,2,5-8
    #[arg(long, value_name = "LIST", value_parser = values::seeds, conflicts_with = "seed")]
    pub seeds: Option<values::Seeds>,
    /// Seeds in a row for every prompt, from --seed on
    #[arg(short = 'n', long, value_name = "N", conflicts_with = "seeds")]
    pub count: Option<usize>,
    /// Make only every N-th picture from the I-th on, as one of N machines
    #[arg(long, value_name = "I/N", value_parser = values::shard)]
    pub shard: Option<Shard>,
}

impl SelectArgs {
    /// The flags that say which pictures are made.
    pub const WHICH: [&str; 3] = ["prompts", "seeds", "count"];

    /// What was typed of them; a variable is not.
    #[must_use]
    pub fn only(self, typed: &HashSet<String>) -> Self {
        let [prompts, seeds, count] = Self::WHICH.map(|flag| typed.contains(flag));
        Self {
            prompts: self.prompts.filter(|_| prompts),
            seeds: self.seeds.filter(|_| seeds),
            count: self.count.filter(|_| count),
            ..self
        }
    }
}

/// What is kept while pictures are made.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Progress")]
pub struct ProgressArgs {
    /// Leave out pictures that are there; go on from checkpoints
    #[arg(long)]
    pub resume: bool,
    /// Steps between checkpoints (in .dype/ beside the picture); 0 for none
    #[arg(long, value_name = "K", default_value_t = 1)]
    pub checkpoint_every: usize,
    /// A small picture of what is being made, replaced as it gets clearer
    #[arg(long, value_name = "FILE")]
    pub preview: Option<PathBuf>,
    /// Steps between previews
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = values::at_least_one, requires = "preview")]
    pub preview_every: usize,
}

impl ProgressArgs {
    /// How the run goes about its pictures.
    pub fn options(&self, overwrite: bool) -> run::Options {
        run::Options {
            resume: self.resume,
            checkpoint_every: self.checkpoint_every,
            preview: self.preview.clone().map(|path| Preview { path, every: self.preview_every }),
            overwrite,
        }
    }
}
