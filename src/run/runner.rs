//! The run: what is there already, and each picture that is not.

use std::{
    cell::Cell,
    collections::{BTreeSet, HashSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use serde_json::json;

use super::{
    Item, Listener, Made, Options, Times, begun,
    checkpoint::{self, Checkpoint},
    code_products,
    existing::{Existing, Found},
    identity::{self, Sought},
    loras::{Adapted, with_loras},
    texts::Encoded,
};
use crate::{
    base::device::DeviceKind,
    base::geometry::LatentGeometry,
    base::memory::Bytes,
    base::progress::{Event, Observer},
    error::{Error, Result},
    models::{KnownModel, Model, Velocity},
    nn::{CodeProducts, WeightsMode},
    output,
    plan::{Machine, SpeedBook, what_fits},
    recipe::Loras,
    run::pipeline::Pipeline,
    weights::Kept,
};

/// A picture that must be made, with the damaged file it takes the place of.
pub(super) type Waiting<'i> = (&'i Item, Option<PathBuf>);

/// Makes pictures with one model on one machine.
pub struct Runner<'a> {
    /// The model as it is.
    model: &'a dyn Model,
    /// It with LoRA files.
    adapted: &'a [Adapted],
    /// The files that the pipeline's has.
    loras: Loras,
    /// The weights that all of them share, where several are taken in turn.
    kept: Option<Arc<Kept>>,
    pub(super) machine: &'a Machine,
    pub(super) options: &'a Options,
    pub(super) observer: &'a dyn Observer,
    /// The model, by what it computes with.
    pub(super) known: KnownModel,
    pub(super) pipeline: Pipeline<'a>,
    pub(super) speeds: SpeedBook,
    pub(super) told_of_lost_checkpoint: Cell<bool>,
    pub(super) told_of_lost_preview: Cell<bool>,
    /// The files that hold pictures of this run, found or made, by their canonical paths: no other picture of it takes their place.
    pictures: HashSet<PathBuf>,
    /// With what it was loaded for.
    transformer: Option<((WeightsMode, CodeProducts), Box<dyn Velocity>)>,
    pub(super) encoded: Encoded,
}

impl<'a> Runner<'a> {
    /// A runner. Configs and tokenizers are read and checked; of weights no more than tells them from others.
    ///
    /// # Errors
    /// [`Error::Model`] when a config or tokenizer is broken; [`Error::Disk`] when a file cannot be read.
    pub fn new(
        model: &'a dyn Model,
        machine: &'a Machine,
        options: &'a Options,
        observer: &'a dyn Observer,
    ) -> Result<Self> {
        let known = KnownModel {
            identity: model.identity().clone(),
            contents: model.contents()?,
            schedule: model.facts().scheduler.clone(),
        };
        Ok(Self {
            known,
            model,
            adapted: &[],
            loras: Loras::default(),
            kept: None,
            machine,
            options,
            observer,
            pipeline: Pipeline::open(model, machine.device.clone(), machine.dtype, observer)?,
            speeds: SpeedBook::open(),
            told_of_lost_checkpoint: Cell::new(false),
            told_of_lost_preview: Cell::new(false),
            pictures: HashSet::new(),
            transformer: None,
            encoded: Encoded::default(),
        })
    }

    /// The same, with the model as it is with the LoRA files of each picture that has some.
    #[must_use]
    pub fn with_adapted(self, adapted: &'a [Adapted]) -> Self {
        Self { adapted, encoded: Encoded::new(adapted), ..self }
    }

    /// The same, where transformers of all these models share the weights that are held here.
    #[must_use]
    pub fn with_kept(self, kept: Option<Arc<Kept>>) -> Self {
        Self { kept, ..self }
    }

    /// Makes the model of a picture the one that computes; what another has made is let go, but for the weights that both have
    /// and embeddings that are the same.
    pub(super) fn take_model(&mut self, item: &Item) -> Result<()> {
        if self.loras == item.recipe.lora {
            return Ok(());
        }
        self.transformer = None;
        self.encoded.change(&self.loras, &item.recipe.lora);
        let model = with_loras(&item.recipe.lora, self.model, self.adapted)?;
        self.pipeline = Pipeline::open(model, self.machine.device.clone(), self.machine.dtype, self.observer)?;
        self.loras = item.recipe.lora.clone();
        Ok(())
    }

