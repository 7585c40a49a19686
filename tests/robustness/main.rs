//! Processes that are killed, stopped and duplicated, and invalid input.
//!
//! `kills`: after any disturbance of its processes, a run and its output have the bytes of an
//! undisturbed run. `corpus`: replays the inputs of the fuzz targets.

#![expect(
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "tests print their figures, and what they compare is on local disk"
)]

mod corpus;
mod kills;
