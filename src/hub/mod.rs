//! Models from the Hugging Face Hub, in the cache that Python's `huggingface_hub` uses.
//!
//! [`Hub::plan`] finds out what a model needs, what is here already and what must come, without fetching it;
//! [`Hub::fetch`] brings it. An existing download of Python's is used as it is.

mod ask;
mod cache;
mod client;
mod copies;
mod download;
mod expand;
mod failure;
mod file_id;
mod listing;
mod model_id;
mod part;
mod peek;
mod request;
mod settings;

use std::path::{Path, PathBuf};

use self::{
    ask::Question,
    cache::RepoCache,
    client::{block_on, hf_client},
    copies::{Copies, Copy, CopyOf},
    download::{Downloader, Meter},
    failure::GaveUp,
};
use crate::{
    base::{
        disk::free_bytes_at,
        progress::{Event, Observer, Stage},
    },
    error::{Error, Result},
    weights::{Files, has_weights_ending},
};

pub use cache::paths_below;
pub use file_id::{HubFile, OneFile};
pub use model_id::HubModel;
pub use settings::{HubSettings, Token};

/// The files somebody needs from a repository.
pub trait FileSet {
    /// Which of a repository's files (paths with `/` from its root) are needed.
    ///
    /// # Errors
    /// What the repository lacks, in words, when it cannot be what is looked for.
    fn select(&self, listing: &[String]) -> Result<Vec<String>, String>;

    /// The first thing that `snapshot`, a local copy of the repository, lacks; `None` when it is complete.
    fn missing(&self, snapshot: &Path) -> Option<String>;

    /// What to name in place of a repository that lacks them.
    fn instead(&self) -> &'static str {
        "name one of its files behind a colon: OWNER/NAME:FILE"
    }
}

/// One file of a [`DownloadPlan`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedFile {
    /// Path in the repository, with `/`.
    pub path: String,
    /// Its size.
    pub size_bytes: u64,
    /// Whether it is on this machine already.
    pub cached: bool,
    /// The name of its contents: sha256 (64 hexadecimal digits) or git's blob id (40); may be empty for a file that is
    /// cached and was never asked for.
    pub etag: String,
}

/// What a model needs and what of it must be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownloadPlan {
    /// The model.
    pub model: HubModel,
    /// The commit its revision points to.
    pub commit: String,
    /// The folder that holds the files, or will.
    pub snapshot: PathBuf,
    /// All files that are needed.
    pub files: Vec<PlannedFile>,
    /// Bytes that must be fetched; what an interrupted run has left is not counted.
    pub bytes_to_fetch: u64,
    /// Free space on the disk of the cache, where the system says.
    pub disk_free_bytes: Option<u64>,
    /// Whether the Hub itself told the commit.
    is_answer: bool,
}

impl DownloadPlan {
    /// The part of it that is small: everything but weights.
    #[must_use]
    pub fn without_weights(&self) -> Self {
        let files = self.files.iter().filter(|file| !has_weights_ending(&file.path)).cloned();
        let files: Vec<PlannedFile> = files.collect();
        let bytes_to_fetch = files.iter().filter(|file| !file.cached).map(|file| file.size_bytes).sum();
        Self { files, bytes_to_fetch, is_answer: false, ..self.clone() }
    }

    /// Whether the disk has room for what must be fetched.
    ///
    /// # Errors
    /// [`Error::Disk`] with both numbers when it has not.
    pub fn check_disk(&self) -> Result<()> {
        Self::check_disk_for(&[self])
    }

    /// Whether the disk of the cache has room for what must be fetched of all these.
    ///
    /// # Errors
    /// As [`DownloadPlan::check_disk`].
    pub fn check_disk_for(plans: &[&Self]) -> Result<()> {
        let Some(first) = plans.first() else { return Ok(()) };
        let bytes = plans.iter().map(|plan| plan.bytes_to_fetch).sum();
        match first.disk_free_bytes {
            Some(free) if free < bytes => {
                let models: Vec<_> = plans.iter().map(|plan| plan.model.to_string()).collect();
                let (needed, free) = (gigabytes(bytes), gigabytes(free));
                let reason = format!("{needed} are to be fetched for {}, {free} are free", models.join(", "));
                let source = std::io::Error::new(std::io::ErrorKind::StorageFull, reason);
                Err(Error::disk("not enough space for", &first.snapshot, source))
            }
            _ => Ok(()),
        }
    }
}

/// How much of a model is in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyState {
    /// All that a picture needs.
    Complete,
    /// Something of it.
    Partly,
    /// Nothing.
    None,
}

/// The way to the Hub and its cache on this machine. Blocking; may be used inside an async runtime too.
#[derive(Debug, Clone)]
pub struct Hub {
    settings: HubSettings,
}

impl Hub {
    /// The Hub these settings describe.
    pub fn new(settings: HubSettings) -> Self {
        Self { settings }
    }

