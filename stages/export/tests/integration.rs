//! The subcommands of the export, run in this process on small runs that `sluice-partition` and
//! `sluice-read` made. The tests stand in for the steps between.
//!
//! A failure is: a kept sample that is missing, doubled or changed by a byte; a dropped one without
//! its reason; an output that depends on anything but its inputs and settings; a stale input that
//! goes unnoticed. Nothing here is a golden file.

#[path = "integration/decide.rs"]
mod decide;
#[path = "integration/documents.rs"]
mod documents;
#[path = "integration/index.rs"]
mod index;
#[path = "integration/plan.rs"]
mod plan;
#[path = "integration/python.rs"]
mod python;
#[path = "integration/support.rs"]
mod support;
#[path = "integration/write.rs"]
mod write;
