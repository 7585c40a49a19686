//! Duplicates, and what they duplicate, are images of the run.
//!
//! What a duplicate points to may lie in any partition, and all names do not fit into memory. So the
//! rows are taken in batches; the names of a batch tell their partitions, and these are read.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use sluice_manifest::dag;
use sluice_manifest::rows::{DuplicateRow, SampleBrief, Status};
use sluice_manifest::{Partition, Result, Unit, layout};

use super::Run;
use super::checks::{Check, Findings};
use crate::places::Places;

/// Rows of a batch.
const BATCH: usize = 100_000;

/// Checks all duplicates.
pub fn check(run: &Run<'_>, findings: &mut Findings) -> Result<()> {
    let places = Places::new(run.plan);
    let mut batch = Vec::new();
    for step in [&dag::DEDUP_EXACT, &dag::DEDUP_PERCEPTUAL, &dag::DEDUP_MATCH] {
        for receipt in run.receipts.of(step) {
            let path = layout::manifest(step.stage, "duplicates", &receipt.unit);
            let rows = match run.context.run.rows::<DuplicateRow>(&path) {
                Ok(rows) => rows,
                Err(e) => {
                    findings.note(Check::Duplicates, e)?;
                    continue;
                }
            };
            let mut count = 0;
            for row in rows {
                match row {
                    Ok(row) => batch.push(row),
                    Err(e) => {
                        findings.note(Check::Duplicates, e)?;
                        break;
                    }
                }
                count += 1;
                if batch.len() == BATCH {
                    check_batch(run, &places, &mut batch, findings)?;
                }
            }
            let told = receipt.counts.dropped_total();
            findings.expect(Check::Duplicates, told == count, || {
                format!("{path}: {count} rows, the receipt counts {told}")
            });
        }
    }
    check_batch(run, &places, &mut batch, findings)
}

fn check_batch(
    run: &Run<'_>,
    places: &Places<'_>,
    batch: &mut Vec<DuplicateRow>,
    findings: &mut Findings,
) -> Result<()> {
    let mut wanted: BTreeMap<Partition, BTreeSet<&str>> = BTreeMap::new();
    for row in batch.iter() {
        for id in [&row.image_id, &row.duplicate_of] {
            for shard in places.of(id.as_str()) {
                wanted
                    .entry(shard.partition)
                    .or_default()
                    .insert(id.as_str());
            }
        }
    }
    let mut there: HashSet<(Partition, String)> = HashSet::new();
    for (partition, ids) in wanted {
        run.context.check_stop()?;
        let unit = Unit::from(partition);
        let path = layout::manifest("read", "images", &unit);
        let rows = match run.context.run.rows::<SampleBrief>(&path) {
            Ok(rows) => rows,
            Err(e) => {
                findings.note(Check::Duplicates, e)?;
                continue;
            }
        };
        for row in rows {
            let row = match row {
                Ok(row) => row,
                Err(e) => {
                    findings.note(Check::Duplicates, e)?;
                    break;
                }
            };
            let id = row.image_id.as_str();
            if row.status == Status::Ok && ids.contains(id) {
                there.insert((partition, id.to_owned()));
            }
        }
    }
    for row in batch.drain(..) {
        let here = there.contains(&(row.partition, row.image_id.to_string()));
        let shards = places.of(row.duplicate_of.as_str());
        let other = shards
            .iter()
            .any(|s| there.contains(&(s.partition, row.duplicate_of.to_string())));
        let holds = here && other && row.image_id != row.duplicate_of;
        findings.expect(Check::Duplicates, holds, || {
            format!(
                "{} ({}), duplicate of {}: not two sound images of the run",
                row.image_id, row.partition, row.duplicate_of
            )
        });
    }
    Ok(())
}
