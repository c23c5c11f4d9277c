//! What a failed request means, and how long to go on trying.

use std::{future::Future, time::Duration};

use hf_hub::HFError;

use super::{model_id::HubModel, settings::HubSettings};
use crate::{
    base::progress::{Event, Observer},
    error::Error,
};

/// What to do where an answer is none that a Hub would give.
pub(super) const NO_HUB: &str = "check HF_ENDPOINT, and that it is a Hugging Face Hub";

/// Why one attempt failed.
pub(super) enum Failure {
    /// Trying again would change nothing.
    Final(Error),
    /// It may pass: what happened, and how long the Hub asks to wait.
    Passing { what: String, wait: Option<Duration> },
    /// There is no connection: it is refused, or the name leads nowhere.
    Unanswered { what: String },
}

impl Failure {
    pub(super) fn passing(what: impl Into<String>) -> Self {
        Self::Passing { what: what.into(), wait: None }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// How a request ended for good.
pub(super) enum GaveUp {
    /// The Hub answered, and the answer is no; or this machine cannot go on.
    Refused(Error),
    /// The Hub did not answer as it should, attempt after attempt.
    Unreachable(Error),
}

impl GaveUp {
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Refused(error) | Self::Unreachable(error) => error,
        }
    }
}

/// A request, for messages: who asks for what.
pub(super) struct Asked<'a> {
    pub(super) model: &'a HubModel,
    /// A file's path, or `None` for the list of files.
    pub(super) file: Option<&'a str>,
    pub(super) settings: &'a HubSettings,
}

/// An answer that is no success.
pub(super) struct Refusal<'a> {
    pub(super) status: u16,
    /// The Hub's `X-Error-Code`: `RepoNotFound`, `RevisionNotFound`, `EntryNotFound`, `GatedRepo`.
    pub(super) code: Option<&'a str>,
    pub(super) message: Option<&'a str>,
    pub(super) retry_after: Option<Duration>,
}

impl Asked<'_> {
    /// "transformer/config.json of owner/name".
    pub(super) fn what(&self) -> String {
        match self.file {
            Some(file) => format!("{file} of {}", self.model),
            None => format!("the file list of {}", self.model),
        }
    }

    /// Waits for a word of the Hub, no longer than it may be silent.
    pub(super) async fn in_time<T>(&self, word: impl Future<Output = T>) -> Result<T, Failure> {
        let HubSettings { endpoint, stall, .. } = self.settings;
        let silent = |_| Failure::passing(format!("{endpoint} was silent for {} s", stall.as_secs_f64()));
        tokio::time::timeout(*stall, word).await.map_err(silent)
    }

    fn network(&self, what: String, hint: String) -> Failure {
        Failure::Final(Error::Network { what, hint })
    }

    /// What an answer that is no success means.
    pub(super) fn judge(&self, refusal: &Refusal<'_>) -> Failure {
        match (refusal.status, refusal.code) {
            (_, Some("RepoNotFound")) => self.no_repo(refusal),
            (_, Some("RevisionNotFound")) => self.no_revision(),
            (401 | 403, _) => self.denied(refusal),
            (404, _) => match self.file {
                Some(_) => self.no_file(),
                None if !self.model.is_default_revision() => self.no_revision(),
                None => self.no_repo(refusal),
            },
            (408 | 425 | 429 | 500..=599, _) => {
                let what = format!("{} answered {}", self.settings.endpoint, self.status_line(refusal));
                Failure::Passing { what, wait: refusal.retry_after }
            }
            _ => self.network(
                format!("{}: {} answered {}", self.what(), self.settings.endpoint, self.status_line(refusal)),
                NO_HUB.into(),
            ),
        }
    }

    fn status_line(&self, refusal: &Refusal<'_>) -> String {
        let name = reqwest::StatusCode::from_u16(refusal.status).ok().and_then(|s| s.canonical_reason());
        let mut line = format!("HTTP {}", refusal.status);
        if let Some(text) = refusal.message.filter(|m| !m.is_empty()).or(name) {
            // The Hub's messages can be whole pages.
            line.extend([" ("].into_iter().map(str::to_owned).chain([text.chars().take(200).collect(), ")".into()]));
        }
        line
    }

    fn denied(&self, refusal: &Refusal<'_>) -> Failure {
        let with = if self.settings.token.is_some() { "with the token that was sent" } else { "without a token" };
        let what = format!("the Hub denies {} {with}: {}", self.what(), self.status_line(refusal));
        let hint = format!("accept the licence at {}, then set HF_TOKEN or run `hf auth login`", self.model.page());
        self.network(what, hint)
    }

    fn no_repo(&self, refusal: &Refusal<'_>) -> Failure {
        let what = format!("the Hub has no model {}: {}", self.model.repo(), self.status_line(refusal));
        let hint =
            "check the name at https://huggingface.co/models; if it is private, set HF_TOKEN or run `hf auth login`";
        self.network(what, hint.into())
    }

    fn no_revision(&self) -> Failure {
        let what = format!("{} has no revision {:?}", self.model.repo(), self.model.revision());
        let hint = format!("see {}/tree/main for its branches and tags, or leave out the @", self.model.page());
        self.network(what, hint)
    }

    fn no_file(&self) -> Failure {
        let what = format!("the Hub lists {} but does not hold it", self.what());
        self.network(what, "try again later, or give another revision with @REVISION".into())
    }

    /// What an error of hf-hub means.
    pub(super) fn judge_hf(&self, error: HFError) -> Failure {
        let retry_after = match &error {
            HFError::RateLimited { retry_after, .. } => *retry_after,
            _ => None,
        };
        match &error {
            HFError::Http { context }
            | HFError::AuthRequired { context }
            | HFError::Forbidden { context }
            | HFError::Conflict { context }
            | HFError::RateLimited { context, .. }
            | HFError::EntryNotFound { context: Some(context), .. } => self.judge(&Refusal {
                status: context.status.as_u16(),
                code: context.error_code.as_deref(),
                message: context.server_message.as_deref(),
                retry_after,
            }),
            HFError::Request { source, .. } => self.judge_reqwest(source),
            HFError::Xet { source, .. } => Failure::passing(format!("the Hub's Xet store failed: {source}")),
            other => self.network(format!("{}: {other}", self.what()), "check HF_ENDPOINT and the model's name".into()),
        }
    }

    /// What a failed connection means.
    pub(super) fn judge_reqwest(&self, error: &reqwest::Error) -> Failure {
        let mut reason: &dyn std::error::Error = error;
        while let Some(source) = reason.source() {
            reason = source;
        }
        if error.is_builder() || error.is_redirect() {
            let hint = "check HF_ENDPOINT; it is an address such as https://huggingface.co";
            return self.network(format!("{} cannot be asked: {reason}", self.settings.endpoint), hint.into());
        }
        let endpoint = &self.settings.endpoint;
        match (error.is_connect(), error.is_timeout()) {
            (true, false) => Failure::Unanswered { what: format!("{endpoint} cannot be reached: {reason}") },
            (true, true) => Failure::passing(format!("{endpoint} cannot be reached: {reason}")),
            (false, _) => Failure::passing(format!("{endpoint} cut the connection: {reason}")),
        }
    }
}

