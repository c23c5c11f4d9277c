//! Fetching one file: in one ranged request where it can be, in as many as the network makes it.
//!
//! hf-hub's `download_file` neither resumes nor checks what it gets, so only its ranged stream is used here; what
//! arrives grows in a file of our own and becomes a blob when its size and sha256 are right.

use std::{
    future::poll_fn,
    ops::Range,
    pin::Pin,
    time::{Duration, Instant},
};

use hf_hub::{HFRepository, RepoTypeModel};

use super::{
    PlannedFile,
    cache::RepoCache,
    failure::{Asked, Failure, GaveUp, Patience},
    model_id::HubModel,
    part::Part,
    settings::HubSettings,
};
use crate::{
    base::progress::{Event, Observer, Stage},
    error::{Error, Result},
};

/// Events closer together than this say nothing a person could see.
const EVENT_INTERVAL: Duration = Duration::from_millis(100);

/// How often to look whether another process is done with a file.
const LOCK_INTERVAL: Duration = Duration::from_millis(250);

/// New bytes that count as progress: then earlier failures are forgiven.
const PROGRESS_BYTES: u64 = 1 << 20;

/// How often a file may arrive whole but wrong.
const WRONG_CONTENTS: u32 = 2;

/// Tells how far all files together have come.
pub(super) struct Meter<'a> {
    observer: &'a dyn Observer,
    /// Bytes of the files that are done.
    done: u64,
    last_event: Option<Instant>,
}

impl<'a> Meter<'a> {
    pub(super) fn new(observer: &'a dyn Observer) -> Self {
        Self { observer, done: 0, last_event: None }
    }

    /// `file` has come to `bytes` of its size.
    fn at(&mut self, file: &PlannedFile, bytes: u64) {
        if bytes < file.size_bytes && self.last_event.is_some_and(|last| last.elapsed() < EVENT_INTERVAL) {
            return;
        }
        self.last_event = Some(Instant::now());
        let done = self.done + bytes;
        self.observer.on(Event::Advance { stage: Stage::Download, done, detail: file.path.clone() });
    }

    /// `file` is done.
    pub(super) fn finish(&mut self, file: &PlannedFile) {
        self.at(file, file.size_bytes);
        self.done += file.size_bytes;
    }
}

/// All that fetching a file needs to know.
pub(super) struct Downloader<'a> {
    pub(super) repo: HFRepository<RepoTypeModel>,
    pub(super) model: &'a HubModel,
    pub(super) commit: &'a str,
    pub(super) cache: &'a RepoCache,
    pub(super) settings: &'a HubSettings,
    pub(super) observer: &'a dyn Observer,
}

impl Downloader<'_> {
    /// Brings the blob of `file` into the cache, unless it is or comes there otherwise.
    pub(super) async fn fetch(&self, file: &PlannedFile, meter: &mut Meter<'_>) -> Result<()> {
        let _lock = self.lock(file).await?;
        if self.cache.has_blob(file) {
            return Ok(());
        }
        let mut part = Part::open(self.cache.incomplete(&file.etag), file)?;
        self.fill(file, &mut part, meter).await.map_err(GaveUp::into_error)?;
        part.rename(&self.cache.blob(&file.etag))
    }

    /// Waits until no other process fetches `file`.
    async fn lock(&self, file: &PlannedFile) -> Result<std::fs::File> {
        let mut told = false;
        loop {
            if let Some(lock) = self.cache.try_lock(&file.etag)? {
                return Ok(lock);
            }
            if !told {
                self.observer.on(Event::Note(format!("another program is fetching {}: waiting for it", file.path)));
                told = true;
            }
            tokio::time::sleep(LOCK_INTERVAL).await;
        }
    }

    /// Fetches until `part` is full and right.
    async fn fill(&self, file: &PlannedFile, part: &mut Part, meter: &mut Meter<'_>) -> Result<(), GaveUp> {
        let asked = Asked { model: self.model, file: Some(&file.path), settings: self.settings };
        let mut patience = Patience::new(asked, self.observer);
        let (mut furthest, mut wrong) = (part.len(), 0);
        loop {
            let outcome = if part.is_full() { Ok(()) } else { self.attempt(file, part, patience.asked(), meter).await };
            let failure = match outcome {
                Err(failure) => failure,
                Ok(()) => match part.wrong_sha256() {
                    None => return Ok(()),
                    Some(found) => {
                        part.clear().map_err(GaveUp::Refused)?;
                        wrong += 1;
                        self.wrong_contents(file, &found, wrong)
                    }
                },
            };
            // What was fetched twice is no progress: a server that ignores ranges must not keep us for ever.
            if part.len() >= furthest + PROGRESS_BYTES {
                furthest = part.len();
                patience.renew();
            }
            patience.after(failure).await?;
        }
    }

    /// One request for all that is missing.
    async fn attempt(
        &self,
        file: &PlannedFile,
        part: &mut Part,
        asked: &Asked<'_>,
        meter: &mut Meter<'_>,
    ) -> Result<(), Failure> {
        let missing = part.len()..file.size_bytes;
        let take = |bytes: &[u8]| {
            if !part.append(bytes)? {
                part.clear()?;
                return Err(Failure::passing(format!("{} sent more than was asked for", self.settings.endpoint)));
            }
            meter.at(file, part.len());
            Ok(true)
        };
        self.receive(file, missing, asked, take).await?;
        if part.is_full() {
            return Ok(());
        }
        let what = format!("{} stopped at {} of {} bytes", self.settings.endpoint, part.len(), file.size_bytes);
        Err(Failure::passing(what))
    }

    /// Asks once for bytes of a file and hands over what arrives, for as long as `take` wants more.
    pub(super) async fn receive(
        &self,
        file: &PlannedFile,
        range: Range<u64>,
        asked: &Asked<'_>,
        mut take: impl FnMut(&[u8]) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let request = self.repo.download_file_stream().filename(&file.path).revision(self.commit).range(range).send();
        let (_, mut stream) = asked.in_time(request).await?.map_err(|e| asked.judge_hf(e))?;
        let mut wants_more = true;
        while wants_more {
            let next = asked.in_time(poll_fn(|cx| Pin::new(&mut *stream).poll_next(cx))).await?;
            let Some(bytes) = next else { break };
            wants_more = take(&bytes.map_err(|e| asked.judge_hf(e))?)?;
        }
        Ok(())
    }

    fn wrong_contents(&self, file: &PlannedFile, found: &str, times: u32) -> Failure {
        let what = format!("{} of {} arrived with sha256 {found}, not {}", file.path, self.model, file.etag);
        if times < WRONG_CONTENTS {
            return Failure::passing(what);
        }
        let hint = "nothing of it was kept; run again, and if it happens again something on the way changes the data \
                    (a proxy, a mirror in HF_ENDPOINT, bad memory)";
        Failure::Final(Error::Network { what: format!("{what}, {times} times"), hint: hint.into() })
    }
}
