//! An operator with what its errors tell.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use opendal::{ErrorKind, Operator, Writer};
use sluice_manifest::{Class, Error, Result};

use crate::runtime::Io;
use crate::transport::is_about_certificates;

/// How requests to a store are made.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub operator: Operator,
    pub io: Io,
    remote: Option<Remote>,
}

/// An object store behind an endpoint.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    /// Shown in errors.
    pub endpoint: Arc<str>,
    /// Where its credentials come from, as a hint.
    pub credentials: &'static str,
    /// No request takes longer, all its tries together.
    pub patience: Duration,
}

impl Client {
    /// Memory of this process.
    pub fn near(operator: Operator, io: Io) -> Self {
        Self {
            operator,
            io,
            remote: None,
        }
    }

    /// An object store.
    pub fn remote(operator: Operator, io: Io, remote: Remote) -> Self {
        Self {
            operator,
            io,
            remote: Some(remote),
        }
    }

    /// Whether requests go over a network.
    pub fn is_remote(&self) -> bool {
        self.remote.is_some()
    }

    /// Makes a request, and gives it up where it takes too long.
    pub fn wait<T>(&self, request: impl Future<Output = opendal::Result<T>>) -> opendal::Result<T> {
        let Some(Remote { patience, .. }) = &self.remote else {
            return self.io.wait(request);
        };
        let answered = self.io.wait(async {
            tokio::select! {
                answer = tokio::time::timeout(*patience, request) => answer.map_err(|_| {
                    Error::transient(format!("no answer within {} s", patience.as_secs()))
                }),
                () = self.io.stop.passed() => Err(Error::stopped()),
            }
        });
        answered.unwrap_or_else(|ours| {
            let error = opendal::Error::new(ErrorKind::Unexpected, "");
            Err(error.set_source(ours).set_persistent())
        })
    }

    /// Takes back what a writer has sent.
    pub fn abort(&self, mut writer: Writer) -> opendal::Result<()> {
        self.io.wait(async {
            let limit = self.io.stop.abort_limit();
            let aborted = tokio::time::timeout(limit, writer.abort()).await;
            aborted.unwrap_or_else(|_| {
                let message = format!("no answer within {} s", limit.as_secs_f32());
                Err(opendal::Error::new(ErrorKind::Unexpected, message))
            })
        })
    }

    /// Tells what a caller can do about an error; `uri` is the object's.
    pub fn error(&self, e: &opendal::Error, uri: &str) -> Error {
        let endpoint = match &self.remote {
            Some(remote) => format!(" (endpoint {})", remote.endpoint),
            None => String::new(),
        };
        let message = format!("{uri}: {}{endpoint}", words(e));
        match Class::of_ours(e) {
            Some(Class::Stopped) => return Error::stopped(),
            Some(class) => return Error::new(class, message),
            None => {}
        }
        if lacks_credentials(e) {
            let error = Error::usage(format!("{uri}: no usable credentials{endpoint}"));
            return match &self.remote {
                Some(remote) => error.hint(remote.credentials),
                None => error,
            };
        }
        if no_bucket(e) {
            return Error::usage(message)
                .hint("there is no such bucket here: check its name, the endpoint and the region");
        }
        if is_about_certificates(e) {
            return Error::usage(message)
                .hint("name the authority that signed the certificate: SSL_CERT_FILE=ca.pem");
        }
        match e.kind() {
            ErrorKind::NotFound => Error::data(format!("{uri}: no such object{endpoint}")),
            ErrorKind::ConditionNotMatch => {
                Error::data(format!("{uri}: changed since the plan was made"))
                    .hint("run sluice-partition again, then the steps after it")
            }
            ErrorKind::RangeNotSatisfied => Error::data(format!("{uri}: shorter than expected")),
            ErrorKind::PermissionDenied => {
                Error::usage(format!("{uri}: permission denied{endpoint}"))
                    .hint("check the credentials, what they allow, and the endpoint")
            }
            ErrorKind::ConfigInvalid
            | ErrorKind::Unsupported
            | ErrorKind::IsADirectory
            | ErrorKind::NotADirectory => Error::usage(message),
            // The store understood, and says no: 400, a redirect to another region, …
            ErrorKind::Unexpected if self.is_remote() && refused(e) => Error::usage(message)
                .hint("check the URI, the endpoint, the region and the credentials"),
            _ => Error::transient(message),
        }
    }
}

/// Whether a request could not be signed for want of credentials. The signer asks each source of
/// them in turn, so another try asks the same sources again.
fn lacks_credentials(e: &opendal::Error) -> bool {
    use reqsign_core::ErrorKind::{ConfigInvalid, CredentialInvalid, PermissionDenied};
    let cause = std::error::Error::source(e);
    let signer = cause.and_then(|cause| cause.downcast_ref::<reqsign_core::Error>());
    signer.is_some_and(|e| {
        matches!(
            e.kind(),
            CredentialInvalid | ConfigInvalid | PermissionDenied
        )
    })
}

/// Whether it is the bucket that is not there, and not the object.
pub(crate) fn no_bucket(e: &opendal::Error) -> bool {
    let said = [
        "NoSuchBucket",
        "ContainerNotFound",
        "specified bucket does not exist",
    ];
    matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConfigInvalid)
        && said.iter().any(|words| e.message().contains(words))
}

/// Whether the store answered with a status that trying again does not change.
fn refused(e: &opendal::Error) -> bool {
    // opendal keeps the answer's status in the context, which only its own words show.
    e.is_permanent() && e.to_string().contains("response: Parts { status: ")
}

/// What happened, in one line. The error's own context has the URL in it, which may be signed.
pub(crate) fn words(e: &opendal::Error) -> String {
    let message = e.message().trim();
    let mut parts = Vec::new();
    match (field(message, "code"), field(message, "message")) {
        (Some(code), Some(said)) if !code.is_empty() => parts.push(format!("{code}: {said}")),
        _ => parts.push(message.chars().take(200).collect()),
    }
    let mut source = std::error::Error::source(e);
    while let Some(cause) = source {
        parts.push(cause.to_string());
        source = cause.source();
    }
    parts.retain(|part| !part.is_empty());
    if parts.is_empty() {
        parts.push(e.kind().to_string());
    }
    parts.join(": ").replace(['\n', '\r'], " ")
}

/// A field of `S3Error { code: "SlowDown", message: "…", … }`, as opendal words what stores answer.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("{name}: \""))?;
    Some(rest.split_once('"')?.0)
}

/// Turns an error of a stream back into ours.
pub(crate) fn lift<T>(outcome: Result<T>) -> std::io::Result<T> {
    outcome.map_err(std::io::Error::other)
}

#[cfg(test)]
mod tests;
