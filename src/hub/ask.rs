//! Asking the Hub what a model needs: which commit, which of its files, and how large each is.

use reqwest::Client;

use super::{
    FileSet, HubSettings, PlannedFile,
    cache::RepoCache,
    client::{head_client, http_client},
    failure::{Asked, GaveUp, Patience},
    listing::{self, Contents, Listing, RemoteFile},
    model_id::HubModel,
};
use crate::{base::progress::Observer, error::Error};

/// A question and whom to ask.
pub(super) struct Question<'a> {
    pub(super) settings: &'a HubSettings,
    pub(super) model: &'a HubModel,
    pub(super) files: &'a (dyn FileSet + Sync),
    pub(super) cache: &'a RepoCache,
    pub(super) observer: &'a dyn Observer,
    /// Whether a copy on this machine makes an answer unnecessary.
    pub(super) has_copy: bool,
}

impl Question<'_> {
    /// The commit that the model's revision points to, and the files that are needed of it.
    pub(super) async fn ask(&self) -> Result<(String, Vec<PlannedFile>), GaveUp> {
        let Listing { commit, files } = self.listing().await?;
        let paths: Vec<String> = files.iter().map(|file| file.path.clone()).collect();
        let wanted = self.files.select(&paths).map_err(|lacks| GaveUp::Refused(self.lacking(&commit, &lacks)))?;
        // What a commit names cannot change: of a file that is here nobody need be asked.
        let here = self.cache.list(&commit).unwrap_or_default();
        let client = head_client(self.settings).map_err(GaveUp::Refused)?;
        let mut planned = Vec::new();
        for RemoteFile { path, contents } in files.into_iter().filter(|file| wanted.contains(&file.path)) {
            let Contents { size_bytes, etag } = match (contents, here.iter().find(|file| file.path == path)) {
                (Some(contents), _) => contents,
                (None, Some(file)) => Contents { size_bytes: file.size_bytes, etag: file.etag.clone() },
                (None, None) => self.contents(&client, &commit, &path).await?,
            };
            let file = PlannedFile { path, size_bytes, cached: false, etag };
            let cached = self.cache.in_snapshot(&commit, &file) || self.cache.has_blob(&file);
            planned.push(PlannedFile { cached, ..file });
        }
        Ok((commit, planned))
    }

    fn asked<'a>(&'a self, file: Option<&'a str>) -> Asked<'a> {
        Asked { model: self.model, file, settings: self.settings }
    }

    async fn listing(&self) -> Result<Listing, GaveUp> {
        let client = http_client(self.settings).map_err(GaveUp::Refused)?;
        let patience = Patience::new(self.asked(None), self.observer).of_first_contact(self.has_copy);
        patience.until(async |asked: &Asked<'_>| listing::list(&client, asked).await).await
    }

    async fn contents(&self, client: &Client, commit: &str, path: &str) -> Result<Contents, GaveUp> {
        let mut patience = Patience::new(self.asked(Some(path)), self.observer);
        if self.has_copy {
            patience = patience.of_first_contact(true);
        }
        patience.until(async |asked: &Asked<'_>| listing::contents(client, asked, commit, path).await).await
    }

    fn lacking(&self, commit: &str, lacks: &str) -> Error {
        let what = format!("{} has {lacks} (commit {})", self.model, &commit[..7]);
        let page = self.model.page();
        Error::model(what, format!("see {page} for what it holds; {}", self.files.instead()))
    }
}
