//! Opens the shards of a plan.

use std::collections::HashMap;

use serde_json::Value;
use sluice_manifest::rows::{PlanRow, ShardKind};
use sluice_manifest::{Error, Result, ShardPath};
use sluice_run::Run;
use sluice_store::{Location, Storage, Store};

use crate::files::FileRows;
use crate::planned::check_unchanged;
use crate::{Samples, SourceShard};

/// Opens the shards of a plan. Cheap to clone.
#[derive(Debug, Clone)]
pub struct InputReader {
    pub(crate) run: Run,
    pub(crate) input: Store,
    pub(crate) storage: Storage,
    pub(crate) split: Option<EachImage>,
}

/// How samples with several images are split.
#[derive(Debug, Clone, Default)]
pub struct EachImage {
    /// The extension of captions, unless it is `txt` or `caption`.
    pub caption_member: Option<String>,
}

impl EachImage {
    /// Returns how samples are split, from the settings of `sluice-read` as its receipts record
    /// them. Returns `None` if they are not split.
    pub fn of_settings(settings: &Value) -> Option<Self> {
        let caption = settings["caption_member"].as_str();
        (settings["images"] == "each").then(|| Self {
            caption_member: caption.map(str::to_owned),
        })
    }
}

impl InputReader {
    /// Creates a reader for the shards of a run's plan, which are below `input`.
    pub fn new(run: &Run, input: &Store, storage: &Storage) -> Self {
        Self {
            run: run.clone(),
            input: input.clone(),
            storage: storage.clone(),
            split: None,
        }
    }

    /// Sets whether each image of a sample becomes a sample of its own.
    pub fn split(mut self, split: Option<EachImage>) -> Self {
        self.split = split;
        self
    }

    /// Streams the samples of a shard.
    ///
    /// # Errors
    ///
    /// Returns a data error if the shard changed since the plan was made, and otherwise a storage
    /// error.
    pub fn samples(&self, planned: &PlanRow) -> Result<Samples> {
        Samples::open(self, planned)
    }

    /// Opens a shard for reading members. `compressions` is the result of
    /// [`compressions`](crate::compressions).
    ///
    /// # Errors
    ///
    /// Fails like [`samples`](Self::samples), and with a data error if `compressions` does not
    /// contain the shard.
    pub fn shard(
        &self,
        planned: &PlanRow,
        compressions: &HashMap<ShardPath, String>,
    ) -> Result<SourceShard> {
        SourceShard::open(self, planned, compressions)
    }

    /// Checks that a shard has not changed since the plan was made.
    ///
    /// # Errors
    ///
    /// Returns a data error if it changed or no longer exists, and otherwise a storage error.
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

/// Returns the store of a file and its path there. `file` is a path below `input`, an absolute path
/// or a URI.
///
/// # Errors
///
/// Returns a usage error if there is no store for the URI, or it names no object.
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
