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
mod budget;
mod context;
mod cpu;
mod logs;
mod machine;
mod memory;
mod missing;
mod output;
mod owner;
mod places;
mod plan;
mod program;
mod progress;
mod receipts;
mod run;
mod scores;
mod signals;
mod survivors;
mod task;
mod threads;
mod tool;
mod upstream;
mod variables;

pub use args::{Common, StepArgs, arguments, jobs, shell};
pub use budget::{MemoryBudget, MemoryShare};
pub use context::{Choice, Context, DeviceUse, Node, Shared, data_or_none};
pub use logs::LogFormat;
pub use machine::{Hardware, parse_bytes};
pub use owner::refuse_other_stage;
pub use places::{InputPlaces, refuse_lost, refuse_overlap, refuse_unwritable};
pub use plan::{PartitionPlan, Plan, check_unchanged, open_shard, shard_input};
pub use program::{Program, add_choices, add_device, add_rows, describe, has_work, main, task};
pub use progress::StepCount;
pub use receipts::{CurrentInputs, Receipts};
pub use run::Run;
pub use scores::ScoreReader;
pub use survivors::{Decider, Sample, Survivors, Verdict, Verdicts};
pub use task::{Task, Work};
pub use threads::spawn;
pub use tool::{Desk, StepDone, Tool, Wiring, check_step, input_of, run_step, tool_main, wiring};
pub use upstream::{Embedder, Gives, Upstream};
pub use variables::{MACHINE_FLAGS, is_set, settings_of};
