//! What commands ask of a model that they do not run: facts, tokenizers, a network, the autoencoder; no more of it is fetched.

use std::path::Path;

use candle_core::{DType, Device};

use super::{Loan, ModelSource, SearchArgs, stand_in};
use crate::{
    base::progress::{Event, Observer},
    error::{Error, Result},
    models::{
        AUTOENCODER, Decode, Facts, ForwardOptions, ModelRequest, On, PartKind, PartSpec, Reading, Registry,
        RepositoryFiles,
    },
    nn::WeightsMode,
};

/// The files of the model `name` that `files` takes of a repository, and the parts that `wanted` takes of a single file; of a single
/// file on the Hub itself no more than its header is fetched.
fn request_with(
    name: &str,
    files: &RepositoryFiles,
    wanted: impl Fn(&PartSpec) -> bool,
    search: &SearchArgs,
    observer: &dyn Observer,
) -> Result<ModelRequest> {
    let mut source = ModelSource::named(name, files, None, search, observer)?;
    source.borrow_lacking(wanted, observer)?;
    if source.hub.is_some() && !source.is_repository() {
        source.fetch_loans(observer)?;
        return Ok(ModelRequest { files: source.peek(observer)?, ..source.request });
    }
    source.fetch(observer)
}

/// What the model `name` says about itself; of the Hub's models only two configs are fetched, and where these cannot be had of a
/// published model, those inside this program stand in for them, which is told.
///
/// # Errors
/// What finding, fetching and reading may fail with.
pub fn facts(name: &str, search: &SearchArgs, observer: &dyn Observer) -> Result<Facts> {
    let why = match own_facts(name, search, observer) {
        Err(why) => why,
        found => return found,
    };
    let Some((family, published)) = stand_in(name, &why) else { return Err(why) };
    let told = format!("{why}; these are the configs of {} that are inside this program", published.repo);
    observer.on(Event::Note(told));
    Registry::default().facts(&published.request(family)?)
}

/// The same by the model's own files alone.
fn own_facts(name: &str, search: &SearchArgs, observer: &dyn Observer) -> Result<Facts> {
    let registry = Registry::default();
    let files = RepositoryFiles::dimensions(registry.families());
    registry.facts(&request_with(name, &files, |_| false, search, observer)?)
}

/// What each text encoder of the model `name` reads of a prompt; of the Hub's models only tokenizers and two configs are
/// fetched.
///
/// # Errors
/// What finding, fetching and reading may fail with.
pub fn tokens(
    name: &str,
    prompt: &str,
    asked: Option<usize>,
    search: &SearchArgs,
    observer: &dyn Observer,
) -> Result<Vec<Reading>> {
    let usual = own_facts(name, search, observer)?.recipe.text_tokens;
    let registry = Registry::default();
    let is_tokenizer = |part: &PartSpec| part.kind == PartKind::Tokenizer;
    let files = RepositoryFiles::only(registry.families(), is_tokenizer);
    registry.tokens(&request_with(name, &files, is_tokenizer, search, observer)?, prompt, asked, usual)
}

/// How the model `name` reads a token as one number ([`crate::models::Velocity::token_reading`]). Its weights must be on this disk:
/// nothing large is fetched to look at latents.
///
/// # Errors
/// [`Error::Model`] when its weights are not here; what finding and opening may fail with.
pub fn token_reading(name: &str, search: &SearchArgs, observer: &dyn Observer) -> Result<Vec<f64>> {
    let files = RepositoryFiles::without(Registry::default().families(), |_| false);
    let mut source = ModelSource::named(name, &files, None, search, observer)?;
    source.borrow_lacking(|_| true, observer)?;
    if let Some((hub, plan)) = &source.hub {
        if plan.bytes_to_fetch > 0 {
            let what = format!("{name}: its weights are not on this disk, and latents are read through them");
            return Err(Error::model(what, "make a picture with it first, or give a model that is here with --model"));
        }
        hub.fetch(plan, observer)?;
    }
    let on = On::new(Device::Cpu, DType::F32);
    let model = source.look(observer)?.model;
    model.velocity(&on, WeightsMode::Stream, ForwardOptions::default())?.token_reading(&on.device)
}

/// The model `name` with the network `part` of it, or its transformer, and no more; nothing is fetched.
///
/// # Errors
/// As [`ModelSource::find`].
pub fn network(
    name: &str,
    part: Option<&str>,
    variant: Option<&str>,
    search: &SearchArgs,
    observer: &dyn Observer,
) -> Result<ModelSource> {
    let is_wanted = |spec: &PartSpec| part.map_or(spec.kind == PartKind::Denoiser, |part| spec.name == part);
    let files = RepositoryFiles::only(Registry::default().families(), is_wanted);
    ModelSource::named(name, &files, variant, search, observer)
}

/// The autoencoder of the model `name`, or the one at `vae`; of the Hub's models only that part is fetched.
///
/// # Errors
/// What finding, fetching and opening may fail with.
pub fn autoencoder(
    name: &str,
    vae: Option<&Path>,
    search: &SearchArgs,
    observer: &dyn Observer,
) -> Result<Box<dyn Decode>> {
    let registry = Registry::default();
    if let Some(path) = vae {
        let request = match Loan::given(AUTOENCODER, path, search, observer)? {
            Some(loan) => {
                search.hub()?.fetch(&loan.plan, observer)?;
                ModelRequest::new(loan.lent.path)
            }
            None => ModelRequest::new(path),
        };
        return registry.autoencoder(&ModelRequest { dirs: search.dirs(), ..request });
    }
    let is_autoencoder = |part: &PartSpec| part.name == AUTOENCODER;
    let files = RepositoryFiles::only(registry.families(), is_autoencoder);
    let mut source = ModelSource::named(name, &files, None, search, observer)?;
    if !source.is_repository() && !source.request.model.is_dir() {
        let request = ModelRequest { files: source.peek(observer)?, ..source.request.clone() };
        let holds = registry.inventory(&request)?;
        // Of a transformer's file that holds no autoencoder the header is enough.
        if holds.family.is_some() && !holds.parts.contains(&AUTOENCODER) {
            source.borrow_lacking(is_autoencoder, observer)?;
            source.fetch_loans(observer)?;
            return registry.autoencoder(&ModelRequest { files: source.peek(observer)?, ..source.request });
        }
    }
    registry.autoencoder(&source.fetch(observer)?)
}
