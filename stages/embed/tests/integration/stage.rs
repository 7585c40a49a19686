//! The stage with a tiny encoder, whose embeddings are the picture's own values.

use std::path::PathBuf;

use arrow::array::AsArray;
use sluice_embed::Args;
use sluice_harness::{StepDone, describe};
use sluice_manifest::rows::EMBEDDINGS;
use sluice_manifest::{Class, Receipt};
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
        let models = format!("{}/models", self.folder.path().display());
        let tiny = store(&models);
        tiny.put("tiny/model.onnx", model.onnx.clone()).unwrap();
        tiny.put("tiny/model.toml", model.spec.clone()).unwrap();
        let flags = ["--model", "tiny", "--models", &models];
        step::<Args>("sluice-embed", &self.run, &flags)
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
