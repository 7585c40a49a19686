//! What the output's shards are.

use serde::{Deserialize, Serialize};
use sluice_harness::Receipts;
use sluice_manifest::{Receipt, StepName, Unit, UnitKind};

use crate::plan::PlanSettings;

/// What the output's shards are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Tars of all members, with a Parquet file for each
    #[default]
    Webdataset,
    /// Parquet files with the images' bytes
    Parquet,
}

impl Format {
    /// Returns the extension of the objects that hold the samples.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Webdataset => "tar",
            Self::Parquet => "parquet",
        }
    }

    /// Returns what people call one of these objects.
    pub fn shard(self) -> &'static str {
        match self {
            Self::Webdataset => "WebDataset shard",
            Self::Parquet => "Parquet file",
        }
    }

    /// Whether it is the format of outputs that no flag was given for.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Returns the settings that an export was planned with, where it was.
pub fn plan_settings(receipts: &Receipts, export: &StepName) -> Option<PlanSettings> {
    let settings = receipts
        .unit(export, Unit::once(UnitKind::Plan))
        .map(Receipt::settings::<PlanSettings>);
    settings.and_then(sluice_manifest::Result::ok)
}

/// Returns what an export's shards are.
pub fn format_of(receipts: &Receipts, export: &StepName) -> Format {
    plan_settings(receipts, export).map_or_else(Format::default, |settings| settings.format)
}
