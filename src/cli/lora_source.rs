//! From `--lora` to files on this disk, to the models they make of another, and to what pictures say of them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use candle_core::Device;

use super::{
    items::{Planned, Wish},
    search_args::SearchArgs,
};
use crate::{
    base::{
        progress::{Event, Observer, Once},
        shown::shown,
    },
    error::{Error, Result},
    hub::{DownloadPlan, FileSet, Hub, HubFile, paths_below},
    models::{Model, adapt, loras_called},
    recipe::{LoraChoice, Loras},
    run::Adapted,
    weights::{
        Files, Kept, TensorSource,
        lora::{LoraFile, Network, TRANSFORMER, peft_settings, sha256_of},
    },
};

/// What diffusers calls the one file of a repository.
const USUAL_NAME: &str = "pytorch_lora_weights.safetensors";
/// Files of a repository that a message shows.
const SHOWN: usize = 5;
/// What to do where a name means no file.
const HINT: &str = "give a .safetensors file, the name of one in a folder of LoRA files (--model-dir), or a Hub id such as \
                    OWNER/NAME or OWNER/NAME:FILE.safetensors";

/// The LoRA files of a run, by the names pictures say.
#[derive(Default)]
pub struct LoraSource {
    found: BTreeMap<String, Found>,
}

/// Where a file is, or will be, and what its header says.
pub struct Found {
    place: Place,
    file: LoraFile,
}

enum Place {
    File(PathBuf),
    Hub(Box<(Hub, DownloadPlan)>),
}

impl LoraSource {
    /// Finds every file that is asked for and reads its header; of one that is not here, the Hub's. The names in `wishes` become
    /// those that hold from everywhere.
    ///
    /// # Errors
    /// [`Error::Request`] for what names neither a file nor a Hub id; [`Error::Network`] when the Hub does not answer;
    /// [`Error::Model`] and [`Error::Disk`] for a file that is no LoRA, or cannot be read.
    pub fn find(wishes: &mut [Wish], model: &str, search: &SearchArgs, observer: &dyn Observer) -> Result<Self> {
        let places = Places { model: Path::new(model), search };
        let mut source = Self::default();
        let mut names: BTreeMap<String, String> = BTreeMap::new();
        for wish in wishes {
            let Some(Loras(asked)) = wish.asked.wanted.lora.clone() else { continue };
            for lora in &asked {
                if !names.contains_key(&lora.name) {
                    let (name, found) = find(lora, &places, observer).map_err(|error| wish.named(error))?;
                    names.insert(lora.name.clone(), name.clone());
                    source.found.entry(name).or_insert(found);
                }
            }
            let named = |lora: LoraChoice| LoraChoice { name: names[&lora.name].clone(), ..lora };
            wish.asked.wanted.lora = Some(Loras(asked.into_iter().map(named).collect()));
        }
        Ok(source)
    }

    /// Fetches what is not here, and has the pictures say what the files hold. Tells of files that are not those a picture
    /// was made with.
    ///
    /// # Errors
    /// What fetching and reading may fail with.
    pub fn fetch(&mut self, planned: &mut [Planned], observer: &dyn Observer) -> Result<()> {
        let mut sums = BTreeMap::new();
        for (name, found) in &mut self.found {
            sums.insert(name.clone(), sha256_of(&found.fetch(observer)?)?);
        }
        let mut others = Vec::new();
        for lora in
            planned.iter_mut().filter_map(|one| one.wish.asked.wanted.lora.as_mut()).flat_map(|loras| &mut loras.0)
        {
            let found = sums.get(&lora.name).cloned();
            if lora.sha256.is_some() && lora.sha256 != found && !others.contains(&lora.name) {
                others.push(lora.name.clone());
            }
            lora.sha256 = found;
        }
        for name in others {
            observer.on(Event::Note(format!(
                "the LoRA {name} is not the one the picture was made with: the picture comes out otherwise"
            )));
        }
        Ok(())
    }

