//! A repository, a server that holds it, an empty cache, and a listener.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use dype::testing::{
    Error,
    base::progress::{Event, Observer, Silent},
    hub::{DownloadPlan, Hub, HubModel, HubSettings},
    models::{BUILT_IN, RepositoryFiles},
};

use crate::hub_server::{HubServer, HubServerBuilder, REPO};

/// The one large file most faults hit.
pub const SHARD: &str = "transformer/diffusion_pytorch_model.safetensors";

/// Bytes without a pattern that a shifted or repeated piece would hide in.
pub fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

pub fn repository() -> HubServerBuilder {
    HubServerBuilder::default()
        .small("README.md", "# tiny")
        .small("model_index.json", "{}")
        .small("scheduler/scheduler_config.json", "{\"shift\": 3.0}")
        .small("text_encoder/config.json", "{\"a\": 1}")
        .large("text_encoder/model.safetensors", noise(3_000))
        .large("text_encoder/model.fp16.safetensors", noise(1_500))
        .small("text_encoder_2/config.json", "{\"a\": 2}")
        .large("text_encoder_2/model.safetensors", noise(5_000))
        .small("tokenizer/vocab.json", "{\"a\": 3}")
        .small("tokenizer/merges.txt", "a b")
        .large("tokenizer_2/spiece.model", noise(700))
        .small("tokenizer_2/tokenizer.json", "{\"a\": 4}")
        .small("transformer/config.json", "{\"a\": 5}")
        .large(SHARD, noise(300_000))
        .small("vae/config.json", "{\"a\": 6}")
        .large("vae/diffusion_pytorch_model.safetensors", noise(2_000))
        .large("flux1-tiny.safetensors", noise(90_000))
}

/// The files of [`repository`] that a picture needs.
pub const NEEDED: [&str; 13] = [
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "text_encoder_2/config.json",
    "text_encoder_2/model.safetensors",
    "tokenizer/merges.txt",
    "tokenizer/vocab.json",
    "tokenizer_2/tokenizer.json",
    "transformer/config.json",
    SHARD,
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
];

/// What a run told.
#[derive(Default)]
pub struct Log(Mutex<Vec<Event>>);

impl Observer for Log {
    fn on(&self, event: Event) {
        self.0.lock().expect("events").push(event);
    }
}

impl Log {
    pub fn events(&self) -> Vec<Event> {
        self.0.lock().expect("events").clone()
    }

    pub fn notes(&self) -> Vec<String> {
        let note = |event| if let Event::Note(text) = event { Some(text) } else { None };
        self.events().into_iter().filter_map(note).collect()
    }

    pub fn warnings(&self) -> Vec<String> {
        let warning = |event| if let Event::Warning(text) = event { Some(text) } else { None };
        self.events().into_iter().filter_map(warning).collect()
    }
}

/// A server, an empty cache and the settings that join them.
pub struct Bench {
    pub server: HubServer,
    folder: tempfile::TempDir,
    pub settings: HubSettings,
}

impl Bench {
    pub fn new(repository: HubServerBuilder) -> Self {
        let server = repository.start();
        let folder = tempfile::tempdir().expect("a folder");
        let settings = HubSettings {
            endpoint: server.endpoint.clone(),
            attempts: 3,
            backoff: Duration::from_millis(5),
            stall: Duration::from_secs(20),
            ..HubSettings::new(folder.path())
        };
        Self { server, folder, settings }
    }

    pub fn plan_of(&self, model: &str, observer: &dyn Observer) -> Result<DownloadPlan, Error> {
        let model: HubModel = model.parse()?;
        Hub::new(self.settings.clone()).plan(&model, &RepositoryFiles::without(&BUILT_IN, |_| false), observer)
    }

    pub fn plan(&self) -> DownloadPlan {
        self.plan_of(REPO, &Silent).expect("a plan")
    }

    pub fn fetch_of(&self, model: &str, observer: &dyn Observer) -> Result<PathBuf, Error> {
        let plan = self.plan_of(model, observer)?;
        Hub::new(self.settings.clone()).fetch(&plan, observer)
    }

    pub fn fetch(&self) -> Result<PathBuf, Error> {
        self.fetch_of(REPO, &Silent)
    }

    pub fn repo_folder(&self) -> PathBuf {
        self.folder.path().join("models--tiny-lab--tiny-flux")
    }

    pub fn shard_blob(&self) -> PathBuf {
        self.repo_folder().join("blobs").join(self.server.etag(SHARD))
    }
}

pub fn files_below(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(&folder).expect("a folder").flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(root).expect("below").to_str().expect("plain").to_owned());
            }
        }
    }
    found.sort();
    found
}

pub fn network(error: &Error) -> (String, String) {
    assert!(matches!(error, Error::Network { .. }), "{error:?}");
    assert_eq!(error.exit_code(), 1);
    (error.to_string(), error.hint().expect("a hint"))
}
