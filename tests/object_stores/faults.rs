//! A store with faults, an unreachable store, and a store that denies access.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use sluice_tests::Finished;
use sluice_tests::servers::{Azurite, Cutter, FakeGcs, HaProxy, ProxyFaults, SeaweedFs, Site};

use crate::reference::{LARGE_SHARDS, Reference, contents, word};
use crate::remote::{RemoteFolder, result, said};

/// The timeout of a program that must give up soon, in seconds.
const TIMEOUT: u64 = 2;
const RETRY_FOR: u64 = 6;

/// Additional time of a program: one more try, and its start and end on a busy machine.
const SLACK: u64 = TIMEOUT + 8;

#[test]
fn faults_change_no_byte() {
    let Some(seaweedfs) = SeaweedFs::shared() else {
        return;
    };
    let Some(proxy) = HaProxy::before(&seaweedfs.site, ProxyFaults::MANY) else {
        return;
    };
    let Some(reference) = Reference::get() else {
        return;
    };
    let remote = RemoteFolder::new(&proxy.site, "faults");
    remote.bring(&reference.input(), "photos");
    let finished = remote.curate(reference, LARGE_SHARDS);
    remote.verify(&remote.at("run"));
    let seen = proxy.seen();
    let [refused, closed] = [503, -1].map(|status| {
        let of = seen.iter().filter(|seen| seen.status == status);
        of.count()
    });
    eprintln!(
        "faults: {:.1} s, {}; the proxy saw {} requests, refused {refused} and closed {closed}",
        finished.took.as_secs_f64(),
        result(&finished)["requests"],
        seen.len()
    );
    // Otherwise no fault was tested.
    assert!(refused > 10 && closed > 3);
    // The result is read without the proxy.
    let direct = RemoteFolder::new(&seaweedfs.site, "faults");
    direct.compare(reference, LARGE_SHARDS);
    assert_eq!(seaweedfs.uploads("faults"), [""; 0]);
}

/// The number of bytes of a response after which its connection breaks.
const CUT_AT: u64 = 300_000;

/// Connections break in the middle of a response, repeatedly.
#[test]
fn interrupted_responses_are_completed() {
    let Some(seaweedfs) = SeaweedFs::shared() else {
        return;
    };
    let Some(reference) = Reference::get() else {
        return;
    };
    let direct = RemoteFolder::new(&seaweedfs.site, "cut");
    direct.bring(&reference.input(), "photos");
    // Within the byte range of one request for a shard.
    let cutter = Cutter::before(&seaweedfs.site, CUT_AT);
    let shards = contents(&reference.input());
    assert!(shards.values().all(|shard| shard.len() as u64 > 2 * CUT_AT));
    let remote = RemoteFolder::new(&cutter.site, "cut");
    let [input, run] = ["photos", "run"].map(|path| remote.at(path));
    let partition = ["sluice-partition", "--input", &input, "--run", &run];
    remote.done(&[&partition[..], &["--shards-per-partition", "1"]].concat());
    remote.done(&["sluice-read", "--run", &run]);
    eprintln!("{} connections were cut", cutter.cuts());
    assert!(cutter.cuts() >= 1);
    let (made, expected) = (direct.fetch("run"), reference.made(LARGE_SHARDS).0);
    let [made, expected] = [&made, expected.as_path()].map(contents);
    for part in ["part-00000", "part-00001"] {
        let images = format!("read/images/{part}.parquet");
        assert!(made[&images] == expected[&images], "{images}");
    }
}

/// A request whose response is lost is sent again, although the server processed it.
#[test]
fn answers_that_are_lost_do_no_harm() {
    let Some(seaweedfs) = SeaweedFs::shared() else {
        return;
    };
    let Some(proxy) = HaProxy::before(&seaweedfs.site, ProxyFaults::MUTE) else {
        return;
    };
    let Some(reference) = Reference::get() else {
        return;
    };
    let direct = RemoteFolder::new(&seaweedfs.site, "lost");
    direct.bring(&reference.input(), "photos");
    let input = direct.at("photos");
    let made = [&direct, &RemoteFolder::new(&proxy.site, "lost")].map(|remote| {
        let name = if std::ptr::eq(remote, &direct) {
            "direct"
        } else {
            "lost"
        };
        let [run, output] = ["run", "output"].map(|path| remote.at(&format!("{name}/{path}")));
        let step = |words: &[&str]| remote.done(&[words, &["--run", &run]].concat());
        step(&["sluice-partition", "--input", &input]);
        step(&["sluice-read"]);
        step(&["sluice-export", "decide"]);
        let per_shard = ["--images-per-shard", "70"];
        step(
            &[
                &["sluice-export", "plan", "--output", &output][..],
                &per_shard,
            ]
            .concat(),
        );
        step(&["sluice-export", "write"]);
        let mut made = contents(&direct.fetch(name));
        // The claim names its run.
        let is_compared =
            |path: &str| path.starts_with("output/") && !path.ends_with(".sluice.json");
        made.retain(|path, _| is_compared(path) || path.contains("/images/"));
        made
    });
    let seen = proxy.seen();
    let lost = seen.iter().filter(|seen| seen.status == 503);
    let mut lost: Vec<&str> = lost.map(|seen| seen.method.as_str()).collect();
    lost.sort_unstable();
    lost.dedup();
    // A client that did not receive the id of an upload cannot abort it. The bucket's lifecycle
    // rule does.
    let left = seaweedfs.uploads("lost");
    eprintln!("answers were lost to {lost:?}; uploads left: {left:?}");
    // Otherwise no fault was tested.
    assert!(!lost.is_empty());
    assert!(made[0].len() > 4, "{:?}", made[0].keys());
    assert!(made[0] == made[1]);
}

