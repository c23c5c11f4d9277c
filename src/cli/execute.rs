//! From wishes to pictures: what `dype`, `dype replay` and `dype compare` share.

use std::{collections::HashSet, path::Path, rc::Rc};

use candle_core::Device;
use clap::ValueEnum;
use serde_json::{Value, json};

use super::{
    args::{MachineArgs, ModelArgs, OutputArgs},
    batch_args::ProgressArgs,
    code_products,
    commands::dry_run,
    device::{self, DtypeArg},
    files,
    image_source::ImageSource,
    items::{Batch, Planned, Wish},
    listen::{Finished, Teller},
    lora_source::{self, LoraSource},
    model_source::{ModelSource, Opened},
    notes,
    report::Report,
};
use crate::{
    base::device::DeviceKind,
    base::memory,
    base::progress::{Event, Observer, Silent},
    error::{Error, Result},
    models::Model,
    nn,
    plan::{Machine, Plan, Task},
    recipe::{Loras, Recipe, Shard},
    run::{Adapted, Item, PROMPTS_AT_ONCE, Runner, with_loras},
};

/// What is to be made, and how.
pub struct Order<'a> {
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
    /// Where and in what a picture was made that is to be made again.
    pub like: Option<MadeOn>,
    /// How many times as large as the picture it begins with each becomes.
    pub upscale: Option<f64>,
}

/// Where a picture was made, and in what numbers: another device or number type gives one close to it, not equal.
#[derive(Debug, Clone, PartialEq)]
pub struct MadeOn {
    /// The device, as `--device` takes it.
    pub device: String,
    /// The number type, as `--dtype` takes it.
    pub dtype: String,
    /// The model, as the picture says it, where it is the one that is to make it again.
    pub model: Option<Value>,
}

impl MadeOn {
    /// The picture's number type where the device is of its kind; else a note tells that it comes out close to it.
    fn dtype_on(&self, device: &Device, report: &Report) -> Option<DtypeArg> {
        let (Self { device: there, dtype, .. }, here) = (self, DeviceKind::of(device).name());
        if there == here {
            return DtypeArg::from_str(dtype, false).ok();
        }
        report.on(Event::Note(format!(
            "the picture was made on {there} in {dtype}: on {here} it comes out close to it, not equal (--device {there} makes \
             it again)"
        )));
        None
    }
}

/// Makes the pictures and tells each one's path on stdout; `kept` gets those that are there, even when some fail.
///
/// # Errors
/// For one picture whatever failed; for several [`Error::Unfinished`] when some failed, and what kept all from being made.
pub fn run(mut order: Order<'_>, report: &Report, kept: Option<&mut Vec<Finished>>) -> anyhow::Result<()> {
    let machine = open_machine(&mut order, report)?;
    let images = ImageSource::find(&mut order.wishes, order.upscale, report)?;
    code_products::check_fp8(&order.wishes, DeviceKind::of(&machine.device))?;
    let mut loras = LoraSource::find(&mut order.wishes, &order.model.model, &order.model.search, report)?;
    let (mut batch, repeated) = Batch::new(order.wishes, order.shard)?;
    if repeated > 0 {
        let what = if repeated == 1 { "1 picture is".into() } else { format!("{repeated} pictures are") };
        report.on(Event::Note(format!("{what} asked for more than once with the same settings, and made once")));
    }
    files::check(&batch.planned, order.output, order.progress)?;
    if !order.machine.dry_run {
        files::check_places(&batch.planned, order.output, order.progress)?;
    }
    if batch.planned.is_empty() {
        report
            .on(Event::Note(format!("--shard {} holds no picture of this batch: nothing is to be done", order.shard)));
        return Ok(());
    }
    let find = if order.machine.dry_run { ModelSource::find_to_plan } else { ModelSource::find };
    let source = find(order.model, report)?;
    if order.machine.dry_run {
        return dry_run::run(&mut batch, (&source, &loras, &images), &machine, order.output.json, report);
    }
    check_before_fetching(&batch.planned, (&source, &loras, &images), &machine, report)?;
    loras.fetch(&mut batch.planned, report)?;
    let Opened { model, remarks } = source.open(report)?;
    notes::of_search(remarks, report);
    batch.name_by(&model.facts().recipe)?;
    let planned = batch.planned;
    let (model, shared) = lora_source::shared(model, &planned, &machine.device)?;
    let adapted = loras.models(&planned, &*model, report)?;
    if let Some(note) = notes::variants(&*model, order.model.variant.as_deref())? {
        report.on(Event::Note(note));
    }
    notes::of_model(&*model, report);
    let options = order.progress.options(order.output.overwrite);
    let mut runner = Runner::new(&*model, &machine, &options, report)?.with_adapted(&adapted).with_kept(shared);
    let latents = order.output.save_latents.as_deref();
    if code_products::FP8.wanted(planned.iter().map(|one| &one.wish)).next().is_some() {
        nn::settle_fp8(machine.dtype, &machine.device, report)?;
    }
    let made = plan_items(&planned, (&*model, &adapted), &images, &machine, latents)?;
    notes::tell(&planned, &made, model.facts(), report);
    notes::of_batch(&made, report);
    if let Some(item) = made.first() {
        let shift = dry_run::shift(&*model, &item.recipe);
        report.detail(&dry_run::table(&item.plan, &item.recipe, shift, None));
    }
    if let Some(said) = order.like.as_ref().and_then(|like| like.model.as_ref()) {
        notes::other_model(&runner.known().differences(said), report);
    }
    let mut teller = Teller::new(report, &planned, json!(runner.known()), order.output.json, kept);
    runner.run(&made, &mut teller)?;
    teller.end()
}

