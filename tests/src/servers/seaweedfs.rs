//! SeaweedFS, an S3 server.

use std::sync::Arc;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::Value;

use super::daemon::{Daemon, free_ports, program};
use super::http::{self, escaped};
use super::{SharedServer, Site};

const BUCKET: &str = "sluice-test";
// Unique texts, so that a search finds only the secrets.
const KEY: &str = "AKIDSLUICETESTS7Q2";
const SECRET: &str = "s3+secret/never+to/be+shown+4f1c";

/// SeaweedFS with one bucket, on free ports.
pub struct SeaweedFs {
    /// Its bucket.
    pub site: Site,
    filer: u16,
    _daemon: Daemon,
}

impl SeaweedFs {
    /// Returns the server that the tests share.
    pub fn shared() -> Option<Arc<Self>> {
        static SHARED: SharedServer<SeaweedFs> = SharedServer::new();
        SHARED.get(Self::start)
    }

    /// Starts a server, and waits until it is ready. Returns `None` if it is not installed.
    pub fn start() -> Option<Self> {
        let program = program("weed")?;
        let ports: [u16; 10] = free_ports();
        let [s3, filer, ..] = ports;
        let names = ["s3", "filer", "master", "volume", "admin"];
        let arguments = |folder: &std::path::Path| {
            let mut words = vec!["mini".to_owned(), format!("-dir={}", folder.display())];
            // Its default ports could collide with another server's.
            for (name, ports) in names.iter().zip([
                [s3, ports[5]],
                [filer, ports[6]],
                [ports[2], ports[7]],
                [ports[3], ports[8]],
                [ports[4], ports[9]],
            ]) {
                words.push(format!("-{name}.port={}", ports[0]));
                words.push(format!("-{name}.port.grpc={}", ports[1]));
            }
            let others = [
                "-ip=127.0.0.1",
                "-ip.bind=127.0.0.1",
                "-webdav=false",
                "-admin.ui=false",
                "-s3.port.iceberg=0",
                "-s3.port.lance=0",
                // Writing does not create a bucket.
                "-s3.autoCreateBucket=false",
            ];
            words.extend(others.map(str::to_owned));
            words.push(format!("-bucket={BUCKET}"));
            words
        };
        let credentials = [
            ("AWS_ACCESS_KEY_ID", KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
        ];
        let daemon = Daemon::start(&program, arguments, &credentials);
        daemon.wait_until(|| {
            let bucket = format!("/buckets/{BUCKET}/");
            http::answers(s3, "/healthz") && http::answers(filer, &bucket)
        });
        Some(Self {
            site: Site {
                bucket: format!("s3://{BUCKET}"),
                missing: "s3://sluice-missing".to_owned(),
                port: s3,
                variables: vec![
                    ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{s3}")),
                    ("AWS_REGION", "us-east-1".to_owned()),
                    ("AWS_ACCESS_KEY_ID", KEY.to_owned()),
                    ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
                ],
                secrets: vec![KEY.to_owned(), SECRET.to_owned()],
            },
            filer,
            _daemon: daemon,
        })
    }

    /// Returns the names of the objects below a folder of the bucket, according to the server's
    /// file system.
    ///
    /// # Panics
    /// When the response is not valid.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let mut names = Vec::new();
        let mut folders = vec![String::new()];
        while let Some(below) = folders.pop() {
            let path = format!("/buckets/{BUCKET}/{folder}/{below}");
            for entry in self.entries(&path) {
                let full = entry["FullPath"].as_str().expect("an entry has a path");
                let name = full.rsplit('/').next().unwrap_or_default();
                // The mode of a folder has Go's directory bit.
                match entry["Mode"].as_u64().unwrap_or_default() >> 31 {
                    1 => folders.push(format!("{below}{name}/")),
                    _ => names.push(format!("{below}{name}")),
                }
            }
        }
        names.sort();
        names
    }

    /// Returns the keys of pending multipart uploads below a folder of the bucket, according to the
    /// server's file system instead of its S3 interface.
    ///
    /// # Panics
    /// When the response is not valid.
    pub fn uploads(&self, folder: &str) -> Vec<String> {
        let entries = self.entries(&format!("/buckets/{BUCKET}/.uploads/"));
        let keys = entries.iter().map(|entry| {
            let key = entry["Extended"]["key"].as_str().unwrap_or_default();
            let key = BASE64_STANDARD.decode(key).expect("a key in base64");
            String::from_utf8_lossy(&key).into_owned()
        });
        let below = |key: &String| {
            key.trim_start_matches('/')
                .starts_with(&format!("{folder}/"))
        };
        keys.filter(below).collect()
    }

    fn entries(&self, folder: &str) -> Vec<Value> {
        let target = format!("{}?limit=10000", escaped(folder));
        let json = ["Accept: application/json"];
        let answer = http::request(self.filer, "GET", &target, &json, "");
        let answer = answer.expect("the filer answers");
        if answer.status == 404 {
            return Vec::new();
        }
        assert_eq!(answer.status, 200, "{}", answer.body);
        let listing: Value = serde_json::from_str(&answer.body).expect("the filer speaks JSON");
        listing["Entries"].as_array().cloned().unwrap_or_default()
    }
}
