//! Parts of models that come from repositories of the Hub of their own.

use std::path::Path;

use super::search_args::SearchArgs;
use crate::{
    base::progress::{Observer, Silent},
    error::{Error, Result},
    hub::{DownloadPlan, FileSet, HubFile, HubModel},
    models::{Lacking, Lent, LentFiles, Registry},
    weights::Files,
};

/// A part from the Hub, and what of it must be fetched.
pub struct Loan {
    /// The part's name.
    pub part: String,
    /// Where it is, or will be.
    pub lent: Lent,
    /// Its files.
    pub plan: DownloadPlan,
    /// What is known of them, where they were looked at.
    pub known: Option<Files>,
}

impl Loan {
    fn new(part: &str, files: &LentFiles, plan: DownloadPlan) -> Self {
        let taken: Vec<String> = plan.files.iter().map(|file| file.path.clone()).collect();
        let path = files.path(&taken);
        let from = format!("{}@{}", plan.model.repo(), plan.commit);
        let (path, from) = match path.as_str() {
            "" => (plan.snapshot.clone(), from),
            path => (plan.snapshot.join(path), format!("{from}:{path}")),
        };
        Self { part: part.to_owned(), lent: Lent { path, from }, plan, known: None }
    }

    /// The part that a flag names on the Hub: `owner/name[@revision]:path`, or `owner/name@revision`. `None` for a path of this
    /// disk.
    ///
    /// # Errors
    /// What planning its files may fail with.
    pub fn given(part: &str, path: &Path, search: &SearchArgs, observer: &dyn Observer) -> Result<Option<Self>> {
        let Some(text) = path.to_str().filter(|text| text.contains([':', '@']) && !path.exists()) else {
            return Ok(None);
        };
        let Ok(file) = text.parse::<HubFile>() else { return Ok(None) };
        let registry = Registry::default();
        let parts = registry.families().iter().flat_map(|family| family.parts());
        let files = LentFiles::at(parts.filter(|spec| spec.name == part).collect(), file.path.as_deref());
        Ok(Some(Self::new(part, &files, copy_or_plan(&file.model, &files, search, observer)?)))
    }

    /// A part that is nowhere on this disk's folders, from a repository that lends one that fits: a copy where there is any, else
    /// from the first that is open to everybody. `None` where nobody lends it, or nothing may be fetched.
    ///
    /// # Errors
    /// [`Error::Network`] when the Hub cannot be asked.
    pub fn of(lacking: &Lacking, search: &SearchArgs, observer: &dyn Observer) -> Result<Option<Self>> {
        let (part, hub) = (lacking.part, search.hub()?);
        for lender in part.lenders {
            let files = LentFiles::of(part, lender);
            let Ok(plan) = copy(&lender.repo.parse()?, &files, search) else { continue };
            let loan = Self::new(part.name, &files, plan);
            if lacking.is_met_by(&loan.lent, &Files::default()) {
                return Ok(Some(loan));
            }
        }
        for lender in part.lenders.iter().filter(|lender| lender.is_open && !hub.is_offline()) {
            let files = LentFiles::of(part, lender);
            let plan = hub.plan(&lender.repo.parse()?, &files, observer)?;
            let known = hub.peek(&plan, observer)?;
            let loan = Self { known: Some(known.clone()), ..Self::new(part.name, &files, plan) };
            if lacking.is_met_by(&loan.lent, &known) {
                return Ok(Some(loan));
            }
        }
        Ok(None)
    }
}

/// What a copy on this disk has of these files, without asking anybody.
fn copy(model: &HubModel, files: &(dyn FileSet + Sync), search: &SearchArgs) -> Result<DownloadPlan> {
    SearchArgs { offline: true, ..search.clone() }.hub()?.plan(model, files, &Silent)
}

/// Parts do not change: a copy is as good as what the Hub has now, where no other revision is asked for.
fn copy_or_plan(
    model: &HubModel,
    files: &(dyn FileSet + Sync),
    search: &SearchArgs,
    observer: &dyn Observer,
) -> Result<DownloadPlan, Error> {
    copy(model, files, search).or_else(|_| search.hub()?.plan(model, files, observer))
}
