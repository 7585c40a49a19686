//! The missing units of a step, and the shares of the work that contain them.

use std::collections::BTreeSet;

use sluice_manifest::{Error, Result, Share, StepName, Unit, UnitKind, layout};

use crate::Run;

/// The state of a step's units of one kind.
#[derive(Debug)]
pub(crate) struct UnitsDone<'a> {
    step: &'a StepName,
    kind: UnitKind,
    units: u32,
    /// The numbers of the missing units.
    missing: Vec<u32>,
    /// How the units were shared when the first one was processed.
    share: Option<Share>,
}

impl<'a> UnitsDone<'a> {
    /// Returns the state of the units of these kinds, without the kinds that have no finished unit.
    ///
    /// # Errors
    ///
    /// Returns a data error if the receipt of a kind's first unit is damaged, and otherwise a
    /// storage error.
    pub(crate) fn of(run: &Run, step: &'a StepName, kinds: &[UnitKind]) -> Result<Vec<Self>> {
        let listed = run.list(&layout::receipts(step))?;
        let units = listed.iter().filter_map(|o| layout::receipt_at(&o.path));
        let there: BTreeSet<Unit> = units
            .map(|(_, unit)| unit)
            .filter(|unit| kinds.contains(&unit.kind))
            .collect();
        let there: Vec<Unit> = there.into_iter().collect();
        let of_kinds = there.chunk_by(|a, b| a.kind == b.kind);
        let done = of_kinds.map(|there| Self::of_kind(run, step, there));
        done.filter_map(Result::transpose).collect()
    }

    /// Returns the state of one kind, given its finished units.
    fn of_kind(run: &Run, step: &'a StepName, there: &[Unit]) -> Result<Option<Self>> {
        let kind = there[0].kind;
        let Some(receipt) = run.receipt(step, there[0])? else {
            return Ok(None);
        };
        let is_missing = |index: &u32| there.binary_search(&Unit::new(kind, *index)).is_err();
        Ok(Some(Self {
            step,
            kind,
            units: receipt.units,
            missing: (0..receipt.units).filter(is_missing).collect(),
            share: receipt.share,
        }))
    }

    /// Returns whether all units are finished.
    pub(crate) fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }

    /// Returns whether a unit is missing.
    pub(crate) fn is_missing(&self, unit: Unit) -> bool {
        self.missing.binary_search(&unit.index).is_ok()
    }

    /// Returns the error for the missing units.
    pub(crate) fn error(&self, run: &Run) -> Error {
        let Self { step, units, .. } = self;
        let receipts = run.uri(&layout::receipts(step));
        let names = ranges(&self.missing, |index| {
            Unit::new(self.kind, index).to_string()
        });
        let text = format!(
            "{receipts}: the step {step} is not done: {} of {units} units are missing: {names}",
            self.missing.len()
        );
        Error::data(text).hint(format!("run {step} for them: {}", self.options()))
    }

    /// Returns the options that process the missing units.
    fn options(&self) -> String {
        let partitions = ranges(&self.missing, |index| index.to_string());
        let by_number = format!("--partitions {}", partitions.replace(' ', ""));
        let Some(Share { count, .. }) = self.share.filter(|share| share.count > 1) else {
            return by_number;
        };
        let shares = self.missing.iter().map(|index| index % count);
        let shares: Vec<u32> = shares.collect::<BTreeSet<u32>>().into_iter().collect();
        let shares = ranges(&shares, |index| index.to_string());
        format!("the shares {shares} of --task-count {count}, or {by_number}")
    }
}

/// Formats ascending numbers as a list with ranges, `3, 8-15`, of at most 20 entries.
fn ranges(numbers: &[u32], name: impl Fn(u32) -> String) -> String {
    const MOST: usize = 20;
    let runs: Vec<&[u32]> = numbers.chunk_by(|a, b| a + 1 == *b).collect();
    let entry = |run: &&[u32]| match **run {
        [first, .., last] => format!("{}-{}", name(first), name(last)),
        _ => run.iter().map(|&one| name(one)).collect(),
    };
    let mut entries: Vec<String> = runs.iter().take(MOST).map(entry).collect();
    if runs.len() > MOST {
        entries.push("...".to_owned());
    }
    entries.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_one_entry() {
        let list = |numbers: &[u32]| ranges(numbers, |number| number.to_string());
        assert_eq!(list(&[]), "");
        assert_eq!(list(&[3]), "3");
        assert_eq!(list(&[3, 8, 9, 10, 12, 13]), "3, 8-10, 12-13");
        let odd: Vec<u32> = (0..50).map(|number| 2 * number + 1).collect();
        assert!(list(&odd).ends_with("37, 39, ..."), "{}", list(&odd));
    }
}
