//! Rows that were computed before, and rows that are computed now, in the order of `read`.
//!
//! When only the survivors of a unit changed, most of its rows are in the unit's previous manifest.
//! They are taken over, so a looser rule costs the images that it lets through in addition. The rows
//! of both are parts of one order, so they are joined by walking the samples once.

use sluice_harness::{Context, ScoreReader, Survivors, Task, Verdicts};
use sluice_manifest::layout::Manifest;
use sluice_manifest::rows::NameRow;
use sluice_manifest::{ImageId, Partition, Result};

/// The unit's previous manifest, when its rows can be taken over.
pub struct Previous {
    path: String,
    schema: &'static str,
    columns: Vec<String>,
}

impl Previous {
    /// Returns the unit's previous manifest with these columns, if its rows can be taken over.
    ///
    /// # Errors
    /// Storage errors only.
    pub fn of<R>(
        task: &Task<'_>,
        manifest: &Manifest<R>,
        schema: &'static str,
        columns: &[&str],
    ) -> Result<Option<Self>> {
        Ok(task.is_reusable(manifest)?.then(|| Self {
            path: task.path(manifest),
            schema,
            columns: columns.iter().map(|&name| name.to_owned()).collect(),
        }))
    }

    fn open(&self, context: &Context, columns: &[&str]) -> Result<ScoreReader> {
        ScoreReader::open_path(context, &self.path, self.schema, columns)
    }

    /// Returns a test for samples, asked for in the order of `read`: whether they have a row.
    ///
    /// # Errors
    /// Data, when the manifest is broken.
    pub fn has_row(
        previous: Option<&Self>,
        context: &Context,
    ) -> Result<impl FnMut(&ImageId) -> Result<bool> + use<>> {
        let mut ids = match previous {
            Some(previous) => Some(previous.open(context, &[])?),
            None => None,
        };
        Ok(move |id: &ImageId| match &mut ids {
            Some(ids) => Ok(ids.next_if(id.as_str())?.is_some()),
            None => Ok(false),
        })
    }
}

/// Walks the survivors of a partition and hands out the rows that are taken over, between those that
/// are computed.
pub struct Join {
    samples: Verdicts<NameRow>,
    previous: Option<ScoreReader>,
    /// Survivors passed.
    pub survivors: u64,
    /// Rows taken over.
    pub reused: u64,
}

impl Join {
    /// Begins at the partition's first sample.
    ///
    /// # Errors
    /// Data, when a manifest is missing or broken.
    pub fn open(
        context: &Context,
        survivors: &Survivors<'_>,
        partition: Partition,
        previous: Option<&Previous>,
    ) -> Result<Self> {
        let previous = match previous {
            Some(previous) => {
                let columns: Vec<&str> = previous.columns.iter().map(String::as_str).collect();
                Some(previous.open(context, &columns)?)
            }
            None => None,
        };
        Ok(Self {
            samples: survivors.verdicts(partition)?,
            previous,
            survivors: 0,
            reused: 0,
        })
    }

    /// Walks to this image, or to the end, and hands out the rows on the way. Returns whether the
    /// image is a survivor.
    ///
    /// # Errors
    /// As `row`; data, when a manifest is broken.
    pub fn advance(
        &mut self,
        to: Option<&ImageId>,
        mut row: impl FnMut(ImageId, &[f32]) -> Result<()>,
    ) -> Result<bool> {
        for verdict in self.samples.by_ref() {
            let verdict = verdict?;
            let id = verdict.sample.image_id;
            let numbers = match &mut self.previous {
                Some(previous) => previous.next_if(id.as_str())?,
                None => None,
            };
            let is_survivor = verdict.dropped.is_none();
            self.survivors += u64::from(is_survivor);
            if to == Some(&id) {
                return Ok(is_survivor);
            }
            if !is_survivor {
                continue;
            }
            if let Some(numbers) = numbers {
                self.reused += 1;
                row(id, &numbers)?;
            }
        }
        Ok(false)
    }
}
