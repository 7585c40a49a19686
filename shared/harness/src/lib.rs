//! What every program does: arguments, logs and progress, signals, units of work, the result and
//! the exit code. Stages never print, never exit and never start a thread pool.
//!
//! A program is a [`Program`]: a clap parser with a `run`. Its `main` is
//! `sluice_harness::main::<Args>()`. In `run`, the [`Context`] tells the share of the units that
//! is this process's, and [`Context::begin`] gives a [`Task`] for each unit that still has work to
//! do: the only way to write a manifest. [`Task::commit`] checks that no sample got lost and
//! writes the receipt, last.
//!
//! A [`Tool`] is a program that is no stage: one for people, or one that runs several stages.

mod args;
mod context;
mod logs;
mod memory;
mod plan;
mod program;
mod receipts;
mod task;
mod tool;
mod verdicts;

pub use args::{Common, arguments, parse, shell};
pub use context::{Context, Shared};
pub use plan::{PartitionPlan, Plan, check_unchanged, open_shard, shard_input};
pub use program::{Program, describe, main};
pub use receipts::Receipts;
pub use task::{Task, Work};
pub use tool::{Desk, StepDone, Tool, check_step, run_step, tool_main};
pub use verdicts::{Verdict, Verdicts, filter_inputs, filter_step};
