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

use anyhow::Result;
use clap::Parser;
use sluice_harness::{Common, Context, Gives, Program, StepArgs, Upstream};
use sluice_manifest::{Operation, Resources, Role, ScoreName, StepName, UnitKind};

pub use crate::columns::refuse_reserved;
pub use crate::conditions::{Condition, NamedRule, Settings, Threshold, Top, scorers_of};
use crate::conditions::{compiled, needed_scores, refuse_hidden_scores, resolve};

/// Decide which images stay, by thresholds on scores and by rules
///
/// Example: sluice-filter --run runs/a --min aesthetic=5.0 --max nsfw --rule 'large=min(width, height) >= 256'
#[derive(Debug, Parser)]
#[command(name = "sluice-filter", version)]
pub struct Args {
    #[command(flatten)]
    pub step: StepArgs,

    /// Keep images whose score is at least VALUE (default: the model's own threshold)
    #[arg(long, env = "SLUICE_MIN", value_name = "SCORE[=VALUE]")]
    pub min: Vec<Threshold>,

    /// Keep images whose score is below VALUE (default: the model's own threshold)
    #[arg(long, env = "SLUICE_MAX", value_name = "SCORE[=VALUE]")]
    pub max: Vec<Threshold>,

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
        unit: UnitKind::Part,
        resources: Resources::Light,
        after: &[],
        version: 1,
    }];

    fn common(&self) -> &Common {
        &self.step.common
    }

    fn step_args(&self) -> Option<&StepArgs> {
        Some(&self.step)
    }

    fn needs(&self) -> Result<Vec<StepName>> {
        Ok(needed_scores(self)?.into_iter().collect())
    }

    fn check(&self, upstream: &Upstream) -> Result<Gives> {
        resolve(self, upstream)?;
        Ok(Gives::default())
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
