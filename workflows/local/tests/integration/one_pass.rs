//! Steps that run models on the images of the same survivors share a pass. Their outputs are the same as
//! without it.

use std::path::PathBuf;

use serde_json::Value;
use sluice_manifest::{Class, Receipt, StepName, Unit, UnitKind, layout};
use sluice_testkit::onnx::{
    FLOAT32, Tensor, TinyModel, distance_from, embedder, graph_with, int, integers, ints,
    likeness_to, node, node_of,
};
use sluice_testkit::pictures::{flat, png, waves};
use sluice_testkit::{Need, Shard};
use tempfile::TempDir;

use crate::support::{ProgramOutput, again, failure, sluice, store};

/// The steps that share a pass, with their batch sizes.
const STEPS: [(&str, u32); 3] = [("embed", 2), ("far", 3), ("near", 5)];

/// Shards and models on local disk.
struct Place {
    folder: TempDir,
}

impl Place {
    /// Writes two shards with one grey image, which has no embedding, and one truncated file.
    fn new() -> Option<Self> {
        Need::Programs.found("ONNX Runtime", "`make test` sets ORT_DYLIB_PATH", || {
            let given = std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from);
            given.filter(|library| library.exists())
        })?;
        let place = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        for (shard, seeds) in [(0, 0..4), (1, 4..9)] {
            let pictures = seeds.map(|seed| (seed, png(&waves(seed, 24, 16))));
            let all = pictures.fold(Shard::new(), |shard, (seed, file)| {
                shard.with(&format!("{seed}.png"), file)
            });
            let cut = &png(&waves(10, 24, 16))[..300];
            let all = all
                .with("grey.png", png(&flat([128; 3], 24, 16)))
                .with("cut.png", cut);
            let input = store(&place.uri("in"));
            input.put(&format!("{shard}.tar"), all.finish()).unwrap();
        }
        place.put_model("tiny", &embedder("tiny"));
        place.put_model("far", &distance_from("far", [200, 40, 40], 0.0));
        place.put_model("near", &likeness_to("near", [40, 40, 200], 5.0));
        store(&place.uri("."))
            .put("p.toml", place.pipeline())
            .unwrap();
        Some(place)
    }

    fn uri(&self, name: &str) -> String {
        format!("{}/{name}", self.folder.path().display())
    }

    fn put_model(&self, name: &str, model: &TinyModel) {
        let folder = store(&self.uri("models"));
        let put = |file: &str, content: Vec<u8>| {
            folder.put(&format!("{name}/{file}"), content).unwrap();
        };
        put("model.onnx", model.onnx.clone());
        put("model.toml", model.spec.clone().into_bytes());
    }

    fn model(&self, step: &str) -> String {
        let name = if step == "embed" { "tiny" } else { step };
        self.uri(&format!("models/{name}/"))
    }

    fn pipeline(&self) -> String {
        let mut text = "[[steps]]\nstage = 'partition'\nshards-per-partition = 1\n\
            [[steps]]\nstage = 'read'\n[[steps]]\nstage = 'filter'\nname = 'usable'\n\
            rule = { wide = 'width>1' }\n"
            .to_owned();
        for (step, batch_size) in STEPS {
            let stage = if step == "embed" { "embed" } else { "score" };
            let model = self.model(step);
            text += &format!(
                "[[steps]]\nstage = '{stage}'\nname = '{step}'\nmodel = '{model}'\n\
                batch-size = {batch_size}\n"
            );
        }
        text + "[[steps]]\nstage = 'filter'\nmin = { far = -6 }\n[[steps]]\nstage = 'export'\n"
    }

    /// Runs the pipeline, and returns the results of the steps that run models.
    fn run(&self, run: &str) -> Vec<Value> {
        let said = self.said(run);
        assert!(said.outcome.is_ok(), "{}", failure(&said).1);
        let steps = said.result.unwrap()["steps"].as_array().unwrap().clone();
        let is_ours = |line: &Value| STEPS.iter().any(|(step, _)| line["step"] == *step);
        steps.into_iter().filter(is_ours).collect()
    }

    fn said(&self, run: &str) -> ProgramOutput {
        let uris = ["p.toml", "in", &format!("{run}.out"), run].map(|name| self.uri(name));
        let [pipeline, input, output, run] = uris.each_ref().map(String::as_str);
        let flags = ["run", "--pipeline", pipeline, "--input", input];
        let places = ["--output", output, "--run", run];
        sluice(&[&flags[..], &places].concat())
    }

    /// Runs the first programs of the pipeline one after the other, up to the filter.
    fn run_first(&self, run: &str) {
        let (run, input) = (self.uri(run), self.uri("in"));
        let line = format!("sluice-partition --input {input} --shards-per-partition 1");
        again::<sluice_partition::Args>(&run, &line);
        again::<sluice_read::Args>(&run, "sluice-read");
        again::<sluice_filter::Args>(&run, "sluice-filter --step usable --rule wide=width>1");
    }

    /// Runs the programs of the models one after the other.
    fn run_apart(&self, run: &str) {
        for (step, batch_size) in STEPS {
            let words = format!(
                "--step {step} --survivors-of usable --model {} --batch-size {batch_size}",
                self.model(step)
            );
            let run = self.uri(run);
            match step {
                "embed" => again::<sluice_embed::Args>(&run, &format!("sluice-embed {words}")),
                _ => again::<sluice_score::Args>(&run, &format!("sluice-score {words}")),
            }
        }
    }

    fn receipt(&self, run: &str, step: &str, unit: u32) -> Receipt {
        let unit = Unit::new(UnitKind::Partition, unit);
        let path = layout::receipt(&StepName::new(step).unwrap(), unit);
        serde_json::from_slice(&store(&self.uri(run)).get(&path).unwrap()).unwrap()
    }

    /// Returns all objects of the steps that run models, receipts without times.
    fn written(&self, run: &str) -> Vec<(String, Vec<u8>)> {
        let run = store(&self.uri(run));
        let mut written = Vec::new();
        for (step, _) in STEPS {
            for object in run.list(step).unwrap() {
                let mut bytes = run.get(&object.path).unwrap().to_vec();
                if object.path.ends_with(".json") {
                    let mut receipt: Receipt = serde_json::from_slice(&bytes).unwrap();
                    (receipt.seconds, receipt.times) = (0.0, None);
                    bytes = serde_json::to_vec(&receipt).unwrap();
                }
                written.push((object.path, bytes));
            }
        }
        written.sort();
        assert_eq!(written.len(), 2 * 2 * STEPS.len());
        written
    }
}

