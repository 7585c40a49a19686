//! Every unit was made from what its inputs are now.

use std::collections::HashMap;

use sluice_harness::{CurrentInputs, shard_input};
use sluice_manifest::{Input, InputOf, Receipt, ShardPath};

use super::Run;
use super::checks::{Check, Findings};

/// Follows every input of every unit to what it is now.
pub fn check(run: &Run<'_>, findings: &mut Findings) {
    let planned = run.plan.partitions.iter().flat_map(|p| &p.shards);
    let shards: HashMap<&ShardPath, Input> =
        planned.map(|row| (&row.shard, shard_input(row))).collect();
    let mut current = CurrentInputs::new(run.receipts);
    for receipt in run.all_receipts() {
        let changed = current.changed(receipt);
        let changed = changed.or_else(|| changed_shard(receipt, &shards));
        findings.expect(Check::Inputs, changed.is_none(), || {
            let what = changed.map_or_else(String::new, |(input, is_gone)| match is_gone {
                true => format!("{} is gone", input.of),
                false => format!("{} has changed since", input.of),
            });
            format!("{} {}: {what}", receipt.step, receipt.unit)
        });
    }
}

/// Returns the first source shard that is not what a unit was made from, and whether it is gone.
fn changed_shard<'r>(
    receipt: &'r Receipt,
    shards: &HashMap<&ShardPath, Input>,
) -> Option<(&'r Input, bool)> {
    receipt.inputs.iter().find_map(|input| match &input.of {
        InputOf::Shard { shard } => {
            let now = shards.get(shard);
            (now != Some(input)).then_some((input, now.is_none()))
        }
        _ => None,
    })
}
