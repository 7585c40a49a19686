//! Helpers of the end-to-end tests: locations of large files, programs in this process or in a
//! separate one, and the objects of a run.

mod browser;
mod copy;
pub mod fuzz;
mod npy;
mod places;
mod process;
mod programs;
mod run;
pub mod servers;
mod spin;
mod steps;

pub use browser::Browser;
pub use copy::{copy_main, wipe_main};
pub use npy::Npy;
pub use places::{demo_input, fixtures, model, models, python, runtime, shared_models};
pub use process::{Ended, Finished, Process, Running};
pub use programs::{SluiceOutput, failed, main_of, run, shared, sluice};
pub use run::Run;
pub use steps::{StepCommand, step_commands};
