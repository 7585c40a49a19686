//! The whole pipeline, through the programs' command lines, on data and models from outside this
//! repository.
//!
//! Failures: a lost or twice counted sample, an outcome that the fixture's description does not
//! allow, a score or an embedding too far from the reference, a changed byte in the curated
//! dataset, work that is repeated without need or missing, and memory that grows with the input.
//! Recall and precision are printed (`cargo test -p sluice-tests -- --nocapture`) and must not fall
//! below minima slightly under the measured values.
//!
//! A test that lacks fixtures, models, ONNX Runtime or Python is skipped and counted
//! (`sluice_testkit::Need`). `make test` fetches everything except the fixtures.

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