/// What computes, in which numbers, in how much memory; each picture's noise is that of a card that is named.
fn open_machine(order: &mut Order<'_>, report: &Report) -> Result<Machine> {
    device::start_threads(&order.machine.threads)?;
    let device = device::open(order.machine.device, report)?;
    let asked = order.machine.dtype.or_else(|| order.like.as_ref()?.dtype_on(&device, report));
    let asked = code_products::dtype(&order.wishes, asked, DeviceKind::of(&device), report)?;
    let dtype = device::compute_dtype(asked, DeviceKind::of(&device))?;
    for rng in order.wishes.iter_mut().filter_map(|wish| wish.asked.wanted.rng.as_mut()) {
        // Told to whoever looks at the picture: another machine could not know which card was in use.
        *rng = rng.on(&device)?;
    }
    let budget = Machine::budget(&device, order.machine.memory);
    Ok(Machine { budget, weights: order.machine.weights.into(), device, dtype })
}

/// Refuses a wrong repository, too little memory or a broken tokenizer before gigabytes are fetched.
fn check_before_fetching(
    planned: &[Planned],
    (source, loras, images): (&ModelSource, &LoraSource, &ImageSource),
    machine: &Machine,
    report: &Report,
) -> anyhow::Result<()> {
    if source.missing().is_empty() && loras.is_here() {
        return Ok(());
    }
    let looked = source.look(report)?.model;
    let adapted = loras.models(planned, &*looked, &Silent)?;
    plan_items(planned, (&*looked, &adapted), images, machine, None)?;
    Ok(source.check_text(&*looked, report)?)
}

/// What every picture needs, and whether it fits.
pub fn plan_items(
    planned: &[Planned],
    (model, adapted): (&dyn Model, &[Adapted]),
    images: &ImageSource,
    machine: &Machine,
    latents: Option<&Path>,
) -> anyhow::Result<Vec<Item>> {
    let (machine, is_limited) = machine.within(memory::process_bytes());
    let advised = |error| if is_limited { of_process(error) } else { error };
    let facts = &model.facts().recipe;
    let recipe = |one: &Planned| Recipe::new(&one.wish.asked.wanted, facts).map_err(|error| one.wish.named(error));
    let recipes = planned.iter().map(recipe).collect::<Result<Vec<_>>>()?;
    code_products::check_weights(planned, model)?;
    let texts = recipes.iter().flat_map(|recipe| [Some(&recipe.prompt), recipe.negative_prompt.as_ref()]).flatten();
    let prompts = texts.collect::<HashSet<_>>().len().min(PROMPTS_AT_ONCE);
    let mut plans: Vec<(Loras, Vec<Task>, Rc<Plan>)> = Vec::new();
    let mut made = Vec::with_capacity(planned.len());
    for (one, recipe) in planned.iter().zip(recipes) {
        Item::check(&recipe, model.facts()).map_err(|error| one.wish.named(error))?;
        let tasks = Item::tasks(&recipe, prompts, model.facts(), images.encoding(&recipe));
        let plan = match plans.iter().find(|(loras, known, _)| *loras == recipe.lora && *known == tasks) {
            Some((.., plan)) => Rc::clone(plan),
            None => {
                let model = with_loras(&recipe.lora, model, adapted)?;
                let plan = Plan::of_passes(model, &tasks, &machine).map_err(|error| one.wish.named(advised(error)))?;
                let plan = Rc::new(plan);
                plans.push((recipe.lora.clone(), tasks, Rc::clone(&plan)));
                plan
            }
        };
        made.push(Item {
            index: one.index,
            recipe,
            path: one.path.clone(),
            number: one.number,
            latents: latents.map(Path::to_path_buf),
            plan,
        });
    }
    Ok(made)
}

/// Too little memory, where it is the process that is limited: no flag of ours would help.
fn of_process(error: Error) -> Error {
    match error {
        Error::Memory { what, .. } => {
            let hint = "raise the limits of this process (ulimit -v, which the model's files count against too, and \
                        ulimit -d), or ask for a smaller picture; --memory limits what a run takes without them";
            Error::Memory { what, hint: hint.into() }
        }
        other => other,
    }
}
