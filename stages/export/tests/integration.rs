//! Runs the subcommands of the export in this process, on small runs made by `sluice-partition` and
//! `sluice-read`. The tests replace the steps between.
//!
//! They fail if a kept sample is missing, duplicated or changed by a byte; if a dropped one has no
//! reason; if an output depends on anything but its inputs and settings; or if a stale input is not
//! detected. There are no golden files.

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
