//! Exit codes without free threads, without disk space and without credentials.

use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

use sluice_store::Location;
use sluice_testkit::Shard;
use sluice_testkit::pictures::{png, waves};
use sluice_tests::shared;

/// No machine has memory for threads with such stacks, so none can be started.
const NO_THREADS: (&str, &str) = ("RUST_MIN_STACK", "70368744177664");

fn program(line: &str) -> Command {
    let mut words = line.split(' ');
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice-tests-step"));
    command.arg0(words.next().unwrap()).args(words);
    command.stdin(Stdio::null());
    command
}

/// Returns an output to a full disk.
fn full() -> Stdio {
    let device = OpenOptions::new().write(true).open("/dev/full");
    device.unwrap().into()
}

fn code(output: &Output) -> (Option<i32>, String) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

/// Returns a folder with one small shard in `in`.
fn dataset() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let store = shared()
        .storage
        .create(&Location::Local(folder.path().to_owned()));
    let shard = Shard::new().with("a.png", png(&waves(1, 32, 24)));
    store.unwrap().put("in/a.tar", shard.finish()).unwrap();
    folder
}

#[test]
fn a_thread_that_cannot_start_is_worth_another_try() {
    let folder = dataset();
    let at = |path: &str| folder.path().join(path).to_string_lossy().into_owned();
    let (run, input, output) = (at("run"), at("in"), at("out"));
    let done = program(&format!("sluice-partition --input {input} --run {run}")).output();
    assert!(done.unwrap().status.success());
    for line in [
        format!("sluice-partition --input {input} --run {run} --force"),
        format!("sluice-read --run {run}"),
        format!("sluice-dedup exact --run {run}"),
        format!("sluice-export decide --run {run}"),
        format!("sluice-filter --run {run} --rule a=width>1"),
        format!("sluice-report --run {run}"),
        format!("sluice run --input {input} --run {run} --output {output}"),
        format!("sluice verify --run {run}"),
    ] {
        let finished = program(&line).envs([NO_THREADS]).output().unwrap();
        let (code, said) = code(&finished);
        assert_eq!(code, Some(75), "{line}: {said}");
        assert!(!said.contains("please report"), "{line}: {said}");
    }
}

#[test]
fn threads_for_requests_that_cannot_start_are_worth_another_try() {
    let finished = program("sluice-partition --input s3://b/in --run s3://b/run --jobs 1")
        .envs([NO_THREADS, ("AWS_ENDPOINT_URL", "http://127.0.0.1:9")])
        .output();
    let (code, said) = code(&finished.unwrap());
    assert_eq!(code, Some(75), "{said}");
}

#[test]
fn a_full_disk_under_the_result_is_no_success_and_one_under_the_log_is() {
    let folder = dataset();
    let at = |path: &str| folder.path().join(path).to_string_lossy().into_owned();
    let (run, input) = (at("run"), at("in"));
    let partition = format!("sluice-partition --input {input} --run {run} --force");
    let lines = [
        (partition.as_str(), Some(75), Some(0)),
        ("sluice-read --help", Some(75), Some(0)),
        ("sluice --version", Some(75), Some(0)),
        ("sluice pipeline show", Some(75), Some(0)),
    ];
    for (line, without_result, without_log) in lines {
        let finished = program(line).stdout(full()).output().unwrap();
        assert_eq!(code(&finished).0, without_result, "{line}: {finished:?}");
        let finished = program(line).stderr(full()).output().unwrap();
        assert_eq!(code(&finished).0, without_log, "{line}: {finished:?}");
        assert!(!finished.stdout.is_empty(), "{line}");
    }
    let nowhere = format!("{partition} --result {}", at("none/result.json"));
    let (code, said) = code(&program(&nowhere).output().unwrap());
    assert_eq!(code, Some(2), "{said}");
}

#[test]
fn missing_credentials_are_usage_and_name_the_variables() {
    let nothing = tempfile::tempdir().unwrap();
    let finished = program("sluice-read --run s3://b/x")
        .env_clear()
        .env("HOME", nothing.path())
        .env("AWS_EC2_METADATA_DISABLED", "true")
        // No server listens there.
        .env("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        .output();
    let (code, said) = code(&finished.unwrap());
    assert_eq!(code, Some(2), "{said}");
    for variable in ["AWS_ACCESS_KEY_ID", "AWS_PROFILE"] {
        assert!(said.contains(variable), "{said}");
    }
    assert!(!said.contains("again in"), "it was tried again: {said}");
    assert!(!said.contains("Error {"), "{said}");
}
