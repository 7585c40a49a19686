//! The location of an image in the curated dataset.

use arrow::datatypes::Field;
use serde::{Deserialize, Serialize};
use sluice_export::format::{OutputFormat, format_of};
use sluice_export::recoded;
use sluice_manifest::layout::OUTPUT_PLAN;
use sluice_manifest::rows::{CuratedRow, OUTPUT_KEY, OutputPlanRow, Row, SampleRow};
use sluice_manifest::{ImageId, Partition, Result, StepName, Unit, UnitKind};
use sluice_store::{Location, Store};

use super::lookup::Lookup;

/// A location in the curated dataset.
#[derive(Debug, Serialize)]
pub struct OutputPlace {
    /// The shard.
    pub shard: String,
    /// The sample's members in the shard; empty if the shard has not been written.
    pub members: Vec<String>,
    /// Whether the shard has been written.
    pub written: bool,
}

/// The column that identifies a sample in the Parquet file of an output shard.
#[derive(Debug, Serialize, Deserialize)]
struct CuratedId {
    image_id: ImageId,
}

impl Row for CuratedId {
    const SCHEMA: &'static str = CuratedRow::SCHEMA;
    const VERSION: u32 = CuratedRow::VERSION;
    fn fields() -> Vec<Field> {
        let mut fields = CuratedRow::fields();
        fields.truncate(1);
        fields
    }
}

impl Lookup<'_> {
    /// Returns the location of a kept image. It is in one of the shards that take samples from its
    /// partition.
    ///
    /// # Errors
    /// Data, when a manifest is missing or broken.
    pub fn output(&self, sample: &SampleRow, partition: Partition) -> Result<Option<OutputPlace>> {
        let Some(export) = self.export else {
            return Ok(None);
        };
        let path = |step: &StepName, unit| OUTPUT_PLAN.path(step, unit);
        let plan = Unit::once(UnitKind::Plan);
        let Some(rows) = self.rows::<OutputPlanRow>(export, plan, path)? else {
            return Ok(None);
        };
        let output = Location::parse(rows.table().required(OUTPUT_KEY)?)?;
        let format = format_of(self.receipts, export);
        let mut unwritten = Vec::new();
        for row in rows {
            let row = row?;
            if row.partition != partition {
                continue;
            }
            let shard = Unit::new(UnitKind::Shard, row.shard);
            if self.receipts.unit(export, shard).is_none() {
                unwritten.push(format!("{output}/{}.{}", row.path(), format.extension()));
            } else if let Some(place) = place_in(
                &self.recorded.storage.open(&output)?,
                &row.path(),
                sample,
                format,
            )? {
                return Ok(Some(place));
            }
        }
        Ok((!unwritten.is_empty()).then(|| OutputPlace {
            shard: unwritten.join(" or "),
            members: Vec::new(),
            written: false,
        }))
    }
}

fn place_in(
    store: &Store,
    shard: &str,
    sample: &SampleRow,
    format: OutputFormat,
) -> Result<Option<OutputPlace>> {
    let table = format!("{shard}.parquet");
    for (number, row) in store.rows::<CuratedId>(&table)?.enumerate() {
        if row?.image_id != sample.image_id {
            continue;
        }
        let mut sample = sample.clone();
        let mut rows = store.rows::<CuratedRow>(&table)?.from_row(number as u64)?;
        let row = rows.next().transpose()?;
        if let Some(row) = row.filter(|row| row.sha256 != sample.sha256) {
            recoded::follow(&mut sample, &row);
        }
        let id = sample.image_id.as_str();
        let is_there = |extension: &str| {
            format == OutputFormat::Webdataset
                || sample.image_extension.as_deref() == Some(extension)
        };
        let members = sample.members.iter().filter(|m| is_there(&m.extension));
        let members = members.map(|m| sluice_shard::safe_member_name(id, &m.extension));
        return Ok(Some(OutputPlace {
            shard: store.uri(&format!("{shard}.{}", format.extension())),
            members: members.collect(),
            written: true,
        }));
    }
    Ok(None)
}
