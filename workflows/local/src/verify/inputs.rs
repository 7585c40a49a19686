//! Checks that the inputs of every unit have not changed since.

use std::collections::HashMap;

use sluice_manifest::{Input, InputOf, Receipt, ShardPath};
use sluice_run::CurrentInputs;

use super::CheckedRun;
use super::checks::{Check, CheckResults};

/// Compares every input of every unit with its present state.
pub(super) fn check(run: &CheckedRun<'_>, findings: &mut CheckResults) {
    let planned = run.plan.partitions.iter().flat_map(|p| &p.shards);
    let shards: HashMap<&ShardPath, Input> =
        planned.map(|row| (&row.shard, Input::shard(row))).collect();
    let mut current = CurrentInputs::new(run.receipts);
    for receipt in run.all_receipts() {
        let changed = current.changed(receipt);
        let changed = changed.or_else(|| changed_shard(receipt, &shards));
        findings.expect(Check::Inputs, changed.is_none(), || {
            let what = changed.map_or_else(String::new, |(input, is_gone)| {
                if is_gone {
                    format!("{} is gone", input.of)
                } else {
                    format!("{} has changed since", input.of)
                }
            });
            format!("{} {}: {what}", receipt.step, receipt.unit)
        });
    }
}

/// Returns the first source shard of a unit that has changed, and whether it is gone.
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
