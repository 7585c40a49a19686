//! What all parts of Sluice agree on: names, paths, rows, decisions, fingerprints, receipts,
//! exit codes and the DAG. A leaf crate: it defines, it does no I/O.
//!
//! Stages talk through **manifests** (Parquet files of the rows in [`rows`]) at the paths in
//! [`layout`], and each unit of work leaves a [`receipt`] whose [`fingerprint`] tells whether the
//! work still has to be done. Every sample that came in is kept or dropped for one [`Reason`].

pub mod dag;
mod decision;
mod error;
mod fingerprint;
mod ids;
pub mod layout;
mod receipt;
pub mod rows;
mod run;

pub use decision::{Counts, Filter, Reason};
pub use error::{Class, Error, ExitStatus, Result};
pub use fingerprint::{Fingerprint, Input};
pub use ids::{ImageId, Partition, ShardPath, Unit};
pub use receipt::{Output, Receipt};
pub use run::RunInfo;
