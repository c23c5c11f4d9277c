//! Where each part of a model is, and which family's model it is.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use super::{
    Contents, Family, Identity, Lent, ModelRequest, Origin, PartKind, PartSpec,
    choose::{Choice, choose},
    contents,
    given::{exists, given},
    parts::open,
    shelves::{Shelves, weights_in},
    whose::{family_of_file, family_of_folder},
};
use crate::{
    base::paths,
    error::{Error, Result},
    weights::{Files, TensorSource},
};

/// Where a part is.
#[derive(Clone)]
pub enum Place {
    /// In a folder of its own.
    Folder(PathBuf),
    /// In a file of its own.
    File(OwnFile),
    /// In the single file that also holds the transformer.
    Inside(Holder),
}

/// A file of one part.
#[derive(Clone)]
pub struct OwnFile {
    /// The file.
    pub path: PathBuf,
    /// The config of the part that it stands in for, in the folder of the model in diffusers layout.
    pub model_config: Option<PathBuf>,
}

impl OwnFile {
    /// Where its config may lie, the likeliest first; whether one is of this file its weights must show.
    pub fn configs(&self) -> impl Iterator<Item = PathBuf> {
        std::iter::once(self.path.with_file_name("config.json")).chain(self.model_config.clone())
    }
}

impl From<PathBuf> for OwnFile {
    fn from(path: PathBuf) -> Self {
        Self { path, model_config: None }
    }
}

impl From<PathBuf> for Place {
    /// A file of its own.
    fn from(file: PathBuf) -> Self {
        Self::File(file.into())
    }
}

/// A single file that holds several parts.
#[derive(Clone)]
pub struct Holder {
    /// The file.
    pub path: PathBuf,
    /// Its tensors.
    pub source: Arc<dyn TensorSource>,
}

/// Where the parts of a model are that were looked for.
#[derive(Clone)]
pub struct Found {
    /// Which model it is.
    pub identity: Identity,
    /// The files they are among.
    pub files: Files,
    /// What there is to tell of the search.
    pub remarks: Vec<String>,
    places: BTreeMap<&'static str, Place>,
    /// Parts that a flag gave.
    given: Vec<String>,
}

impl Found {
    /// One part, which `request` names at this place, and nothing else.
    pub(super) fn alone(request: &ModelRequest, part: &PartSpec, place: Place) -> Self {
        let model = request.model.display().to_string();
        let (parts, variants) = (BTreeMap::new(), BTreeMap::new());
        let identity = Identity { model, revision: None, layout: "diffusers", parts, variants };
        let (files, places) = (request.files.clone(), BTreeMap::from([(part.name, place)]));
        Self { identity, files, remarks: Vec::new(), places, given: Vec::new() }
    }

    /// Where a part is.
    ///
    /// # Errors
    /// [`Error::Model`] when it was not looked for: a bug of the caller.
    pub fn place(&self, part: &str) -> Result<&Place> {
        self.places.get(part).ok_or_else(|| Error::model(format!("no part {part}"), "please report this"))
    }

    /// What the parts hold, as [`super::Model::contents`] tells it.
    ///
    /// # Errors
    /// [`Error::Disk`] and [`Error::Model`] when a file cannot be read, or is not here yet.
    pub fn contents(&self, parts: &[PartSpec]) -> Result<Contents> {
        contents::of(self, parts)
    }

    /// Whether a flag gave this part: it is meant, whatever lies beside it.
    pub fn is_given(&self, part: &str) -> bool {
        self.given.iter().any(|given| given == part)
    }

    /// Where a part is that a model may lack.
    pub fn optional(&self, part: &str) -> Option<&Place> {
        self.places.get(part)
    }

    /// The file of the scheduler's config, and whether it is meant: it was given, or came with the transformer's own folder. One that
    /// is not only lies beside a single file, and may be another model's.
    ///
    /// # Errors
    /// As [`Found::place`].
    pub fn scheduler(&self) -> Result<Option<(PathBuf, bool)>> {
        const SCHEDULER: &str = "scheduler";
        let file = match self.optional(SCHEDULER) {
            Some(Place::Folder(folder)) => folder.join("scheduler_config.json"),
            Some(Place::File(file)) => file.path.clone(),
            Some(Place::Inside(_)) | None => return Ok(None),
        };
        let is_own = matches!(self.place("transformer")?, Place::Folder(_)) && !self.is_given("transformer");
        Ok(Some((file, is_own || self.is_given(SCHEDULER))))
    }

