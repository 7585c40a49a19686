//! Traces the units that decisions depend on through the receipts.
//!
//! A receipt lists its inputs with their fingerprints. So the units that a decision depends on can
//! be found for any pipeline, and each can be compared with the current state of its inputs. Only
//! units that are reached count: receipts that an earlier pipeline left in the run are ignored.

use std::collections::{BTreeMap, BTreeSet};

use sluice_manifest::{Error, Input, InputOf, Receipt, Result, StepName, Unit, UnitKind};
use sluice_run::{CurrentInputs, Receipts};

/// Some units, and all units that they depend on.
pub struct Lineage<'r> {
    /// The run's receipts.
    pub receipts: &'r Receipts,
    units: BTreeSet<(&'r StepName, Unit)>,
}

impl<'r> Lineage<'r> {
    /// Traces the inputs of these units.
    pub fn of(receipts: &'r Receipts, roots: impl IntoIterator<Item = &'r Receipt>) -> Self {
        let mut units = BTreeSet::new();
        let mut followed = BTreeSet::new();
        let mut open: Vec<&Receipt> = roots.into_iter().collect();
        while let Some(receipt) = open.pop() {
            if !units.insert((&receipt.step, receipt.unit)) {
                continue;
            }
            for input in &receipt.inputs {
                match &input.of {
                    InputOf::Unit { step, unit } => open.extend(receipts.unit(step, *unit)),
                    InputOf::Units { step, kind, .. } if followed.insert((step, *kind)) => {
                        open.extend(receipts.of_kind(step, *kind));
                    }
                    _ => {}
                }
            }
        }
        Self { receipts, units }
    }

    /// Returns the receipts of a step's units.
    fn receipts_of(&self, step: &StepName) -> impl Iterator<Item = &'r Receipt> {
        let receipts = self.receipts.of(step).iter();
        receipts.filter(|receipt| self.units.contains(&(&receipt.step, receipt.unit)))
    }

    /// Returns all receipts, each step's after those of its inputs.
    fn all_receipts(&self) -> impl Iterator<Item = &'r Receipt> {
        let steps = self.receipts.steps().into_iter();
        steps.flat_map(|step| self.receipts_of(step))
    }

    /// Checks that no input of any unit has changed since the unit was done.
    ///
    /// # Errors
    ///
    /// Returns a data error if one has. The hint names the first step to run again.
    pub fn refuse_stale(&self) -> Result<()> {
        let mut inputs = CurrentInputs::new(self.receipts);
        let mut receipts = self.all_receipts();
        let changed = receipts.find_map(|receipt| Some((receipt, inputs.changed(receipt)?.0)));
        match changed {
            Some((receipt, input)) => Err(stale(receipt, input)),
            None => Ok(()),
        }
    }

    /// Checks that the units of each of these steps were done with the same settings.
    ///
    /// # Errors
    ///
    /// Returns a data error if two units differ.
    pub fn refuse_mixed<'s>(&self, steps: impl IntoIterator<Item = &'s StepName>) -> Result<()> {
        for step in steps {
            let mut first: BTreeMap<UnitKind, &Receipt> = BTreeMap::new();
            for receipt in self.receipts_of(step) {
                let first = first.entry(receipt.unit.kind).or_insert(receipt);
                let same_chain =
                    receipt.decides.is_empty() || receipt.survivors_of == first.survivors_of;
                if receipt.settings != first.settings || !same_chain {
                    let name = name_of(receipt);
                    return Err(Error::data(format!(
                        "{name}: {} and {} were done with different settings: {} and {}",
                        first.unit, receipt.unit, first.settings, receipt.settings
                    ))
                    .hint(format!(
                        "run {name} again for all units, with the same settings"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Returns the steps whose scores these steps read, each after its own inputs.
    pub fn scorers_of<'s>(
        &self,
        steps: impl IntoIterator<Item = &'s StepName>,
    ) -> Vec<&'r StepName> {
        let receipts = steps.into_iter().flat_map(|step| self.receipts_of(step));
        let inputs = receipts.flat_map(|receipt| &receipt.inputs);
        let read: BTreeSet<&StepName> = inputs.filter_map(|input| step_of(input)).collect();
        let gives_scores = |step: &StepName| {
            let mut receipts = self.receipts.of(step).iter();
            receipts.any(|receipt| !receipt.scores.is_empty())
        };
        let steps = self.receipts.steps().into_iter();
        steps
            .filter(|step| read.contains(step) && gives_scores(step))
            .collect()
    }

    /// Returns the first receipt of each node except those of the step `except`, with the node's
    /// name: the step, with the subcommand if several of the step took part.
    pub fn nodes(&self, except: &StepName) -> Vec<(String, &'r Receipt)> {
        let mut nodes = Vec::new();
        let steps = self.receipts.steps().into_iter();
        for step in steps.filter(|step| *step != except) {
            let mut firsts: Vec<&Receipt> = Vec::new();
            for receipt in self.receipts_of(step) {
                if !firsts
                    .iter()
                    .any(|first| first.subcommand == receipt.subcommand)
                {
                    firsts.push(receipt);
                }
            }
            let is_only = firsts.len() == 1;
            nodes.extend(firsts.into_iter().map(|receipt| match &receipt.subcommand {
                Some(subcommand) if !is_only => (format!("{step}-{subcommand}"), receipt),
                _ => (step.to_string(), receipt),
            }));
        }
        nodes
    }
}

/// Returns the step of an input, or `None` if it is not part of the run.
fn step_of(input: &Input) -> Option<&StepName> {
    match &input.of {
        InputOf::Unit { step, .. } | InputOf::Units { step, .. } => Some(step),
        InputOf::Shard { .. } | InputOf::Shards { .. } | InputOf::Object { .. } => None,
    }
}

/// Returns what to run for a unit: the step, with the subcommand if its stage has subcommands.
fn name_of(receipt: &Receipt) -> String {
    match &receipt.subcommand {
        Some(subcommand) => format!("the step {} ({subcommand})", receipt.step),
        None => format!("the step {}", receipt.step),
    }
}

fn stale(receipt: &Receipt, input: &Input) -> Error {
    let (step, unit) = (&receipt.step, receipt.unit);
    Error::data(format!(
        "stale decisions: {} has changed since {step} {unit} was made from it",
        input.of
    ))
    .hint(format!(
        "run {} again, then the steps after it",
        name_of(receipt)
    ))
}
