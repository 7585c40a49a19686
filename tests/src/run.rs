//! The objects of a run.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use arrow::array::{Array, AsArray};
use arrow::datatypes::Float32Type;
use sluice_manifest::rows::{EMBEDDINGS, Row, SCORES};
use sluice_manifest::{Counts, Receipt, StepName, Unit, UnitKind, layout};
use sluice_store::{Location, Store, vectors};

/// A run, or a curated dataset.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its URI.
    pub uri: String,
    /// Its objects.
    pub store: Store,
}

impl Run {
    /// Opens the store at a URI, or creates it.
    ///
    /// # Errors
    /// When the URI is not valid or the store cannot be opened.
    pub fn at(uri: impl Into<String>) -> Result<Self> {
        let uri = uri.into();
        Ok(Self {
            store: crate::shared().storage.create(&Location::parse(&uri)?)?,
            uri,
        })
    }

    /// Returns all rows of the manifests of one kind (`read/images`), unit by unit.
    ///
    /// # Errors
    /// When a manifest is missing or broken.
    pub fn rows<R: Row>(&self, kind: &str) -> Result<Vec<R>> {
        let mut rows = Vec::new();
        for object in self.store.list(kind)? {
            for row in self.store.rows::<R>(&object.path)? {
                rows.push(row.with_context(|| object.path.clone())?);
            }
        }
        Ok(rows)
    }

    /// Returns the embeddings by image, in order.
    ///
    /// # Errors
    /// When a manifest is broken.
    pub fn embeddings(&self) -> Result<Vec<(String, Vec<f32>)>> {
        let mut found = Vec::new();
        for object in self.store.list("embed/embeddings")? {
            let columns = ["image_id", "embedding"];
            for batch in self.store.table(&object.path, EMBEDDINGS, &columns)? {
                let batch = batch?;
                let ids = batch["image_id"].as_string::<i32>();
                let values = vectors(&batch, "embedding")?;
                let width = values.len() / ids.len().max(1);
                let rows = values.chunks_exact(width.max(1));
                for (id, row) in ids.iter().flatten().zip(rows) {
                    found.push((id.to_owned(), row.to_vec()));
                }
            }
        }
        Ok(found)
    }

    /// Returns the scores of a step with one output by image, in order. Images without a score are
    /// left out.
    ///
    /// # Errors
    /// When a manifest is broken.
    pub fn scores(&self, step: &str) -> Result<Vec<(String, f32)>> {
        let mut found = Vec::new();
        for object in self.store.list(&format!("{step}/scores"))? {
            let columns = ["image_id", "score"];
            for batch in self.store.table(&object.path, SCORES, &columns)? {
                let batch = batch?;
                let ids = batch["image_id"].as_string::<i32>();
                let scores = batch["score"].as_primitive::<Float32Type>();
                for (id, score) in ids.iter().zip(scores) {
                    found.extend(id.map(str::to_owned).zip(score));
                }
            }
        }
        Ok(found)
    }

    /// Returns the receipts of a step, by unit.
    ///
    /// # Errors
    /// When a receipt cannot be parsed.
    pub fn receipts(&self, step: &str) -> Result<BTreeMap<Unit, Receipt>> {
        let mut found = BTreeMap::new();
        for object in self.store.list(&layout::receipts(&StepName::new(step)?))? {
            let json = self.store.get(&object.path)?;
            let receipt: Receipt =
                serde_json::from_slice(&json).with_context(|| object.path.clone())?;
            found.insert(receipt.unit, receipt);
        }
        Ok(found)
    }

    /// Returns the receipts of a step's units of one kind, in order.
    ///
    /// # Errors
    /// When a receipt cannot be parsed.
    pub fn receipts_of(&self, step: &str, kind: UnitKind) -> Result<Vec<Receipt>> {
        let receipts = self.receipts(step)?.into_values();
        Ok(receipts
            .filter(|receipt| receipt.unit.kind == kind)
            .collect())
    }

    /// Returns the sum of the counts of a step's units of one kind.
    ///
    /// # Errors
    /// When a receipt cannot be parsed.
    pub fn counts(&self, step: &str, kind: UnitKind) -> Result<Counts> {
        let mut counts = Counts::default();
        for receipt in self.receipts_of(step, kind)? {
            counts.merge(&receipt.counts);
        }
        Ok(counts)
    }

    /// Returns the hash of every object below a folder (`""` for all).
    ///
    /// # Errors
    /// When an object cannot be read.
    pub fn hashes(&self, folder: &str) -> Result<BTreeMap<String, String>> {
        let mut hashes = BTreeMap::new();
        for object in self.store.list(folder)? {
            let bytes = self.store.get(&object.path)?;
            let hash = blake3::hash(&bytes).to_hex().to_string();
            hashes.insert(object.path, hash);
        }
        Ok(hashes)
    }
}
