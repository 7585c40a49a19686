//! What every program does: arguments, logs and progress, signals, units of work, the result and
//! the exit code. Stages never print, never exit and never start a thread pool.
//!
//! A program is a [`Program`]: a clap parser with a `run`. Its `main` is
//! `sluice_harness::main::<Args>()`. In `run`, the [`Context`] gives the share of the units that
//! is this process's, and [`Context::begin`] a [`Task`] for each unit that still has work to
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
mod scores;
mod survivors;
mod task;
mod tool;
mod upstream;

pub use args::{Common, StepArgs, arguments, parse, shell};
pub use context::{Context, Node, Shared};
pub use plan::{PartitionPlan, Plan, check_unchanged, open_shard, shard_input};
pub use program::{Program, describe, main};
pub use receipts::Receipts;
pub use scores::ScoreReader;
pub use survivors::{Decider, Sample, Survivors, Verdict, Verdicts, reason_of};
pub use task::{Task, Work};
pub use tool::{Desk, StepDone, Tool, Wiring, check_step, run_step, tool_main, wiring};
pub use upstream::{Embedder, Gives, Upstream};