/// The path of the requested objects.
const AWAY: &str = "/away/";

/// Checks that a program exits with 75 in time, and names the object and the endpoint.
fn gives_up(remote: &RemoteFolder, site: &Site, command: &[&str], object: &str) {
    let started = Instant::now();
    let finished = remote.run(command);
    let took = started.elapsed();
    let words = said(&finished);
    assert_eq!(finished.code, 75, "{words}");
    assert!(took < Duration::from_secs(RETRY_FOR + SLACK), "{took:?}");
    let error = &result(&finished)["error"];
    assert_eq!(error["retryable"], true, "{error}");
    let message = error["message"].as_str().unwrap();
    let endpoint = format!("127.0.0.1:{}", site.port);
    for part in [object, &endpoint] {
        assert!(message.contains(part), "no {part}: {message}");
    }
    eprintln!("  after {:.1} s: {message}", took.as_secs_f64());
}

/// Returns a folder on a site, with programs that give up soon.
fn hasty(site: &Site) -> RemoteFolder {
    RemoteFolder::new(site, "away")
        .with("SLUICE_STORE_TIMEOUT", &TIMEOUT.to_string())
        .with("SLUICE_STORE_RETRY_FOR", &RETRY_FOR.to_string())
}

#[test]
fn a_store_that_stays_away_is_given_up_in_time() {
    let (Some(seaweedfs), Some(azurite), Some(gcs)) =
        (SeaweedFs::shared(), Azurite::shared(), FakeGcs::shared())
    else {
        return;
    };
    let sites = [&seaweedfs.site, &azurite.site, &gcs.site];

    eprintln!("\nnothing listens:");
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    drop(held);
    std::thread::scope(|scope| {
        for site in sites.map(|site| site.through(port)) {
            scope.spawn(move || {
                let remote = hasty(&site);
                let run = remote.at("run");
                gives_up(&remote, &site, &["sluice-read", "--run", &run], AWAY);
                let input = remote.at("photos");
                let command = ["sluice-partition", "--run", &run, "--input", &input];
                gives_up(&remote, &site, &command, AWAY);
            });
        }
    });

    eprintln!("\nit listens and says nothing:");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    std::thread::scope(|scope| {
        for site in sites.map(|site| site.through(port)) {
            scope.spawn(move || {
                let remote = hasty(&site);
                let run = remote.at("run");
                gives_up(&remote, &site, &["sluice-read", "--run", &run], AWAY);
            });
        }
    });

    eprintln!("\nit is never ready:");
    let Some(proxy) = HaProxy::before(&seaweedfs.site, ProxyFaults::AWAY) else {
        return;
    };
    for site in sites.map(|site| site.through(proxy.site.port)) {
        let remote = hasty(&site);
        let run = remote.at("run");
        gives_up(&remote, &site, &["sluice-read", "--run", &run], AWAY);
    }
}

/// Returns an error if a program did not exit with 2 at once, with a hint.
fn not_refused(finished: &Finished, object: &str) -> Option<String> {
    let error = &result(finished)["error"];
    let message = error["message"].as_str().unwrap_or_default();
    eprintln!(
        "  {} after {:.1} s: {message}",
        finished.code,
        finished.took.as_secs_f64()
    );
    let right = finished.code == 2
        && finished.took < Duration::from_secs(10)
        && error["retryable"] == false
        && message.contains(object)
        && message.contains("hint:");
    (!right).then(|| {
        format!(
            "{object}: {} after {:?}: {message}",
            finished.code, finished.took
        )
    })
}

#[test]
fn what_no_try_will_mend_is_not_tried_again() {
    let (Some(seaweedfs), Some(azurite)) = (SeaweedFs::shared(), Azurite::shared()) else {
        return;
    };
    let mut wrong = Vec::new();
    // The server for Google Cloud Storage does not distinguish a missing bucket from a missing
    // object.
    eprintln!("\nno such bucket:");
    for site in [&seaweedfs.site, &azurite.site] {
        let remote = RemoteFolder::new(site, "refused");
        let run = format!("{}/run", site.missing);
        let finished = remote.run(&["sluice-read", "--run", &run]);
        wrong.extend(not_refused(&finished, &site.missing));
        let here = remote.here("run");
        let input = format!("{}/photos", site.missing);
        for run in [word(&here), &run] {
            let finished = remote.run(&["sluice-partition", "--run", run, "--input", &input]);
            wrong.extend(not_refused(&finished, &site.missing));
        }
    }
    eprintln!("\nwrong credentials:");
    let secret = "d3JvbmcgYW5kIG5vdCB0byBiZSBzaG93biBlaXRoZXI=";
    for site in [
        seaweedfs.site.with("AWS_SECRET_ACCESS_KEY", secret),
        azurite.site.with("AZURE_STORAGE_KEY", secret),
    ] {
        let remote = RemoteFolder::new(&site, "refused").hiding(secret);
        let (run, input) = (remote.at("run"), remote.at("photos"));
        let finished = remote.run(&["sluice-read", "--run", &run]);
        wrong.extend(not_refused(&finished, &run));
        let finished = remote.run(&["sluice-partition", "--run", &run, "--input", &input]);
        wrong.extend(not_refused(&finished, &site.bucket));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
