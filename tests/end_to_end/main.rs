//! The whole pipeline, through the programs' own command lines, against data and models from
//! outside of this repository.
//!
//! What counts as failure: a sample that is lost or counted twice, an outcome that the fixture's
//! description does not allow, a score or an embedding beyond its stated distance from the
//! reference, a byte that changed on its way into the curated dataset, work that is done again
//! without need or left undone, and memory that grows with the input. Recall and precision are
//! printed (`cargo test -p sluice-tests -- --nocapture`) and held against floors a little below
//! what was measured.
//!
//! A test that lacks fixtures, models, ONNX Runtime or Python is skipped and counted
//! (`sluice_testkit::Need`). `make test` fetches all but the fixtures.

#![expect(
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests print their figures, and fixtures lie on local disk"
)]

mod dups;
mod field_cases;
mod gallery;
mod hard;
mod memory;
mod models;
mod page;
mod pipeline;
mod pipelines;
mod pull;
mod reasons;
mod reruns;
mod shares;
mod signals;
mod support;
mod system;
mod variables;
