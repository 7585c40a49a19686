//! Runs whose processes are killed, stopped and duplicated at random moments.
//!
//! A case is a list of disturbances ([`case`]). It is played on a run ([`play`]): each step is
//! disturbed and then run again until it succeeds, as a workflow engine does. At the end the run
//! must verify, and all objects of the run and its output must have the bytes of an undisturbed run
//! at the same location ([`lab`]).
//!
//! ```text
//! cargo test --workspace --test robustness kills -- --nocapture
//! make kills KILLS=2000              # with the programs of the release build
//! make kills CASE=target/tmp/kills/…/case.json   # one kept case, 20 times
//! ```
//!
//! | variable | |
//! |---|---|
//! | `SLUICE_TESTS_KILLS` | processes to kill; one in eight on S3 |
//! | `SLUICE_TESTS_SEED` | number that the cases derive from; printed |
//! | `SLUICE_TESTS_PROGRAMS` | folder of the programs to test, in place of `sluice-tests-step` |
//! | `SLUICE_TESTS_CASE` | a kept case, to be played again |
//!
//! The moments are fractions of a step's undisturbed duration. A seed gives the same cases, but not
//! the same interleaving: a recorded case may take several attempts to fail again.

mod case;
mod lab;
mod play;

use std::path::{Path, PathBuf};
use std::time::Instant;

use sluice_tests::servers::SeaweedFs;

use self::case::{KillCase, SplitMix};
use self::lab::Lab;
use self::play::{KillCounts, play};

/// The default number of processes to kill, which takes a few seconds.
const FEW: u64 = 16;
/// The number of failures after which a test ends.
const ENOUGH: usize = 3;
/// Attempts to reproduce a failure.
const ATTEMPTS: usize = 3;
/// The number of replays of a recorded case.
const REPLAYS: usize = 20;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|e| panic!("{variable}: {e}")))
}

fn kills() -> u64 {
    number("SLUICE_TESTS_KILLS").unwrap_or(FEW)
}

fn seed() -> u64 {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap();
    number("SLUICE_TESTS_SEED").unwrap_or(now.as_millis() as u64)
}

#[test]
fn runs_on_local_disk_survive() {
    if let Some(lab) = Lab::new(None) {
        survive(&lab, "disk", kills() - kills() / 8);
    }
}

/// Even a few cases take minutes, so only `make kills` plays them.
#[test]
fn runs_on_s3_survive() {
    if std::env::var_os("SLUICE_TESTS_KILLS").is_none() {
        return;
    }
    let Some(server) = SeaweedFs::shared() else {
        return;
    };
    if let Some(lab) = Lab::new(Some(&server.site)) {
        survive(&lab, "s3", kills() / 8);
    }
}

/// Plays cases until this number of processes has been killed. Fails with the cases whose result
/// differs from an undisturbed run.
fn survive(lab: &Lab, name: &str, kills: u64) {
    let seed = seed();
    eprintln!("{name}: SLUICE_TESTS_SEED={seed}");
    let started = Instant::now();
    let mut random = SplitMix::new(seed);
    let (mut tally, mut failures) = (KillCounts::default(), Vec::new());
    while tally.killed < kills && failures.len() < ENOUGH {
        let case = KillCase::random(&mut random, lab.nodes());
        tally.cases += 1;
        if let Err(failure) = play(lab, &case, &mut tally) {
            let kept = keep(
                lab,
                &case,
                &format!("{name}-{seed}-{}", tally.cases),
                &failure,
            );
            failures.push(format!("{}: {failure:#}", kept.display()));
        }
    }
    eprintln!("{name}: {tally}, {:.0} s", started.elapsed().as_secs_f64());
    assert!(failures.is_empty(), "seed {seed}: {failures:#?}");
}

/// Saves the results of a failed case, and the fewest disturbances that still make it fail.
fn keep(lab: &Lab, case: &KillCase, name: &str, failure: &anyhow::Error) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("kills")
        .join(name);
    std::fs::create_dir_all(&folder).unwrap();
    lab.save(&folder);
    std::fs::write(folder.join("failure.txt"), format!("{failure:#}\n")).unwrap();
    std::fs::write(folder.join("played.json"), case.to_json()).unwrap();
    let smallest = minimised(lab, case);
    std::fs::write(folder.join("case.json"), smallest.to_json()).unwrap();
    folder
}

/// Removes disturbances as long as the case still fails.
fn minimised(lab: &Lab, case: &KillCase) -> KillCase {
    let fails = |case: &KillCase| {
        let mut tally = KillCounts::default();
        (0..ATTEMPTS).any(|_| play(lab, case, &mut tally).is_err())
    };
    let mut smallest = case.clone();
    let mut at = 0;
    while at < smallest.disturbances.len() {
        let mut smaller = smallest.clone();
        smaller.disturbances.remove(at);
        if fails(&smaller) {
            smallest = smaller
        } else {
            at += 1
        }
    }
    smallest
}

#[test]
#[ignore = "plays the case that SLUICE_TESTS_CASE names, again and again"]
fn a_kept_case_survives() {
    let file = std::env::var_os("SLUICE_TESTS_CASE").expect("SLUICE_TESTS_CASE names a case");
    let case = KillCase::of_json(&std::fs::read_to_string(file).unwrap());
    let server = case.on_s3.then(SeaweedFs::shared).flatten();
    let Some(lab) = Lab::new(server.as_ref().map(|server| &server.site)) else {
        return;
    };
    let mut tally = KillCounts::default();
    for attempt in 0..REPLAYS {
        if let Err(failure) = play(&lab, &case, &mut tally) {
            panic!("attempt {attempt}: {failure:#}");
        }
    }
}
