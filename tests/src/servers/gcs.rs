//! fake-gcs-server, a partial Google Cloud Storage server.
//!
//! It does not support XML multipart uploads (400 "invalid uploadType"), which opendal uses for
//! objects larger than one request, and it checks no credentials. Objects must therefore fit into
//! one part, and tests of secrets need another server.

use std::sync::Arc;

use super::daemon::{Daemon, free_ports, program};
use super::{SharedServer, Site, http};

const BUCKET: &str = "sluice-test";

/// fake-gcs-server with one bucket, in memory.
pub struct FakeGcs {
    /// Its bucket.
    pub site: Site,
    _daemon: Daemon,
}

impl FakeGcs {
    /// Returns the server that the tests share.
    pub fn shared() -> Option<Arc<Self>> {
        static SHARED: SharedServer<FakeGcs> = SharedServer::new();
        SHARED.get(Self::start)
    }

    /// Starts a server.
    ///
    /// # Panics
    /// When it cannot create a bucket.
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
