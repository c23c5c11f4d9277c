//! Where the parts of a single file are looked for, and whether anything is fetched.

use std::path::PathBuf;

use clap::Args;

use crate::{
    error::Result,
    hub::{Hub, HubSettings},
};

/// Flags of the search.
#[derive(Debug, Clone, Default, Args)]
pub struct SearchArgs {
    /// Folder of models, such as ComfyUI's, in which the parts of a single file are looked for; may come again, or be a list as
    /// PATH is
    #[arg(long, value_name = "DIR")]
    pub model_dir: Vec<PathBuf>,
    /// Fetch nothing, as with HF_HUB_OFFLINE=1
    #[arg(long)]
    pub offline: bool,
}

impl SearchArgs {
    /// The folders, each once more where one value lists several.
    pub fn dirs(&self) -> Vec<PathBuf> {
        let split = |dir: &PathBuf| {
            // A folder whose name looks like a list is the folder.
            if dir.exists() { vec![dir.clone()] } else { std::env::split_paths(dir).collect() }
        };
        self.model_dir.iter().flat_map(split).filter(|dir| !dir.as_os_str().is_empty()).collect()
    }

    /// The way to the Hub.
    ///
    /// # Errors
    /// As [`HubSettings::from_env`].
    pub fn hub(&self) -> Result<Hub> {
        let settings = HubSettings::from_env()?;
        Ok(Hub::new(HubSettings { offline: settings.offline || self.offline, ..settings }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_may_list_folders_as_path_does() {
        let both = std::env::join_paths(["/no/such/a", "/no/such/b"]).expect("a list");
        let args = SearchArgs { model_dir: vec![both.into(), "/no/such/c".into()], offline: false };
        assert_eq!(args.dirs(), ["/no/such/a", "/no/such/b", "/no/such/c"].map(PathBuf::from));
        let folder = tempfile::tempdir().expect("a folder");
        let odd = folder.path().join("a:b");
        std::fs::create_dir(&odd).expect("a folder");
        let args = SearchArgs { model_dir: vec![odd.clone(), PathBuf::new()], offline: false };
        assert_eq!(args.dirs(), [odd]);
    }
}
