//! Reads what the steps of a run have recorded: the plan, receipts, samples and decisions, scores.
//!
//! A [`Run`] is one URI prefix. It compares everything read through it with the receipts. On top of
//! it:
//!
//! - [`Plan`]: the input shards of each partition,
//! - [`Receipts`]: which units are done, and what they were made from,
//! - [`Survivors`]: the samples of a partition with the decision about each,
//! - [`ScoreReader`]: a scorer's rows, joined to the samples in the order of `read`,
//! - [`Upstream`]: the scores and embeddings that a step can use,
//! - [`InputPlaces`]: the places that no output may overlap.
//!
//! What these add up to, for programs that describe a run:
//!
//! - [`counted`]: the steps that belong to the pipeline, [`steps`]: their nodes in order,
//! - [`funnel`]: how many samples each step dropped and why,
//! - [`walk`]: one pass over all samples with their scores and decisions; [`card`]: one sample,
//! - [`scoring`], [`thresholds`], [`curve`]: scores, filters, and what other thresholds would keep.
//!
//! This crate knows nothing of the process that reads: no arguments, signals, logs or progress.

pub mod card;
pub mod counted;
pub mod curve;
pub mod duplicates;
pub mod funnel;
mod missing;
mod objects;
mod owner;
mod places;
mod plan;
pub mod planned;
mod receipts;
pub mod sampling;
mod scores;
pub mod scoring;
pub mod settings;
pub mod steps;
mod survivors;
pub mod thresholds;
mod units;
mod upstream;
pub mod walk;

pub use objects::Run;
pub use owner::refuse_other_stage;
pub use places::{InputPlaces, refuse_overlap, refuse_unwritable};
pub use plan::{PartitionPlan, Plan};
pub use receipts::{CurrentInputs, Receipts};
pub use scores::ScoreReader;
pub use survivors::{Decider, SampleColumns, Survivors, Verdict, Verdicts};
pub use units::data_or_none;
pub use upstream::{Embedder, ReferenceUse, StepOutputs, Upstream};
