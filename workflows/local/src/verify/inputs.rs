//! Every unit was made from what its inputs are now.

use std::collections::HashMap;

use sluice_harness::shard_input;
use sluice_manifest::{Input, InputOf, ShardPath, StepName, UnitKind};
use sluice_report::steps;

use super::Run;
use super::checks::{Check, Findings};

/// Follows every input of every unit to what it is now.
pub fn check(run: &Run<'_>, findings: &mut Findings) {
    let shards = run.plan.partitions.iter().flat_map(|p| &p.shards);
    let shards: HashMap<&ShardPath, Input> =
        shards.map(|row| (&row.shard, shard_input(row))).collect();
    // A step's units are one input of many units: their fingerprint is computed once.
    let combined: HashMap<(&StepName, UnitKind), Input> = steps::nodes(run.receipts)
        .into_iter()
        .map(|node| {
            let fingerprints = node.units.iter().map(|receipt| &receipt.fingerprint);
            let input = Input::units(node.step, node.kind(), fingerprints);
            ((node.step, node.kind()), input)
        })
        .collect();
    for receipt in run.all_receipts() {
        for input in &receipt.inputs {
            let now = match &input.of {
                InputOf::Shard { shard } => shards.get(shard).cloned(),
                InputOf::Unit { .. } => run.receipts.input_now(input),
                InputOf::Units { step, kind, .. } => combined.get(&(step, *kind)).cloned(),
                // The listing that the plan was made from, and objects that are not of the run.
                InputOf::Shards { .. } | InputOf::Object { .. } => continue,
            };
            findings.expect(Check::Inputs, now.as_ref() == Some(input), || {
                let (step, unit) = (&receipt.step, receipt.unit);
                match now {
                    Some(_) => format!("{step} {unit}: {} has changed since", input.of),
                    None => format!("{step} {unit}: {} is gone", input.of),
                }
            });
        }
    }
}
