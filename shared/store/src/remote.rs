//! Clients for object stores. Credentials and endpoints come from each cloud's own environment
//! variables. Timeouts, retries and the limit of requests in flight are set in one place.

use std::env::var;

use opendal::layers::{ConcurrentLimitLayer, RetryEvent, RetryLayer, TimeoutLayer};
use opendal::{ErrorKind, Operator, services};
use reqwest::Url;
use sluice_manifest::text::masked_word;
use sluice_manifest::{Error, Result};

use crate::client::{Client, Remote};
use crate::location::Scheme;
use crate::runtime::Io;
use crate::settings::{FIRST_DELAY, LONGEST_DELAY, StoreSettings};
use crate::transport::{RequestCounts, Transport};

/// The endpoint of Amazon S3, as errors show it.
const AWS: &str = "https://s3.amazonaws.com";
/// The region if no variable names one, as in AWS's own tools.
const REGION: &str = "us-east-1";

/// What all buckets of a process share.
pub(crate) struct Connections {
    settings: StoreSettings,
    transport: Transport,
    /// Limits HTTP requests in flight. An operation may make several or none, so operations get a
    /// limit that is never reached.
    limit: ConcurrentLimitLayer,
}

impl Connections {
    pub(crate) fn new(sent: RequestCounts) -> Result<Self> {
        let settings = StoreSettings::from_environment()?;
        let transport = Transport::new(sent).map_err(|e| {
            Error::usage(format!("cannot set up HTTPS: {e}")).hint(
                "the system's certificates are needed: install ca-certificates, or set SSL_CERT_FILE",
            )
        })?;
        let limit = ConcurrentLimitLayer::new(1 << 20);
        Ok(Self {
            limit: limit.with_http_concurrent_limit(settings.concurrency),
            settings,
            transport,
        })
    }

    /// Returns the client of a bucket.
    pub(crate) fn client(&self, scheme: Scheme, bucket: &str, io: Io) -> Result<Client> {
        let settings = &self.settings;
        let (operator, endpoint) = match scheme {
            Scheme::S3 => s3(bucket, settings),
            Scheme::Gs => gs(bucket, settings),
            Scheme::Az => az(bucket, settings),
        }
        .map_err(|e| refused(&e, scheme, bucket))?;
        let remote = Remote {
            endpoint: endpoint.into(),
            credentials: credentials(scheme),
            deadline: settings.retry_for,
        };
        Ok(Client::remote(self.layered(operator), io, remote))
    }

    /// Adds timeouts, retries and the limit of requests in flight to an operator.
    fn layered(&self, operator: Operator) -> Operator {
        let settings = &self.settings;
        let timeout = TimeoutLayer::new()
            .with_timeout(settings.timeout)
            .with_io_timeout(settings.timeout);
        let retry = RetryLayer::new()
            .with_min_delay(FIRST_DELAY)
            .with_max_delay(LONGEST_DELAY)
            .with_jitter()
            .with_max_times(settings.retries())
            .with_notify(log_retry);
        let operator = operator.layer(self.transport.clone());
        operator
            .layer(self.limit.clone())
            .layer(timeout)
            .layer(retry)
    }
}

/// Logs a retry. opendal's own log line contains the whole URL, which may be signed.
fn log_retry(event: RetryEvent<'_>) {
    tracing::warn!(
        operation = %event.op,
        attempt = event.attempt,
        "{}; retry in {:.1} s",
        crate::client::describe(event.err),
        event.retry_after.as_secs_f64()
    );
}

type Built = opendal::Result<(Operator, String)>;

/// Returns the value of the first of these variables that is set and not empty.
fn first(names: &[&str]) -> Option<String> {
    let values = names.iter().filter_map(|name| var(name).ok());
    values.into_iter().find(|value| !value.is_empty())
}

/// Returns an endpoint, if it is a URL and holds nothing that must not be shown. One that is none is not
/// shown either: a password may be anywhere in it.
fn checked(endpoint: String) -> opendal::Result<String> {
    let is_url = endpoint.contains("://");
    let url = if is_url {
        endpoint.clone()
    } else {
        format!("http://{endpoint}")
    };
    let refused = |message: &str| Err(opendal::Error::new(ErrorKind::ConfigInvalid, message));
    if masked_word(&url) != url {
        return refused("the endpoint holds a user name, a password or a query");
    }
    let is_usable = |url: Url| matches!(url.scheme(), "http" | "https") && url.has_host();
    if !Url::parse(&url).is_ok_and(is_usable) {
        return refused("the endpoint is not a URL like https://host:port");
    }
    Ok(endpoint.trim_end_matches('/').to_owned())
}