    /// Lets go of the transformer, and of the weights it shares.
    fn drop_transformer(&mut self) {
        self.transformer = None;
        if let Some(kept) = &self.kept {
            kept.let_go();
        }
    }

    /// The model, as pictures say it.
    pub fn known(&self) -> &KnownModel {
        &self.known
    }

    /// How the model's pixels become latents and tokens.
    pub fn geometry(&self) -> LatentGeometry {
        self.pipeline.geometry()
    }

    /// Makes the pictures in their order; `listener` is told of each. One that fails does not stop the others.
    ///
    /// # Errors
    /// [`Error::Model`] when the model's files turn out to be damaged: no other picture could be made either.
    pub fn run(&mut self, items: &[Item], listener: &mut dyn Listener) -> Result<()> {
        folders(items).into_iter().flat_map(begun::told_of_left).for_each(|text| self.note(text));
        if self.options.preview.is_some() && !self.pipeline.facts().latent_rgb.is_known() {
            self.warn("--preview writes nothing: the colours of this model's latents are not known here".to_owned());
        }
        self.clean(items);
        let rest = self.without_existing(items, listener);
        for (index, (item, replaced)) in rest.iter().enumerate() {
            listener.begin(item);
            match self.make(item, replaced.as_deref(), &rest[index..]) {
                Ok((made, lost)) => {
                    listener.made(item, made);
                    lost.into_iter().for_each(|error| listener.failed(item, error));
                }
                Err(error @ Error::Model { .. }) => return Err(error),
                Err(error) => listener.failed(item, self.with_what_fits(item, error)),
            }
        }
        self.clean(items);
        Ok(())
    }

    /// A full device becomes advice for this picture. The transformer leaves it: the next picture begins afresh.
    fn with_what_fits(&mut self, item: &Item, error: Error) -> Error {
        if !error.is_out_of_memory() {
            return error;
        }
        self.drop_transformer();
        let planned = Bytes(item.plan.peak_bytes.most());
        Error::Memory {
            what: format!("the device has no room for this picture, planned for {planned} ({error})"),
            hint: what_fits(
                with_loras(&item.recipe.lora, self.model, self.adapted).unwrap_or(self.model),
                &item.plan,
                self.machine,
                DeviceKind::of(&self.machine.device),
            ),
        }
    }

