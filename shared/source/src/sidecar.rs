//! The Parquet file next to a shard, as img2dataset writes it: its columns are metadata of the
//! samples.

use std::collections::HashMap;

use serde_json::Value;
use sluice_manifest::Result;
use sluice_shard::{Sample, caption_member, metadata_member};
use sluice_store::Store;
use sluice_table::Rows;

use crate::images::caption_of;
use crate::samples::text_member;

/// The column with the samples' keys.
pub(crate) const KEY: &str = "key";

/// The rows of a sidecar by sample key.
pub(crate) struct Sidecar(HashMap<String, sluice_table::JsonRow>);

impl Sidecar {
    pub(crate) fn open(input: &Store, path: &str) -> Result<Self> {
        let mut rows = HashMap::new();
        for row in Rows::open(input, path)? {
            let row = row?;
            if let Some(Value::String(key)) = row.get(KEY) {
                rows.insert(key.clone(), row);
            }
        }
        Ok(Self(rows))
    }

    /// Adds a row's caption and metadata to its sample, unless the shard has them.
    pub(crate) fn joined(&self, mut sample: Sample) -> Sample {
        let Some(row) = self.0.get(&sample.key) else {
            return sample;
        };
        if caption_member(&sample.members).is_none()
            && let Some(caption) = caption_of(row, None)
        {
            sample.members.extend(text_member("txt", caption));
        }
        if metadata_member(&sample.members).is_none() {
            let json = Value::Object(row.clone()).to_string();
            sample.members.extend(text_member("json", json));
        }
        sample
    }
}
