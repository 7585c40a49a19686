//! What the end-to-end tests share: where the large things lie, programs run in this process or in
//! one of their own, and the objects of a run.

mod copy;
mod npy;
mod places;
mod process;
mod programs;
mod run;
pub mod servers;
mod steps;

pub use copy::copy_main;
pub use npy::Npy;
pub use places::{demo_input, fixtures, model, models, python, runtime, shared_models};
pub use process::{Finished, Process, Running};
pub use programs::{Said, failed, main_of, run, sluice};
pub use run::Run;
pub use steps::{StepCommand, step_commands};