/// Returns the operator of an S3 bucket. opendal's signer takes the credentials from
/// `AWS_ACCESS_KEY_ID` and related variables, profiles, web identity, ECS and EC2 roles, in the
/// order of AWS's own tools.
fn s3(bucket: &str, settings: &StoreSettings) -> Built {
    let endpoint = first(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
        .map(checked)
        .transpose()?;
    let region = first(&["AWS_REGION", "AWS_DEFAULT_REGION"]);
    let mut builder = services::S3::default().bucket(bucket);
    let (region, shown) = match endpoint {
        // Self-hosted servers rarely check the region, but it is part of the signature.
        Some(endpoint) => {
            builder = builder.endpoint(&endpoint);
            (region.unwrap_or_else(|| REGION.into()), endpoint)
        }
        None => {
            let region = region.unwrap_or_else(|| REGION.into());
            // A bucket name with dots does not match the certificate of a virtual-hosted address.
            if !bucket.contains('.') {
                builder = builder.enable_virtual_host_style();
            }
            let shown = format!("{AWS} in {region}");
            (region, shown)
        }
    };
    builder = builder.region(&region);
    if settings.anonymous {
        builder = builder.skip_signature();
    }
    Ok((Operator::new(builder)?, shown))
}

/// Returns the operator of a Google Cloud Storage bucket. The credentials come from
/// `GOOGLE_APPLICATION_CREDENTIALS`, gcloud's own file or the metadata server.
fn gs(bucket: &str, settings: &StoreSettings) -> Built {
    let emulator = first(&["STORAGE_EMULATOR_HOST"]).map(|host| {
        if host.contains("://") {
            host
        } else {
            format!("http://{host}")
        }
    });
    let emulator = emulator.map(checked).transpose()?;
    let mut builder = services::Gcs::default().bucket(bucket);
    if settings.anonymous || emulator.is_some() {
        builder = builder.skip_signature();
    }
    if let Some(endpoint) = &emulator {
        builder = builder.endpoint(endpoint);
    }
    let shown = emulator.unwrap_or_else(|| "https://storage.googleapis.com".to_owned());
    Ok((Operator::new(builder)?, shown))
}

/// Returns the operator of an Azure container. The credentials are a connection string, an account
/// key or a SAS token, or come from Azure's default chain (service principal, workload identity,
/// managed identity).
fn az(container: &str, settings: &StoreSettings) -> Built {
    let mut builder = match first(&["AZURE_STORAGE_CONNECTION_STRING"]) {
        // The cause is not shown: its text would contain a part of the connection string.
        Some(connection) => {
            services::Azblob::from_connection_string(&connection).map_err(|_| {
                let message = "AZURE_STORAGE_CONNECTION_STRING is not a valid connection string";
                opendal::Error::new(ErrorKind::ConfigInvalid, message)
            })?
        }
        None => services::Azblob::default(),
    };
    builder = builder.container(container);
    let account = first(&["AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME"]);
    let endpoint = match first(&["AZURE_STORAGE_ENDPOINT"]) {
        Some(endpoint) => Some(checked(endpoint)?),
        None => account
            .as_ref()
            .map(|account| format!("https://{account}.blob.core.windows.net")),
    };
    if let Some(account) = &account {
        builder = builder.account_name(account);
    }
    if let Some(endpoint) = &endpoint {
        builder = builder.endpoint(endpoint);
    }
    if let Some(key) = first(&["AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY"]) {
        builder = builder.account_key(&key);
    }
    if let Some(token) = first(&["AZURE_STORAGE_SAS_TOKEN"]) {
        builder = builder.sas_token(token.trim_start_matches('?'));
    }
    if settings.anonymous {
        builder = builder.skip_signature();
    }
    let shown = endpoint.unwrap_or_else(|| "Azure, by its connection string".to_owned());
    Ok((Operator::new(builder)?, shown))
}

/// Returns a hint that names the sources of credentials for a kind of store.
fn credentials(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::S3 => {
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine a role; \
             SLUICE_STORE_ANONYMOUS=true reads public buckets"
        }
        Scheme::Gs => {
            "set GOOGLE_APPLICATION_CREDENTIALS to a credentials file; \
             SLUICE_STORE_ANONYMOUS=true reads public buckets"
        }
        Scheme::Az => {
            "set AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT with AZURE_STORAGE_KEY or \
             AZURE_STORAGE_SAS_TOKEN; SLUICE_STORE_ANONYMOUS=true reads public containers"
        }
    }
}

fn refused(e: &opendal::Error, scheme: Scheme, bucket: &str) -> Error {
    let hint = match scheme {
        Scheme::S3 => "set AWS_REGION, and AWS_ENDPOINT_URL for a server that is not Amazon's",
        Scheme::Gs => "set GOOGLE_APPLICATION_CREDENTIALS to a credentials file",
        Scheme::Az => "set AZURE_STORAGE_ACCOUNT, or AZURE_STORAGE_CONNECTION_STRING",
    };
    Error::usage(format!("{scheme}://{bucket}: {}", e.message())).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_are_endpoints() {
        for endpoint in [
            "http://h:9000",
            "https://h/",
            "localhost:9000",
            "10.0.0.1",
            "http://[::1]:9",
        ] {
            checked(endpoint.to_owned()).unwrap();
        }
        for endpoint in [
            "http://[x",
            "http://h:hush/",
            "http://h:99999999",
            "hush://x",
            "http://",
            "http://u:hush@h",
            "http://h/?x=hush",
        ] {
            let error = checked(endpoint.to_owned()).unwrap_err();
            let error = refused(&error, Scheme::S3, "b");
            assert_eq!(error.class(), sluice_manifest::Class::Usage);
            assert!(!error.to_string().contains("hush"), "{error}");
        }
    }
}
