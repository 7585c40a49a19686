//! The contract between all parts of Sluice: names, paths, rows, decisions, scores, fingerprints,
//! receipts, exit codes and operations. A leaf crate that only defines types and does no I/O.
//!
//! Stages exchange **manifests** (Parquet files of the rows in [`rows`]) at the paths in
//! [`layout`]. Each unit of work writes a [`Receipt`]; its [`Fingerprint`] decides whether the work
//! has to be done again. Every sample is kept, or dropped for one [`Reason`].

mod decision;
mod device;
mod error;
mod fingerprint;
mod histogram;
mod ids;
pub mod layout;
pub mod numbers;
mod operation;
mod output;
mod receipt;
pub mod rows;
mod run;
mod score;
pub mod text;

pub use decision::{Counts, Dropped, Reason, ReasonKind};
pub use device::DeviceUse;
pub use error::{Class, Error, ExitStatus, Result};
pub use fingerprint::{Fingerprint, Input, InputOf};
pub use histogram::{Bin, Histogram, TopScores};
pub use ids::{ImageId, Partition, ScoreName, ShardPath, StepName, Unit, UnitKind};
pub use operation::{CountedBy, FanOut, Operation, Resources, Role, retry};
pub use output::{Blocks, Output, OutputPath};
pub use receipt::{ABOUT_DEVICE, ABOUT_EPS, Receipt, Share, Sums, Times};
pub use run::RunInfo;
pub use score::{Keep, ScoreColumn, ScoreSummary, curated_column};
