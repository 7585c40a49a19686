//! An opendal operator together with what errors need: endpoint, credential hint and deadline.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use opendal::{ErrorKind, Operator, Writer};
use sluice_manifest::{Class, Error, Result};

use crate::runtime::Io;
use crate::transport::is_about_certificates;

/// Makes requests to one store and classifies their errors.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub operator: Operator,
    pub io: Io,
    remote: Option<Remote>,
}

/// The settings of an object store that is reached over a network.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    /// The endpoint, as errors show it.
    pub endpoint: Arc<str>,
    /// A hint that names the sources of its credentials.
    pub credentials: &'static str,
    /// The limit for one request, retries included.
    pub deadline: Duration,
}

impl Client {
    /// Returns a client for objects in the memory of this process.
    pub(crate) fn in_memory(operator: Operator, io: Io) -> Self {
        Self {
            operator,
            io,
            remote: None,
        }
    }

    /// Returns a client for an object store.
    pub(crate) fn remote(operator: Operator, io: Io, remote: Remote) -> Self {
        Self {
            operator,
            io,
            remote: Some(remote),
        }
    }

    /// Returns whether requests go over a network.
    pub(crate) fn is_remote(&self) -> bool {
        self.remote.is_some()
    }

    /// Runs a request to completion. A remote request fails when it exceeds the deadline, or
    /// shortly after the stop flag is set.
    pub(crate) fn wait<T>(
        &self,
        request: impl Future<Output = opendal::Result<T>>,
    ) -> opendal::Result<T> {
        let Some(Remote { deadline, .. }) = &self.remote else {
            return self.io.wait(request);
        };
        let answered = self.io.wait(async {
            tokio::select! {
                answer = tokio::time::timeout(*deadline, request) => answer.map_err(|_| {
                    Error::transient(format!("no answer within {} s", deadline.as_secs()))
                }),
                () = self.io.stop.grace_period() => Err(Error::stopped()),
            }
        });
        answered.unwrap_or_else(|ours| {
            let error = opendal::Error::new(ErrorKind::Unexpected, "");
            Err(error.set_source(ours).set_persistent())
        })
    }

    /// Aborts an upload that was not finished.
    pub(crate) fn abort(&self, mut writer: Writer) -> opendal::Result<()> {
        self.io.wait(async {
            let limit = self.io.stop.abort_limit();
            let aborted = tokio::time::timeout(limit, writer.abort()).await;
            aborted.unwrap_or_else(|_| {
                let message = format!("no answer within {} s", limit.as_secs_f32());
                Err(opendal::Error::new(ErrorKind::Unexpected, message))
            })
        })
    }

    /// Converts an error of opendal and classifies it by what the caller can do. `uri` names the
    /// object.
    pub(crate) fn error(&self, e: &opendal::Error, uri: &str) -> Error {
        let endpoint = match &self.remote {
            Some(remote) => format!(" (endpoint {})", remote.endpoint),
            None => String::new(),
        };
        let message = format!("{uri}: {}{endpoint}", describe(e));
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
            // The store answered that the request is invalid: status 400, a redirect to another
            // region, …
            ErrorKind::Unexpected if self.is_remote() && refused(e) => Error::usage(message)
                .hint("check the URI, the endpoint, the region and the credentials"),
            _ => Error::transient(message),
        }
    }
}

/// Returns whether a request could not be signed because no credentials were found. The signer
/// tries every source of credentials in turn, so a retry would ask the same sources again.
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

/// Returns whether the bucket, rather than the object, does not exist.
pub(crate) fn no_bucket(e: &opendal::Error) -> bool {
    let markers = [
        "NoSuchBucket",
        "ContainerNotFound",
        "specified bucket does not exist",
    ];
    matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConfigInvalid)
        && markers.iter().any(|marker| e.message().contains(marker))
}

/// Returns whether the store answered with a status that a retry does not change.
fn refused(e: &opendal::Error) -> bool {
    // opendal keeps the status in the error's context, which is accessible only through `Display`.
    e.is_permanent() && e.to_string().contains("response: Parts { status: ")
}

/// Returns what happened in one line. Leaves out the error's context: it contains the URL, which
/// may be signed.
pub(crate) fn describe(e: &opendal::Error) -> String {
    let message = e.message().trim();
    let mut parts = Vec::new();
    match (field(message, "code"), field(message, "message")) {
        (Some(code), Some(text)) if !code.is_empty() => parts.push(format!("{code}: {text}")),
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

/// Extracts a field of `S3Error { code: "SlowDown", message: "…", … }`, opendal's text for a
/// store's answer.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("{name}: \""))?;
    Some(rest.split_once('"')?.0)
}

/// Wraps our error for an `std::io` trait. [`Error::of_io`] unwraps it.
pub(crate) fn lift<T>(outcome: Result<T>) -> std::io::Result<T> {
    outcome.map_err(std::io::Error::other)
}

#[cfg(test)]
mod tests;
