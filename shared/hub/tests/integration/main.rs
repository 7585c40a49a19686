//! Snapshots from a Hub on this machine: resumed, verified, shared, and refused with a hint.

#![expect(
    clippy::disallowed_methods,
    reason = "the tests look at the cache's files as another program would"
)]

use std::path::Path;

use sluice_hub::{Address, Environment, Hub, Snapshot};
use sluice_manifest::{Class, Error, Result};
use sluice_testkit::hub::{COMMIT, Faults, HubServer};

const LARGE: usize = 3_000_000;

fn contents() -> Vec<u8> {
    (0..LARGE).map(|i| (i * i % 251) as u8).collect()
}

fn files() -> [(&'static str, Vec<u8>); 3] {
    [
        ("org/name/config.json", b"{}".to_vec()),
        ("org/name/onnx/model.onnx", contents()),
        ("org/name/pytorch_model.bin", vec![7; 50_000]),
    ]
}

fn environment(server: &HubServer, folder: &Path) -> Environment {
    let variable = |name: &str| match name {
        "HF_ENDPOINT" => Some(server.endpoint.clone()),
        "HF_HOME" => folder.to_str().map(str::to_owned),
        _ => None,
    };
    Environment::read(variable).unwrap()
}

fn pull_as(environment: Environment) -> Result<Snapshot> {
    let hub = Hub::new(environment, &|| Ok(()))?;
    let address: Address = "hf://org/name".parse()?;
    let wanted = |paths: &[String]| {
        Ok(paths
            .iter()
            .filter(|p| !p.ends_with(".bin"))
            .cloned()
            .collect())
    };
    hub.snapshot(&address, &wanted)
}

fn check(snapshot: &Snapshot) {
    let paths: Vec<_> = snapshot
        .files
        .iter()
        .map(|file| (file.path.as_str(), file.stated))
        .collect();
    assert_eq!(paths, [("config.json", false), ("onnx/model.onnx", true)]);
    assert!(std::fs::read(snapshot.folder.join("onnx/model.onnx")).unwrap() == contents());
    assert_eq!(
        std::fs::read(snapshot.folder.join("config.json")).unwrap(),
        b"{}"
    );
}

fn bodies(server: &HubServer) -> usize {
    let seen = server.take_seen();
    seen.iter()
        .filter(|s| s.line.starts_with("GET") && !s.line.contains("/api/"))
        .count()
}

#[test]
fn a_snapshot_has_pythons_layout_and_is_downloaded_once() {
    let (server, folder) = (HubServer::start(&files()), tempfile::tempdir().unwrap());
    check(&pull_as(environment(&server, folder.path())).unwrap());
    assert_eq!(bodies(&server), 3, "two files, one of them by a redirect");
    let root = folder.path().join("hub/models--org--name");
    assert_eq!(
        std::fs::read_to_string(root.join("refs/main")).unwrap(),
        COMMIT
    );
    let link =
        std::fs::read_link(root.join("snapshots").join(COMMIT).join("onnx/model.onnx")).unwrap();
    assert!(link.starts_with("../../../blobs"), "{link:?}");
    check(&pull_as(environment(&server, folder.path())).unwrap());
    assert_eq!(bodies(&server), 0);
}

#[test]
fn a_download_that_is_cut_goes_on_where_it_ended() {
    let (server, folder) = (HubServer::start(&files()), tempfile::tempdir().unwrap());
    server.fail(Faults {
        cut: Some((1_000_000, 2)),
        ..Faults::default()
    });
    check(&pull_as(environment(&server, folder.path())).unwrap());
    let seen = server.take_seen();
    let ranges: Vec<_> = seen
        .iter()
        .filter(|s| s.elsewhere)
        .filter_map(|s| s.headers.get("range"))
        .collect();
    assert_eq!(ranges, ["bytes=1000000-", "bytes=2000000-"]);
}

#[test]
fn a_server_without_ranges_starts_again() {
    let (server, folder) = (HubServer::start(&files()), tempfile::tempdir().unwrap());
    server.fail(Faults {
        cut: Some((1_000_000, 1)),
        no_ranges: true,
        ..Faults::default()
    });
    check(&pull_as(environment(&server, folder.path())).unwrap());
}

#[test]
fn a_tampered_file_is_refused_and_not_kept() {
    let (server, folder) = (HubServer::start(&files()), tempfile::tempdir().unwrap());
    server.fail(Faults {
        tamper: true,
        ..Faults::default()
    });
    let error = pull_as(environment(&server, folder.path())).unwrap_err();
    assert_eq!(error.class(), Class::Data);
    assert!(
        error.to_string().contains("SHA-256 is") && !error.to_string().contains("secret"),
        "{error}"
    );
    let blobs = folder.path().join("hub/models--org--name/blobs");
    let left: Vec<_> = std::fs::read_dir(blobs)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 1, "the small one: {left:?}");
    server.fail(Faults::default());
    check(&pull_as(environment(&server, folder.path())).unwrap());
}

