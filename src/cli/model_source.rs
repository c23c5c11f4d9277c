//! From `--model` and its parts to files on this disk.

mod parts;

use std::path::{Path, PathBuf};

use candle_core::{DType, Device};

use super::{
    args::{DEFAULT_MODEL, ModelArgs},
    loans::Loan,
    search_args::SearchArgs,
};
use crate::{
    base::progress::Observer,
    error::{Error, Result},
    hub::{DownloadPlan, FileSet, Hub, HubFile, OneFile},
    models::{Family, Model, ModelRequest, On, PartSpec, Published, Registry, RepositoryFiles, demo},
    weights::Files,
};

pub use parts::{autoencoder, facts, network, token_reading, tokens};

/// Where the model comes from: this disk, the model inside this program among it, or the Hub; and parts that come from elsewhere.
pub struct ModelSource {
    /// What to open once all is here.
    request: ModelRequest,
    /// The way to the Hub, for a model of it.
    hub: Option<(Hub, DownloadPlan)>,
    /// Parts from other repositories.
    loans: Vec<Loan>,
    search: SearchArgs,
    /// The model as it was named.
    name: String,
    /// What it is planned by, where it cannot be had.
    stands_in: Option<StandsIn>,
}

/// A published model's configs inside this program, and why they stand in for its files.
pub struct StandsIn {
    /// The model.
    pub published: &'static Published,
    why: Error,
}

/// A model, and what there is to tell of where its parts were found.
pub struct Opened {
    /// The model.
    pub model: Box<dyn Model>,
    /// What there is to tell.
    pub remarks: Vec<String>,
}

impl ModelSource {
    /// Decides what `--model` names; asks the Hub for sizes, fetches nothing.
    ///
    /// # Errors
    /// [`crate::Error::Request`] for what names neither a path nor a Hub id, [`crate::Error::Network`] when the Hub does not answer.
    pub fn find(args: &ModelArgs, observer: &dyn Observer) -> Result<Self> {
        Self::find_or(args, observer, Err)
    }

    /// The same for a run that is only planned: a published model that cannot be asked for, for whatever reason of the network or of
    /// its licence, is planned by the configs inside this program.
    ///
    /// # Errors
    /// As [`ModelSource::find`], for every other model.
    pub fn find_to_plan(args: &ModelArgs, observer: &dyn Observer) -> Result<Self> {
        Self::find_or(args, observer, |error| {
            let Some((family, published)) = stand_in(&args.model, &error) else { return Err(error) };
            let request = ModelRequest { dirs: args.search.dirs(), ..published.request(family)? };
            let (search, name) = (args.search.clone(), args.model.clone());
            let stands_in = Some(StandsIn { published, why: error });
            Ok(Self { request, hub: None, stands_in, loans: Vec::new(), search, name })
        })
    }

    fn find_or(
        args: &ModelArgs,
        observer: &dyn Observer,
        otherwise: impl FnOnce(Error) -> Result<Self>,
    ) -> Result<Self> {
        // Parts that come from elsewhere need not be fetched.
        let elsewhere = |part: &PartSpec| args.parts.parts.contains_key(part.name);
        let files = RepositoryFiles::without(Registry::default().families(), elsewhere);
        let mut source =
            Self::named(&args.model, &files, args.variant.as_deref(), &args.search, observer).or_else(otherwise)?;
        for (part, path) in &args.parts.parts {
            match Loan::given(part, path, &args.search, observer)? {
                Some(loan) => source.borrow(loan),
                None => drop(source.request.parts.insert(part.clone(), path.clone())),
            }
        }
        source.borrow_lacking(|_| true, observer)?;
        Ok(source)
    }

    /// The model of a name, without parts from elsewhere.
    fn named(
        name: &str,
        files: &RepositoryFiles,
        variant: Option<&str>,
        search: &SearchArgs,
        observer: &dyn Observer,
    ) -> Result<Self> {
        let dirs = search.dirs();
        let request = |model| ModelRequest {
            dirs: dirs.clone(),
            files: Files::default().in_variant(variant.map(str::to_owned)),
            ..ModelRequest::new(model)
        };
        let source = |request, hub| Self {
            request,
            hub,
            loans: Vec::new(),
            search: search.clone(),
            name: name.to_owned(),
            stands_in: None,
        };
        if let Some(folder) = demo_folder(name)? {
            let named = Some((demo::NAME.to_owned(), demo::revision().to_owned()));
            return Ok(source(ModelRequest { name: named, ..request(folder) }, None));
        }
        if Path::new(name).exists() {
            return Ok(source(request(name.into()), None));
        }
        let HubFile { model, path } = name.parse()?;
        let hub = search.hub()?;
        let one = path.clone().map(OneFile);
        let whole = files.clone().in_variant(variant.map(str::to_owned));
        let files: &(dyn FileSet + Sync) = one.as_ref().map_or(&whole, |one| one);
        let plan = hub.plan(&model, files, observer).map_err(|error| or_the_demo(name, error))?;
        let folder = plan.snapshot.clone();
        let (model, called) = match path {
            Some(path) => (folder.join(&path), format!("{}:{path}", plan.model.repo())),
            None => (folder, plan.model.repo()),
        };
        let named = Some((called, plan.commit.clone()));
        Ok(source(ModelRequest { name: named, ..request(model) }, Some((hub, plan))))
    }

