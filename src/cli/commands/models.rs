//! `dype models`: what families of models there are, what each published model takes, and what of it is here. Nothing is asked of a
//! network.

mod table;

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::{
    args::DEFAULT_MODEL,
    needs::{CARD, Need, SIDES_PX},
    paths,
    report::Report,
    search_args::SearchArgs,
};
use crate::{
    base::device::DeviceKind,
    error::Result,
    hub::{CopyState, Hub},
    models::{Facts, Family, LocalModel, Published, PublishedWeights, Registry, RepositoryFiles},
};

/// What is listed.
#[derive(Debug, Clone, Args)]
pub struct ModelsArgs {
    /// Print one line of JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Folder of models, such as ComfyUI's, whose models are listed too; may come again, or be a list as PATH is
    #[arg(long, value_name = "DIR")]
    model_dir: Vec<PathBuf>,
}

/// A published model.
struct Row {
    family: &'static dyn Family,
    published: &'static Published,
    facts: Facts,
    /// On the CPU at each of [`SIDES_PX`], then on a card.
    needs: Vec<Need>,
    copy: CopyState,
}

/// Runs `dype models`.
pub fn run(args: &ModelsArgs, report: &Report) -> anyhow::Result<()> {
    let registry = Registry::default();
    let search = SearchArgs { model_dir: args.model_dir.clone(), ..SearchArgs::default() };
    let local = registry.local(&search.dirs())?;
    // Where nothing says which folder the cache is in, there is no copy.
    let hub = search.hub().ok();
    let mut rows: Vec<Row> = Vec::new();
    for (family, published) in registry.published() {
        let row = row(family, published, &rows, hub.as_ref())?;
        rows.push(row);
    }
    report.result(&if args.json {
        json_of(&rows, &local).to_string()
    } else {
        table::of(&rows, &local, table::width())
    });
    Ok(())
}

fn row(family: &'static dyn Family, published: &'static Published, known: &[Row], hub: Option<&Hub>) -> Result<Row> {
    let model = Registry::default().open(&published.request(family)?)?;
    let facts = model.facts().clone();
    // Of two with the same numbers and defaults one is planned.
    let same = |row: &&Row| {
        let networks =
            |published: &Published| published.weights.iter().map(|part| (part.part, part.parameters)).collect();
        let (ours, theirs): (Vec<_>, Vec<_>) = (networks(published), networks(row.published));
        let held = |published: &Published| published.weights.iter().map(|part| part.dtype).collect::<Vec<_>>();
        ours == theirs && held(published) == held(row.published) && row.facts.recipe == facts.recipe
    };
    let needs = match known.iter().find(same) {
        Some(row) => row.needs.clone(),
        None => {
            let all = [DeviceKind::Cpu, CARD].into_iter().flat_map(|kind| SIDES_PX.map(|side| (side, kind)));
            all.map(|(side, kind)| Need::of(&*model, side, kind)).collect::<Result<_>>()?
        }
    };
    let files = RepositoryFiles::without(&[family], |_| false);
    let repo = published.repo.parse()?;
    let copy = hub.map_or(CopyState::None, |hub| hub.copy(&repo, &files));
    Ok(Row { family, published, facts, needs, copy })
}

impl Row {
    /// Forward passes of a step.
    fn passes(&self) -> usize {
        1 + usize::from(self.facts.recipe.cfg.is_some())
    }

    fn need(&self, side_px: usize, kind: DeviceKind) -> Option<&Need> {
        self.needs.iter().find(|need| need.side_px == side_px && need.kind == kind)
    }
}

fn json_of(rows: &[Row], local: &[LocalModel]) -> Value {
    let row = |row: &Row| {
        let Row { family, published, facts, needs, copy } = row;
        let bytes = |part: &PublishedWeights| (part.part.to_owned(), json!(part.bytes()));
        let bytes: serde_json::Map<_, _> = published.weights.iter().map(bytes).collect();
        json!({
            "family": family.name(),
            "model": published.repo,
            "is_default": published.repo == DEFAULT_MODEL,
            "licence": published.licence,
            "bytes_to_fetch": published.bytes(),
            "weights_bytes": bytes,
            "steps": facts.recipe.steps,
            "passes": row.passes(),
            "base_resolution_px": facts.recipe.base_resolution,
            "needs": needs.iter().map(need_json).collect::<Vec<_>>(),
            "copy": word(*copy),
        })
    };
    let file = |model: &LocalModel| {
        let mut told = json!(model.holds);
        told["path"] = model.path.to_string_lossy().into();
        paths::add_bytes(&mut told, &model.path);
        told
    };
    json!({ "models": rows.iter().map(row).collect::<Vec<_>>(), "files": local.iter().map(file).collect::<Vec<_>>() })
}

fn need_json(need: &Need) -> Value {
    let mut told = need.json();
    told["device"] = need.kind.name().into();
    told["dtype"] = need.kind.usual_dtype().as_str().into();
    told
}

/// Whether a copy is in the Hub's cache.
fn word(copy: CopyState) -> &'static str {
    match copy {
        CopyState::Complete => "complete",
        CopyState::Partly => "partly",
        CopyState::None => "none",
    }
}
