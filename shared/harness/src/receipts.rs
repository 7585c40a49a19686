//! All receipts of a run: what was done, whatever the steps' settings were.
//!
//! For programs that look at a run as a whole. They need not know how each step names its units:
//! a receipt tells its step, its unit and how many units there were.

use std::collections::BTreeMap;

use rayon::prelude::*;
use sluice_manifest::dag::{STEPS, Step};
use sluice_manifest::{Counts, Error, Input, Receipt, Result, Unit};

use crate::Context;
use crate::context::as_input;

/// The receipts of a run, each step's in the order of its units.
#[derive(Debug, Default)]
pub struct Receipts {
    steps: BTreeMap<String, Vec<Receipt>>,
    /// Objects among the receipts that do not read as one.
    pub broken: Vec<Error>,
}

impl Context {
    /// Reads all receipts of the run.
    pub fn receipts(&self) -> Result<Receipts> {
        let mut stages: Vec<&str> = STEPS.iter().map(|step| step.stage).collect();
        stages.dedup();
        let mut receipts = Receipts::default();
        for stage in stages {
            let objects = self.run.list(&format!("{stage}/receipts"))?;
            let read = objects.par_iter().map(|object| {
                let json = self.run.get(&object.path)?;
                Ok((&object.path, serde_json::from_slice::<Receipt>(&json)))
            });
            for (path, receipt) in read.collect::<Result<Vec<_>>>()? {
                match receipt {
                    Ok(receipt) => {
                        let step = receipts.steps.entry(receipt.step.clone()).or_default();
                        step.push(receipt);
                    }
                    Err(e) => receipts.broken.push(
                        Error::data(format!("{}: does not read: {e}", self.run.uri(path)))
                            .hint("delete it to have the unit done again"),
                    ),
                }
            }
        }
        for step in receipts.steps.values_mut() {
            step.sort_by(|a, b| place(&a.unit).cmp(&place(&b.unit)));
        }
        Ok(receipts)
    }
}

/// Numbers count as numbers, so that the 100,000th unit comes after the 99,999th.
fn place(unit: &Unit) -> (&str, u64) {
    let numbered = unit
        .as_str()
        .rsplit_once('-')
        .and_then(|(kind, number)| Some((kind, number.parse().ok()?)));
    numbered.unwrap_or((unit.as_str(), 0))
}

impl Receipts {
    /// A step's receipts; none where it was not run.
    pub fn of(&self, step: &Step) -> &[Receipt] {
        self.steps.get(step.name).map_or(&[], Vec::as_slice)
    }

    /// Whether a step was run for all of its units.
    pub fn complete(&self, step: &Step) -> bool {
        let receipts = self.of(step);
        receipts
            .first()
            .is_some_and(|first| receipts.len() == first.units as usize)
    }

    /// The receipt of one unit.
    pub fn unit(&self, step: &Step, unit: &Unit) -> Option<&Receipt> {
        let receipts = self.of(step);
        let found = receipts.binary_search_by(|receipt| place(&receipt.unit).cmp(&place(unit)));
        found.ok().map(|at| &receipts[at])
    }

    /// One unit as an input, as [`Context::input`] gives it.
    pub fn input(&self, step: &Step, unit: &Unit) -> Option<Input> {
        self.unit(step, unit).map(as_input)
    }

    /// All units as one input, as [`Context::combined_input`] gives it.
    pub fn combined_input(&self, step: &Step) -> Input {
        let inputs: Vec<Input> = self.of(step).iter().map(as_input).collect();
        Input::combined(step.name, &inputs)
    }

    /// What a step's units counted together.
    pub fn counts(&self, step: &Step) -> Counts {
        let mut counts = Counts::default();
        for receipt in self.of(step) {
            counts.merge(&receipt.counts);
        }
        counts
    }

    /// A sum of a step's units together.
    pub fn sum(&self, step: &Step, name: &str) -> u64 {
        let sums = self.of(step).iter().filter_map(|r| r.sums.get(name));
        sums.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_ordered_by_number() {
        let mut units = [100_000, 99_999, 3].map(|index| Unit::numbered("part", index));
        units.sort_by(|a, b| place(a).cmp(&place(b)));
        assert_eq!(
            units.each_ref().map(Unit::as_str),
            ["part-00003", "part-99999", "part-100000"]
        );
        assert_eq!(place(&Unit::once("plan")), ("plan", 0));
    }
}