    /// The model with the files of each picture that has some. Tells, once each, of what in them changes nothing.
    ///
    /// # Errors
    /// As [`adapt`].
    pub fn models(&self, planned: &[Planned], model: &dyn Model, observer: &dyn Observer) -> Result<Vec<Adapted>> {
        let (mut adapted, mut once): (Vec<Adapted>, _) = (Vec::new(), Once::new(observer));
        for wish in planned.iter().map(|one| &one.wish) {
            let Some(loras) = wish.asked.wanted.lora.as_ref().filter(|loras| !loras.0.is_empty()) else { continue };
            if adapted.iter().any(|(known, _)| known == loras) {
                continue;
            }
            let file = |lora: &LoraChoice| Some((self.found.get(&lora.name)?.file.clone(), lora.strength));
            let files: Vec<_> = loras.0.iter().filter_map(file).collect();
            let adaptation = adapt(model, &files).map_err(|error| wish.named(error))?;
            adaptation.remarks.into_iter().for_each(|remark| once.note(remark));
            adapted.push((loras.clone(), model.with_sources(adaptation.sources)?));
        }
        Ok(adapted)
    }

    /// Whether all files are here.
    pub fn is_here(&self) -> bool {
        self.missing().next().is_none()
    }

    /// What must be fetched of the Hub.
    pub fn missing(&self) -> impl Iterator<Item = &DownloadPlan> {
        self.found.values().filter_map(Found::missing)
    }
}

/// A model, and the weights that all that is made of it shares.
pub type Shared = (Box<dyn Model>, Option<Arc<Kept>>);

/// A model whose pictures are made with one set of files and then another: all that is made of it shares its transformer's weights,
/// which are held here. The model as it is, where one set serves all.
///
/// # Errors
/// What the model fails with.
pub fn shared(model: Box<dyn Model>, planned: &[Planned], device: &Device) -> Result<Shared> {
    let loras = |one: &Planned| one.wish.asked.wanted.lora.clone().unwrap_or_default();
    let several = planned.windows(2).any(|pair| loras(&pair[0]) != loras(&pair[1]));
    let networks = if several { model.networks()? } else { Vec::new() };
    let Some(transformer) = networks.iter().find(|network| network.part == TRANSFORMER) else {
        return Ok((model, None));
    };
    let kept = Arc::new(Kept::new(Arc::clone(&transformer.source), device));
    let source = |network: &Network| -> Arc<dyn TensorSource> {
        if network.part == TRANSFORMER { kept.clone() } else { Arc::clone(&network.source) }
    };
    let model = model.with_sources(networks.iter().map(source).collect())?;
    Ok((model, Some(kept)))
}

/// The files of these names, each with its strength; nothing but headers is fetched.
///
/// # Errors
/// As [`LoraSource::find`].
pub fn find_each<'a>(
    loras: impl Iterator<Item = &'a LoraChoice>,
    model: &str,
    search: &SearchArgs,
    observer: &dyn Observer,
) -> Result<Vec<(Found, f64)>> {
    let places = Places { model: Path::new(model), search };
    loras.map(|lora| Ok((find(lora, &places, observer)?.1, lora.strength))).collect()
}

impl Found {
    /// The file as it is known: of one that is not here, its header.
    pub fn file(&self) -> &LoraFile {
        &self.file
    }

    /// What must be fetched of it.
    pub fn missing(&self) -> Option<&DownloadPlan> {
        match &self.place {
            Place::Hub(place) if place.1.bytes_to_fetch > 0 => Some(&place.1),
            _ => None,
        }
    }

    /// Brings it here; gives its path.
    ///
    /// # Errors
    /// What fetching and reading may fail with.
    pub fn fetch(&mut self, observer: &dyn Observer) -> Result<PathBuf> {
        match &self.place {
            Place::File(path) => Ok(path.clone()),
            Place::Hub(place) => {
                let (hub, plan) = &**place;
                let path = hub.fetch(plan, observer)?.join(weights_of(plan));
                self.file = LoraFile::open(&path, &Files::default())?;
                Ok(path)
            }
        }
    }
}

/// Where files are looked for.
struct Places<'a> {
    /// The model, as it was named: folders of LoRA files may lie around it.
    model: &'a Path,
    search: &'a SearchArgs,
}

impl Places<'_> {
    /// The file of this name in a folder of LoRA files.
    fn called(&self, name: &str) -> Result<Option<PathBuf>> {
        let (found, looked) = loras_called(name, self.model, &self.search.dirs())?;
        let found: Vec<PathBuf> = found.into_iter().collect();
        let shown =
            |paths: &[PathBuf]| paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        match found.as_slice() {
            [one] => Ok(Some(one.clone())),
            [] if name.parse::<HubFile>().is_ok() => Ok(None),
            [] => {
                let looked = if looked.is_empty() { String::new() } else { format!(" (looked in {})", shown(&looked)) };
                let what = format!("--lora {name}: there is no such file{looked}, and it is no Hub id");
                Err(Error::request(what, HINT))
            }
            several => {
                let what = format!("--lora {name}: several files are called so: {}", shown(several));
                Err(Error::request(what, "name the one that is meant with its folder, or by its path"))
            }
        }
    }
}