fn statuses(lines: &[Value]) -> Vec<&str> {
    let status = |(step, _): &(&str, u32)| {
        let line = lines.iter().find(|line| line["step"] == *step);
        line.unwrap()["status"].as_str().unwrap()
    };
    STEPS.iter().map(status).collect()
}

#[test]
fn one_pass_writes_what_the_programs_write_one_after_the_other() {
    let Some(place) = Place::new() else { return };
    place.run_first("apart");
    place.run_apart("apart");
    let lines = place.run("together");
    for line in &lines {
        let others = line["shared_pass_with"].as_array().unwrap();
        assert_eq!(others.len(), STEPS.len() - 1, "{line}");
    }
    let together = place.written("together");
    assert!(together == place.written("apart"));
    // Each way continues the work of the other.
    assert_eq!(statuses(&place.run("apart")), ["up-to-date"; 3]);
    place.run_apart("together");
    assert!(together == place.written("together"));

    for (step, _) in STEPS {
        let receipt = place.receipt("together", step, 0);
        let counts = receipt.counts;
        assert_eq!(counts.input, 5, "{step}"); // read dropped the truncated file
        assert_eq!(counts.input, counts.kept + counts.dropped_total());
        let unscored = u64::from(step == "embed"); // the grey image
        assert_eq!(receipt.sums.unscored, unscored, "{step}");
    }
}

#[test]
fn only_steps_that_are_not_up_to_date_run() {
    let Some(place) = Place::new() else { return };
    place.run("run");
    let written = place.written("run");
    let run = store(&place.uri("run"));
    let embedded = place.receipt("run", "embed", 1);
    run.delete("far/receipts/part-00001.json").unwrap();
    run.delete("far/scores/part-00001.parquet").unwrap();
    run.delete("near/receipts/part-00001.json").unwrap();
    assert_eq!(statuses(&place.run("run")), ["up-to-date", "done", "done"]);
    assert!(place.written("run") == written);
    assert_eq!(place.receipt("run", "embed", 1), embedded);
}

