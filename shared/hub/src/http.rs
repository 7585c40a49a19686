//! HTTP requests: redirects without the token, retries, and the classification of refusals.

use std::time::{Duration, Instant};

use reqwest::Url;
use reqwest::blocking::{Client, RequestBuilder, Response};
use reqwest::header::{ACCEPT_ENCODING, LOCATION, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Method, StatusCode};
use sluice_manifest::{Class, Error, Result};

const REDIRECTS: usize = 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The timeout of an answer, and of each read of its body.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
const FIRST_DELAY: Duration = Duration::from_millis(500);
const LONGEST_DELAY: Duration = Duration::from_secs(20);
/// The longest pause that a server may request. After a longer one, this process does not retry.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);
/// The interval at which a pause checks whether the program was stopped.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// An HTTP client with a token for one host.
pub(crate) struct Http<'a> {
    client: Client,
    /// The Hub, whose host alone gets the token.
    hub: Url,
    token: Option<String>,
    /// Further tries after a failure that may pass.
    retries: u32,
    /// Returns an error once the program was stopped.
    pub keep_going: &'a dyn Fn() -> Result<()>,
}

impl<'a> Http<'a> {
    /// Creates a client.
    ///
    /// # Errors
    ///
    /// Returns a usage error if there are no TLS certificates or the endpoint is not a URL.
    pub(crate) fn new(
        endpoint: &str,
        token: Option<&str>,
        retries: u32,
        keep_going: &'a dyn Fn() -> Result<()>,
    ) -> Result<Self> {
        // Another part of the process may have installed a provider, which is kept.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .user_agent(concat!("sluice/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(READ_TIMEOUT)
            .build()
            .map_err(|e| {
                Error::usage(format!("HTTPS cannot be set up: {e}"))
                    .hint("install ca-certificates, or set SSL_CERT_FILE")
            })?;
        Ok(Self {
            client,
            hub: parse(endpoint)?,
            token: token.map(str::to_owned),
            retries,
            keep_going,
        })
    }

    /// Returns who the URL's host takes this program for.
    pub(crate) fn access(&self, url: &Url) -> Access {
        match &self.token {
            _ if !same_host(&self.hub, url) => Access::Elsewhere,
            Some(_) => Access::Token,
            None => Access::Nobody,
        }
    }

    fn request(&self, method: &Method, url: &Url) -> RequestBuilder {
        // Compressed transfer would change lengths and byte ranges.
        let request = self
            .client
            .request(method.clone(), url.clone())
            .header(ACCEPT_ENCODING, "identity");
        match &self.token {
            Some(token) if same_host(&self.hub, url) => request.bearer_auth(token),
            _ => request,
        }
    }

    /// Sends a request and follows redirects that `follow` accepts. Returns the last answer,
    /// whatever its status.
    ///
    /// # Errors
    ///
    /// Returns a transient error if the server cannot be reached, and a data error after too many
    /// redirects.
    pub(crate) fn send(
        &self,
        method: &Method,
        url: &Url,
        with: &dyn Fn(RequestBuilder) -> RequestBuilder,
        follow: &dyn Fn(&Url, &Response) -> bool,
    ) -> Result<Response> {
        let mut url = url.clone();
        for _ in 0..REDIRECTS {
            let answer = with(self.request(method, &url))
                .send()
                .map_err(|e| unreachable(&url, &e))?;
            let next = answer
                .headers()
                .get(LOCATION)
                .and_then(|location| location.to_str().ok());
            let next = next
                .filter(|_| answer.status().is_redirection())
                .and_then(|next| url.join(next).ok());
            match next {
                Some(next) if follow(&next, &answer) => url = next,
                _ => return Ok(answer),
            }
        }
        Err(Error::data(format!(
            "{}: more than {REDIRECTS} redirects",
            shown(&url)
        )))
    }

    /// Runs `attempt` until it succeeds, fails with an error that is not transient, or the retries
    /// are used up.
    pub(crate) fn retry<T>(&self, mut attempt: impl FnMut() -> Result<T, Failure>) -> Result<T> {
        let mut delay = FIRST_DELAY;
        let mut left = self.retries;
        loop {
            let failure = match attempt() {
                Ok(value) => return Ok(value),
                Err(failure) => failure,
            };
            let pause = failure.after.unwrap_or(delay);
            if left == 0 || failure.error.class() != Class::Transient || pause > LONGEST_PAUSE {
                return Err(failure.error);
            }
            tracing::warn!("{}; retry in {:.1} s", failure.error, pause.as_secs_f64());
            self.pause(pause)?;
            delay = (delay * 2).min(LONGEST_DELAY);
            left -= 1;
        }
    }

    /// Waits, and returns an error if the program is stopped.
    fn pause(&self, pause: Duration) -> Result<()> {
        let end = Instant::now() + pause;
        loop {
            (self.keep_going)()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(TICK));
        }
    }
}

/// Who a server takes this program for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// The Hub, by the token.
    Token,
    /// The Hub, which is given no token.
    Nobody,
    /// Another server.
    Elsewhere,
}

/// Why an attempt failed, and how long the server asks to wait.
pub(crate) struct Failure {
    pub error: Error,
    pub after: Option<Duration>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, after: None }
    }
}

