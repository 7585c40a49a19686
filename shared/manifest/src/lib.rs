//! What all parts of Sluice agree on: names, paths, rows, decisions, scores, fingerprints, receipts,
//! exit codes and operations. A leaf crate: it defines, it does no I/O.
//!
//! Stages exchange **manifests** (Parquet files of the rows in [`rows`]) at the paths in [`layout`],
//! and each unit of work leaves a [`Receipt`] whose [`Fingerprint`] says whether the work still has
//! to be done. Every sample that came in is kept or dropped for one [`Reason`].

mod decision;
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
pub use error::{Class, Error, ExitStatus, Result};
pub use fingerprint::{Fingerprint, Input, InputOf};
pub use histogram::{Bin, Histogram, TopScores};
pub use ids::{ImageId, Partition, ScoreName, ShardPath, StepName, Unit, UnitKind};
pub use operation::{CountedBy, FanOut, Operation, Resources, Role, retry};
pub use output::{Blocks, Output, OutputPath};
pub use receipt::{ABOUT_EPS, Receipt, Sums, Times};
pub use run::RunInfo;
pub use score::{Keep, ScoreColumn, ScoreSummary, curated_column};
