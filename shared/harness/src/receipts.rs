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
use crate::run::misplaced;

/// The receipts of a run, each step's in the order of its units.
#[derive(Debug, Default)]
pub struct Receipts {
    steps: BTreeMap<StepName, Vec<Receipt>>,
    /// Steps that are in the run and not part of the pipeline any more: see
    /// [`keep_only`](Self::keep_only).
    pub left_over: Vec<StepName>,
    /// Objects among the receipts that are broken or were changed.
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
            self.check_stop()?;
            // Another process may have removed it since, to do the unit again.
            let json = self.run.get_if_there(&object.path)?;
            Ok(json.map(|json| parse(&json, &object.path, &self.run.uri(&object.path))))
        });
        for receipt in read.collect::<Result<Vec<_>>>()?.into_iter().flatten() {
            match receipt {
                Ok(receipt) => {
                    let step = receipts.steps.entry(receipt.step.clone()).or_default();
                    step.push(receipt);
                }
                Err(e) => receipts.broken.push(e),
            }
        }
        for step in receipts.steps.values_mut() {
            step.sort_by_key(|receipt| receipt.unit);
        }
        Ok(receipts)
    }
}

fn parse(json: &[u8], path: &str, uri: &str) -> Result<Receipt> {
    let receipt = Receipt::parse(json, uri)?;
    match layout::receipt(&receipt.step, receipt.unit) == path {
        true => Ok(receipt),
        false => Err(misplaced(&receipt, uri)),
    }
}

impl Receipts {
    /// Returns the steps that were run, each after the steps that it read from.
    pub fn steps(&self) -> Vec<&StepName> {
        let mut ordered: Vec<&StepName> = Vec::new();
        let mut left: BTreeMap<&StepName, BTreeSet<&StepName>> = self
            .steps
            .keys()
            .map(|step| (step, self.read_by(step)))
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

    /// Returns the steps that a step read from.
    pub fn read_by(&self, step: &StepName) -> BTreeSet<&StepName> {
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

    /// Keeps the steps that count. The others are listed as left over.
    pub fn keep_only(&mut self, counts: impl Fn(&StepName) -> bool) {
        let left_over = &mut self.left_over;
        self.steps.retain(|step, _| {
            let counted = counts(step);
            if !counted {
                left_over.push(step.clone());
            }
            counted
        });
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

/// Compares what units were made from with what it is now. The fingerprint of all units of a step, one
/// input of many units, is computed once.
pub struct CurrentInputs<'r> {
    receipts: &'r Receipts,
    units: BTreeMap<(StepName, UnitKind), Input>,
}

impl<'r> CurrentInputs<'r> {
    /// Begins.
    pub fn new(receipts: &'r Receipts) -> Self {
        Self {
            receipts,
            units: BTreeMap::new(),
        }
    }

    /// Returns the first input of a unit that is not what it was, and whether it is gone. Only inputs
    /// that are units of the run are looked at.
    pub fn changed<'i>(&mut self, receipt: &'i Receipt) -> Option<(&'i Input, bool)> {
        receipt.inputs.iter().find_map(|input| {
            let now = match &input.of {
                InputOf::Unit { step, unit } => {
                    self.receipts.unit(step, *unit).map(Receipt::as_input)
                }
                InputOf::Units { step, kind, count } => self.all_units(step, *kind, *count == 0),
                InputOf::Shard { .. } | InputOf::Shards { .. } | InputOf::Object { .. } => {
                    return None;
                }
            };
            (now.as_ref() != Some(input)).then_some((input, now.is_none()))
        })
    }

    /// Returns all units of a kind as an input; none where there are none, unless that is what `none`
    /// expects: an export that keeps nothing has no shards.
    fn all_units(&mut self, step: &StepName, kind: UnitKind, none: bool) -> Option<Input> {
        let receipts = self.receipts.of_kind(step, kind);
        let now = self.units.entry((step.clone(), kind)).or_insert_with(|| {
            let fingerprints = receipts.iter().map(|receipt| &receipt.fingerprint);
            Input::units(step, kind, fingerprints)
        });
        (none || !receipts.is_empty()).then(|| now.clone())
    }
}