    /// The file or folder of a part that is no network.
    ///
    /// # Errors
    /// As [`Found::place`].
    pub fn path(&self, part: &str) -> Result<PathBuf> {
        match self.place(part)? {
            Place::Folder(path) | Place::File(OwnFile { path, .. }) => Ok(path.clone()),
            Place::Inside(_) => Err(Error::model(format!("{part} has no file of its own"), "please report this")),
        }
    }
}

/// A part that a single file lacks and that is nowhere around it.
pub struct Lacking {
    /// The part.
    pub part: &'static PartSpec,
    /// The single file.
    denoiser: Arc<dyn TensorSource>,
}

impl Lacking {
    /// Whether what is lent, among these files, goes with the transformer. What has no weights does.
    pub fn is_met_by(&self, lent: &Lent, files: &Files) -> bool {
        let fits = |source| (self.part.is_inside)(&source) && (self.part.fits)(&source, &self.denoiser).is_ok();
        !self.part.has_weights() || open::tensors_at(&lent.place(files), files).is_ok_and(fits)
    }
}

/// What the model's path is.
enum Base {
    /// A folder in diffusers layout.
    Folder,
    /// A single file, and where its other parts may lie.
    File(Holder, Shelves),
}

/// Finds parts.
pub(super) struct Finder<'a> {
    request: &'a ModelRequest,
    family: &'static dyn Family,
    base: Base,
    /// The folder in diffusers layout to look in.
    root: PathBuf,
}

/// What a search came to.
#[derive(Default)]
struct Search {
    places: BTreeMap<&'static str, Place>,
    /// Parts that come from elsewhere.
    elsewhere: BTreeMap<&'static str, Origin>,
    missing: Vec<&'static PartSpec>,
    remarks: Vec<String>,
    /// Files that are of another model, each with the reason, by the part they were looked at for.
    passed_over: BTreeMap<&'static str, Vec<String>>,
}

