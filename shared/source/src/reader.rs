//! Opens the shards of a plan.

use std::collections::HashMap;

use serde_json::Value;
use sluice_harness::{Run, check_unchanged};
use sluice_manifest::rows::{PlanRow, ShardKind};
use sluice_manifest::{Error, Result, ShardPath};
use sluice_store::{Location, Storage, Store};

use crate::files::FileRows;
use crate::{Samples, SourceShard};

/// Opens the shards of a plan. Cheap to clone.
#[derive(Debug, Clone)]
pub struct InputReader {
    pub(crate) run: Run,
    pub(crate) input: Store,
    pub(crate) storage: Storage,
    pub(crate) split: Option<EachImage>,
}

/// How the images of a sample become samples of their own.
#[derive(Debug, Clone, Default)]
pub struct EachImage {
    /// The extension of captions, where it is not `txt` or `caption`.
    pub caption_member: Option<String>,
}

impl EachImage {
    /// Returns how samples are split by the settings of `sluice-read`, which its receipts have too; none
    /// where they are not.
    pub fn of_settings(settings: &Value) -> Option<Self> {
        let caption = settings["caption_member"].as_str();
        (settings["images"] == "each").then(|| Self {
            caption_member: caption.map(str::to_owned),
        })
    }
}

impl InputReader {
    /// Returns what opens the shards of a run's plan, which are below `input`.
    pub fn new(run: &Run, input: &Store, storage: &Storage) -> Self {
        Self {
            run: run.clone(),
            input: input.clone(),
            storage: storage.clone(),
            split: None,
        }
    }

    /// Makes each image of a sample a sample of its own, if `split` is given.
    pub fn split(mut self, split: Option<EachImage>) -> Self {
        self.split = split;
        self
    }

    /// Streams the samples of a shard.
    ///
    /// # Errors
    /// Data, when the shard is not the one that the plan was made from; of storage.
    pub fn samples(&self, planned: &PlanRow) -> Result<Samples> {
        Samples::open(self, planned)
    }

    /// Opens a shard that [`packing`](crate::packing) knows, for reading members.
    ///
    /// # Errors
    /// As [`samples`](Self::samples).
    pub fn shard(
        &self,
        planned: &PlanRow,
        packing: &HashMap<ShardPath, String>,
    ) -> Result<SourceShard> {
        SourceShard::open(self, planned, packing)
    }

    /// Fails when a shard is not what the plan was made from.
    ///
    /// # Errors
    /// Data, when it changed or is gone; of storage.
    pub fn check_unchanged(&self, planned: &PlanRow) -> Result<()> {
        if planned.kind != ShardKind::Files {
            return check_unchanged(&self.input, planned);
        }
        let mut rows = FileRows::open(self, planned)?;
        while let Some((_, row)) = rows.step()? {
            rows.check_unchanged(&row)?;
        }
        Ok(())
    }

    /// Returns the URI of a shard.
    pub fn uri(&self, planned: &PlanRow) -> String {
        self.input.uri(planned.shard.as_str())
    }
}

/// Returns the store of a file, and its path there. The file is named by its path below `input`, or
/// by a URI or an absolute path.
///
/// # Errors
/// Usage, when there is no store for the URI.
pub fn locate(storage: &Storage, input: &Store, file: &str) -> Result<(Store, String)> {
    if !file.contains("://") && !file.starts_with('/') {
        return Ok((input.clone(), file.to_owned()));
    }
    let location = Location::parse(file)?;
    let (folder, name) = location
        .split()
        .ok_or_else(|| Error::usage(format!("{file}: names no object")))?;
    Ok((storage.create(&folder)?, name))
}
