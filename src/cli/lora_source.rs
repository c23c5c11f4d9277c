//! From `--lora` to files on this disk, to the models they make of another, and to what pictures say of them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    items::{Planned, Wish},
    search_args::SearchArgs,
};
use crate::{
    base::progress::{Event, Observer},
    error::{Error, Result},
    hub::{DownloadPlan, FileSet, Hub, HubFile, paths_below},
    models::{Model, adapt},
    recipe::{LoraChoice, Loras},
    run::Adapted,
    weights::{
        Files,
        lora::{LoraFile, peft_settings, sha256_of},
    },
};

/// What diffusers calls the one file of a repository.
const USUAL_NAME: &str = "pytorch_lora_weights.safetensors";
/// Files of a repository that a message shows.
const SHOWN: usize = 5;
const HINT: &str = "give a .safetensors file, or a Hub id such as OWNER/NAME or OWNER/NAME:FILE.safetensors";

/// The LoRA files of a run, by the names pictures say.
#[derive(Default)]
pub struct LoraSource {
    found: BTreeMap<String, Found>,
}

/// Where a file is, or will be, and what its header says.
struct Found {
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
    pub fn find(wishes: &mut [Wish], search: &SearchArgs, observer: &dyn Observer) -> Result<Self> {
        let mut source = Self::default();
        let mut names: BTreeMap<String, String> = BTreeMap::new();
        for wish in wishes {
            let Some(Loras(asked)) = wish.asked.wanted.lora.clone() else { continue };
            for lora in &asked {
                if !names.contains_key(&lora.name) {
                    let (name, found) = find(&lora.name, search, observer).map_err(|error| wish.named(error))?;
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
            let path = match &found.place {
                Place::File(path) => path.clone(),
                Place::Hub(place) => {
                    let (hub, plan) = &**place;
                    let path = hub.fetch(plan, observer)?.join(weights_of(plan));
                    found.file = LoraFile::open(&path, &Files::default())?;
                    path
                }
            };
            sums.insert(name.clone(), sha256_of(&path)?);
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
        let mut adapted: Vec<Adapted> = Vec::new();
        let mut told = Vec::new();
        for wish in planned.iter().map(|one| &one.wish) {
            let Some(loras) = wish.asked.wanted.lora.as_ref().filter(|loras| !loras.0.is_empty()) else { continue };
            if adapted.iter().any(|(known, _)| known == loras) {
                continue;
            }
            let file = |lora: &LoraChoice| Some((self.found.get(&lora.name)?.file.clone(), lora.strength));
            let files: Vec<_> = loras.0.iter().filter_map(file).collect();
            let adaptation = adapt(model, &files).map_err(|error| wish.named(error))?;
            for remark in adaptation.remarks.into_iter().filter(|remark| !told.contains(remark)).collect::<Vec<_>>() {
                observer.on(Event::Note(remark.clone()));
                told.push(remark);
            }
            adapted.push((loras.clone(), model.with_sources(adaptation.sources)?));
        }
        Ok(adapted)
    }

    /// Whether all files are here.
    pub fn is_here(&self) -> bool {
        let is_here = |found: &Found| match &found.place {
            Place::File(_) => true,
            Place::Hub(place) => place.1.bytes_to_fetch == 0,
        };
        self.found.values().all(is_here)
    }

    /// What must be fetched of the Hub.
    pub fn missing(&self) -> impl Iterator<Item = &DownloadPlan> {
        self.found.values().filter_map(|found| match &found.place {
            Place::Hub(place) if place.1.bytes_to_fetch > 0 => Some(&place.1),
            _ => None,
        })
    }
}

/// A file by the name it was asked for: the name that holds from everywhere, and what is known of it.
fn find(asked: &str, search: &SearchArgs, observer: &dyn Observer) -> Result<(String, Found)> {
    let path = Path::new(asked);
    if path.is_dir() {
        let what = format!("--lora {asked} is a folder");
        return Err(Error::request(what, "name the .safetensors file in it"));
    }
    if path.exists() {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        let file = LoraFile::open(&path, &Files::default())?;
        return Ok((path.display().to_string(), Found { place: Place::File(path), file }));
    }
    let HubFile { model, path: file } = asked
        .parse()
        .map_err(|_| Error::request(format!("--lora {asked}: there is no such file, and it is no Hub id"), HINT))?;
    let hub = search.hub()?;
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
        let shown = || {
            let more =
                if weights.len() > SHOWN { format!(" and {} more", weights.len() - SHOWN) } else { String::new() };
            let names: Vec<&str> = weights.iter().take(SHOWN).map(|path| path.as_str()).collect();
            format!("{}{more}", names.join(", "))
        };
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

    fn instead(&self) -> &'static str {
        "name one of its files behind a colon: OWNER/NAME:FILE"
    }

    fn missing(&self, snapshot: &Path) -> Option<String> {
        self.select(&paths_below(snapshot).unwrap_or_default()).err()
    }
}