    fn borrow(&mut self, loan: Loan) {
        self.request.lent.insert(loan.part.clone(), loan.lent.clone());
        self.loans.push(loan);
    }

    /// Finds who lends the parts that a single file lacks, of those that `wanted` takes.
    fn borrow_lacking(&mut self, wanted: impl Fn(&PartSpec) -> bool, observer: &dyn Observer) -> Result<()> {
        if self.is_repository() || self.request.files.is_dir(&self.request.model) {
            return Ok(());
        }
        let request = ModelRequest { files: self.peek(observer)?, ..self.request.clone() };
        let mut is_refused = false;
        for lacking in Registry::default().lacking(&request, &wanted)? {
            match Loan::of(&lacking, &self.search, observer) {
                Ok(Some(loan)) => self.borrow(loan),
                Ok(None) => is_refused |= lacking.part.lenders.iter().any(|lender| lender.is_open),
                Err(error) => return Err(not_fetched(&error, &request)),
            }
        }
        if is_refused && self.search.hub()?.is_offline() {
            let offline = Error::model("nothing is fetched, for --offline or HF_HUB_OFFLINE is set", "");
            let request = ModelRequest { lent: self.request.lent.clone(), ..request };
            return Err(not_fetched(&offline, &request));
        }
        Ok(())
    }

    /// Whether it is a whole repository of the Hub, not one of its files.
    fn is_repository(&self) -> bool {
        self.hub.as_ref().is_some_and(|(_, plan)| self.request.model == plan.snapshot)
    }

    /// All that is fetched, or is here already.
    fn plans(&self) -> impl Iterator<Item = &DownloadPlan> {
        self.hub.iter().map(|(_, plan)| plan).chain(self.loans.iter().map(|loan| &loan.plan))
    }

    /// What must be fetched; nothing where all of it is here.
    pub fn missing(&self) -> Vec<&DownloadPlan> {
        self.plans().filter(|plan| plan.bytes_to_fetch > 0).collect()
    }

    /// What is known of the files that are not here yet.
    fn peek(&self, observer: &dyn Observer) -> Result<Files> {
        let mut files = self.request.files.clone();
        if let Some((hub, plan)) = &self.hub {
            let known = hub.peek(plan, observer).map_err(|error| or_the_demo(&self.name, error))?;
            files = files.and(&known);
        }
        for loan in &self.loans {
            files = files.and(&match &loan.known {
                Some(known) => known.clone(),
                None => self.search.hub()?.peek(&loan.plan, observer)?,
            });
        }
        Ok(files)
    }

    /// The model as its configs and the headers of its weights describe it, whatever of it is here: enough to plan a run, or to
    /// refuse one before anything is fetched.
    ///
    /// # Errors
    /// What asking the Hub and opening may fail with.
    pub fn look(&self, observer: &dyn Observer) -> Result<Opened> {
        open(&self.ahead(observer)?)
    }

    /// What to open, with what is known of the files that are not here yet.
    ///
    /// # Errors
    /// What asking the Hub may fail with.
    pub fn ahead(&self, observer: &dyn Observer) -> Result<ModelRequest> {
        Ok(ModelRequest { files: self.peek(observer)?, ..self.request.clone() })
    }

