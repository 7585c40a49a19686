//! `sluice run`. With the real models, where they are; what needs none is tested anyway.

use std::path::PathBuf;

use sluice_manifest::Class;

use crate::support::{dataset, failure, sluice, store};

#[test]
fn a_missing_model_is_reported_before_any_work() {
    let base = "memory://run-fails";
    dataset(&store(&format!("{base}/in")));
    let (input, output) = (format!("{base}/in"), format!("{base}/out"));
    let said = sluice(&[
        "run",
        "--input",
        &input,
        "--output",
        &output,
        "--models",
        "memory://run-fails/models",
        "--embedder",
        "no-such-model",
    ]);
    let (class, message) = failure(&said);
    assert_eq!(class, Class::Usage);
    assert!(
        message.starts_with("step embed: model \"no-such-model\""),
        "{message}"
    );
    assert!(
        store(&format!("{base}/out.run"))
            .list("")
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_wrong_option_is_reported_before_any_work() {
    let base = "memory://run-wrong";
    dataset(&store(&format!("{base}/in")));
    let (input, output) = (format!("{base}/in"), format!("{base}/out"));
    let said = sluice(&[
        "run",
        "--input",
        &input,
        "--output",
        &output,
        "--max-distance",
        "60",
    ]);
    let (class, message) = failure(&said);
    assert_eq!(class, Class::Usage);
    assert!(
        message.starts_with("step dedup") && message.contains("--max-distance"),
        "{message}"
    );
    assert!(
        store(&format!("{base}/out.run"))
            .list("")
            .unwrap()
            .is_empty()
    );
}

/// The folder of models, where ONNX Runtime and the demo's models are here.
#[expect(
    clippy::print_stderr,
    reason = "a skipped test must say so, and a test has no logger"
)]
fn models() -> Option<PathBuf> {
    let models = std::env::var_os("SLUICE_MODELS").map(PathBuf::from);
    let found = models.filter(|models| {
        std::env::var_os("ORT_DYLIB_PATH").is_some()
            && models.join("efficientnet-lite0/model.onnx").exists()
            && models.join("opennsfw/model.onnx").exists()
    });
    if found.is_none() {
        eprintln!("skipped: no models (`make test` makes them and says where they are)");
    }
    found
}

#[test]
fn the_whole_dag_runs_and_then_is_up_to_date() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (input, output) = (path("in"), path("out"));
    dataset(&store(&input));
    let arguments = [
        "run",
        "--input",
        &input,
        "--output",
        &output,
        "--embedder",
        "efficientnet-lite0",
        "--aesthetic",
        "technical-quality",
        "--nsfw",
        "opennsfw",
        "--min-aesthetic",
        "0.2",
        "--images-per-shard",
        "3",
        "--models",
        models.to_str().unwrap(),
    ];
    let said = sluice(&arguments);
    said.outcome.unwrap();
    let result = said.result.unwrap();
    let funnel = &result["funnel"];
    let kept = funnel["kept"].as_u64().unwrap();
    assert_eq!(funnel["in"], 13, "{}", said.err);
    assert!((3..=8).contains(&kept), "{}", said.err);
    assert!(said.err.contains("exact-duplicate"), "{}", said.err);
    assert!(folder.path().join("out.run/report/index.html").exists());
    let verified = sluice(&["verify", "--run", &path("out.run")]);
    assert!(verified.outcome.is_ok(), "{}", verified.out);

    let again = sluice(&arguments);
    again.outcome.unwrap();
    assert!(
        again.err.contains("everything was up to date"),
        "{}",
        again.err
    );
    let steps = again.result.unwrap();
    for step in steps["steps"].as_array().unwrap() {
        assert_eq!(step["status"], "up-to-date", "{step}");
    }

    let mut stricter = arguments.to_vec();
    stricter.extend(["--max-nsfw", "0.001"]);
    let changed = sluice(&stricter).result.unwrap();
    let done: Vec<&str> = changed["steps"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|step| step["status"] == "done")
        .map(|step| step["step"].as_str().unwrap())
        .collect();
    assert!(
        done.contains(&"filter") && done.contains(&"export-decide"),
        "{done:?}"
    );
    assert!(
        ["embed", "aesthetic", "nsfw"]
            .iter()
            .all(|step| !done.contains(step)),
        "{done:?}"
    );
}
