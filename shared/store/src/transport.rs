//! HTTP: one pool of connections for all stores, with every request counted.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Once};
use std::time::Duration;

use http::{Method, Request, Response};
use opendal::{Buffer, HttpBody, HttpTransport, HttpTransporter};
use opendal_http_transport_reqwest::ReqwestTransport;

use crate::client::words;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The methods that object stores are spoken to in, and how often each was used.
static SENT: LazyLock<[(Method, AtomicU64); 5]> = LazyLock::new(|| {
    let methods = [
        Method::GET,
        Method::HEAD,
        Method::PUT,
        Method::POST,
        Method::DELETE,
    ];
    methods.map(|method| (method, AtomicU64::new(0)))
});

/// The HTTP requests that this process has sent to object stores, by method, retries included.
/// Methods that were not used are left out.
pub fn requests() -> BTreeMap<String, u64> {
    let counts = SENT.iter().map(|(method, sent)| {
        let sent = sent.load(Ordering::Relaxed);
        (method.to_string(), sent)
    });
    counts.filter(|(_, sent)| *sent > 0).collect()
}

/// Makes ours the transport of all operators.
pub(crate) fn install() -> Result<(), String> {
    static INSTALLED: Once = Once::new();
    let mut outcome = Ok(());
    INSTALLED.call_once(|| {
        // Another part of the process may have chosen one already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .user_agent(concat!("sluice/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .build();
        match client {
            Ok(client) => HttpTransporter::install_default(Counted {
                inner: ReqwestTransport::new(client),
            }),
            Err(e) => outcome = Err(e.to_string()),
        }
    });
    outcome
}

/// Whether the store's certificate was refused.
pub(crate) fn is_about_certificates(e: &opendal::Error) -> bool {
    words(e).contains("invalid peer certificate")
}

struct Counted {
    inner: ReqwestTransport,
}

impl HttpTransport for Counted {
    async fn fetch(&self, request: Request<Buffer>) -> opendal::Result<Response<HttpBody>> {
        let known = SENT.iter().find(|(method, _)| method == request.method());
        if let Some((_, sent)) = known {
            sent.fetch_add(1, Ordering::Relaxed);
        }
        let answer = self.inner.fetch(request).await;
        // Whom a certificate does not convince the first time it will not the second.
        answer.map_err(|e| match is_about_certificates(&e) {
            true => e.set_permanent(),
            false => e,
        })
    }
}
