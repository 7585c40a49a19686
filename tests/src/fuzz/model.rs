//! Models: `model.toml`, `preprocessor_config.json` and the outer structure of ONNX files.

use std::sync::LazyLock;

use sluice_model::{Model, Precision, Spec};
use sluice_pixels::{Resize, RgbImage};
use sluice_store::Location;
use sluice_testkit::onnx::embedder;

use super::{choice, refused_well};
use crate::{Run, shared};

const PLACE: &str = "memory://fuzz-model";
/// The maximum side of computed tensors.
const SMALL: u32 = 512;

pub(super) fn run(data: &[u8]) {
    match choice(data) {
        (0, data) => spec(data),
        (1, data) => config(data),
        (_, data) => onnx(data),
    }
}

/// A valid spec produces a tensor, and is unchanged after writing and reading.
fn spec(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let spec = match Spec::parse(text, "model.toml") {
        Ok(spec) => spec,
        Err(e) => return refused_well(&e),
    };
    let json = serde_json::to_string(&spec).expect("a spec can be written");
    let again: Spec = serde_json::from_str(&json).expect("a spec can be read");
    assert_eq!(format!("{again:?}"), format!("{spec:?}"));
    use_spec(&spec);
}

fn use_spec(spec: &Spec) {
    let _ = spec
        .score_outputs()
        .map(sluice_model::ScoreSpec::as_column)
        .count();
    let Some(preprocess) = &spec.preprocess else {
        return;
    };
    let (width, height) = preprocess.output_size();
    let edge = match preprocess.resize {
        Resize::ShortestEdge(edge) => edge,
        Resize::Exact { width, height } => width.max(height),
    };
    if preprocess.validate().is_err() || width.max(height).max(edge) > SMALL {
        return;
    }
    let mut tensor = vec![0.0; preprocess.tensor_len()];
    preprocess.tensor(&RgbImage::filled(3, 2, [9, 99, 199]), &mut tensor);
}

/// Parses the configuration of an image processor of transformers.
fn config(data: &[u8]) {
    if let Some(spec) = found("config", "preprocessor_config.json", data) {
        use_spec(&spec);
    }
}

fn onnx(data: &[u8]) {
    found("onnx", "model.onnx", data);
}

/// Returns the spec of a tiny model in which one file has these bytes; `None` if it is rejected.
fn found(model: &str, file: &str, data: &[u8]) -> Option<Spec> {
    static RUN: LazyLock<Run> = LazyLock::new(|| {
        let run = Run::at(PLACE).expect("memory can be opened");
        let tiny = embedder("tiny");
        for (path, bytes) in [
            ("config/model.onnx", tiny.onnx),
            ("onnx/model.toml", tiny.spec.into_bytes()),
        ] {
            run.store.put(path, bytes).expect("memory can be written");
        }
        run
    });
    let path = format!("{model}/{file}");
    RUN.store
        .put(&path, data.to_vec())
        .expect("memory can be written");
    let cache = Location::parse(PLACE).expect("a URI");
    let uri = format!("{PLACE}/{model}");
    let model = Model::find(&shared().storage, &uri, &cache, Precision::Float32);
    match model.and_then(|model| model.check().map(|()| model.spec)) {
        Ok(spec) => Some(spec),
        Err(e) => {
            refused_well(&e);
            None
        }
    }
}