#[test]
fn small_files_are_verified_and_damaged_ones_of_the_cache_replaced() {
    let (server, folder) = (HubServer::start(&files()), tempfile::tempdir().unwrap());
    server.fail(Faults {
        tamper_small: true,
        ..Faults::default()
    });
    let error = pull_as(environment(&server, folder.path())).unwrap_err();
    assert_eq!(error.class(), Class::Data);
    assert!(error.to_string().contains("SHA-1 is"), "{error}");
    server.fail(Faults::default());
    let snapshot = pull_as(environment(&server, folder.path())).unwrap();
    let mut offline = environment(&server, folder.path());
    offline.offline = true;
    for path in ["config.json", "onnx/model.onnx"] {
        let blob = snapshot.folder.join(path).canonicalize().unwrap();
        let mut bytes = std::fs::read(&blob).unwrap();
        bytes[0] ^= 1;
        std::fs::write(&blob, bytes).unwrap();
        let error = pull_as(offline.clone()).unwrap_err().to_string();
        assert!(
            error.contains(path) && error.contains("HF_HUB_OFFLINE"),
            "{error}"
        );
        check(&pull_as(environment(&server, folder.path())).unwrap());
        pull_as(offline.clone()).unwrap();
    }
}

#[test]
fn the_token_goes_to_the_hub_alone() {
    let (server, folder) = (HubServer::start(&files()), tempfile::tempdir().unwrap());
    server.fail(Faults {
        token: Some("hf_secret"),
        ..Faults::default()
    });
    let error = pull_as(environment(&server, folder.path())).unwrap_err();
    assert_eq!(error.class(), Class::Usage);
    assert!(
        error.to_string().contains("gated") && error.to_string().contains("HF_TOKEN"),
        "{error}"
    );
    server.take_seen();
    let mut environment = environment(&server, folder.path());
    environment.token = Some("hf_secret".to_owned());
    check(&pull_as(environment).unwrap());
    let seen = server.take_seen();
    assert!(seen.iter().any(|s| s.elsewhere));
    assert!(
        seen.iter()
            .all(|s| s.elsewhere != s.headers.contains_key("authorization"))
    );
}

#[test]
fn what_may_pass_is_tried_again_and_what_will_not_is_not() {
    let (server, folder) = (HubServer::start(&files()), tempfile::tempdir().unwrap());
    server.fail(Faults {
        status: Some((429, 2, Some(("Retry-After", "0")))),
        ..Faults::default()
    });
    check(&pull_as(environment(&server, folder.path())).unwrap());
    for (status, header, class) in [
        (404, ("X-Error-Code", "RevisionNotFound"), Class::Usage),
        (403, ("X-Error-Code", "GatedRepo"), Class::Usage),
        (503, ("Retry-After", "0"), Class::Transient),
    ] {
        server.fail(Faults {
            status: Some((status, usize::MAX, Some(header))),
            ..Faults::default()
        });
        server.take_seen();
        let error = pull_as(environment(&server, folder.path())).unwrap_err();
        assert_eq!(error.class(), class, "{error}");
        let tries = if class == Class::Transient { 6 } else { 1 };
        assert_eq!(server.take_seen().len(), tries, "{status}");
    }
}

