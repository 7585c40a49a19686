//! Models in memory.

use sluice_manifest::Result;
use sluice_model::{Model, Precision};
use sluice_store::{Location, Storage};
use sluice_testkit::onnx::{FLOAT32, Tensor, graph, node};

/// A spec of pictures of 2x2 pixels; a pixel's value is the tensor's number.
pub(crate) const SPEC: &str = "
    name = 'm'
    kind = 'embedder'
    [preprocess]
    resize = { exact = { width = 2, height = 2 } }
    filter = 'bilinear'
    rescale = 1.0
    mean = [0.0, 0.0, 0.0]
    std = [1.0, 1.0, 1.0]
";

#[test]
fn a_folder_of_a_repository_is_another_model_than_the_repository() {
    let storage = Storage::default();
    let cache = Location::parse("memory://repositories").unwrap();
    let root = storage.create(&cache).unwrap();
    let find = |model| Model::find(&storage, model, &cache, Precision::Float32).map(drop);
    root.put("hf/org/two/onnx/model.toml", SPEC).unwrap();
    let nodes = [node("Flatten", "pixel_values", "image_embeds", &[])];
    let input = Tensor("pixel_values", FLOAT32, &["n", "3", "2", "2"]);
    let output = Tensor("image_embeds", FLOAT32, &["n", "12"]);
    let onnx = graph(&nodes, &[input], &[output]);
    root.put("hf/org/two/onnx/model.onnx", onnx).unwrap();
    find("hf://org/two/onnx").unwrap();
    let error = find("hf://org/two").unwrap_err().to_string();
    assert!(
        error.contains("sluice models pull hf://org/two`"),
        "{error}"
    );
}

/// Finds the model `m` of these files.
pub(crate) fn find(files: &[(&str, &[u8])]) -> Result<Model> {
    let storage = Storage::default();
    let root = storage.create(&Location::parse("memory://models")?)?;
    for (file, content) in files {
        root.put(&format!("m/{file}"), content.to_vec())?;
    }
    let cache = Location::parse("memory://none")?;
    Model::find(&storage, "memory://models/m", &cache, Precision::Float32)
}
