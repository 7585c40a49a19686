//! Programs that work on an object store.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use sluice_tests::servers::Site;
use sluice_tests::{Finished, Process, Running};

use crate::reference::{Reference, contents, curate, word};

/// A folder in a bucket, and programs that can access only this store.
pub(crate) struct RemoteFolder {
    /// The folder's URI.
    pub uri: String,
    process: Process,
    scratch: tempfile::TempDir,
    secrets: Vec<String>,
}

impl RemoteFolder {
    /// Returns a test's own folder in a bucket.
    pub(crate) fn new(site: &Site, test: &str) -> Self {
        let limit = Duration::from_secs(180);
        let process = Process::new(env!("CARGO_BIN_EXE_sluice-tests-step"), limit).unwrap();
        Self {
            uri: format!("{}/{test}", site.bucket),
            process: process.at(site).with("SLUICE_LOG", "trace"),
            scratch: tempfile::tempdir().unwrap(),
            secrets: site.secrets.clone(),
        }
    }

    /// Sets a variable for the programs.
    #[must_use]
    pub(crate) fn with(mut self, variable: &str, value: &str) -> Self {
        self.process = self.process.with(variable, value);
        self
    }

    /// Gives the programs access to another store as well.
    #[must_use]
    pub(crate) fn and(mut self, site: &Site) -> Self {
        self.process = self.process.at(site);
        self.secrets.extend(site.secrets.iter().cloned());
        self
    }

    /// Adds a secret that no output may contain.
    #[must_use]
    pub(crate) fn hiding(mut self, secret: &str) -> Self {
        self.secrets.push(secret.to_owned());
        self
    }

    /// Returns the URI of a path in the folder.
    pub(crate) fn at(&self, path: &str) -> String {
        format!("{}/{path}", self.uri)
    }

    /// Returns a folder on local disk for this test alone.
    pub(crate) fn here(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Copies a folder from local disk to the store.
    pub(crate) fn bring(&self, folder: &Path, path: &str) {
        self.done(&["copy", word(folder), &self.at(path)]);
    }

    /// Copies a folder from the store to local disk, and searches it for secrets.
    pub(crate) fn fetch(&self, path: &str) -> PathBuf {
        let folder = self.here(path);
        self.done(&["copy", &self.at(path), word(&folder)]);
        for (path, bytes) in contents(&folder) {
            self.check_hidden(&path, &bytes);
        }
        folder
    }

    /// Runs a command line to its end, with any exit code.
    pub(crate) fn run(&self, command: &[&str]) -> Finished {
        let finished = self.process.run(command).unwrap();
        self.check_hidden("stdout", finished.stdout.as_bytes());
        self.check_hidden("stderr", finished.stderr.as_bytes());
        finished
    }

    /// Starts a command line.
    pub(crate) fn start(&self, command: &[&str]) -> Running {
        self.process.start(command).unwrap()
    }

    /// Waits for a process from [`start`](Self::start).
    pub(crate) fn wait(&self, running: Running) -> Finished {
        let finished = running.wait().unwrap();
        self.check_hidden("stdout", finished.stdout.as_bytes());
        self.check_hidden("stderr", finished.stderr.as_bytes());
        finished
    }

    /// Runs a command line that must succeed.
    pub(crate) fn done(&self, command: &[&str]) -> Finished {
        let finished = self.run(command);
        assert_eq!(finished.code, 0, "{command:?}: {}", said(&finished));
        finished
    }

    /// Runs `sluice run` from `photos` to `run` and `output`, with the models of local disk.
    pub(crate) fn curate(&self, reference: &Reference, images_per_shard: &str) -> Finished {
        let [input, run, output] = ["photos", "run", "output"].map(|path| self.at(path));
        self.done(&curate(
            &input,
            &run,
            &output,
            &reference.models,
            images_per_shard,
        ))
    }

    /// Runs `sluice verify`, which must pass.
    pub(crate) fn verify(&self, run: &str) {
        self.done(&["sluice", "verify", "--run", run]);
    }

    /// Checks that the run and the output equal the reference on local disk.
    pub(crate) fn compare(&self, reference: &Reference, images_per_shard: &str) {
        let [run, output] = ["run", "output"].map(|path| self.fetch(path));
        let wrong = reference.differences(images_per_shard, &self.at("photos"), &run, &output);
        assert!(wrong.is_empty(), "{}: {wrong:#?}", self.uri);
    }

    /// Fails when these bytes contain a secret.
    pub(crate) fn check_hidden(&self, place: &str, bytes: &[u8]) {
        if let Some(shown) = self.shown(bytes) {
            panic!("{place}: a secret is shown: {shown}");
        }
    }

    /// Returns the text around a secret, if the bytes contain one.
    pub(crate) fn shown(&self, bytes: &[u8]) -> Option<String> {
        self.secrets.iter().find_map(|secret| {
            let secret = secret.as_bytes();
            let at = bytes
                .windows(secret.len())
                .position(|word| word == secret)?;
            let around = at.saturating_sub(300)..(at + 300).min(bytes.len());
            Some(String::from_utf8_lossy(&bytes[around]).into_owned())
        })
    }

    /// Runs a command line and returns an error for any other exit code, or for a secret.
    pub(crate) fn wrong(&self, command: &[&str], codes: &[i32]) -> Option<String> {
        let finished = self.process.run(command).unwrap();
        let words = [&finished.stdout, &finished.stderr].map(|text| self.shown(text.as_bytes()));
        if let Some(shown) = words.into_iter().flatten().next() {
            return Some(format!("{command:?} shows a secret: {shown}"));
        }
        let wrong = !codes.contains(&finished.code);
        wrong.then(|| {
            format!(
                "{command:?} ends with {}: {}",
                finished.code,
                said(&finished)
            )
        })
    }
}

/// Returns a program's JSON result.
pub(crate) fn result(finished: &Finished) -> Value {
    let line = finished.stdout.lines().last().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))
}

/// Returns the output of a failed program, without trace lines.
pub(crate) fn said(finished: &Finished) -> String {
    let lines = finished.stderr.lines().filter(|line| {
        !line.contains(r#""level":"TRACE""#) && !line.contains(r#""level":"DEBUG""#)
    });
    let lines: Vec<&str> = lines.collect();
    format!("{}\n{}", lines.join("\n"), finished.stdout)
}