/// Counts failures in a row and waits between attempts.
pub(super) struct Patience<'a> {
    asked: Asked<'a>,
    observer: &'a dyn Observer,
    attempts: u32,
    /// Attempts while nobody answers at all.
    unanswered: u32,
    failed: u32,
}

impl<'a> Patience<'a> {
    pub(super) fn new(asked: Asked<'a>, observer: &'a dyn Observer) -> Self {
        let attempts = asked.settings.attempts.max(1);
        Self { attempts, unanswered: attempts, asked, observer, failed: 0 }
    }

    /// For the first words to a Hub: nobody may be there, and then waiting for an answer is of no use. With something else to
    /// turn to, a Hub in trouble is not waited for either.
    pub(super) fn of_first_contact(self, has_alternative: bool) -> Self {
        let [attempts, unanswered] = if has_alternative { [2, 1] } else { [self.attempts, 2] };
        Self { attempts: self.attempts.min(attempts), unanswered, ..self }
    }

    pub(super) fn asked(&self) -> &Asked<'a> {
        &self.asked
    }

    /// Attempts until one succeeds, or it is given up.
    pub(super) async fn until<T>(
        mut self,
        attempt: impl AsyncFn(&Asked<'a>) -> Result<T, Failure>,
    ) -> Result<T, GaveUp> {
        loop {
            match attempt(&self.asked).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => self.after(failure).await?,
            }
        }
    }

    /// There was progress: earlier failures no longer count.
    pub(super) fn renew(&mut self) {
        self.failed = 0;
    }

    /// Waits until the next attempt, or gives up.
    pub(super) async fn after(&mut self, failure: Failure) -> Result<(), GaveUp> {
        let (what, asked_wait, attempts) = match failure {
            Failure::Final(error) => return Err(GaveUp::Refused(error)),
            Failure::Passing { what, wait } => (what, wait, self.attempts),
            Failure::Unanswered { what } => (what, None, self.attempts.min(self.unanswered)),
        };
        self.failed += 1;
        let longest = self.asked.settings.longest_wait;
        if self.failed >= attempts || asked_wait.is_some_and(|wait| wait > longest) {
            return Err(self.give_up(&what, asked_wait.filter(|wait| *wait > longest)));
        }
        let doubled = self.asked.settings.backoff.saturating_mul(1 << (self.failed - 1).min(16));
        let wait = asked_wait.unwrap_or(doubled).min(longest);
        let note = format!(
            "{what}; trying {} again in {:.0} s (failure {} of {})",
            self.asked.what(),
            wait.as_secs_f64().ceil(),
            self.failed,
            attempts
        );
        self.observer.on(Event::Note(note));
        tokio::time::sleep(wait).await;
        Ok(())
    }

    fn give_up(&self, what: &str, asked_wait: Option<Duration>) -> GaveUp {
        let times = if self.failed == 1 { "once".into() } else { format!("{} times in a row", self.failed) };
        let what = format!("{} could not be fetched, tried {times}: {what}", self.asked.what());
        let hint = match asked_wait {
            Some(wait) => format!("the Hub asks to wait {} s: run again after that", wait.as_secs()),
            None => "check the network and HF_ENDPOINT, then run again: what has arrived is kept".into(),
        };
        GaveUp::Unreachable(Error::Network { what, hint })
    }
}
