//! All receipts of a run, for programs that describe the run as a whole.
//!
//! They work for any pipeline, because a receipt contains its step, stage, unit, and the number of
//! units of the step.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;
use sluice_manifest::{
    Counts, Error, Input, InputOf, Receipt, Result, StepName, Unit, UnitKind, layout,
};

use crate::Run;
use crate::objects::misplaced;

/// The receipts of a run by step, in the order of their units.
#[derive(Debug, Default)]
pub struct Receipts {
    steps: BTreeMap<StepName, Vec<Receipt>>,
    /// Steps whose receipts are in the run although they do not belong to the pipeline: see
    /// [`keep_only`](Self::keep_only).
    pub left_over: Vec<StepName>,
    /// Errors about receipts that are damaged or modified.
    pub broken: Vec<Error>,
}

impl Run {
    /// Returns all receipts of the run.
    ///
    /// # Errors
    ///
    /// Returns a stopped error after a signal, and otherwise a storage error.
    pub fn receipts(&self) -> Result<Receipts> {
        let mut receipts = Receipts::default();
        let objects = self.list("")?;
        let is_receipt = |path: &str| path.contains("/receipts/") && path.ends_with(".json");
        let objects: Vec<_> = objects
            .into_iter()
            .filter(|o| is_receipt(&o.path))
            .collect();
        let read = objects.par_iter().map(|object| {
            self.check_stop()?;
            // Another process may have removed it in the meantime, to repeat the unit.
            let json = self.get_if_there(&object.path)?;
            Ok(json.map(|json| parse(&json, &object.path, &self.uri(&object.path))))
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
    if layout::receipt(&receipt.step, receipt.unit) == path {
        Ok(receipt)
    } else {
        Err(misplaced(&receipt, uri))
    }
}

impl Receipts {
    /// Returns the steps of the run. Each comes after the steps that it read.
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
            // In a damaged run, receipts may refer to each other. The first name is then taken
            // first.
            let free = left.iter().find(|(_, before)| is_free(before));
            let Some(step) = free.or(left.iter().next()).map(|(step, _)| *step) else {
                break;
            };
            left.remove(step);
            ordered.push(step);
        }
        ordered
    }

    /// Returns the steps that a step read.
    pub fn read_by(&self, step: &StepName) -> BTreeSet<&StepName> {
        let mut before = BTreeSet::new();
        for receipt in self.of(step) {
            let inputs = receipt.inputs.iter().filter_map(|input| match &input.of {
                InputOf::Unit { step, .. } | InputOf::Units { step, .. } => Some(step),
                InputOf::Shard { .. } | InputOf::Shards { .. } | InputOf::Object { .. } => None,
            });
            before.extend(inputs.chain(&receipt.survivors_of));
            if receipt.unit.kind == UnitKind::Partition && receipt.stage == "read" {
                before.extend(self.steps.keys().find(|step| step.as_str() == "partition"));
            }
        }
        before.retain(|other| *other != step && self.steps.contains_key(*other));
        before
    }

    /// Returns the receipts of a step. Empty if it did not run.
    pub fn of(&self, step: &StepName) -> &[Receipt] {
        self.steps.get(step).map_or(&[], Vec::as_slice)
    }

    /// Returns the receipts of a step's units of one kind.
    pub fn of_kind(&self, step: &StepName, kind: UnitKind) -> &[Receipt] {
        let receipts = self.of(step);
        let first = receipts.partition_point(|receipt| receipt.unit.kind < kind);
        let end = receipts.partition_point(|receipt| receipt.unit.kind <= kind);
        &receipts[first..end]
    }

    /// Returns the receipts of a step, grouped by the kind of their units.
    pub fn kinds(&self, step: &StepName) -> impl Iterator<Item = &[Receipt]> {
        self.of(step).chunk_by(|a, b| a.unit.kind == b.unit.kind)
    }

    /// Returns whether all units of a kind are finished.
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

    /// Keeps the steps for which `counts` returns true. The others are added to `left_over`.
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

    /// Returns the sum of the sample counts of a step's units of a kind.
    pub fn counts(&self, step: &StepName, kind: UnitKind) -> Counts {
        let mut counts = Counts::default();
        for receipt in self.of_kind(step, kind) {
            counts.merge(&receipt.counts);
        }
        counts
    }

    /// Returns the deciding steps up to and including this one, the earliest first.
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

/// Compares the inputs of units with the current receipts. Caches the fingerprint over all units of
/// a step, which is an input of many units.
pub struct CurrentInputs<'r> {
    receipts: &'r Receipts,
    units: BTreeMap<(StepName, UnitKind), Input>,
}

impl<'r> CurrentInputs<'r> {
    /// Creates a comparison with these receipts.
    pub fn new(receipts: &'r Receipts) -> Self {
        Self {
            receipts,
            units: BTreeMap::new(),
        }
    }

    /// Returns the first input of a unit that has changed, and whether it no longer exists.
    /// Considers only inputs that are units of the run.
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

    /// Returns all units of a kind as one input. Returns `None` for no units, unless `none` is set:
    /// an export that keeps no samples has no shards.
    fn all_units(&mut self, step: &StepName, kind: UnitKind, none: bool) -> Option<Input> {
        let receipts = self.receipts.of_kind(step, kind);
        let now = self.units.entry((step.clone(), kind)).or_insert_with(|| {
            let fingerprints = receipts.iter().map(|receipt| &receipt.fingerprint);
            Input::units(step, kind, fingerprints)
        });
        (none || !receipts.is_empty()).then(|| now.clone())
    }
}