    /// Whether nothing is fetched.
    pub fn is_offline(&self) -> bool {
        self.settings.offline
    }

    /// Finds out which files of `model` are needed, which are here, and how much must be fetched.
    ///
    /// No request is made when the model is named by a commit, or in offline mode, and all is here. When the Hub cannot be
    /// reached or refuses, or the cache is read-only, and a complete copy is here, that is used, with an [`Event::Warning`]
    /// that names its commit: the copy of the revision that was asked for, or the latest of any where none was named.
    ///
    /// # Errors
    /// [`Error::Network`] when the Hub cannot be reached or refuses, or in offline mode without a complete copy;
    /// [`Error::Model`] when the repository is of another kind; [`Error::Disk`] when the cache cannot be read.
    pub fn plan(
        &self,
        model: &HubModel,
        files: &(dyn FileSet + Sync),
        observer: &dyn Observer,
    ) -> Result<DownloadPlan> {
        let cache = RepoCache::new(&self.settings.cache_dir, model);
        let copies = Copies::find(&cache, model, files);
        match &copies.usable {
            Some(copy) if copy.of == CopyOf::Commit => self.plan_from_copy(model, &cache, &copy.commit, files),
            None if self.settings.offline => Err(self.offline(model, &copies)),
            Some(copy) if self.settings.offline => {
                if copy.of == CopyOf::Model {
                    observer.on(Event::Warning(copies.stands_in(model)));
                }
                self.plan_from_copy(model, &cache, &copy.commit, files)
            }
            usable => {
                let has_copy = usable.is_some();
                let question = Question { settings: &self.settings, model, files, cache: &cache, observer, has_copy };
                let found = block_on(|| question.ask());
                self.plan_from_answer(model, &cache, found, usable.as_ref(), files, observer)
            }
        }
    }

    /// What the Hub says, or the copy here where that cannot be had: the answer, or the place for what is new.
    fn plan_from_answer(
        &self,
        model: &HubModel,
        cache: &RepoCache,
        found: Result<(String, Vec<PlannedFile>), GaveUp>,
        copy: Option<&Copy>,
        files: &dyn FileSet,
        observer: &dyn Observer,
    ) -> Result<DownloadPlan> {
        let why = match found {
            Ok((commit, planned)) => {
                let has_new = planned.iter().any(|file| !cache.in_snapshot(&commit, file));
                if copy.is_none() || !has_new || cache.is_writable(&commit) {
                    return Ok(self.plan_of(model, cache, commit, planned, true));
                }
                let place = self.settings.cache_dir.display();
                format!("commit {} of {model} cannot be put into {place}, which is read-only", &commit[..7])
            }
            Err(gave_up) => match (gave_up.into_error(), copy) {
                (error @ (Error::Network { .. } | Error::Model { .. }), Some(_)) => error.to_string(),
                (error, _) => return Err(error),
            },
        };
        let commit = copy.map(|copy| copy.commit.as_str()).unwrap_or_default();
        let advice = "set HF_HUB_OFFLINE=1 to use it without asking";
        observer.on(Event::Warning(format!("{why}; using the copy of commit {} ({advice})", &commit[..7])));
        self.plan_from_copy(model, cache, commit, files)
    }

    /// What of these files of `model` is in the cache, without asking anybody.
    pub fn copy(&self, model: &HubModel, files: &dyn FileSet) -> CopyState {
        let cache = RepoCache::new(&self.settings.cache_dir, model);
        match Copies::find(&cache, model, files).usable {
            Some(_) => CopyState::Complete,
            None if cache.is_begun() => CopyState::Partly,
            None => CopyState::None,
        }
    }

    /// What is known of the files of `plan` before they are fetched: configs, and the headers of weights. Nothing is written.
    ///
    /// # Errors
    /// [`Error::Network`] when the Hub refuses or stays unreachable after all attempts, or in offline mode when something is
    /// not here; [`Error::Disk`] when the cache cannot be read.
    pub fn peek(&self, plan: &DownloadPlan, observer: &dyn Observer) -> Result<Files> {
        let cache = RepoCache::new(&self.settings.cache_dir, &plan.model);
        let absent: Vec<_> = plan.files.iter().filter(|file| !cache.in_snapshot(&plan.commit, file)).collect();
        if self.settings.offline && absent.iter().any(|file| !cache.has_blob(file)) {
            return Err(self.offline(&plan.model, &Copies::lacking_only(&absent)));
        }
        if absent.is_empty() {
            return Ok(Files::default());
        }
        let known = block_on(|| async { self.downloader(plan, &cache, observer)?.peek(&absent).await })?;
        Ok(Files::with(known))
    }