#[test]
fn offline_takes_what_the_cache_has() {
    let (server, folder) = (HubServer::start(&files()), tempfile::tempdir().unwrap());
    let mut offline = environment(&server, folder.path());
    offline.offline = true;
    let error = pull_as(offline.clone()).unwrap_err();
    assert!(error.to_string().contains("HF_HUB_OFFLINE"), "{error}");
    pull_as(environment(&server, folder.path())).unwrap();
    server.take_seen();
    let snapshot = pull_as(offline).unwrap();
    assert_eq!(snapshot.files.len(), 2);
    assert!(server.take_seen().is_empty());
}

#[test]
fn two_at_once_download_each_file_once() {
    let (server, folder) = (HubServer::start(&files()), tempfile::tempdir().unwrap());
    std::thread::scope(|scope| {
        let pulls =
            [(); 3].map(|()| scope.spawn(|| pull_as(environment(&server, folder.path())).unwrap()));
        pulls
            .into_iter()
            .for_each(|pull| check(&pull.join().unwrap()));
    });
    let seen = server.take_seen();
    assert_eq!(seen.iter().filter(|s| s.elsewhere).count(), 1);
}

#[test]
fn a_download_that_is_stopped_is_resumed_later() {
    let (server, folder) = (HubServer::start(&files()), tempfile::tempdir().unwrap());
    let reads = std::cell::Cell::new(0);
    let keep_going = || match reads.replace(reads.get() + 1) {
        4 => Err(Error::stopped()),
        _ => Ok(()),
    };
    let hub = Hub::new(environment(&server, folder.path()), &keep_going).unwrap();
    let all = |paths: &[String]| Ok(paths[1..2].to_vec());
    let error = hub
        .snapshot(&"hf://org/name".parse().unwrap(), &all)
        .unwrap_err();
    assert_eq!(error.class(), Class::Stopped);
    server.take_seen();
    check(&pull_as(environment(&server, folder.path())).unwrap());
    assert!(
        server
            .take_seen()
            .iter()
            .any(|s| s.headers.contains_key("range"))
    );
}

#[test]
fn any_address_gives_a_file() {
    let (server, folder) = (HubServer::start(&files()), tempfile::tempdir().unwrap());
    let hub = Hub::new(environment(&server, folder.path()), &|| Ok(())).unwrap();
    let target = folder.path().join("model.onnx");
    let url = format!("{}/org/name/onnx/model.onnx?download=true", server.store);
    let (bytes, sha256) = hub.file_at(&url, &target, None).unwrap();
    assert_eq!(bytes as usize, LARGE);
    assert!(std::fs::read(&target).unwrap() == contents());
    let seen = server.take_seen();
    assert!(seen[0].line.contains("?download=true"), "{seen:?}");
    hub.file_at(&url, &target, Some(&sha256)).unwrap();
    assert!(server.take_seen().is_empty(), "it is there already");
    let error = hub.file_at(&url, &target, Some(COMMIT)).unwrap_err();
    assert_eq!(error.class(), Class::Data, "{error}");
}

#[test]
fn a_mirror_has_the_files_of_other_hosts() {
    let (server, folder) = (HubServer::start(&[]), tempfile::tempdir().unwrap());
    server.put("files.example/a/b+c.zip", vec![1, 2, 3]);
    let mut environment = environment(&server, folder.path());
    environment.mirror = Some(server.store.clone());
    let hub = Hub::new(environment, &|| Ok(())).unwrap();
    let target = folder.path().join("b");
    let url = "https://files.example/a/b%2Bc.zip?x=1";
    assert_eq!(hub.file_at(url, &target, None).unwrap().0, 3);
    assert!(
        server.take_seen()[0]
            .line
            .starts_with("GET /files.example/a/b%2Bc.zip?x=1")
    );
}

#[test]
fn a_pause_that_is_too_long_is_not_waited_for() {
    let (server, folder) = (HubServer::start(&files()), tempfile::tempdir().unwrap());
    server.fail(Faults {
        status: Some((429, usize::MAX, Some(("Retry-After", "3600")))),
        ..Faults::default()
    });
    let error = pull_as(environment(&server, folder.path())).unwrap_err();
    assert_eq!(error.class(), Class::Transient);
    assert!(error.to_string().contains("wait 3600 s"), "{error}");
    assert_eq!(server.take_seen().len(), 1);
}
