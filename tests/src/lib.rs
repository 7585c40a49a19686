//! What the end-to-end tests share: where the large things lie, programs run in this process or in
//! one of their own, and the objects of a run.

mod npy;
mod places;
mod process;
mod programs;
mod run;

pub use npy::Npy;
pub use places::{fixtures, model, models, python, runtime, shared_models};
pub use process::{Finished, Process};
pub use programs::{Programs, Said, failed, main_of, run, sluice};
pub use run::Run;
