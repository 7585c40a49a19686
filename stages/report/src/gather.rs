//! What the page shows besides the receipts: rejected samples, damaged shards, groups of duplicates.

use std::collections::BTreeMap;

use anyhow::Result;
use arrow::datatypes::Field;
use serde::{Deserialize, Serialize};
use sluice_harness::{Context, Plan, Receipts};
use sluice_manifest::layout::{DUPLICATES, IMAGES, SHARDS};
use sluice_manifest::rows::{DuplicateRow, Row, SampleRow, ShardRow, ShardStatus};
use sluice_manifest::{ImageId, Reason, StepName, Unit};

use crate::frequent::Frequent;
use crate::steps;

/// Examples of each reason.
const EXAMPLES: usize = 4;
/// Groups of duplicates shown, and members of each.
const GROUPS: usize = 6;
const MEMBERS: usize = 12;
/// Counters for finding the largest groups.
const COUNTERS: usize = 10_000;
/// Damaged shards listed.
const DAMAGED: usize = 50;

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// A few samples that `read` rejected, by reason.
    pub rejects: BTreeMap<Reason, Vec<Example>>,
    /// The largest groups of duplicates.
    pub groups: Vec<Group>,
    /// Damaged shards, the first of them.
    pub damaged: Vec<(String, String)>,
    /// How many there are.
    pub damaged_total: u64,
}

/// A rejected sample.
#[derive(Debug)]
pub struct Example {
    /// The sample.
    pub image_id: String,
    /// What the reader said.
    pub detail: String,
}

/// Images that were dropped because of one.
#[derive(Debug)]
pub struct Group {
    /// The one.
    pub of: String,
    /// How many were dropped because of it.
    pub count: u64,
    /// Some of them: id, method, similarity.
    pub members: Vec<(String, String, f32)>,
}

/// The columns of `read/images` that rejects need.
#[derive(Debug, Serialize, Deserialize)]
struct RejectRow {
    image_id: ImageId,
    reason: Option<Reason>,
    detail: Option<String>,
}

impl Row for RejectRow {
    const SCHEMA: &'static str = SampleRow::SCHEMA;
    fn fields() -> Vec<Field> {
        let mut fields = SampleRow::fields();
        fields.retain(|field| ["image_id", "reason", "detail"].contains(&field.name().as_str()));
        fields
    }
}

/// Reads what the page shows. What was not run is left out.
///
/// # Errors
/// Data, when a manifest is missing or broken; of storage.
pub fn gather(context: &Context, plan: &Plan, receipts: &Receipts) -> Result<Found> {
    let mut found = Found {
        groups: groups(context, receipts)?,
        ..Found::default()
    };
    let read = StepName::read();
    for unit in plan.units() {
        let Some(receipt) = receipts.unit(&read, unit) else {
            continue;
        };
        let needs_examples = receipt.counts.dropped.keys().any(|dropped| {
            let examples = found.rejects.get(&dropped.reason);
            examples.is_none_or(|examples| examples.len() < EXAMPLES)
        });
        if needs_examples {
            examples(context, unit, &mut found.rejects)?;
        }
        if receipt.sums.damaged_shards > 0 {
            damaged(context, unit, &mut found)?;
        }
    }
    Ok(found)
}

fn examples(
    context: &Context,
    unit: Unit,
    rejects: &mut BTreeMap<Reason, Vec<Example>>,
) -> Result<()> {
    let path = IMAGES.path(&StepName::read(), unit);
    for row in context.run.rows::<RejectRow>(&path)? {
        let row = row?;
        let Some(reason) = row.reason else { continue };
        let examples = rejects.entry(reason).or_default();
        if examples.len() < EXAMPLES {
            examples.push(Example {
                image_id: row.image_id.to_string(),
                detail: row.detail.unwrap_or_default(),
            });
        }
    }
    Ok(())
}

fn damaged(context: &Context, unit: Unit, found: &mut Found) -> Result<()> {
    let path = SHARDS.path(&StepName::read(), unit);
    for row in context.run.rows::<ShardRow>(&path)? {
        let row = row?;
        if row.status == ShardStatus::Damaged {
            found.damaged_total += 1;
            if found.damaged.len() < DAMAGED {
                let detail = row.detail.unwrap_or_default();
                found.damaged.push((row.shard.to_string(), detail));
            }
        }
    }
    Ok(())
}

/// Returns the largest groups: one pass for the candidates, one for their members.
fn groups(context: &Context, receipts: &Receipts) -> Result<Vec<Group>> {
    let mut frequent = Frequent::new(COUNTERS);
    each_duplicate(context, receipts, |row| {
        frequent.add(row.duplicate_of.as_str())
    })?;
    let mut groups: Vec<Group> = frequent
        .top(4 * GROUPS)
        .into_iter()
        .map(|of| Group {
            of,
            count: 0,
            members: Vec::new(),
        })
        .collect();
    if groups.is_empty() {
        return Ok(groups);
    }
    each_duplicate(context, receipts, |row| {
        let mut others = groups.iter_mut();
        let group = others.find(|group| group.of == row.duplicate_of.as_str());
        let Some(group) = group else { return };
        group.count += 1;
        if group.members.len() < MEMBERS {
            let method = format!("{:?}", row.method).to_lowercase();
            let member = (row.image_id.to_string(), method, row.similarity);
            group.members.push(member);
        }
    })?;
    groups.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.of.cmp(&b.of)));
    groups.truncate(GROUPS);
    Ok(groups)
}

/// Calls `each` with every removed duplicate of the run.
fn each_duplicate(
    context: &Context,
    receipts: &Receipts,
    mut each: impl FnMut(DuplicateRow),
) -> Result<()> {
    for step in receipts.steps() {
        for receipt in steps::duplicates(receipts, step) {
            context.check_stop()?;
            let path = DUPLICATES.path(step, receipt.unit);
            for row in context.run.rows(&path)? {
                each(row?);
            }
        }
    }
    Ok(())
}
