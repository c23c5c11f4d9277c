//! From wishes to pictures: what `dype`, `dype replay` and `dype compare` share.

use std::{collections::HashSet, path::Path, rc::Rc};

use serde_json::json;

use super::{
    args::{MachineArgs, ModelArgs, OutputArgs},
    batch_args::ProgressArgs,
    commands::dry_run,
    device,
    items::{self, Planned, Wish},
    listen::{Finished, Teller},
    model_source::ModelSource,
    notes,
    report::Report,
};
use crate::{
    base::progress::{Event, Observer},
    error::Error,
    models::Model,
    output::{self, Format},
    plan::{Machine, Plan},
    recipe::Shard,
    run::{Item, PROMPTS_AT_ONCE, Runner},
};

/// What is to be made, and how.
pub struct Job<'a> {
    /// The pictures of the whole batch.
    pub wishes: Vec<Wish>,
    /// The part of it that this process makes.
    pub shard: Shard,
    /// Model flags.
    pub model: &'a ModelArgs,
    /// Machine flags.
    pub machine: &'a MachineArgs,
    /// Flags of what is kept on the way.
    pub progress: &'a ProgressArgs,
    /// Output flags.
    pub output: &'a OutputArgs,
}

/// Makes the pictures and tells each one's path on stdout; `kept` gets those that are there, even when some fail.
///
/// # Errors
/// For one picture whatever failed; for several [`Error::Unfinished`] when some failed, and what kept all from being made.
pub fn run(mut job: Job<'_>, report: &Report, kept: Option<&mut Vec<Finished>>) -> anyhow::Result<()> {
    let device = device::open(job.machine.device, report)?;
    let dtype = device::compute_dtype(job.machine.dtype.map(Into::into), &device);
    for wish in &mut job.wishes {
        // Told to whoever looks at the picture: another machine could not know which card was in use.
        wish.request.rng = wish.request.rng.on(&device)?;
    }
    let (planned, repeated) = items::arrange(job.wishes, job.shard);
    if repeated > 0 {
        let what = if repeated == 1 { "1 picture is".into() } else { format!("{repeated} pictures are") };
        report.on(Event::Note(format!("{what} asked for more than once with the same settings, and made once")));
    }
    if !job.machine.dry_run {
        items::check(&planned)?;
        check_other_files(job.output, job.progress)?;
    }
    if planned.is_empty() {
        report.on(Event::Note(format!("--shard {} holds no picture of this batch: nothing is to be done", job.shard)));
        return Ok(());
    }
    let source = ModelSource::find(job.model, report)?;
    let machine = Machine {
        budget: Machine::budget(&device, job.machine.memory),
        weights: job.machine.weights.into(),
        device,
        dtype,
    };
    if job.machine.dry_run {
        return dry_run::run(&planned, source, &machine, job.output.json, report);
    }
    let model = source.open(report)?;
    let options = job.progress.options(job.output.overwrite);
    let mut runner = Runner::new(&*model, &machine, &options, report)?;
    let made = plan_items(&planned, &*model, &machine, job.output.save_latents.as_deref())?;
    for (item, planned) in made.iter().zip(&planned) {
        runner.check(item).map_err(|error| planned.wish.named(error))?;
    }
    notes::tell(&planned, &made, &runner.geometry(), report);
    if let Some(item) = made.first() {
        report.detail(&dry_run::table(&item.plan, &item.settings, None));
    }
    let mut teller = Teller::new(report, &planned, json!(model.identity()), job.output.json, kept);
    runner.run(&made, &mut teller)?;
    teller.end()
}

/// What every picture needs, and whether it fits.
pub fn plan_items(
    planned: &[Planned],
    model: &dyn Model,
    machine: &Machine,
    latents: Option<&Path>,
) -> anyhow::Result<Vec<Item>> {
    let facts = &model.facts().recipe;
    let prompts: HashSet<&str> = planned.iter().map(|planned| planned.wish.request.prompt.as_str()).collect();
    let prompts = prompts.len().min(PROMPTS_AT_ONCE);
    let mut plans: Vec<Rc<Plan>> = Vec::new();
    let mut made = Vec::with_capacity(planned.len());
    for one in planned {
        let settings = one.wish.request.resolve(facts);
        let task = Item::task(&settings, prompts);
        let plan = match plans.iter().find(|plan| plan.task == task) {
            Some(plan) => Rc::clone(plan),
            None => {
                let plan = Rc::new(Plan::new(model, &task, machine).map_err(|error| one.wish.named(error))?);
                plans.push(Rc::clone(&plan));
                plan
            }
        };
        made.push(Item {
            index: one.index,
            request: one.wish.request.clone(),
            settings,
            path: one.path.clone(),
            number: one.number,
            latents: latents.map(Path::to_path_buf),
            plan,
        });
    }
    Ok(made)
}

/// Files beside the pictures can be written too.
fn check_other_files(output: &OutputArgs, progress: &ProgressArgs) -> anyhow::Result<()> {
    if let Some(preview) = &progress.preview {
        Format::from_path(preview)?;
    }
    for (flag, file) in [("--save-latents", &output.save_latents), ("--preview", &progress.preview)] {
        let Some(file) = file else { continue };
        if file.is_dir() {
            let what = format!("{flag} {} is a folder", file.display());
            return Err(Error::request(what, "name a file in it").into());
        }
        output::check_writable(file.parent().unwrap_or(Path::new("")))?;
    }
    Ok(())
}
