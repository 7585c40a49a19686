//! The stage with a tiny encoder, whose embeddings are the picture's own values.

use std::path::PathBuf;

use arrow::array::AsArray;
use sluice_embed::Args;
use sluice_harness::{StepDone, describe};
use sluice_manifest::rows::EMBEDDINGS;
use sluice_manifest::{ABOUT_DEVICE, ABOUT_EPS, Class, Receipt};
use sluice_store::vectors;
use sluice_testkit::Need;
use sluice_testkit::onnx::{TinyModel, embedder};

use super::support::{read_run, step, store};

/// Whether this process finds ONNX Runtime.
fn has_runtime() -> bool {
    let hint = "`make test` sets ORT_DYLIB_PATH";
    let library = Need::Programs.found("ONNX Runtime", hint, || {
        let given = std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from);
        given.filter(|library| library.exists())
    });
    library.is_some()
}

/// A run on local disk, where ONNX Runtime reads models from.
struct Place {
    folder: tempfile::TempDir,
    run: String,
}

impl Place {
    fn new() -> Option<Self> {
        has_runtime().then(|| {
            let folder = tempfile::tempdir().unwrap();
            let run = read_run(folder.path().to_str().unwrap());
            Self { folder, run }
        })
    }

    fn embed(&self, model: &TinyModel) -> anyhow::Result<StepDone> {
        self.embed_with(model, &[])
    }

    fn embed_with(&self, model: &TinyModel, more: &[&str]) -> anyhow::Result<StepDone> {
        let models = format!("{}/models", self.folder.path().display());
        let tiny = store(&models);
        tiny.put("tiny/model.onnx", model.onnx.clone()).unwrap();
        let int8 = "tiny/model.int8.onnx";
        tiny.put(int8, model.onnx.clone()).unwrap();
        tiny.put("tiny/model.toml", model.spec.clone()).unwrap();
        let flags = ["--model", "tiny", "--models", &models];
        step::<Args>("sluice-embed", &self.run, &[&flags, more].concat())
    }

    fn receipt(&self) -> Receipt {
        let json = store(&self.run).get("embed/receipts/part-00000.json");
        serde_json::from_slice(&json.unwrap()).unwrap()
    }
}

#[test]
fn a_changed_word_about_the_encoder_is_in_the_receipt_and_nothing_is_computed_again() {
    let Some(place) = Place::new() else { return };
    let mut model = embedder("tiny");
    place.embed(&model).unwrap();
    assert_eq!(place.receipt().about.get(ABOUT_EPS), None);
    for (stated, expected) in [("eps = 0.15", Some("0.15")), ("", None)] {
        model.spec = format!("{stated}\n{}", embedder("tiny").spec);
        let done = place.embed(&model).unwrap();
        assert_eq!((done.units, done.up_to_date), (1, 1), "{stated}");
        let about = place.receipt().about;
        assert_eq!(about.get(ABOUT_EPS).map(String::as_str), expected);
    }
}

#[test]
fn rows_are_taken_over_at_any_precision() {
    let Some(place) = Place::new() else { return };
    for precision in ["float32", "int8"] {
        let flags = ["--step", precision, "--precision", precision];
        let embed = |more: &[&str]| {
            let flags = [&flags, more].concat();
            place.embed_with(&embedder("tiny"), &flags).unwrap()
        };
        assert_eq!(embed(&[]).rows, Some((4, 0)), "{precision}");
        // Without the grey one, which has no row.
        let rule = ["--step", "usable", "--rule", "lively=image_id != '0/1'"];
        step::<sluice_filter::Args>("sluice-filter", &place.run, &rule).unwrap();
        let done = embed(&["--survivors-of", "usable"]);
        assert_eq!(done.rows, Some((0, 4)), "{precision}");
        // The model did not run. The rows are those of the CPU.
        assert_eq!(done.device, None, "{precision}");
        let (run, path) = (
            store(&place.run),
            format!("{precision}/receipts/part-00000.json"),
        );
        let receipt = || -> Receipt { serde_json::from_slice(&run.get(&path).unwrap()).unwrap() };
        assert_eq!(receipt().about[ABOUT_DEVICE], "cpu");
        // Rows of a GPU, and the grey image, which runs again.
        let mut of_gpu = receipt();
        of_gpu.set_about(ABOUT_DEVICE, "cuda:0");
        run.put(&path, of_gpu.to_json().unwrap()).unwrap();
        let done = embed(&[]);
        assert_eq!(
            (done.rows, done.device.unwrap().device.as_str()),
            (Some((0, 4)), "cpu")
        );
        assert_eq!(receipt().about[ABOUT_DEVICE], "cuda:0 and cpu");
    }
}

