//! What a run tells of each picture: its path or JSON on stdout, its place in the batch and its failure on stderr.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{items::Planned, paths, report::Report};
use crate::{
    base::memory,
    error::Error,
    output,
    run::{Item, Listener, Made, Times},
};

/// A picture that is there.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Its place in the batch, from 0.
    pub index: usize,
    /// What asked for it, where anything is said of that.
    pub origin: Option<String>,
    /// Its file.
    pub path: PathBuf,
    /// What is told of it with `--json`.
    pub json: Value,
}

/// Tells of pictures as they come.
pub struct Teller<'a> {
    report: &'a Report,
    planned: &'a [Planned],
    model: Value,
    as_json: bool,
    begun: usize,
    existed: usize,
    /// Where to keep what is told of each picture, if anybody needs it later.
    kept: Option<&'a mut Vec<Finished>>,
    failures: Vec<Error>,
    /// The picture that was made last.
    last: Option<usize>,
    /// Failures of pictures that are there, without a file beside them.
    incomplete: usize,
}

impl<'a> Teller<'a> {
    /// For these pictures by this model, told on stdout as JSON or as paths, and to `kept`.
    pub fn new(
        report: &'a Report,
        planned: &'a [Planned],
        model: Value,
        as_json: bool,
        kept: Option<&'a mut Vec<Finished>>,
    ) -> Self {
        Self {
            report,
            planned,
            model,
            as_json,
            begun: 0,
            existed: 0,
            kept,
            failures: Vec::new(),
            last: None,
            incomplete: 0,
        }
    }

    /// How it ended.
    ///
    /// # Errors
    /// For a single picture its own failure, for several [`Error::Unfinished`] when any failed.
    pub fn end(mut self) -> anyhow::Result<()> {
        let (failed, total) = (self.failures.len(), self.planned.len());
        match self.failures.pop() {
            None => Ok(()),
            Some(error) if total == 1 => Err(error.into()),
            Some(_) if failed == self.incomplete => {
                let what =
                    format!("all {total} pictures are there, {failed} without their latents where they should be");
                Err(Error::Unfinished { what, hint: "the errors above say where they are".into() }.into())
            }
            Some(_) => {
                let failed = failed - self.incomplete;
                let what =
                    format!("{failed} of {total} pictures could not be made; the other {} are there", total - failed);
                let hint = "run the same again with --resume once the reasons above are gone: only these are made";
                Err(Error::Unfinished { what, hint: hint.into() }.into())
            }
        }
    }

    fn is_batch(&self) -> bool {
        self.planned.len() > 1
    }

    fn planned(&self, item: &Item) -> Option<&'a Planned> {
        let at = self.planned.binary_search_by_key(&item.index, |planned| planned.index).ok()?;
        self.planned.get(at)
    }

    fn headline(&self, item: &Item) -> String {
        let origin = self.planned(item).and_then(|planned| planned.wish.origin.as_ref());
        let origin = origin.map(|origin| format!("{origin}, "));
        format!("{}seed {}: {}", origin.unwrap_or_default(), item.recipe.seed, shortened(&item.recipe.prompt))
    }
}

impl Listener for Teller<'_> {
    fn begin(&mut self, item: &Item) {
        self.begun += 1;
        if self.is_batch() {
            let total = self.planned.len() - self.existed;
            self.report.line(&format!("picture   {} of {total}, {}", self.begun, self.headline(item)));
        }
    }

    fn made(&mut self, item: &Item, made: Made) {
        let mut json = json!({
            "path": made.path.to_string_lossy(),
            "settings": item.recipe,
            "model": self.model,
            "seconds": seconds(&made.times),
            "peak_memory_bytes": memory::peak_resident_bytes(),
            "resumed_from_step": made.resumed_from,
            "existed": made.existed,
        });
        if let Some(skipped) = made.skipped {
            json["skipped_steps"] = skipped.into();
        }
        paths::add_bytes(&mut json, &made.path);
        if made.existed {
            self.existed += 1;
            self.report.detail(&format!("{} is there already", made.path.display()));
        }
        self.last = Some(item.index);
        if self.as_json {
            self.report.result(&json.to_string());
        } else if !output::is_stdout(&made.path) {
            self.report.path(&made.path);
        }
        let origin = self.planned(item).and_then(|planned| planned.wish.origin.clone());
        if let Some(kept) = &mut self.kept {
            kept.push(Finished { index: item.index, origin, path: made.path, json });
        }
    }

    fn failed(&mut self, item: &Item, error: Error) {
        if self.is_batch() {
            self.report.failure(&self.headline(item), &error);
        }
        self.incomplete += usize::from(self.last == Some(item.index));
        self.failures.push(error);
    }
}

fn seconds(times: &Times) -> Value {
    let Times { text, encode, load, denoise, decode, write } = times;
    let total = *text + *encode + *load + *denoise + *decode + *write;
    let mut seconds = json!({
        "text": text.as_secs_f64(),
        "load": load.as_secs_f64(),
        "denoise": denoise.as_secs_f64(),
        "decode": decode.as_secs_f64(),
        "write": write.as_secs_f64(),
        "total": total.as_secs_f64(),
    });
    if !encode.is_zero() {
        seconds["encode"] = encode.as_secs_f64().into();
    }
    seconds
}

/// The start of a prompt, on one line.
fn shortened(prompt: &str) -> String {
    const SHOWN: usize = 48;
    let line = prompt.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}
