//! HTTP: one connection pool for all stores of a process, with a count of every request.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Method, Request, Response};
use opendal::raw::{Layer, Servicer};
use opendal::{Buffer, HttpBody, HttpTransport, HttpTransporter, OperationContext};
use opendal_http_transport_reqwest::ReqwestTransport;

use crate::client::describe;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The HTTP methods that object stores use.
const METHODS: [Method; 5] = [
    Method::GET,
    Method::HEAD,
    Method::PUT,
    Method::POST,
    Method::DELETE,
];

/// The number of requests by method. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct RequestCounts(Arc<[AtomicU64; METHODS.len()]>);

impl RequestCounts {
    fn count(&self, method: &Method) {
        let mut known = METHODS.iter().zip(self.0.iter());
        if let Some((_, sent)) = known.find(|(known, _)| *known == method) {
            sent.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the counts of the methods that were used.
    pub(crate) fn by_method(&self) -> BTreeMap<String, u64> {
        let counts = METHODS.iter().zip(self.0.iter()).map(|(method, sent)| {
            let sent = sent.load(Ordering::Relaxed);
            (method.to_string(), sent)
        });
        counts.filter(|(_, sent)| *sent > 0).collect()
    }
}

/// The connection pool of a process, as a layer for its operators. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Transport {
    client: reqwest::Client,
    sent: RequestCounts,
}

impl Transport {
    pub(crate) fn new(sent: RequestCounts) -> Result<Self, String> {
        // Another part of the process may have installed a provider, which is equally good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = || {
            reqwest::Client::builder()
                .user_agent(concat!("sluice/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(CONNECT_TIMEOUT)
        };
        // A system without certificates can still ask stores at http://; others are then refused.
        let client = builder().build();
        let client = client.or_else(|_| builder().tls_certs_only([]).build());
        let client = client.map_err(|e| e.to_string())?;
        Ok(Self { client, sent })
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transport")
    }
}

impl Layer for Transport {
    fn apply_context(&self, _service: Servicer, inner: OperationContext) -> OperationContext {
        inner.with_http_transport(HttpTransporter::new(CountingTransport {
            inner: ReqwestTransport::new(self.client.clone()),
            sent: self.sent.clone(),
        }))
    }
}

/// Returns whether the store's certificate was rejected.
pub(crate) fn is_about_certificates(e: &opendal::Error) -> bool {
    describe(e).contains("invalid peer certificate")
}

struct CountingTransport {
    inner: ReqwestTransport,
    sent: RequestCounts,
}

impl HttpTransport for CountingTransport {
    async fn fetch(&self, request: Request<Buffer>) -> opendal::Result<Response<HttpBody>> {
        self.sent.count(request.method());
        let answer = self.inner.fetch(request).await;
        // A rejected certificate is rejected again, so there is no retry.
        answer.map_err(|e| {
            if is_about_certificates(&e) {
                e.set_permanent()
            } else {
                e
            }
        })
    }
}
