//! The parts that all programs share: arguments, logs and progress, signals, units of work, the
//! result and the exit code. Stages never print, never exit and never start a thread pool.
//!
//! A stage's program is a [`Program`]: a clap parser with a `run`. Its `main` is
//! `sluice_harness::main::<Args>()`. In `run`, the [`Context`] has the share of the units that
//! belongs to this process. [`Context::begin`] returns a [`OpenUnit`] for each unit that is not up to
//! date. An open unit is the only way to write a manifest. [`OpenUnit::commit`] checks the sample counts and
//! writes the receipt, which is the last object of the unit.
//!
//! A [`Tool`] is any other program: one for people, or one that runs several stages.

mod args;
mod context;
mod cpu;
mod logs;
mod machine;
mod memory;
mod open_unit;
mod output;
mod pod;
mod program;
mod progress;
mod signals;
mod threads;
mod tool;
mod variables;

pub use args::{Common, StepArgs, arguments, jobs, shell};
pub use context::{ChosenSetting, Context, ProcessResources, ProgramNode, each_unit};
pub use logs::LogFormat;
pub use machine::{Hardware, parse_bytes};
pub use open_unit::{OpenUnit, Work};
pub use program::{
    Program, Starter, add_choices, add_device, add_reported, add_rows, describe, has_work, main,
    open_step, task, task_done,
};
pub use progress::StepCount;
pub use sluice_threads::{MemoryBudget, spawn};
pub use tool::{
    StepDone, Tool, ToolContext, Wiring, check_step, input_of, run_step, tool_main, wiring,
};
pub use variables::{MACHINE_FLAGS, is_set, settings_of};