/// Each step reuses its own rows, even if the steps have rows of different images.
#[test]
fn rows_are_taken_over_in_each_step() {
    let Some(place) = Place::new() else { return };
    place.run("run");
    let text = place.pipeline();
    let pipeline = store(&place.uri("."));
    let change = |rule: &str| {
        let changed = text.replace("width>1", rule);
        pipeline.put("p.toml", changed).unwrap();
    };
    change(r#"sha256 >= "8""#);
    place.run("run");
    run_far_again(&place);
    change(r#"sha256 >= "0""#);
    let lines = place.run("run");
    for line in &lines {
        assert!(line["reused"].as_u64().unwrap() > 0, "{line}");
    }
    let fresh = place.run("fresh");
    assert_eq!(statuses(&fresh), ["done"; 3]);
    let manifests = |run: &str| {
        let written = place.written(run).into_iter();
        written
            .filter(|(path, _)| path.ends_with(".parquet"))
            .collect::<Vec<_>>()
    };
    assert!(manifests("run") == manifests("fresh"));
}

/// Scores all images again with one of the models, unlike the others.
fn run_far_again(place: &Place) {
    let run = place.uri("run");
    let model = place.model("far");
    let words = format!("sluice-score --step far --model {model} --batch-size 3 --force");
    again::<sluice_score::Args>(&run, &words);
}

/// An image that was damaged after `read` has no row in any step.
#[test]
fn an_image_that_cannot_be_decoded_any_more_has_no_row() {
    let Some(place) = Place::new() else { return };
    for run in ["apart", "together"] {
        place.run_first(run);
    }
    damage(
        &place.folder.path().join("in/0.tar"),
        &png(&waves(2, 24, 16)),
    );
    place.run_apart("apart");
    place.run("together");
    assert!(place.written("together") == place.written("apart"));
    for (step, expected) in [("embed", 2), ("far", 1), ("near", 1)] {
        let receipt = place.receipt("together", step, 0);
        assert_eq!(receipt.sums.unscored, expected, "{step}");
        assert_eq!(receipt.counts.input, receipt.counts.kept);
    }
}

/// Damages a picture in a shard without changing the size and time of the shard.
#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the shard is on local disk"
)]
fn damage(shard: &std::path::Path, picture: &[u8]) {
    let mut bytes = std::fs::read(shard).unwrap();
    let time = std::fs::metadata(shard).unwrap().modified().unwrap();
    let at = bytes
        .windows(picture.len())
        .position(|part| part == picture);
    let middle = at.unwrap() + picture.len() / 2;
    bytes[middle..middle + 40].fill(0);
    std::fs::write(shard, bytes).unwrap();
    let file = std::fs::File::options().append(true).open(shard).unwrap();
    file.set_modified(time).unwrap();
}

#[test]
fn tasks_of_engines_share_a_pass() {
    let Some(place) = Place::new() else { return };
    place.run_first("apart");
    place.run_apart("apart");
    place.run_first("tasks");
    let run = place.uri("tasks");
    for task in 0..2 {
        let line = |(step, batch_size): (&str, u32)| {
            let stage = if step == "embed" { "embed" } else { "score" };
            let model = place.model(step);
            format!(
                "sluice-{stage} --run={run} --step={step} --survivors-of=usable --model={model} \
                --batch-size={batch_size} --task-index={task} --task-count=2"
            )
        };
        let line = STEPS.map(line).join(" + ");
        let words: Vec<&str> = ["steps", "--"].into_iter().chain(line.split(' ')).collect();
        let said = sluice(&words);
        assert!(said.outcome.is_ok(), "{}", failure(&said).1);
        let result = said.result.unwrap();
        assert_eq!(result["units"]["done"], 1, "{result}");
        assert_eq!(result["then"].as_array().unwrap().len(), 2, "{result}");
    }
    let shares = |mut written: Vec<(String, Vec<u8>)>| {
        for (path, bytes) in &mut written {
            if path.ends_with(".json") {
                let mut receipt: Receipt = serde_json::from_slice(bytes).unwrap();
                receipt.share = None;
                *bytes = serde_json::to_vec(&receipt).unwrap();
            }
        }
        written
    };
    assert!(shares(place.written("tasks")) == place.written("apart"));
}

/// A model that runs on one image, as it is checked, and not on a batch.
fn for_one_image() -> Vec<u8> {
    let nodes = [
        node("Flatten", "pixel_values", "flat", &[]),
        node_of("Reshape", &["flat", "one_row"], "row", &[]),
        node(
            "ReduceMean",
            "row",
            "score",
            &[ints("axes", &[1]), int("keepdims", 1)],
        ),
    ];
    let input = Tensor("pixel_values", FLOAT32, &["N", "3", "8", "8"]);
    let output = Tensor("score", FLOAT32, &["N", "1"]);
    graph_with(
        &nodes,
        &[integers("one_row", &[1, 192])],
        &[input],
        &[output],
    )
}

#[test]
fn an_error_in_a_shared_pass_names_its_step() {
    let Some(place) = Place::new() else { return };
    let mut broken = distance_from("far", [200, 40, 40], 0.0);
    broken.onnx = for_one_image();
    broken.spec = broken.spec.replace("name = \"far\"", "name = \"distance\"");
    place.put_model("far", &broken);
    let (class, words) = failure(&place.said("run"));
    assert_eq!(class, Class::Usage, "{words}");
    assert!(words.contains("far: model distance: "), "{words}");
}
