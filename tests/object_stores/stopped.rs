//! A stopped write leaves no object, and a killed write no visible object.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_tests::Running;
use sluice_tests::servers::{HaProxy, ProxyFaults, SeaweedFs, Site};

use crate::reference::{Reference, contents};
use crate::remote::{RemoteFolder, said};

/// A run without the curated shards.
struct Unfinished {
    seaweedfs: Arc<SeaweedFs>,
    direct: RemoteFolder,
}

impl Unfinished {
    fn new() -> Option<Self> {
        let seaweedfs = SeaweedFs::shared()?;
        let reference = Reference::get()?;
        let direct = RemoteFolder::new(&seaweedfs.site, "stopped");
        // Enough bytes for several parts.
        let photos = contents(&reference.input());
        let bytes: usize = photos.values().map(Vec::len).sum();
        for copy in 0..=(16 << 20) / bytes {
            direct.bring(&reference.input(), &format!("photos/{copy}"));
        }
        let run = direct.at("run");
        let step = |words: &[&str]| direct.done(&[words, &["--run", &run]].concat());
        let input = direct.at("photos");
        step(&[
            "sluice-partition",
            "--input",
            &input,
            "--shards-per-partition",
            "1",
        ]);
        step(&["sluice-read"]);
        step(&["sluice-export", "decide"]);
        let output = direct.at("output");
        step(&[
            "sluice-export",
            "plan",
            "--output",
            &output,
            "--images-per-shard",
            "1000",
        ]);
        Some(Self { seaweedfs, direct })
    }

    /// Starts the export on a store so slow that it is interrupted during an upload.
    fn exporting(&self) -> Option<(RemoteFolder, HaProxy, Running)> {
        let proxy = HaProxy::before(&self.seaweedfs.site, ProxyFaults::SLOW)?;
        let remote = RemoteFolder::new(&proxy.site, "stopped");
        let run = remote.at("run");
        let mut running = remote.start(&["sluice-export", "write", "--run", &run]);
        while self.uploads() == 0 {
            assert!(
                running.is_running().unwrap(),
                "it ended before an upload was seen"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        // Some parts are uploaded.
        std::thread::sleep(Duration::from_millis(100));
        Some((remote, proxy, running))
    }

    fn uploads(&self) -> usize {
        self.seaweedfs.uploads("stopped").len()
    }

    /// Returns the names of the objects in the output.
    fn output(&self) -> Vec<String> {
        let folder = self.direct.fetch("output");
        contents(&folder).into_keys().collect()
    }
}

/// A program that waits for an unreachable store must react to a signal: a container is killed
/// after half a minute.
#[test]
fn a_program_that_waits_for_its_store_can_be_stopped() {
    // The server never responds.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = listener.local_addr().unwrap().port();
    let mut wrong = Vec::new();
    // No server listens on port 9.
    for port in [silent, 9] {
        let site = Site {
            bucket: "s3://bucket".to_owned(),
            missing: String::new(),
            port,
            variables: vec![
                ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}")),
                ("AWS_ACCESS_KEY_ID", "key".to_owned()),
                ("AWS_SECRET_ACCESS_KEY", "secret+4f1c".to_owned()),
            ],
            secrets: vec!["secret+4f1c".to_owned()],
        };
        let remote = RemoteFolder::new(&site, "x");
        let mut running = remote.start(&["sluice-read", "--run", &remote.at("run")]);
        std::thread::sleep(Duration::from_secs(2));
        assert!(running.is_running().unwrap());
        running.terminate().unwrap();
        let asked = Instant::now();
        while running.is_running().unwrap() && asked.elapsed() < Duration::from_secs(15) {
            std::thread::sleep(Duration::from_millis(20));
        }
        if running.is_running().unwrap() {
            running.kill().unwrap();
            wrong.push(format!(
                "port {port}: still there after {:?}",
                asked.elapsed()
            ));
            continue;
        }
        eprintln!(
            "stopped {:.1} s after SIGTERM",
            asked.elapsed().as_secs_f64()
        );
        let finished = remote.wait(running);
        if finished.code != 143 {
            wrong.push(format!("{}: {}", finished.code, said(&finished)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_stopped_export_leaves_nothing_behind() {
    let Some(unfinished) = Unfinished::new() else {
        return;
    };
    let Some((remote, _proxy, running)) = unfinished.exporting() else {
        return;
    };
    let asked = Instant::now();
    running.terminate().unwrap();
    let finished = remote.wait(running);
    assert_eq!(finished.code, 143, "{}", said(&finished));
    assert_eq!(unfinished.uploads(), 0, "an upload is left");
    assert_eq!(unfinished.output(), [".sluice.json"], "the claim alone");
    eprintln!(
        "stopped {:.1} s after SIGTERM",
        asked.elapsed().as_secs_f64()
    );

    // A killed export cannot abort its upload. The parts remain until the bucket's lifecycle rule
    // removes them. But no object appears, and the next run writes it.
    let Some((_, _proxy, running)) = unfinished.exporting() else {
        return;
    };
    running.kill().unwrap();
    assert_eq!(unfinished.uploads(), 1);
    assert_eq!(unfinished.output(), [".sluice.json"], "the claim alone");
    let direct = &unfinished.direct;
    let run = direct.at("run");
    direct.done(&["sluice-export", "write", "--run", &run]);
    assert_eq!(
        unfinished.output(),
        [".sluice.json", "shard-00000.parquet", "shard-00000.tar"]
    );
    assert_eq!(unfinished.uploads(), 1, "but that of the killed one");
}
