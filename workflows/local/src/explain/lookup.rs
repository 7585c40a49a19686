//! Finds an image's rows in the manifests of a run.

use arrow::array::{AsArray, RecordBatch, StringArray};
use arrow::datatypes::Field;
use serde::{Deserialize, Serialize};
use sluice_manifest::layout::IMAGES;
use sluice_manifest::rows::{PlanRow, Row, SampleRow};
use sluice_manifest::text::one_line;
use sluice_manifest::{Error, ImageId, Partition, Result, StepName, Unit};
use sluice_run::{Plan, Receipts, Run, steps};
use sluice_store::{RowReader, Table};

use crate::places::{NearestNames, Places};

/// The number of names in a hint.
const HINTS: usize = 3;

/// Looks images up in a run.
pub struct Lookup<'a> {
    /// The run.
    pub recorded: &'a Run,
    /// The receipts of the run.
    pub receipts: &'a Receipts,
    /// The export that is explained.
    pub export: Option<&'a StepName>,
    /// The deciding steps of that export.
    pub chain: Vec<&'a StepName>,
    places: Places<'a>,
}

/// The column of `read/images` in which names are searched.
#[derive(Debug, Serialize, Deserialize)]
struct ImageRow {
    image_id: ImageId,
}

impl Row for ImageRow {
    const SCHEMA: &'static str = SampleRow::SCHEMA;
    fn fields() -> Vec<Field> {
        let mut fields = SampleRow::fields();
        fields.truncate(1);
        fields
    }
}

impl<'a> Lookup<'a> {
    /// Returns a lookup for a run.
    pub fn new(recorded: &'a Run, plan: &'a Plan, receipts: &'a Receipts) -> Self {
        Self {
            recorded,
            receipts,
            export: steps::export(receipts),
            chain: steps::chain(receipts),
            places: Places::new(plan),
        }
    }

    /// Returns a unit's manifest, if the unit is finished.
    ///
    /// # Errors
    /// Data, when the manifest is missing or broken.
    pub fn rows<R: Row>(
        &self,
        step: &StepName,
        unit: Unit,
        path: impl FnOnce(&StepName, Unit) -> String,
    ) -> Result<Option<RowReader<R>>> {
        let done = self.receipts.unit(step, unit);
        done.map(|_| self.recorded.rows(&path(step, unit)))
            .transpose()
    }

    /// Returns the image's shard, and its row in `read/images` if that was written.
    ///
    /// # Errors
    /// Usage, when there is no such image; the hint names similar ones.
    pub fn locate(&self, image_id: &str) -> Result<(&'a PlanRow, Option<SampleRow>)> {
        let candidates = self.places.of(image_id);
        let mut unread = None;
        for shard in &candidates {
            match self.images::<SampleRow>(shard.partition)? {
                None => unread = unread.or(Some(*shard)),
                Some(rows) => {
                    for row in rows {
                        let row = row?;
                        if row.image_id.as_str() == image_id {
                            return Ok((shard, Some(row)));
                        }
                    }
                }
            }
        }
        match unread {
            Some(shard) => Ok((shard, None)),
            None => Err(self.unknown(image_id, candidates)?),
        }
    }

    /// Returns the partition of an image.
    ///
    /// # Errors
    /// Data, when a manifest is missing or broken.
    pub fn partition_of(&self, id: &ImageId) -> Result<Option<Partition>> {
        let candidates = self.places.of(id.as_str());
        if let [only] = candidates.as_slice() {
            return Ok(Some(only.partition));
        }
        for shard in candidates {
            let rows = self.images::<ImageRow>(shard.partition)?;
            for row in rows.into_iter().flatten() {
                if row?.image_id == *id {
                    return Ok(Some(shard.partition));
                }
            }
        }
        Ok(None)
    }

    fn images<R: Row>(&self, partition: Partition) -> Result<Option<RowReader<R>>> {
        let path = |step: &StepName, unit| IMAGES.path(step, unit);
        self.rows(&StepName::read(), partition.into(), path)
    }

    /// Returns the error about an image that is not in the run.
    fn unknown(&self, image_id: &str, candidates: Vec<&PlanRow>) -> Result<Error> {
        let shards = if candidates.is_empty() {
            self.places.near(image_id, HINTS)
        } else {
            candidates
        };
        let mut nearest = NearestNames::new(image_id, HINTS);
        let mut seen: Vec<Partition> = Vec::new();
        for shard in shards {
            if seen.contains(&shard.partition) {
                continue;
            }
            seen.push(shard.partition);
            let rows = self.images::<ImageRow>(shard.partition)?;
            for row in rows.into_iter().flatten() {
                nearest.offer(row?.image_id.as_str());
            }
        }
        let names = nearest.names();
        let names: Vec<_> = names.iter().map(|name| one_line(name)).collect();
        let error = Error::usage(format!("{image_id}: no such image in this run"));
        Ok(match names.as_slice() {
            [] => error.hint("an id is the shard's path without .tar, a slash, and the key"),
            names => error.hint(format!("similar ones are {}", names.join(", "))),
        })
    }
}

/// Returns the batch and the row of an image in a manifest whose first selected column is
/// `image_id`.
///
/// # Errors
/// Data, when the manifest is broken.
pub(super) fn row_of(table: Table, id: &ImageId) -> Result<Option<(RecordBatch, usize)>> {
    for batch in table {
        let batch = batch?;
        let ids = batch.column_by_name("image_id");
        let ids: Option<&StringArray> = ids.and_then(|ids| ids.as_string_opt());
        let ids = ids.ok_or_else(|| Error::data("column \"image_id\" is not text"))?;
        if let Some(row) = ids.iter().position(|other| other == Some(id.as_str())) {
            return Ok(Some((batch, row)));
        }
    }
    Ok(None)
}
