//! Copies of a model on this machine, and which of them can stand for what was asked for.

use super::{FileSet, PlannedFile, cache::RepoCache, model_id::HubModel};

/// A complete copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Copy {
    pub(super) commit: String,
    /// How it stands to the revision that was asked for.
    pub(super) of: CopyOf,
}

/// How a copy stands to what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CopyOf {
    /// It is of the commit that was named: nobody need be asked.
    Commit,
    /// It is of the commit that the branch or tag last pointed to.
    Revision,
    /// The model was named without a revision, and this is the latest complete copy.
    Model,
}

/// What there is on this machine.
pub(super) struct Copies {
    /// The copy to use, where there is one.
    pub(super) usable: Option<Copy>,
    /// What the copy of the revision itself lacks, where there is one and it is not complete.
    pub(super) lacking: Option<String>,
    /// Commits of other complete copies, the latest first.
    pub(super) others: Vec<String>,
}

impl Copies {
    /// Looks through the cache.
    pub(super) fn find(cache: &RepoCache, model: &HubModel, files: &dyn FileSet) -> Self {
        let missing = |commit: &str| files.missing(&cache.snapshot(commit));
        let named = cache.known_commit(model);
        let lacking = named.as_ref().and_then(|(commit, _)| missing(commit));
        let mut others = cache.commits();
        others.retain(|commit| missing(commit).is_none());
        let usable = match named {
            Some((commit, of)) if lacking.is_none() => Some(Copy { commit, of }),
            _ if model.is_default_revision() => {
                others.first().map(|commit| Copy { commit: commit.clone(), of: CopyOf::Model })
            }
            _ => None,
        };
        Self { usable, lacking, others }
    }

    /// One copy which lacks the first of these files.
    pub(super) fn lacking_only(files: &[&PlannedFile]) -> Self {
        Self { usable: None, lacking: files.first().map(|file| file.path.clone()), others: Vec::new() }
    }

    /// Says that a copy stands in for the one of the revision.
    pub(super) fn stands_in(&self, model: &HubModel) -> String {
        let commit = self.usable.as_ref().map(|copy| &copy.commit[..7]).unwrap_or_default();
        let why = match &self.lacking {
            Some(lacks) => format!("the latest copy of {model} lacks {lacks}"),
            None => format!("nothing here says which commit of {model} is the latest"),
        };
        format!("{why}; using the complete copy of commit {commit}")
    }
}
