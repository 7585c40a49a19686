//! fake-gcs-server: Google Cloud Storage, as far as it goes.
//!
//! It knows no XML multipart uploads (they end with 400 "invalid uploadType"), which is how opendal
//! writes what does not fit into one request, and it checks no credentials. So objects written to
//! it must fit into one part, and nothing can be learnt about secrets.

use std::sync::Arc;

use super::daemon::{Daemon, free_ports, program};
use super::{Shared, Site, http};

const BUCKET: &str = "sluice-test";

/// fake-gcs-server with one bucket, in memory.
pub struct FakeGcs {
    /// Its bucket.
    pub site: Site,
    _daemon: Daemon,
}

impl FakeGcs {
    /// The one that the tests share.
    pub fn shared() -> Option<Arc<Self>> {
        static SHARED: Shared<FakeGcs> = Shared::new();
        SHARED.get(Self::start)
    }

    /// Starts one.
    ///
    /// # Panics
    /// Where it makes no bucket.
    pub fn start() -> Option<Self> {
        let program = program("fake-gcs-server")?;
        let [port] = free_ports();
        let endpoint = format!("http://127.0.0.1:{port}");
        let arguments = |_: &std::path::Path| {
            let words = [
                "-scheme=http",
                "-host=127.0.0.1",
                &format!("-port={port}"),
                &format!("-public-host=127.0.0.1:{port}"),
                &format!("-external-url={endpoint}"),
                "-backend=memory",
            ];
            words.map(str::to_owned).to_vec()
        };
        let daemon = Daemon::start(&program, arguments, &[]);
        daemon.wait_until(|| http::answers(port, "/_internal/healthcheck"));
        let body = format!(r#"{{"name": "{BUCKET}"}}"#);
        let json = ["Content-Type: application/json"];
        let made = http::request(port, "POST", "/storage/v1/b?project=sluice", &json, &body)
            .expect("fake-gcs-server answers");
        assert_eq!(made.status, 200, "{}", made.body);
        Some(Self {
            site: Site {
                bucket: format!("gs://{BUCKET}"),
                missing: "gs://sluice-missing".to_owned(),
                port,
                variables: vec![("STORAGE_EMULATOR_HOST", endpoint)],
                secrets: Vec::new(),
            },
            _daemon: daemon,
        })
    }
}
