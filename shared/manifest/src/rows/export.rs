//! The rows of `export`: decisions, the plan of output shards, captions and groups of duplicates.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use serde::{Deserialize, Serialize};

use super::{Row, length, number, optional, text};
use crate::{ImageId, Partition, Reason, StepName, Unit, UnitKind};

/// A row of `export/decisions`: one for every sample of `read`, in the same order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecisionRow {
    /// The sample's name in the run.
    pub image_id: ImageId,
    /// Whether the sample is in the curated dataset.
    pub keep: bool,
    /// The step that dropped it.
    pub step: Option<StepName>,
    /// The reason why it was dropped.
    pub reason: Option<Reason>,
    /// The values that led to the decision.
    pub detail: Option<String>,
    /// The total size of its members.
    pub bytes: u64,
    /// The hash of its group of duplicates. Samples of one group go into the same split of the
    /// output.
    pub group: u64,
}

impl Row for DecisionRow {
    const SCHEMA: &'static str = "export/decisions";
    const VERSION: u32 = 2;
    fn fields() -> Vec<Field> {
        vec![
            text("image_id"),
            number("keep", DataType::Boolean),
            optional("step", DataType::Utf8),
            optional("reason", DataType::Utf8),
            optional("detail", DataType::Utf8),
            number("bytes", DataType::UInt64),
            number("group", DataType::UInt64),
        ]
    }

    fn text_bytes(&self) -> usize {
        self.image_id.as_str().len() + length(self.detail.as_ref())
    }
}

/// A row of `export/plan`: which kept samples of a partition go into an output shard.
///
/// The kept samples of a partition are laid out in sequence, each with its weight as length: 1
/// (`--images-per-shard`) or its bytes (`--bytes-per-shard`). The row selects the samples that
/// start in `from..to`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutputPlanRow {
    /// The number of the output shard.
    pub shard: u32,
    /// The partition that the samples come from.
    pub partition: Partition,
    /// The start of the range.
    pub from: u64,
    /// The end of the range, exclusive.
    pub to: u64,
    /// The split that the shard belongs to, if the output has splits. The sequence then consists of
    /// the samples of this split.
    pub split: Option<String>,
}

impl OutputPlanRow {
    /// Returns the path of the shard in the output, without an extension.
    pub fn path(&self) -> String {
        let unit = Unit::new(UnitKind::Shard, self.shard);
        match &self.split {
            Some(split) => format!("{split}/{unit}"),
            None => unit.to_string(),
        }
    }
}

impl Row for OutputPlanRow {
    const SCHEMA: &'static str = "export/plan";
    fn fields() -> Vec<Field> {
        vec![
            number("shard", DataType::UInt32),
            number("partition", DataType::UInt32),
            number("from", DataType::UInt64),
            number("to", DataType::UInt64),
            optional("split", DataType::Utf8),
        ]
    }
}

/// A row of `export/captions`: the captions of the duplicates that were removed in favour of an
/// image, sorted by partition and image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CaptionsRow {
    /// The partition of the kept image.
    pub partition: Partition,
    /// The kept image.
    pub image_id: ImageId,
    /// The distinct captions of its duplicates, without its own.
    pub captions: Vec<String>,
}

impl Row for CaptionsRow {
    const SCHEMA: &'static str = "export/captions";
    fn fields() -> Vec<Field> {
        let item = Arc::new(text("item"));
        vec![
            number("partition", DataType::UInt32),
            text("image_id"),
            Field::new("captions", DataType::List(item), false),
        ]
    }

    fn text_bytes(&self) -> usize {
        let captions = self.captions.iter().map(String::len);
        self.image_id.as_str().len() + captions.sum::<usize>()
    }
}

/// A row of `export/groups`: the images of all groups of duplicates, by partition, in the order of
/// `read/images`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupRow {
    /// The partition of the image.
    pub partition: Partition,
    /// The sample's name in the run.
    pub image_id: ImageId,
    /// The group: the same number for all its images.
    pub group_id: u64,
    /// The number of images in the group.
    pub group_size: u32,
}

impl Row for GroupRow {
    const SCHEMA: &'static str = "export/groups";
    fn fields() -> Vec<Field> {
        vec![
            number("partition", DataType::UInt32),
            text("image_id"),
            number("group_id", DataType::UInt64),
            number("group_size", DataType::UInt32),
        ]
    }

    fn text_bytes(&self) -> usize {
        self.image_id.as_str().len()
    }
}