impl<'a> Finder<'a> {
    /// Looks at what the model's path is, and whose model.
    ///
    /// # Errors
    /// [`Error::Model`] when there is nothing, or nothing of any of the families; [`Error::Request`] for a part that the
    /// family's models do not have.
    pub(super) fn new(request: &'a ModelRequest, families: &[&'static dyn Family]) -> Result<Self> {
        let path = &request.model;
        if !request.files.is_dir(path) && !request.files.is_file(path) {
            exists(path)?;
        }
        let (family, base, root) = if request.files.is_dir(path) {
            (family_of_folder(path, &request.files, families)?, Base::Folder, path.clone())
        } else {
            let source: Arc<dyn TensorSource> = Arc::new(request.files.open(std::slice::from_ref(path))?);
            let family = family_of_file(&source, families)?;
            let denoiser = family.parts().iter().find(|part| part.kind == PartKind::Denoiser);
            let folders = denoiser.map_or(&[][..], |part| part.folders);
            let base =
                Base::File(Holder { path: path.clone(), source }, Shelves::around(path, folders, &request.dirs)?);
            (family, base, paths::parent(path).to_path_buf())
        };
        let finder = Self { request, family, base, root };
        finder.check_names()?;
        Ok(finder)
    }

    /// Whose model it is.
    pub(super) fn family(&self) -> &'static dyn Family {
        self.family
    }

    /// Every part that was given is one of this family's.
    fn check_names(&self) -> Result<()> {
        let names: Vec<_> = self.family.parts().iter().map(|part| part.name).collect();
        let mut given = self.request.parts.keys().chain(self.request.lent.keys());
        match given.find(|given| !names.contains(&given.as_str())) {
            None => Ok(()),
            Some(odd) => {
                let what = format!("--part {odd}: a {} model has no such part", self.family.name());
                Err(Error::request(what, format!("its parts are {}", names.join(", "))))
            }
        }
    }

    /// The parts that `wanted` takes and that are nowhere.
    ///
    /// # Errors
    /// As [`Finder::found`], but for what is missing.
    pub(super) fn lacking(&self, wanted: impl Fn(&PartSpec) -> bool) -> Result<Vec<Lacking>> {
        // A folder in diffusers layout is whole or damaged.
        let Base::File(Holder { source, .. }, _) = &self.base else { return Ok(Vec::new()) };
        let lacking = |part| Lacking { part, denoiser: Arc::clone(source) };
        Ok(self.search(wanted)?.missing.into_iter().map(lacking).collect())
    }

    /// Where the parts are that `wanted` takes.
    ///
    /// # Errors
    /// [`Error::Model`] that names every missing part, what was looked for and the flag that gives it.
    pub(super) fn found(self, wanted: impl Fn(&PartSpec) -> bool) -> Result<Found> {
        let search = self.search(wanted)?;
        if !search.missing.is_empty() {
            return Err(self.lacks(&search));
        }
        let Search { places, elsewhere, mut remarks, passed_over, .. } = search;
        let found = elsewhere.iter().filter(|(part, _)| !self.request.parts.contains_key(**part));
        let found: Vec<_> = found.map(|(part, origin)| format!("{part} {origin}")).collect();
        if !found.is_empty() {
            remarks.insert(0, format!("{ELSEWHERE}: {}", found.join(", ")));
        }
        let passed = passed_over.into_iter().map(|(part, files)| format!("{part}: passed over {}", files.join(", ")));
        remarks.extend(passed);
        let identity = Identity { variants: self.variants(&places)?, ..self.identity(elsewhere) };
        let given = self.request.parts.keys().chain(self.request.lent.keys()).cloned().collect();
        Ok(Found { identity, files: self.request.files.clone(), remarks, places, given })
    }

    fn search(&self, wanted: impl Fn(&PartSpec) -> bool) -> Result<Search> {
        let mut search = Search::default();
        for part in self.family.parts().iter().filter(|part| wanted(part)) {
            match self.place(part, &mut search)? {
                Some(place) => {
                    search.places.insert(part.name, place);
                }
                None if part.kind == PartKind::Scheduler => {}
                None => search.missing.push(part),
            }
        }
        Ok(search)
    }

    /// The parts whose weights are none of the plain ones.
    fn variants(&self, places: &BTreeMap<&'static str, Place>) -> Result<BTreeMap<&'static str, String>> {
        let files = &self.request.files;
        let mut found = BTreeMap::new();
        for part in self.family.parts().iter().filter(|part| part.has_weights()) {
            let Some(Place::Folder(folder)) = places.get(part.name) else { continue };
            if let Some(variant) = files.stored(folder)?.and_then(|stored| stored.variant) {
                found.insert(part.name, variant);
            }
        }
        match files.variant() {
            Some(wanted) if !found.values().any(|variant| variant == wanted) => {
                let what = format!("{} has no weights in the variant {wanted}", self.request.model.display());
                Err(Error::model(what, "leave out --variant, or check its name: fp16 for model.fp16.safetensors"))
            }
            _ => Ok(found),
        }
    }

    fn lacks(&self, search: &Search) -> Error {
        let trees = match &self.base {
            Base::Folder => &[][..],
            Base::File(_, shelves) => shelves.trees(),
        };
        let part = |part: &&'static PartSpec| {
            let passed = search.passed_over.get(part.name).map(|files| format!("; passed over: {}", files.join(", ")));
            part.missing_from(&self.root, trees) + &passed.unwrap_or_default()
        };
        let parts: Vec<_> = search.missing.iter().map(part).collect();
        let flags: Vec<_> = search.missing.iter().map(|part| part.flag()).collect();
        let what = format!("{} lacks {}", self.request.model.display(), parts.join("; "));
        let flags = flags.join(", ");
        Error::model(
            what,
            match self.base {
                Base::Folder => format!("fetch the model again, or give the missing parts with {flags}"),
                Base::File(..) => {
                    let put = search.missing.iter().filter_map(|part| part.put_into(&self.root));
                    let put: Vec<_> = put.collect();
                    let put = if put.is_empty() { String::new() } else { format!("put {}; or ", put.join(", ")) };
                    format!("{put}name the folder of your models with --model-dir, or give the parts with {flags}")
                }
            },
        )
    }

    /// Where a part is; `None` if nowhere.
    fn place(&self, part: &'static PartSpec, search: &mut Search) -> Result<Option<Place>> {
        if let Some(path) = self.request.parts.get(part.name) {
            search.elsewhere.insert(part.name, Origin::Disk(path.display().to_string()));
            return given(part, path).map(|place| Some(self.standing_in(part, place)));
        }
        if let Some(lent) = self.request.lent.get(part.name) {
            search.elsewhere.insert(part.name, Origin::Hub(lent.from.clone()));
            return Ok(Some(lent.place(&self.request.files)));
        }
        if let Base::File(holder, _) = &self.base {
            if part.kind == PartKind::Denoiser {
                return Ok(Some(self.request.model.clone().into()));
            }
            if (part.is_inside)(&holder.source) {
                return Ok(Some(Place::Inside(holder.clone())));
            }
        }
        let (folder, files) = (self.root.join(part.name), &self.request.files);
        if part.is_in(&folder, files) {
            return Ok(Some(Place::Folder(folder)));
        }
        match &self.base {
            Base::Folder => Ok(part.file_in(&self.root, files)?.map(Place::from)),
            Base::File(holder, shelves) if part.kind != PartKind::Scheduler => {
                Ok(self.around(part, holder, shelves, search))
            }
            Base::File(..) => Ok(None),
        }
    }

    /// The place of a part that was given, which in a folder in diffusers layout stands in for the model's own.
    fn standing_in(&self, part: &PartSpec, place: Place) -> Place {
        match (place, &self.base) {
            (Place::File(file), Base::Folder) if part.has_weights() => {
                let config = Some(self.root.join(part.name).join("config.json"));
                Place::File(OwnFile { model_config: config.filter(|path| self.request.files.is_file(path)), ..file })
            }
            (place, _) => place,
        }
    }

    /// Where a part of a single file is in the folders around it.
    fn around(
        &self,
        part: &'static PartSpec,
        holder: &Holder,
        shelves: &Shelves,
        search: &mut Search,
    ) -> Option<Place> {
        let files = &self.request.files;
        let beside = weights_in(&self.root, files).filter(|path| *path != holder.path);
        if part.kind == PartKind::Tokenizer {
            let mut trees = std::iter::once(self.root.as_path()).chain(shelves.trees().iter().map(PathBuf::as_path));
            let folder = trees.find_map(|tree| Shelves::places(tree, part, files).into_iter().next())?;
            if !folder.starts_with(&self.root) {
                search.elsewhere.insert(part.name, Origin::Disk(folder.display().to_string()));
            }
            return Some(Place::Folder(folder));
        }
        let mut unreadable = None;
        let mut take = |paths: Vec<PathBuf>, is_beside: bool, search: &mut Search| {
            let choice: Choice = choose(part, paths, &holder.source, files);
            search.passed_over.entry(part.name).or_default().extend(choice.passed_over);
            search.remarks.extend(choice.remark);
            unreadable = unreadable.take().or(choice.unreadable.filter(|_| is_beside));
            let (place, path) = choice.place?;
            if !is_beside {
                search.elsewhere.insert(part.name, Origin::Disk(path.display().to_string()));
            }
            Some(place)
        };
        let found = take(beside.collect(), true, search).or_else(|| {
            let mut trees = shelves.trees().iter();
            trees.find_map(|tree| take(Shelves::places(tree, part, files).into_iter().collect(), false, search))
        });
        // What is called as the part is says itself what is wrong with it, when it is opened.
        let found = found.or_else(|| unreadable.map(Place::from));
        search.passed_over.retain(|_, files| !files.is_empty());
        found
    }

    /// Which model it is.
    fn identity(&self, parts: BTreeMap<&'static str, Origin>) -> Identity {
        let request = self.request;
        let (model, revision) = match &request.name {
            Some((id, revision)) => (id.clone(), Some(revision.clone())),
            None => (request.model.display().to_string(), None),
        };
        let layout = if matches!(self.base, Base::Folder) { "diffusers" } else { "single-file" };
        Identity { model, revision, layout, parts, variants: BTreeMap::new() }
    }
}

/// How the remark begins that names all parts from elsewhere.
pub const ELSEWHERE: &str = "parts from elsewhere";
