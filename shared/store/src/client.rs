//! An operator with what its errors tell.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use opendal::{ErrorKind, Operator, Writer};
use sluice_manifest::{Error, Result};

use crate::runtime::wait;
use crate::stop;
use crate::transport::is_about_certificates;

/// A process that ends waits no longer to clean up behind itself.
const ABORT: Duration = Duration::from_secs(5);

/// How a store is spoken to.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub operator: Operator,
    remote: Option<Remote>,
}

#[derive(Debug, Clone)]
struct Remote {
    /// Shown in errors.
    endpoint: Arc<str>,
    /// No request takes longer, all its tries together.
    patience: Duration,
}

impl Client {
    /// Memory of this process.
    pub fn near(operator: Operator) -> Self {
        Self {
            operator,
            remote: None,
        }
    }

    /// An object store behind an endpoint.
    pub fn remote(operator: Operator, endpoint: String, patience: Duration) -> Self {
        Self {
            operator,
            remote: Some(Remote {
                endpoint: endpoint.into(),
                patience,
            }),
        }
    }

    /// Whether requests go over a network.
    pub fn is_remote(&self) -> bool {
        self.remote.is_some()
    }

    /// Makes a request, and gives it up where it takes too long.
    pub fn wait<T>(&self, request: impl Future<Output = opendal::Result<T>>) -> opendal::Result<T> {
        let Some(Remote { patience, .. }) = &self.remote else {
            return wait(request);
        };
        let answered = wait(async {
            tokio::select! {
                answer = tokio::time::timeout(*patience, request) => match answer {
                    Ok(answer) => Ok(answer),
                    Err(_) => Err(format!("no answer within {} s", patience.as_secs())),
                },
                () = stop::asked() => Err(stop::MESSAGE.to_owned()),
            }
        });
        answered.unwrap_or_else(|message| {
            Err(opendal::Error::new(ErrorKind::Unexpected, message).set_persistent())
        })
    }

    /// Takes back what a writer has sent.
    pub fn abort(&self, mut writer: Writer) -> opendal::Result<()> {
        wait(async {
            let aborted = tokio::time::timeout(ABORT, writer.abort()).await;
            aborted.unwrap_or_else(|_| {
                let message = format!("no answer within {} s", ABORT.as_secs());
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
        if e.message() == stop::MESSAGE {
            return Error::stopped();
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
            ErrorKind::RangeNotSatisfied => {
                Error::data(format!("{uri}: shorter than it should be"))
            }
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
    let message = match (field(message, "code"), field(message, "message")) {
        (Some(code), Some(said)) if !code.is_empty() => format!("{code}: {said}"),
        _ if message.is_empty() => e.kind().to_string(),
        _ => message.chars().take(200).collect(),
    };
    let mut message = message.replace(['\n', '\r'], " ");
    let mut source = std::error::Error::source(e);
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    message
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
mod tests {
    use sluice_manifest::Class;

    use super::*;

    fn far() -> Client {
        let operator = Operator::new(opendal::services::Memory::default()).unwrap();
        Client::remote(operator, "http://store".into(), Duration::from_secs(1))
    }

    #[test]
    fn errors_name_object_and_endpoint_and_are_classed() {
        let throttled = opendal::Error::new(
            ErrorKind::RateLimited,
            r#"S3Error { code: "SlowDown", message: "Please reduce", resource: "", request_id: "" }"#,
        );
        let error = far().error(&throttled.set_temporary(), "s3://b/k");
        let shown = "s3://b/k: SlowDown: Please reduce (endpoint http://store)";
        assert_eq!(
            (error.class(), error.to_string().as_str()),
            (Class::Transient, shown)
        );
        let gone = opendal::Error::new(ErrorKind::NotFound, "x");
        assert_eq!(far().error(&gone, "s3://b/k").class(), Class::Data);
        let forbidden = opendal::Error::new(ErrorKind::PermissionDenied, "x");
        assert_eq!(far().error(&forbidden, "s3://b/k").class(), Class::Usage);
    }

    #[test]
    fn a_request_without_an_answer_is_given_up() {
        let error = far().wait(std::future::pending::<opendal::Result<()>>());
        let error = far().error(&error.unwrap_err(), "s3://b/k");
        assert_eq!(error.class(), Class::Transient);
        assert!(
            error.to_string().contains("no answer within 1 s"),
            "{error}"
        );
    }
}
