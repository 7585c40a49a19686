//! `sluice-filter`: decides which images stay, by thresholds on scores and by rules.
//!
//! Scores are facts; this is the one place of policy for single images. Every survivor gets a row with
//! the decision, the first condition that failed and the values that decided. An image that lacks a
//! score that a threshold needs is dropped as `not-scored`; a rule that cannot be evaluated does not
//! pass.

mod columns;
mod conditions;
mod decide;
pub mod rules;
mod sample;

use anyhow::Result;
use clap::Parser;
use sluice_harness::{Common, Context, Program, StepArgs};
use sluice_manifest::{Operation, Resources, Role, ScoreName, StepName, UnitKind};
use sluice_run::{StepOutputs, Upstream};

use crate::conditions::{compiled, needed_scores, refuse_hidden_scores, resolve};

pub use crate::columns::refuse_reserved;
pub use crate::conditions::{Condition, NamedRule, Settings, ThresholdArg, Top, scorers_of};
pub use crate::sample::{SampleBy, Sampling};

/// Images of a cluster that can stay at most.
const MOST_PER_CLUSTER: i64 = 1 << 24;

/// Decide which images stay, by thresholds on scores and by rules
///
/// Example: sluice-filter --run runs/a --min aesthetic=5.0 --max nsfw --rule 'large=min(width, height) >= 256'
#[derive(Debug, Parser)]
#[command(name = "sluice-filter", version)]
pub struct Args {
    /// The arguments of every step after `read`.
    #[command(flatten)]
    pub step: StepArgs,

    /// Keep images whose score is at least VALUE (default: the model's own threshold)
    #[arg(long, env = "SLUICE_MIN", value_name = "SCORE[=VALUE]")]
    pub min: Vec<ThresholdArg>,

    /// Keep images whose score is below VALUE (default: the model's own threshold)
    #[arg(long, env = "SLUICE_MAX", value_name = "SCORE[=VALUE]")]
    pub max: Vec<ThresholdArg>,

    /// Keep this fraction of the images that were scored, those with the highest scores
    ///
    /// Counted are all images that have the score, whether or not this filter sees them. The threshold is
    /// taken from the histograms of all partitions: it keeps at least this fraction, and scores that are
    /// equal or within the resolution of the threshold together. The log and the receipt state the
    /// resolution.
    #[arg(long, env = "SLUICE_TOP", value_name = "SCORE=PERCENT")]
    pub top: Vec<Top>,

    /// Keep images on the side of the model's own threshold that its authors keep
    #[arg(
        long,
        env = "SLUICE_SCORES",
        value_name = "SCORES",
        value_delimiter = ','
    )]
    pub scores: Vec<ScoreName>,

    /// Keep images for which this CEL expression is true
    ///
    /// It reads scores by step name (with _ for -), columns of read, caption and metadata:
    /// licensed=metadata.license in ['cc0', 'cc-by']
    #[arg(long, env = "SLUICE_RULE", value_name = "NAME=EXPRESSION")]
    pub rule: Vec<NamedRule>,

    /// How many samples of each cluster stay.
    #[command(flatten)]
    pub sample: SampleArgs,
}

/// The arguments of the sample of each cluster.
#[derive(Debug, clap::Args)]
pub struct SampleArgs {
    /// Keep at most N images of each cluster of a dedup step; a filter with this has no other condition
    ///
    /// Counted are the survivors that this filter sees. Large clusters lose most, so the dataset becomes
    /// balanced.
    #[arg(long, env = "SLUICE_SAMPLE_PER_CLUSTER", value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=MOST_PER_CLUSTER))]
    pub sample_per_cluster: Option<u32>,

    /// Which images of a cluster stay
    #[arg(
        long,
        env = "SLUICE_SAMPLE_BY",
        value_enum,
        default_value_t,
        requires = "sample_per_cluster"
    )]
    pub sample_by: SampleBy,

    /// The dedup step that assigned the clusters
    #[arg(
        long,
        env = "SLUICE_CLUSTERS_OF",
        value_name = "STEP",
        default_value = "dedup",
        requires = "sample_per_cluster"
    )]
    pub clusters_of: StepName,

    /// Seed of --sample-by random
    #[arg(long, env = "SLUICE_SEED", value_name = "N", default_value_t = 42)]
    pub seed: u64,
}

impl SampleArgs {
    /// Returns what is sampled; none where nothing is.
    pub fn sampling(&self) -> Option<Sampling> {
        Some(Sampling {
            clusters_of: self.clusters_of.clone(),
            per_cluster: self.sample_per_cluster?,
            by: self.sample_by,
            seed: (self.sample_by == SampleBy::Random).then_some(self.seed),
        })
    }
}

/// Decides by conditions whose thresholds are known, such as those of a receipt.
///
/// # Errors
/// Usage, when a rule does not compile or a threshold is outside of the scores' range; data, when a step
/// before has not been run; of storage.
pub fn decide(
    context: &Context,
    survivors_of: Option<&StepName>,
    conditions: Vec<Condition>,
) -> Result<()> {
    let upstream = context.upstream_scores(&scorers_of(&conditions)?)?;
    let rules = compiled(&conditions, &upstream)?;
    decide::run(context, survivors_of, &upstream, conditions, &rules)
}

impl Program for Args {
    const NAME: &'static str = "sluice-filter";
    const ROLE: Role = Role::Decider;
    const OPERATIONS: &'static [Operation] = &[Operation {
        subcommand: None,
        unit: UnitKind::Partition,
        resources: Resources::Light,
        after: &[],
        revision: 1,
    }];

    fn common(&self) -> &Common {
        &self.step.common
    }

    fn step_args(&self) -> Option<&StepArgs> {
        Some(&self.step)
    }

    fn needs(&self) -> Result<Vec<StepName>> {
        let clusters = self.sample.sampling().map(|sampling| sampling.clusters_of);
        Ok(needed_scores(self)?.into_iter().chain(clusters).collect())
    }

    fn check(&self, upstream: &Upstream) -> Result<StepOutputs> {
        resolve(self, upstream)?;
        if let Some(sampling) = self.sample.sampling() {
            upstream.refuse_without_clusters(&sampling.clusters_of)?;
        }
        Ok(StepOutputs::default())
    }

    fn run(&self, context: &Context) -> Result<()> {
        refuse_hidden_scores(self, context)?;
        let scorers = needed_scores(self)?;
        let upstream = context.upstream_scores(&scorers)?;
        let (conditions, rules) = resolve(self, &upstream)?;
        let survivors_of = self.step.survivors_of.as_ref();
        decide::run(context, survivors_of, &upstream, conditions, &rules)
    }
}
