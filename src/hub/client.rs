//! The HTTP clients, and the async runtime they live in for the length of one call.

use std::future::Future;

use hf_hub::HFClient;

use super::{
    failure::GaveUp,
    settings::{HubSettings, Token},
};
use crate::error::{Error, Result};

/// How this program names itself to the Hub.
const USER_AGENT: &str = concat!("dype/", env!("CARGO_PKG_VERSION"));

/// Our own client, for the requests hf-hub does not make.
pub(super) fn http_client(settings: &HubSettings) -> Result<reqwest::Client> {
    build(settings, reqwest::redirect::Policy::default())
}

/// One that leaves it to us to follow redirects.
pub(super) fn head_client(settings: &HubSettings) -> Result<reqwest::Client> {
    build(settings, reqwest::redirect::Policy::none())
}

fn build(settings: &HubSettings, redirects: reqwest::redirect::Policy) -> Result<reqwest::Client> {
    let builder = reqwest::Client::builder().connect_timeout(settings.stall).user_agent(USER_AGENT);
    let mut builder = builder.redirect(redirects);
    if is_loopback(&settings.endpoint) {
        builder = builder.no_proxy();
    }
    builder.build().map_err(|e| Error::Network {
        what: format!("no HTTP client can be made: {e}"),
        hint: "check the system's certificates and the proxy variables (HTTPS_PROXY)".into(),
    })
}

/// hf-hub's client, told everything so that it reads nothing from the environment.
pub(super) fn hf_client(settings: &HubSettings) -> Result<HFClient> {
    // Without a token hf-hub would look for one in the environment, which is the settings' business; a line break
    // cannot be part of a header, so that with it no Authorization is sent.
    let token = settings.token.as_ref().map_or("\n", Token::secret);
    let builder = HFClient::builder().client(http_client(settings)?).endpoint(&settings.endpoint).token(token);
    // Trying again is our business: hf-hub's own attempts know neither Retry-After nor how far a file has come.
    let built = builder.cache_enabled(false).retry_max_attempts(0).build();
    built.map_err(|e| {
        let hint = "set HF_ENDPOINT to an address such as https://huggingface.co, or unset it";
        Error::request(format!("{:?} is no address of a Hub: {e}", settings.endpoint), hint)
    })
}

/// Whether an address is this machine's own, which no proxy can reach.
fn is_loopback(endpoint: &str) -> bool {
    let host = reqwest::Url::parse(endpoint).ok().and_then(|url| url.host_str().map(str::to_owned));
    host.is_some_and(|host| host == "localhost" || host.starts_with("127.") || host == "[::1]")
}

/// Runs a future to its end on a thread of its own, so that a caller inside another async runtime is no trouble.
pub(super) fn block_on<T: Send, E: Send + From<RuntimeFailed>, F: Future<Output = Result<T, E>>>(
    make: impl FnOnce() -> F + Send,
) -> Result<T, E> {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|e| E::from(RuntimeFailed(e)))?.block_on(make())
    };
    std::thread::scope(|scope| match std::thread::Builder::new().spawn_scoped(scope, run) {
        Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        Err(error) => Err(RuntimeFailed(error).into()),
    })
}

/// The system refused what an async runtime needs.
pub(super) struct RuntimeFailed(std::io::Error);

impl From<RuntimeFailed> for Error {
    fn from(RuntimeFailed(reason): RuntimeFailed) -> Self {
        let hint = "the system has no resources left; close other programs and run again";
        Self::Network { what: format!("no connection can be prepared: {reason}"), hint: hint.into() }
    }
}

impl From<RuntimeFailed> for GaveUp {
    fn from(failed: RuntimeFailed) -> Self {
        Self::Refused(failed.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_spared_the_proxy() {
        assert!(
            is_loopback("http://127.0.0.1:8080") && is_loopback("http://localhost") && is_loopback("http://[::1]:1")
        );
        assert!(!is_loopback("https://huggingface.co") && !is_loopback("nonsense"));
    }
}