#[test]
fn survivors_get_embeddings_of_length_one_and_a_grey_image_none() {
    let Some(place) = Place::new() else { return };
    let done = place.embed(&embedder("tiny")).unwrap();
    assert_eq!((done.units, done.up_to_date, done.counts.kept), (1, 0, 5));
    let run = store(&place.run);
    let path = "embed/embeddings/part-00000.parquet";
    let columns = ["image_id", "embedding"];
    let (mut ids, mut count) = (Vec::new(), 0);
    for batch in run.table(path, EMBEDDINGS, &columns).unwrap() {
        let batch = batch.unwrap();
        let names = batch["image_id"].as_string::<i32>();
        ids.extend(names.iter().flatten().map(str::to_owned));
        for vector in vectors(&batch, "embedding").unwrap().chunks(192) {
            let squares: f32 = vector.iter().map(|x| x * x).sum();
            assert!((squares - 1.0).abs() < 1e-5, "{squares}");
            count += 1;
        }
    }
    assert_eq!(ids, ["0/0", "0/2", "1/0", "1/1"]);
    assert_eq!(count, 4);
    let receipt = run.get("embed/receipts/part-00000.json").unwrap();
    let receipt: Receipt = serde_json::from_slice(&receipt).unwrap();
    assert_eq!(receipt.sums.unscored, 1);
    let again = place.embed(&embedder("tiny")).unwrap();
    assert_eq!((again.units, again.up_to_date), (1, 1));
}

#[test]
fn a_model_that_gives_other_vectors_than_its_spec_says_is_refused() {
    let Some(place) = Place::new() else { return };
    let mut model = embedder("tiny");
    model.spec = model.spec.replace("dimension = 192", "dimension = 191");
    let (class, message) = describe(&place.embed(&model).unwrap_err());
    assert_eq!(class, Class::Usage, "{message}");
    assert!(message.contains("191"), "{message}");
}

#[test]
fn the_device_is_in_the_receipt_and_the_result_and_not_in_the_fingerprint() {
    let Some(place) = Place::new() else { return };
    let model = embedder("tiny");
    let done = place.embed_with(&model, &["--device", "cpu"]).unwrap();
    let device = done.device.unwrap();
    assert_eq!((device.device.as_str(), device.batch_size), ("cpu", 16));
    assert!(device.idle.is_some_and(|idle| (0.0..=1.0).contains(&idle)));
    let receipt = place.receipt();
    assert_eq!(receipt.about[ABOUT_DEVICE], "cpu");
    let again = place.embed_with(&model, &["--batch-size", "3"]).unwrap();
    assert_eq!(again.up_to_date, 1);
    assert_eq!(place.receipt(), receipt);
}

#[test]
fn a_device_that_is_not_there_is_named_before_the_work() {
    let Some(place) = Place::new() else { return };
    for device in ["cuda:99", "tensorrt:99"] {
        let error = place.embed_with(&embedder("tiny"), &["--device", device]);
        let (class, words) = describe(&error.unwrap_err());
        assert_eq!(class, Class::Usage, "{words}");
        assert!(
            words.contains("missing") && words.contains("hint"),
            "{words}"
        );
    }
}