/// Parses a URL.
///
/// # Errors
///
/// Returns a usage error if it is malformed. The error does not contain the text, which may include
/// a password.
pub(crate) fn parse(url: &str) -> Result<Url> {
    Url::parse(url).map_err(|e| Error::usage(format!("not a URL: {e}")))
}

fn same_host(a: &Url, b: &Url) -> bool {
    (a.scheme(), a.host(), a.port_or_known_default())
        == (b.scheme(), b.host(), b.port_or_known_default())
}

/// Returns a URL without what must not be shown or recorded: user, password, query and fragment.
///
/// # Errors
/// Usage, when it is not one.
pub fn public_url(url: &str) -> Result<String> {
    parse(url).map(|url| shown(&url))
}

/// A URL for logs and errors: no user, no password, no query, which may be signed.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

pub(crate) fn unreachable(url: &Url, e: &reqwest::Error) -> Error {
    let mut cause: &dyn std::error::Error = e;
    while let Some(source) = cause.source() {
        cause = source;
    }
    Error::transient(format!("{}: {cause}", shown(url)))
        .hint("HF_HUB_OFFLINE=1 uses what the cache has; HF_ENDPOINT names a mirror")
}

/// Returns the answer if its status is a success.
///
/// # Errors
/// By status: 401, 403 and 404 usage, 408, 429 and 5xx transient, others data.
pub(crate) fn accepted(answer: Response, what: &str, access: Access) -> Result<Response, Failure> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let header = |name: &str| answer.headers().get(name)?.to_str().ok();
    let code = header("X-Error-Code").unwrap_or_default();
    let after = header(RETRY_AFTER.as_str()).and_then(|text| text.trim().parse().ok());
    let mut error = refusal(status, code, what, access);
    if let Some(seconds) = after
        && error.class() == Class::Transient
    {
        error = error.hint(format!("the server asks to wait {seconds} s"));
    }
    let after = after.map(Duration::from_secs);
    Err(Failure { error, after })
}

fn refusal(status: StatusCode, code: &str, what: &str, access: Access) -> Error {
    let says = match code {
        "" => format!("{what}: HTTP {status}"),
        code => format!("{what}: HTTP {status}, {code}"),
    };
    let with_token = match access {
        Access::Token => "the token that HF_TOKEN or the token file holds has no access to it",
        Access::Nobody => "set HF_TOKEN to a token of an account that has access",
        Access::Elsewhere => {
            "HF_TOKEN is for the Hub alone; https://USER:PASSWORD@HOST/… and signed addresses are taken"
        }
    };
    match (status.as_u16(), code) {
        (404, _) if access == Access::Elsewhere => Error::usage(says).hint("check the address"),
        (401 | 403, "GatedRepo") => Error::usage(format!("{says}: the repository is gated"))
            .hint(format!("accept its terms on its page, then: {with_token}")),
        (401 | 403, _) => {
            Error::usage(format!("{says}: private, or it does not exist")).hint(with_token)
        }
        (404, "RevisionNotFound") => {
            Error::usage(says).hint("the branch, tag or commit after @ does not exist")
        }
        (404, "EntryNotFound") => Error::usage(says).hint("the repository has no such file"),
        (404, _) => {
            Error::usage(says).hint("check the spelling; a private repository needs HF_TOKEN")
        }
        (408 | 425 | 429, _) => {
            Error::transient(says).hint("the server limits requests: try again later")
        }
        (500..=599, _) => Error::transient(says),
        _ => Error::data(says),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_means_what_the_caller_can_do() {
        let cases = [
            (401, "GatedRepo", Class::Usage),
            (401, "", Class::Usage),
            (403, "", Class::Usage),
            (404, "RepoNotFound", Class::Usage),
            (408, "", Class::Transient),
            (429, "", Class::Transient),
            (500, "", Class::Transient),
            (503, "", Class::Transient),
            (410, "", Class::Data),
        ];
        for (status, code, class) in cases {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(
                refusal(status, code, "x", Access::Nobody).class(),
                class,
                "{status} {code}"
            );
        }
    }

    #[test]
    fn the_token_is_no_hint_for_other_servers() {
        for status in [401, 403, 404] {
            let status = StatusCode::from_u16(status).unwrap();
            let hint = refusal(status, "", "x", Access::Elsewhere).to_string();
            assert!(
                !hint.contains("set HF_TOKEN") && !hint.contains("needs HF_TOKEN"),
                "{hint}"
            );
        }
    }

    #[test]
    fn what_a_url_must_not_show_is_left_out() {
        let url = parse("https://user:pass@host/a/b?X-Amz-Signature=s#f").unwrap();
        assert_eq!(shown(&url), "https://host/a/b");
    }

    #[test]
    fn the_token_is_for_one_scheme_host_and_port() {
        let hub = parse("https://hub.example").unwrap();
        for (url, same) in [
            ("https://hub.example:443/x", true),
            ("https://hub.example/x", true),
            ("http://hub.example/x", false),
            ("https://cdn.hub.example/x", false),
            ("https://hub.example:8443/x", false),
        ] {
            assert_eq!(same_host(&hub, &parse(url).unwrap()), same, "{url}");
        }
    }
}
