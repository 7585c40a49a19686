//! `sluice run`, with the real models if they are installed. Other tests need no model.

use std::path::PathBuf;

use sluice_manifest::Class;
use sluice_testkit::Need;

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
        message.starts_with("--embedder: step embed: model \"no-such-model\""),
        "{message}"
    );
    assert!(
        store(&format!("{base}/out.run"))
            .list("")
            .unwrap()
            .is_empty()
    );
}

/// Writes a pipeline without models next to the input of `base`.
fn plain_pipeline(base: &str) -> String {
    dataset(&store(&format!("{base}/in")));
    let text = "[[steps]]\nstage = 'read'\n[[steps]]\nstage = 'export'\n";
    store(base).put("mine.toml", text).unwrap();
    format!("{base}/mine.toml")
}

/// Curates `in` below `base` to `output`, with flags.
fn curate_into(base: &str, output: &str, more: &[&str]) -> crate::support::ProgramOutput {
    let (pipeline, input) = (format!("{base}/mine.toml"), format!("{base}/in"));
    let words = [
        "run",
        "--pipeline",
        &pipeline,
        "--input",
        &input,
        "--output",
        output,
    ];
    sluice(&[&words[..], more].concat())
}

#[test]
fn an_output_of_others_is_refused_before_any_work() {
    let base = "memory://run-foreign";
    plain_pipeline(base);
    let [output, first, second] = ["out", "first", "second"].map(|name| format!("{base}/{name}"));
    curate_into(base, &output, &["--run", &first])
        .outcome
        .unwrap();
    let objects = |uri: &str| store(uri).list("").unwrap();
    let before = objects(&output);
    for (flag, expected) in [
        ("second", "the run ../first"),
        ("third", "the run ../first"),
    ] {
        let said = curate_into(base, &output, &["--run", &format!("{base}/{flag}")]);
        let (class, message) = failure(&said);
        assert_eq!(class, Class::Usage);
        assert!(
            message.contains(expected) && message.contains("--overwrite"),
            "{message}"
        );
    }
    let theirs = format!("{base}/theirs");
    store(&theirs).put("index.json", "{}").unwrap();
    let said = curate_into(base, &theirs, &[]);
    assert!(failure(&said).1.contains("\"index.json\""));
    assert_eq!(objects(&output), before);
    assert!(objects(&second).is_empty());

    curate_into(base, &output, &["--run", &second, "--overwrite"])
        .outcome
        .unwrap();
    let said = sluice(&["verify", "--run", &second]);
    said.outcome.unwrap();
    assert_eq!(
        failure(&curate_into(base, &output, &["--run", &first])).0,
        Class::Usage
    );
}

/// Links to the input and to the run, used as an output.
#[cfg(unix)]
#[test]
fn links_to_the_input_are_refused_before_any_work() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().to_str().unwrap();
    let path = |name: &str| folder.path().join(name);
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, path(name)).unwrap();
    plain_pipeline(base);
    link("in", "link");
    link("in/later", "later");
    link("r/out", "into-the-run");
    for output in ["link", "link/out", "later", "in/../link/x", "into-the-run"] {
        let run = format!("{base}/r");
        let said = curate_into(base, &format!("{base}/{output}"), &["--run", &run]);
        let (class, message) = failure(&said);
        assert_eq!(class, Class::Usage, "{output}: {message}");
        assert!(!path("r").exists(), "{output}");
    }
    // A folder of links to shards. The output is the folder of their targets.
    std::fs::create_dir(path("links")).unwrap();
    link("../in/a.tar", "links/a.tar");
    let (pipeline, input) = (format!("{base}/mine.toml"), format!("{base}/links"));
    let (output, run) = (format!("{base}/in"), format!("{base}/r"));
    for run in [format!("{base}/in/r"), run] {
        let places = [
            "--input",
            &input,
            "--output",
            &output,
            "--run",
            &run,
            "--overwrite",
        ];
        let said = sluice(&[&["run", "--pipeline", &pipeline][..], &places].concat());
        assert_eq!(failure(&said).0, Class::Usage);
    }
    let said = sluice(&[
        "run",
        "--input",
        &input,
        "--output",
        &format!("{base}/links/x"),
    ]);
    assert_eq!(failure(&said).0, Class::Usage);
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
        "65",
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

/// Returns the folder of models, if ONNX Runtime and the demo's models are installed.
fn models() -> Option<PathBuf> {
    let hint = "`make test` makes them and sets SLUICE_MODELS and ORT_DYLIB_PATH";
    Need::Models.found("models of the demo", hint, || {
        let models = std::env::var_os("SLUICE_MODELS").map(PathBuf::from)?;
        let has = |name: &str| models.join(name).join("model.onnx").exists();
        let runs = std::env::var_os("ORT_DYLIB_PATH").is_some();
        (runs && has("efficientnet-lite0") && has("opennsfw")).then_some(models)
    })
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
        "--eps",
        "0.01",
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