    /// The pictures that must be made, each with the damaged file it takes the place of.
    fn without_existing<'i>(&mut self, items: &'i [Item], listener: &mut dyn Listener) -> Vec<Waiting<'i>> {
        let mut existing = Existing::default();
        let (mut rest, mut near) = (Vec::new(), Vec::new());
        for item in items {
            match self.found(item, &mut existing) {
                Some(Found::Whole(path)) => {
                    self.checkpoint(item).remove();
                    self.hold(&path);
                    self.warn_of_lost_latents(item, &path);
                    listener.made(
                        item,
                        Made { path, times: Times::default(), resumed_from: None, skipped: None, existed: true },
                    );
                }
                Some(Found::Damaged(path)) => {
                    self.note(format!("{} is cut short: it is made again", path.display()));
                    rest.push((item, Some(path)));
                }
                Some(Found::OfAnotherModel(path, differing)) => {
                    near.push((path, differing));
                    rest.push((item, None));
                }
                None => rest.push((item, None)),
            }
        }
        self.tell_near(&near);
        rest
    }

    /// Tells of latents that are asked for, of a picture that is there without them.
    fn warn_of_lost_latents(&self, item: &Item, picture: &Path) {
        let asked = item.latents.as_deref().map(|path| output::numbered(path, item.index as u64 + 1));
        if let Some(latents) = asked.filter(|latents| !latents.exists()) {
            self.warn(format!(
                "{} is there already and {} is not: latents are not kept beside a picture; without --resume it is made again, with them",
                picture.display(),
                latents.display()
            ));
        }
    }

    /// Removes what dead processes left in the folders of these pictures.
    fn clean(&self, items: &[Item]) {
        folders(items).into_iter().for_each(checkpoint::clean);
    }

    /// The picture, if it is there already and that is asked about.
    fn found(&self, item: &Item, existing: &mut Existing) -> Option<Found> {
        if !self.options.resume || output::is_stream(&item.path) {
            return None;
        }
        let settings = identity::settings_key(&json!(item.recipe));
        existing.find(&item.path, &Sought::new(&settings, &self.known))
    }

    /// Tells of pictures that would have been found but for their model.
    fn tell_near(&self, near: &[(PathBuf, Vec<String>)]) {
        let Some((path, differing)) = near.first() else { return };
        let what = match near.len() {
            1 => format!("{} has the settings of a picture that is asked for", path.display()),
            several => {
                format!("{several} pictures have the settings of some that are asked for, such as {}", path.display())
            }
        };
        self.note(format!("{what}, and was made with another model (it differs in: {})", differing.join(", ")));
    }

    /// Remembers that this file holds a picture of this run.
    pub(super) fn hold(&mut self, path: &Path) {
        self.pictures.extend(fs::canonicalize(path));
    }

    /// Whether this file holds a picture of this run, however its name is written.
    pub(super) fn holds(&self, path: &Path) -> bool {
        fs::canonicalize(path).is_ok_and(|path| self.pictures.contains(&path))
    }

    /// The place of a picture's checkpoint.
    pub(super) fn checkpoint(&self, item: &Item) -> Checkpoint {
        Checkpoint::of(output::folder_of(&item.path), &item.recipe, &self.known, self.machine)
    }

    /// Takes the transformer as this pass of a picture needs it, loading it where that is not the one at hand.
    pub(super) fn take_transformer(
        &mut self,
        item: &Item,
        pass: usize,
        times: &mut Times,
    ) -> Result<Box<dyn Velocity>> {
        let (choices, products) = (&item.plan.pass(pass).choices, code_products(&item.recipe));
        match self.transformer.take() {
            Some((loaded, mut transformer)) if loaded == (choices.weights, products) => {
                transformer.set_pieces(choices.forward);
                Ok(transformer)
            }
            other => {
                // It leaves memory before the next comes.
                drop(other);
                if let Some(kept) = &self.kept {
                    // A block that comes and goes is nobody's to hold.
                    if choices.weights == WeightsMode::Resident { kept.keep() } else { kept.let_go() }
                }
                let started = Instant::now();
                let loaded = self.pipeline.load_transformer(choices, products)?;
                times.load += started.elapsed();
                Ok(loaded)
            }
        }
    }

    /// Keeps the transformer for the next picture.
    pub(super) fn keep_transformer(&mut self, item: &Item, transformer: Box<dyn Velocity>) {
        self.transformer = Some(((item.plan.choices.weights, code_products(&item.recipe)), transformer));
    }

    /// Lets go of the transformer when nothing needs it any more, or the decoder needs its room.
    pub(super) fn make_room_for_decoder(&mut self, item: &Item, is_last: bool) {
        if is_last {
            self.drop_transformer();
        }
        self.make_room_for(item, item.plan.peak_bytes.decode);
    }

    /// Lets go of the transformer where a stage with this peak needs its room.
    pub(super) fn make_room_for(&mut self, item: &Item, peak_bytes: u64) {
        if !item.plan.holds_transformer_beside(peak_bytes) {
            self.drop_transformer();
        }
    }

    /// Tells once of a file system that cannot say whether files are on the disk.
    pub(super) fn tell_of_unconfirmed(&self) {
        if let Some(text) = output::take_unconfirmed() {
            self.note(text);
        }
    }

    pub(super) fn warn(&self, text: String) {
        self.observer.on(Event::Warning(text));
    }

    pub(super) fn note(&self, text: String) {
        self.observer.on(Event::Note(text));
    }
}

/// The folders of these pictures.
fn folders(items: &[Item]) -> BTreeSet<&Path> {
    items.iter().map(|item| output::folder_of(&item.path)).collect()
}