/// A file by the name it was asked for: the name that holds from everywhere, and what is known of it.
fn find(lora: &LoraChoice, places: &Places<'_>, observer: &dyn Observer) -> Result<(String, Found)> {
    let (asked, path) = (lora.name.as_str(), Path::new(&lora.name));
    if path.is_dir() {
        let what = format!("--lora {asked} is a folder");
        return Err(Error::request(what, "name the .safetensors file in it"));
    }
    check_strength(lora)?;
    let here = if path.exists() { Some(path.to_path_buf()) } else { places.called(asked)? };
    if let Some(path) = here {
        let path = std::path::absolute(&path).unwrap_or(path);
        let file = LoraFile::open(&path, &Files::default())?;
        return Ok((path.display().to_string(), Found { place: Place::File(path), file }));
    }
    let HubFile { model, path: file } = asked.parse()?;
    let hub = places.search.hub()?;
    let plan = hub.plan(&model, &LoraFiles { file }, observer)?;
    let name = weights_of(&plan);
    let here = hub.peek(&plan, observer)?;
    let path = match plan.bytes_to_fetch {
        0 => hub.fetch(&plan, observer)?.join(&name),
        _ => plan.snapshot.join(&name),
    };
    let file = LoraFile::open(&path, &here)?;
    let asked = HubFile { model, path: Some(name) };
    Ok((asked.to_string(), Found { place: Place::Hub(Box::new((hub, plan))), file }))
}

/// Refuses what is no file and was meant otherwise than it is read: a file whose own name ends like a strength, and behind a file's
/// name what is no strength.
fn check_strength(lora: &LoraChoice) -> Result<()> {
    let is_file = |name: &str| Path::new(name).is_file();
    if is_file(&lora.name) {
        return Ok(());
    }
    let whole = lora.to_string();
    if is_file(&whole) {
        let what = format!("--lora {whole}: there is no file {}, but one that is called {whole}", lora.name);
        return Err(Error::request(what, format!("put its strength behind its name: --lora {whole}:1")));
    }
    match lora.name.rsplit_once(':') {
        Some((file, end)) if is_file(file) => {
            let what = format!("--lora {}: {end:?} is no strength of {file}", lora.name);
            Err(Error::request(what, format!("put a number from -100 to 100 behind the colon: --lora {file}:0.5")))
        }
        _ => Ok(()),
    }
}

/// The one file of a plan.
fn weights_of(plan: &DownloadPlan) -> String {
    let weights = plan.files.iter().find(|file| file.path.ends_with(".safetensors"));
    weights.map(|file| file.path.clone()).unwrap_or_default()
}

/// The LoRA of a repository: the file that is named, else the only one there is; with peft's the settings beside it.
struct LoraFiles {
    file: Option<String>,
}

impl LoraFiles {
    fn weights(&self, listing: &[String]) -> Result<String, String> {
        let weights: Vec<&String> = listing.iter().filter(|path| path.ends_with(".safetensors")).collect();
        let shown = || shown(&weights, SHOWN);
        if let Some(wanted) = &self.file {
            let is_it = |path: &&&String| **path == wanted || path.strip_suffix(".safetensors") == Some(wanted);
            return match weights.iter().find(is_it) {
                Some(path) => Ok((*path).clone()),
                None if weights.is_empty() => Err("no .safetensors file".into()),
                None => Err(format!("no {wanted}; it has {}", shown())),
            };
        }
        let usual = weights.iter().find(|path| path.as_str() == USUAL_NAME);
        match (usual, weights.as_slice()) {
            (Some(path), _) | (None, [path]) => Ok((*path).clone()),
            (None, []) => Err("no .safetensors file".into()),
            (None, several) => Err(format!("{} files, of which one is to be named: {}", several.len(), shown())),
        }
    }
}

impl FileSet for LoraFiles {
    fn select(&self, listing: &[String]) -> Result<Vec<String>, String> {
        let weights = self.weights(listing)?;
        let settings = peft_settings(&weights).filter(|settings| listing.contains(settings));
        Ok([weights].into_iter().chain(settings).collect())
    }

    fn missing(&self, snapshot: &Path) -> Option<String> {
        self.select(&paths_below(snapshot).unwrap_or_default()).err()
    }
}
