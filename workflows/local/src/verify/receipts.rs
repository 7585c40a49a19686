//! Every step that was run was done for all of its units, in one way.

use std::collections::BTreeSet;

use sluice_manifest::{Receipt, StepName, Unit, UnitKind};
use sluice_report::planned::PlannedStep;
use sluice_report::steps;

use super::Run;
use super::checks::{Check, Findings, NAMED};

/// Checks the receipts of all steps. Steps of the pipeline file must have some.
pub fn check(run: &Run<'_>, planned: &[PlannedStep], findings: &mut Findings) {
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

/// Returns the kinds of units that a step must have: those that it has, those that hold its
/// decisions, and an export's shards once they are planned.
fn kinds(run: &Run<'_>, step: &StepName, is_planned: bool) -> BTreeSet<UnitKind> {
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
        kinds.extend([UnitKind::Part, UnitKind::Plan, UnitKind::Index]);
    }
    kinds
}

/// Returns how many output shards an export has planned.
fn planned_shards(run: &Run<'_>, step: &StepName) -> Option<u64> {
    let plan = run.receipts.unit(step, Unit::once(UnitKind::Plan))?;
    (plan.stage == steps::EXPORT).then_some(plan.sums.shards)
}

fn complete(run: &Run<'_>, step: &StepName, kind: UnitKind, findings: &mut Findings) {
    let receipts = run.receipts.of_kind(step, kind);
    let wanted: BTreeSet<Unit> = match (kind, planned_shards(run, step)) {
        (UnitKind::Part, _) => run.plan.units().into_iter().collect(),
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
            format!("{step} {unit}: is no unit of the step"),
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

/// Returns the units that a step must have. However many a receipt states, they are some more than there
/// are: enough to name those that are missing.
fn units(kind: UnitKind, stated: u64, receipts: &[Receipt]) -> BTreeSet<Unit> {
    let most = receipts.len().saturating_add(NAMED);
    let count = u32::try_from(most.min(usize::try_from(stated).unwrap_or(most)));
    Unit::all(kind, count.unwrap_or(u32::MAX))
        .into_iter()
        .collect()
}

/// All units that hold a step's decisions belong to the same deciding step.
fn same_decider(receipts: &[Receipt], findings: &mut Findings) {
    let mut deciding = receipts
        .iter()
        .filter(|receipt| !receipt.decides.is_empty());
    let Some(first) = deciding.next() else { return };
    for receipt in deciding {
        let same =
            (&receipt.decides, &receipt.survivors_of) == (&first.decides, &first.survivors_of);
        findings.expect(Check::Receipts, same, || {
            format!(
                "{}: {} and {} do not decide together: other --methods or --survivors-of",
                receipt.step, first.unit, receipt.unit
            )
        });
    }
}
