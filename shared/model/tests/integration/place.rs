//! Models in memory.

use sluice_manifest::Result;
use sluice_model::{Model, Precision};
use sluice_store::{Location, Storage};

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