    /// The same for a plan alone: weights and tokenizers that are nowhere are as the model's configs say, and where these cannot be had
    /// of a published model, as those inside this program say. Both is told.
    ///
    /// # Errors
    /// As [`ModelSource::look`], for what no config tells.
    pub fn look_to_plan(&self, observer: &dyn Observer) -> Result<Opened> {
        let mut remarks = Vec::new();
        let told =
            |why: &Error, repo: &str| format!("{why}; planned by the configs of {repo} that are inside this program");
        let request = match (&self.stands_in, self.peek(observer)) {
            (Some(StandsIn { published, why }), files) => {
                remarks.push(told(why, published.repo));
                ModelRequest { files: files?, ..self.request.clone() }
            }
            (None, Ok(files)) => ModelRequest { files, ..self.request.clone() },
            (None, Err(why)) => {
                let known = stand_in(&self.name, &why).filter(|_| self.is_repository());
                let Some((family, published)) = known else { return Err(why) };
                remarks.push(told(&why, published.repo));
                let ModelRequest { model, files, .. } = published.request(family)?;
                ModelRequest { model, files, ..self.request.clone() }
            }
        };
        let (request, by_configs) = Registry::default().by_configs(&request)?;
        let opened = open(&request)?;
        remarks.extend(by_configs.into_iter().chain(opened.remarks));
        Ok(Opened { remarks, ..opened })
    }

    /// The published model whose configs stand in for its files, of which nothing could be asked.
    pub fn stands_in(&self) -> Option<&'static Published> {
        self.stands_in.as_ref().map(|stands_in| stands_in.published)
    }

    /// Fetches all that is small and reads the tokenizers, so that a broken one is told of before gigabytes are fetched; `looked`
    /// is what [`ModelSource::look`] saw.
    ///
    /// # Errors
    /// What fetching may fail with, and what [`Model::text`] says of the tokenizers.
    pub fn check_text(&self, looked: &dyn Model, observer: &dyn Observer) -> Result<()> {
        DownloadPlan::check_disk_for(&self.missing())?;
        for plan in self.plans() {
            self.search.hub()?.fetch(&plan.without_weights(), observer)?;
        }
        if self.plans().next().is_none() {
            return Ok(());
        }
        looked.text(&On::new(Device::Cpu, DType::F32)).map(drop)
    }

    /// Fetches what is missing; what is here then is what to open.
    ///
    /// # Errors
    /// What fetching may fail with.
    pub fn fetch(mut self, observer: &dyn Observer) -> Result<ModelRequest> {
        if let Some((hub, plan)) = &self.hub {
            hub.fetch(plan, observer).map_err(|error| or_the_demo(&self.name, error))?;
        }
        self.fetch_loans(observer)?;
        Ok(self.request)
    }

    fn fetch_loans(&mut self, observer: &dyn Observer) -> Result<()> {
        for loan in &mut self.loans {
            self.search.hub()?.fetch(&loan.plan, observer)?;
            // From now on there is more than that.
            loan.known = None;
        }
        Ok(())
    }

    /// Opens the model, fetching what is missing.
    ///
    /// # Errors
    /// What fetching and opening may fail with.
    pub fn open(self, observer: &dyn Observer) -> Result<Opened> {
        open(&self.fetch(observer)?)
    }
}

fn open(request: &ModelRequest) -> Result<Opened> {
    let (family, found) = Registry::default().find(request)?;
    let remarks = found.remarks.clone();
    Ok(Opened { model: family.open(found)?, remarks })
}

/// What this program knows of a published model, to stand in for its files where the network, or whoever guards them, is in the way.
fn stand_in(name: &str, why: &Error) -> Option<(&'static dyn Family, &'static Published)> {
    let is_of_the_hub = matches!(why, Error::Network { .. });
    Registry::default().published().find(|(_, published)| is_of_the_hub && published.repo == name)
}

/// The folder of the model inside this program, when `model` names it. The name wins over a folder `demo` of the user's,
/// which is `./demo`: what the README says works in any folder.
fn demo_folder(model: &str) -> Result<Option<PathBuf>> {
    demo::is_named_by(model)?.then(demo::folder).transpose()
}

/// When the default model cannot be had, there is one that needs no network.
fn or_the_demo(model: &str, error: Error) -> Error {
    match error {
        Error::Network { what, hint } if demo::is_built_in() && model == DEFAULT_MODEL => {
            let demo = "try the model inside this program meanwhile: --model demo --width 1024 --height 1024";
            Error::Network { what, hint: if hint.is_empty() { demo.into() } else { format!("{hint}; or {demo}") } }
        }
        other => other,
    }
}

/// What a single file lacks, and why it cannot be fetched.
fn not_fetched(why: &Error, request: &ModelRequest) -> Error {
    match Registry::default().find(request) {
        Err(Error::Model { what, hint }) => Error::Model { what: format!("{what}; {why}"), hint },
        Err(error) => error,
        Ok(_) => Error::Network { what: why.to_string(), hint: why.hint().unwrap_or_default() },
    }
}
