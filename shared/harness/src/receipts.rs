//! All receipts of a run: what was done, whatever the pipeline was.
//!
//! For programs that look at a run as a whole. They need not know the pipeline: a receipt names its
//! step, its stage, its unit and how many units there were.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;
use sluice_manifest::{
    Counts, Error, Input, InputOf, Receipt, Result, StepName, Unit, UnitKind, layout,
};

use crate::Context;

/// The receipts of a run, each step's in the order of its units.
#[derive(Debug, Default)]
pub struct Receipts {
    steps: BTreeMap<StepName, Vec<Receipt>>,
    /// Objects among the receipts that cannot be parsed.
    pub broken: Vec<Error>,
}

impl Context {
    /// Returns all receipts of the run.
    ///
    /// # Errors
    /// Storage errors only.
    pub fn receipts(&self) -> Result<Receipts> {
        let mut receipts = Receipts::default();
        let objects = self.run.list("")?;
        let is_receipt = |path: &str| path.contains("/receipts/") && path.ends_with(".json");
        let objects: Vec<_> = objects
            .into_iter()
            .filter(|o| is_receipt(&o.path))
            .collect();
        let read = objects.par_iter().map(|object| {
            let json = self.run.get(&object.path)?;
            Ok((&object.path, serde_json::from_slice::<Receipt>(&json)))
        });
        for (path, receipt) in read.collect::<Result<Vec<_>>>()? {
            let wrong = |what: String| {
                Error::data(format!("{}: {what}", self.run.uri(path)))
                    .hint("delete it to have the unit done again")
            };
            match receipt {
                Ok(receipt) if layout::receipt(&receipt.step, receipt.unit) != **path => {
                    let (step, unit) = (&receipt.step, receipt.unit);
                    let broken = wrong(format!("is the receipt of {step} {unit}"));
                    receipts.broken.push(broken);
                }
                Ok(receipt) => {
                    let step = receipts.steps.entry(receipt.step.clone()).or_default();
                    step.push(receipt);
                }
                Err(e) => receipts
                    .broken
                    .push(wrong(format!("cannot parse receipt: {e}"))),
            }
        }
        for step in receipts.steps.values_mut() {
            step.sort_by_key(|receipt| receipt.unit);
        }
        Ok(receipts)
    }
}

impl Receipts {
    /// Returns the steps that were run, each after the steps that it read from.
    pub fn steps(&self) -> Vec<&StepName> {
        let mut ordered: Vec<&StepName> = Vec::new();
        let mut left: BTreeMap<&StepName, BTreeSet<&StepName>> = self
            .steps
            .keys()
            .map(|step| (step, self.before(step)))
            .collect();
        while !left.is_empty() {
            let is_free =
                |before: &BTreeSet<&StepName>| before.iter().all(|step| ordered.contains(step));
            // Receipts of a broken run can name each other; then the first name goes first.
            let free = left.iter().find(|(_, before)| is_free(before));
            let Some(step) = free.or(left.iter().next()).map(|(step, _)| *step) else {
                break;
            };
            left.remove(step);
            ordered.push(step);
        }
        ordered
    }

    /// The steps that a step read from.
    fn before(&self, step: &StepName) -> BTreeSet<&StepName> {
        let mut before = BTreeSet::new();
        for receipt in self.of(step) {
            let inputs = receipt.inputs.iter().filter_map(|input| match &input.of {
                InputOf::Unit { step, .. } | InputOf::Units { step, .. } => Some(step),
                InputOf::Shard { .. } | InputOf::Shards { .. } | InputOf::Object { .. } => None,
            });
            before.extend(inputs.chain(&receipt.survivors_of));
            if receipt.unit.kind == UnitKind::Part && receipt.stage == "read" {
                before.extend(self.steps.keys().find(|step| step.as_str() == "partition"));
            }
        }
        before.retain(|other| *other != step && self.steps.contains_key(*other));
        before
    }

    /// Returns a step's receipts; none where it was not run.
    pub fn of(&self, step: &StepName) -> &[Receipt] {
        self.steps.get(step).map_or(&[], Vec::as_slice)
    }

    /// Returns a step's receipts of one kind of unit.
    pub fn of_kind(&self, step: &StepName, kind: UnitKind) -> &[Receipt] {
        let receipts = self.of(step);
        let first = receipts.partition_point(|receipt| receipt.unit.kind < kind);
        let end = receipts.partition_point(|receipt| receipt.unit.kind <= kind);
        &receipts[first..end]
    }

    /// Returns a step's receipts grouped by the kind of their units.
    pub fn kinds(&self, step: &StepName) -> impl Iterator<Item = &[Receipt]> {
        self.of(step).chunk_by(|a, b| a.unit.kind == b.unit.kind)
    }

    /// Whether a step was run for all of its units of a kind.
    pub fn is_complete(&self, step: &StepName, kind: UnitKind) -> bool {
        let receipts = self.of_kind(step, kind);
        receipts
            .first()
            .is_some_and(|first| receipts.len() == first.units as usize)
    }

    /// Returns the receipt of one unit.
    pub fn unit(&self, step: &StepName, unit: Unit) -> Option<&Receipt> {
        let receipts = self.of(step);
        let found = receipts.binary_search_by_key(&unit, |receipt| receipt.unit);
        found.ok().map(|at| &receipts[at])
    }

    /// Returns what an input of a unit is now; none where it is gone or not part of the run.
    pub fn input_now(&self, input: &Input) -> Option<Input> {
        match &input.of {
            InputOf::Unit { step, unit } => self.unit(step, *unit).map(Receipt::as_input),
            InputOf::Units { step, kind, .. } => {
                let receipts = self.of_kind(step, *kind);
                let fingerprints = receipts.iter().map(|receipt| &receipt.fingerprint);
                (!receipts.is_empty()).then(|| Input::units(step, *kind, fingerprints))
            }
            InputOf::Shard { .. } | InputOf::Shards { .. } | InputOf::Object { .. } => None,
        }
    }

    /// Returns what a step's units of a kind counted together.
    pub fn counts(&self, step: &StepName, kind: UnitKind) -> Counts {
        let mut counts = Counts::default();
        for receipt in self.of_kind(step, kind) {
            counts.merge(&receipt.counts);
        }
        counts
    }

    /// Returns the deciding steps up to and with this one, the earliest first.
    pub fn deciders(&self, last: Option<&StepName>) -> Vec<&StepName> {
        let mut chain = Vec::new();
        let mut next = last;
        while let Some(name) = next
            && let Some((step, receipts)) = self.steps.get_key_value(name)
            && !chain.contains(&step)
        {
            chain.push(step);
            let deciding = receipts.iter().find(|receipt| !receipt.decides.is_empty());
            next = deciding.and_then(|receipt| receipt.survivors_of.as_ref());
        }
        chain.reverse();
        chain
    }
}
