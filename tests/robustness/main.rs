//! Processes that are killed, stopped and doubled, and bytes that nobody meant.
//!
//! `kills`: whatever happens to the processes of a run, the run and its output end with the bytes of
//! an undisturbed run. `corpus`: the inputs of the fuzz targets, replayed.

#![expect(
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "tests print their figures, and what they compare is on local disk"
)]

mod corpus;
mod kills;
