//! HTTP: one pool of connections for all stores of a process, with every request counted.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Method, Request, Response};
use opendal::raw::{Layer, Servicer};
use opendal::{Buffer, HttpBody, HttpTransport, HttpTransporter, OperationContext};
use opendal_http_transport_reqwest::ReqwestTransport;

use crate::client::words;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The methods that object stores are spoken to in.
const METHODS: [Method; 5] = [
    Method::GET,
    Method::HEAD,
    Method::PUT,
    Method::POST,
    Method::DELETE,
];

/// How often each method was used. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sent(Arc<[AtomicU64; METHODS.len()]>);

impl Sent {
    fn count(&self, method: &Method) {
        let mut known = METHODS.iter().zip(self.0.iter());
        if let Some((_, sent)) = known.find(|(known, _)| *known == method) {
            sent.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the counts of the methods that were used.
    pub fn by_method(&self) -> BTreeMap<String, u64> {
        let counts = METHODS.iter().zip(self.0.iter()).map(|(method, sent)| {
            let sent = sent.load(Ordering::Relaxed);
            (method.to_string(), sent)
        });
        counts.filter(|(_, sent)| *sent > 0).collect()
    }
}

/// The connections of a process, as a layer of its operators. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Transport {
    client: reqwest::Client,
    sent: Sent,
}

impl Transport {
    pub fn new(sent: Sent) -> Result<Self, String> {
        // Another part of the process may have chosen one already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .user_agent(concat!("sluice/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .build();
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
        inner.with_http_transport(HttpTransporter::new(Counted {
            inner: ReqwestTransport::new(self.client.clone()),
            sent: self.sent.clone(),
        }))
    }
}

/// Whether the store's certificate was refused.
pub(crate) fn is_about_certificates(e: &opendal::Error) -> bool {
    words(e).contains("invalid peer certificate")
}

struct Counted {
    inner: ReqwestTransport,
    sent: Sent,
}

impl HttpTransport for Counted {
    async fn fetch(&self, request: Request<Buffer>) -> opendal::Result<Response<HttpBody>> {
        self.sent.count(request.method());
        let answer = self.inner.fetch(request).await;
        // A certificate that is refused once is refused again.
        answer.map_err(|e| match is_about_certificates(&e) {
            true => e.set_permanent(),
            false => e,
        })
    }
}
