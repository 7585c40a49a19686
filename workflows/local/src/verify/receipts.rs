//! Checks that every step has all its units, with the same settings.

use std::collections::BTreeSet;

use sluice_manifest::{Receipt, StepName, Unit, UnitKind};
use sluice_run::planned::PlannedStep;
use sluice_run::steps;

use super::CheckedRun;
use super::checks::{Check, CheckResults, NAMED};

/// Checks the receipts of all steps. Steps of the pipeline file must have receipts.
pub(super) fn check(run: &CheckedRun<'_>, planned: &[PlannedStep], findings: &mut CheckResults) {
    for broken in &run.receipts.broken {
        findings.fail(Check::Receipts, broken.to_string());
    }
    for &step in &run.steps {
        let is_planned = planned.iter().any(|planned| planned.name == *step);
        for kind in kinds(run, step, is_planned) {
            complete(run, step, kind, findings);
        }
        same_decider(run.receipts.of(step), findings);
    }
    let missing = planned
        .iter()
        .filter(|planned| run.receipts.of(&planned.name).is_empty());
    for planned in missing {
        findings.fail(
            Check::Receipts,
            format!("{}: has not been run", planned.name),
        );
    }
}

/// Returns the kinds of units that a step must have: those that it has, those with its decisions,
/// and an export's shards once they are planned.
fn kinds(run: &CheckedRun<'_>, step: &StepName, is_planned: bool) -> BTreeSet<UnitKind> {
    let receipts = run.receipts.of(step);
    let mut kinds: BTreeSet<UnitKind> = receipts.iter().map(|receipt| receipt.unit.kind).collect();
    kinds.extend(steps::decides(run.receipts, step));
    if planned_shards(run, step).is_some_and(|shards| shards > 0) {
        kinds.insert(UnitKind::Shard);
    }
    if is_planned
        && receipts
            .iter()
            .any(|receipt| receipt.stage == steps::EXPORT)
    {
        kinds.extend([UnitKind::Partition, UnitKind::Plan, UnitKind::Index]);
    }
    kinds
}

/// Returns the number of output shards that an export has planned.
fn planned_shards(run: &CheckedRun<'_>, step: &StepName) -> Option<u64> {
    let plan = run.receipts.unit(step, Unit::once(UnitKind::Plan))?;
    (plan.stage == steps::EXPORT).then_some(plan.sums.shards)
}

fn complete(run: &CheckedRun<'_>, step: &StepName, kind: UnitKind, findings: &mut CheckResults) {
    let receipts = run.receipts.of_kind(step, kind);
    let wanted: BTreeSet<Unit> = match (kind, planned_shards(run, step)) {
        (UnitKind::Partition, _) => run.plan.units().into_iter().collect(),
        (UnitKind::Shard, Some(shards)) => units(kind, shards, receipts),
        _ => {
            let stated = receipts.first().map_or(1, |receipt| receipt.units);
            units(kind, stated.into(), receipts)
        }
    };
    let there: BTreeSet<Unit> = receipts.iter().map(|receipt| receipt.unit).collect();
    for unit in wanted.difference(&there) {
        findings.fail(Check::Receipts, format!("{step} {unit}: no receipt"));
    }
    for unit in there.difference(&wanted) {
        findings.fail(
            Check::Receipts,
            format!("{step} {unit}: not a unit of the step"),
        );
    }
    for receipt in receipts {
        let sums = receipt.counts.check().is_ok() && receipt.units as usize == wanted.len();
        findings.expect(Check::Receipts, sums, || {
            format!(
                "{step} {}: its counts do not sum, or it was one of {} units in place of {}",
                receipt.unit,
                receipt.units,
                wanted.len()
            )
        });
        let first = &receipts[0];
        let same = receipt.stage == first.stage
            && receipt.subcommand == first.subcommand
            && receipt.revision == first.revision
            && receipt.survivors_of == first.survivors_of
            && receipt.settings == first.settings;
        if !same {
            let units = format!("{} and {}", first.unit, receipt.unit);
            let failure = format!(
                "{step}: {units} were made with other settings, --survivors-of or versions"
            );
            findings.fail(Check::Receipts, failure);
        }
    }
}

/// Returns the units that a step must have. The number that a receipt states is bounded to slightly
/// more than the existing units, which is enough to list missing ones.
fn units(kind: UnitKind, stated: u64, receipts: &[Receipt]) -> BTreeSet<Unit> {
    let most = receipts.len().saturating_add(NAMED);
    let count = u32::try_from(most.min(usize::try_from(stated).unwrap_or(most)));
    Unit::all(kind, count.unwrap_or(u32::MAX))
        .into_iter()
        .collect()
}

/// Checks that all units with a step's decisions belong to the same deciding step.
fn same_decider(receipts: &[Receipt], findings: &mut CheckResults) {
    let mut deciding = receipts
        .iter()
        .filter(|receipt| !receipt.decides.is_empty());
    let Some(first) = deciding.next() else { return };
    for receipt in deciding {
        let same =
            (&receipt.decides, &receipt.survivors_of) == (&first.decides, &first.survivors_of);
        findings.expect(Check::Receipts, same, || {
            format!(
                "{}: {} and {} have different --methods or --survivors-of",
                receipt.step, first.unit, receipt.unit
            )
        });
    }
}
