//! The plan of the output, as the later subcommands read it.

use std::collections::HashSet;

use anyhow::Result;
use sluice_harness::Context;
use sluice_manifest::layout::OUTPUT_PLAN;
use sluice_manifest::rows::OutputPlanRow;
use sluice_manifest::{Error, Fingerprint, Input, Receipt, StepName, Unit, UnitKind};
use sluice_store::{Location, Store};

use crate::claim::Claim;
use crate::decide::refuse_other_chain;
use crate::plan::{PlanSettings, UNIT};

/// Refuses an output that another run has claimed since it was planned. One without a claim was
/// planned by an older version.
fn refuse_taken(output: &Store, context: &Context) -> sluice_manifest::Result<()> {
    let place = output.location();
    let Some(claim) = Claim::read(output)? else {
        return Ok(());
    };
    let id = context.run_info()?.map(|info| info.id).unwrap_or_default();
    let ours = Claim::new(context.run.location(), &id, context.step(), place);
    ours.refuse_other(&claim, place)
        .map_err(|e| e.hint("plan the export again, with another --output or with --overwrite"))
}

/// The plan, as the later subcommands use it.
pub struct OutputPlan {
    /// The plan's receipt.
    pub receipt: Receipt,
    /// The settings of the plan.
    pub settings: PlanSettings,
    /// The folder of the curated dataset.
    pub output: Store,
    /// The number of output shards.
    pub shards: u32,
    /// The fingerprints of the units that the plan was made from.
    counted: HashSet<Fingerprint>,
}

impl OutputPlan {
    /// Reads the plan.
    ///
    /// # Errors
    ///
    /// Returns a data error if it does not exist, a usage error if the output has been claimed by
    /// another run since, and otherwise a storage error.
    pub fn open(context: &Context) -> Result<Self> {
        let receipt = context.required_receipt(context.step(), UNIT)?;
        let settings: PlanSettings = receipt.settings()?;
        // Each shard contains at least one sample.
        let shards = u32::try_from(receipt.sums.shards).ok();
        let shards = shards.filter(|shards| u64::from(*shards) <= receipt.counts.kept);
        let shards = shards.ok_or_else(|| {
            Error::data("the plan of the output has more shards than samples")
                .hint("run sluice-export plan again with --force")
        })?;
        let inputs = receipt.inputs.iter();
        let output = context
            .storage
            .create(&Location::parse(&settings.output)?)?;
        refuse_taken(&output, context)?;
        Ok(Self {
            output,
            settings,
            shards,
            counted: inputs.map(|input| input.fingerprint.clone()).collect(),
            receipt,
        })
    }

    /// Returns the units of `write`, in order.
    pub fn units(&self) -> Vec<Unit> {
        Unit::all(UnitKind::Shard, self.shards)
    }

    /// Returns the rows of the plan for an output shard.
    ///
    /// # Errors
    ///
    /// Returns a data error if the plan is missing or damaged, and otherwise a storage error.
    pub fn rows(&self, context: &Context, shard: u32) -> Result<Vec<OutputPlanRow>> {
        let path = OUTPUT_PLAN.path(context.step(), UNIT);
        let rows = context.run.rows::<OutputPlanRow>(&path)?;
        let rows = rows.within("shard", shard..shard + 1)?;
        let mine = rows.filter(|row| row.as_ref().map_or(true, |row| row.shard == shard));
        Ok(mine.collect::<sluice_manifest::Result<_>>()?)
    }

    /// Returns the first row of each shard, with its path in the output and its split.
    ///
    /// # Errors
    ///
    /// Returns a data error if the plan is missing or damaged, and otherwise a storage error.
    pub fn places(&self, context: &Context) -> Result<Vec<OutputPlanRow>> {
        let path = OUTPUT_PLAN.path(context.step(), UNIT);
        let mut places: Vec<OutputPlanRow> = Vec::new();
        for row in context.run.rows::<OutputPlanRow>(&path)? {
            let row = row?;
            if places.last().is_none_or(|last| last.shard != row.shard) {
                places.push(row);
            }
        }
        Ok(places)
    }

    /// Checks that the decisions are those that the plan counted. With others, samples start at
    /// different positions.
    ///
    /// # Errors
    ///
    /// Returns a data error if they were made after the plan, and a usage error if `--survivors-of`
    /// names another step than they were made with.
    pub fn refuse_other_decisions(&self, context: &Context, decided: &Receipt) -> Result<()> {
        refuse_other_chain(context, decided)?;
        if self.counted.contains(&decided.fingerprint) {
            Ok(())
        } else {
            Err(Error::data(format!(
                "{} was decided again after the export was planned",
                decided.unit
            ))
            .hint("run sluice-export plan again")
            .into())
        }
    }

    /// Returns a unit of a step whose scores or embeddings go into the output, after checking that
    /// the plan was made with it.
    ///
    /// # Errors
    ///
    /// Returns a data error if the unit was done again after the plan, and otherwise a storage
    /// error.
    pub fn planned_input(&self, context: &Context, step: &StepName, unit: Unit) -> Result<Input> {
        let input = context.input(step, unit)?;
        if self.counted.contains(&input.fingerprint) {
            Ok(input)
        } else {
            Err(Error::data(format!(
                "{step} {unit} was done again after the export was planned"
            ))
            .hint("run sluice-export decide again, then plan")
            .into())
        }
    }
}
