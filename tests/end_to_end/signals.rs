//! SIGTERM ends every program with 143 within five seconds, at any moment.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use sluice::programs::PROGRAMS;
use sluice_tests::{Finished, Process, Running};

use crate::support::word;

/// The time limit from the signal to the exit.
const LIMIT: Duration = Duration::from_secs(5);

fn process() -> Process {
    let limit = Duration::from_secs(60);
    Process::new(env!("CARGO_BIN_EXE_sluice-tests-step"), limit).unwrap()
}

/// Sends SIGTERM as soon as the process handles it. Returns the exit, which must be in time.
fn terminated(name: &str, running: Running) -> Finished {
    let started = Instant::now();
    while !running.handles_sigterm() {
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "{name}: no handler"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    let asked = Instant::now();
    running.terminate().unwrap();
    let finished = running.wait().unwrap();
    let took = asked.elapsed();
    assert_eq!(finished.code, 143, "{name}: {}", finished.stderr);
    assert!(took < LIMIT, "{name}: {took:?}");
    finished
}

/// Runs command lines concurrently and terminates each as soon as it handles SIGTERM.
fn terminate_all(process: &Process, lines: &[Vec<&str>]) -> Vec<Finished> {
    std::thread::scope(|scope| {
        let ended = lines.iter().map(|line| {
            let running = process.start(line).unwrap();
            let name = line[0];
            scope.spawn(move || terminated(name, running))
        });
        let ended: Vec<_> = ended.collect();
        ended.into_iter().map(|one| one.join().unwrap()).collect()
    })
}

/// Returns a named pipe without a writer. Readers block.
fn silent_pipe(folder: &Path) -> String {
    let pipe = folder.join("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    word(&pipe).to_owned()
}

#[test]
fn programs_can_be_stopped_before_they_know_their_arguments() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = format!("@{}", silent_pipe(folder.path()));
    let names = PROGRAMS.iter().map(|program| program.name);
    let lines: Vec<_> = names
        .chain(["sluice"])
        .map(|name| vec![name, &arguments])
        .collect();
    assert!(lines.len() > 9);
    terminate_all(&process(), &lines);
}

#[test]
fn work_that_never_checks_is_ended_with_a_result() {
    let folder = tempfile::tempdir().unwrap();
    let [run, file] = ["run", "result.json"].map(|name| folder.path().join(name));
    let line = vec!["sluice-spin", "--run", word(&run), "--result", word(&file)];
    let ended = terminate_all(&process(), &[line]);
    let written = std::fs::read_to_string(&file).unwrap();
    for text in [&ended[0].stdout, &written] {
        let result: Value = serde_json::from_str(text).unwrap();
        assert_eq!(result["error"]["kind"], "stopped", "{result}");
        assert_eq!(result["program"], "sluice-spin", "{result}");
    }
}