    fn downloader<'a>(
        &'a self,
        plan: &'a DownloadPlan,
        cache: &'a RepoCache,
        observer: &'a dyn Observer,
    ) -> Result<Downloader<'a>> {
        let repo = hf_client(&self.settings)?.model(plan.model.owner(), plan.model.name());
        let (model, commit, settings) = (&plan.model, plan.commit.as_str(), &self.settings);
        Ok(Downloader { repo, model, commit, cache, settings, observer })
    }

    /// Fetches what `plan` lacks and returns the folder that then holds all its files.
    ///
    /// What arrives is kept across interruptions and goes on from there. A file gets its place only when it has the
    /// size and, where the Hub tells one, the sha256 it must have.
    ///
    /// # Errors
    /// [`Error::Disk`] when space does not suffice or a file cannot be written; [`Error::Network`] when the Hub refuses,
    /// stays unreachable after all attempts, or sends wrong contents.
    pub fn fetch(&self, plan: &DownloadPlan, observer: &dyn Observer) -> Result<PathBuf> {
        let cache = RepoCache::new(&self.settings.cache_dir, &plan.model);
        let absent: Vec<_> = plan.files.iter().filter(|file| !cache.in_snapshot(&plan.commit, file)).collect();
        let remote: Vec<_> = absent.iter().copied().filter(|file| !cache.has_blob(file)).collect();
        if !remote.is_empty() {
            plan.check_disk()?;
            self.fetch_blobs(plan, &remote, &cache, observer)?;
        }
        for file in absent {
            cache.link(&plan.commit, file)?;
        }
        if plan.is_answer {
            // Where it cannot be noted, the Hub is asked again the next time.
            cache.remember_commit(&plan.model, &plan.commit).ok();
        }
        Ok(plan.snapshot.clone())
    }

    fn fetch_blobs(
        &self,
        plan: &DownloadPlan,
        files: &[&PlannedFile],
        cache: &RepoCache,
        observer: &dyn Observer,
    ) -> Result<()> {
        if self.settings.offline {
            return Err(self.offline(&plan.model, &Copies::lacking_only(files)));
        }
        let total = files.iter().map(|file| file.size_bytes).sum();
        observer.on(Event::Begin { stage: Stage::Download, total });
        block_on(|| async {
            let downloader = self.downloader(plan, cache, observer)?;
            let mut meter = Meter::new(observer);
            for file in files {
                downloader.fetch(file, &mut meter).await?;
                meter.finish(file);
            }
            Ok::<(), Error>(())
        })?;
        let detail = format!("{} files of {}, {}", files.len(), plan.model, gigabytes(total));
        observer.on(Event::End { stage: Stage::Download, detail });
        Ok(())
    }

    fn plan_from_copy(
        &self,
        model: &HubModel,
        cache: &RepoCache,
        commit: &str,
        files: &dyn FileSet,
    ) -> Result<DownloadPlan> {
        let mut here = cache.list(commit)?;
        let paths: Vec<String> = here.iter().map(|file| file.path.clone()).collect();
        if let Ok(wanted) = files.select(&paths) {
            here.retain(|file| wanted.contains(&file.path));
        }
        Ok(self.plan_of(model, cache, commit.to_owned(), here, false))
    }

    fn plan_of(
        &self,
        model: &HubModel,
        cache: &RepoCache,
        commit: String,
        files: Vec<PlannedFile>,
        is_answer: bool,
    ) -> DownloadPlan {
        let absent = files.iter().filter(|file| !file.cached);
        DownloadPlan {
            model: model.clone(),
            snapshot: cache.snapshot(&commit),
            commit,
            bytes_to_fetch: absent.map(|file| file.size_bytes - cache.bytes_begun(file)).sum(),
            disk_free_bytes: free_bytes_at(&self.settings.cache_dir),
            files,
            is_answer,
        }
    }

    fn offline(&self, model: &HubModel, copies: &Copies) -> Error {
        let cache = self.settings.cache_dir.display();
        let what = match &copies.lacking {
            Some(lacks) => {
                format!("--offline or HF_HUB_OFFLINE is set, and the copy of {model} in {cache} lacks {lacks}")
            }
            None => format!("--offline or HF_HUB_OFFLINE is set, and there is no copy of {model} in {cache}"),
        };
        let hint = "leave out --offline or unset HF_HUB_OFFLINE to fetch it, set HF_HOME to the folder that holds it, or give a local folder";
        let hint = match copies.others.first() {
            Some(commit) => format!("{hint}; there is a complete copy of {}@{}", model.repo(), &commit[..7]),
            None => hint.into(),
        };
        Error::Network { what, hint }
    }
}

/// A size for people, in powers of ten: "34.1 GB".
fn gigabytes(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} bytes"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        let sizes = [999, 1_500, 2_340_000, 34_100_000_000].map(gigabytes);
        assert_eq!(sizes, ["999 bytes", "1.5 kB", "2.3 MB", "34.1 GB"]);
    }
}
