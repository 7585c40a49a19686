//! The formats of output shards.

use serde::{Deserialize, Serialize};
use sluice_manifest::{Receipt, StepName, Unit, UnitKind};
use sluice_run::Receipts;

use crate::plan::PlanSettings;

/// The format of output shards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OutputFormat {
    /// Tars of all members, with a Parquet file for each
    #[default]
    Webdataset,
    /// Parquet files with the images' bytes
    Parquet,
}

impl OutputFormat {
    /// Returns the extension of the objects with the samples.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Webdataset => "tar",
            Self::Parquet => "parquet",
        }
    }

    /// Returns a name for one of these objects, for people.
    pub fn shard(self) -> &'static str {
        match self {
            Self::Webdataset => "WebDataset shard",
            Self::Parquet => "Parquet file",
        }
    }

    /// Returns whether this is the default.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Returns the settings of an export's plan, or `None` if it was not planned.
pub fn plan_settings(receipts: &Receipts, export: &StepName) -> Option<PlanSettings> {
    let settings = receipts
        .unit(export, Unit::once(UnitKind::Plan))
        .map(Receipt::settings::<PlanSettings>);
    settings.and_then(sluice_manifest::Result::ok)
}

/// Returns the format of an export's shards.
pub fn format_of(receipts: &Receipts, export: &StepName) -> OutputFormat {
    plan_settings(receipts, export).map_or_else(OutputFormat::default, |settings| settings.format)
}
