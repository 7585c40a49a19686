//! Models in memory.

use sluice_manifest::Result;
use sluice_model::{Model, Precision};
use sluice_store::{Location, Storage};

/// A spec of pictures of 2x2 pixels; a pixel's value is the tensor's number.
pub const SPEC: &str = "
    name = 'm'
    kind = 'embedder'
    [preprocess]
    resize = { exact = { width = 2, height = 2 } }
    filter = 'bilinear'
    rescale = 1.0
    mean = [0.0, 0.0, 0.0]
    std = [1.0, 1.0, 1.0]
";

/// Finds the model `m` of these files.
pub fn find(files: &[(&str, &[u8])]) -> Result<Model> {
    let storage = Storage::default();
    let root = storage.create(&Location::parse("memory://models")?)?;
    for (file, content) in files {
        root.put(&format!("m/{file}"), content.to_vec())?;
    }
    let cache = Location::parse("memory://none")?;
    Model::find(&storage, "memory://models/m", &cache, Precision::Float32)
}
