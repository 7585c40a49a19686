//! The section about problems: damaged shards, slow partitions, and everything else to know before
//! relying on the run.

use askama::Template;
use sluice_manifest::layout::SHARDS;
use sluice_manifest::numbers::{duration, plural, thousands};
use sluice_manifest::rows::{ShardRow, ShardStatus};
use sluice_manifest::{Receipt, Result, StepName, UnitKind};
use sluice_run::{Plan, Receipts, Run, steps};

/// The maximum number of damaged shards listed.
const DAMAGED: usize = 50;
/// The maximum number of slow units listed for each step.
const SLOW: usize = 3;
/// A unit is slow if it took this many times the median of its step, and this many seconds.
const TIMES_THE_MEDIAN: f64 = 3.0;
const SECONDS: f64 = 2.0;

/// The section about problems.
#[derive(Debug, Template)]
#[template(path = "trouble.html")]
pub(crate) struct ProblemsSection {
    read: bool,
    damaged: Vec<(String, String)>,
    damaged_more: String,
    slow: Vec<[String; 4]>,
    warnings: Vec<String>,
}

impl ProblemsSection {
    /// Creates the section.
    ///
    /// # Errors
    ///
    /// Returns a data error if a manifest is missing or damaged, and otherwise a storage error.
    pub(crate) fn new(run: &Run, plan: &Plan, receipts: &Receipts) -> Result<Self> {
        let (damaged, total) = damaged(run, plan, receipts)?;
        let more = total - damaged.len() as u64;
        Ok(Self {
            read: receipts.is_complete(&StepName::read(), UnitKind::Partition),
            damaged_more: if more > 0 {
                thousands(more)
            } else {
                String::new()
            },
            damaged,
            slow: slow(receipts),
            warnings: warnings(receipts),
        })
    }
}

fn damaged(run: &Run, plan: &Plan, receipts: &Receipts) -> Result<(Vec<(String, String)>, u64)> {
    let (mut damaged, mut total) = (Vec::new(), 0);
    let read = StepName::read();
    for unit in plan.units() {
        let receipt = receipts.unit(&read, unit);
        if receipt.is_none_or(|receipt| receipt.sums.damaged_shards == 0) {
            continue;
        }
        for row in run.rows::<ShardRow>(&SHARDS.path(&read, unit))? {
            let row = row?;
            if row.status == ShardStatus::Damaged {
                total += 1;
                if damaged.len() < DAMAGED {
                    damaged.push((row.shard.to_string(), row.detail.unwrap_or_default()));
                }
            }
        }
    }
    Ok((damaged, total))
}

/// Returns the slowest units of each step: step, unit, time, median.
fn slow(receipts: &Receipts) -> Vec<[String; 4]> {
    let mut slow = Vec::new();
    for node in steps::nodes(receipts) {
        let mut units: Vec<&Receipt> = node.units.iter().collect();
        units.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        let median = units[units.len() / 2].seconds;
        let is_slow = |unit: &&&Receipt| unit.seconds > SECONDS.max(TIMES_THE_MEDIAN * median);
        slow.extend(units.iter().take_while(is_slow).take(SLOW).map(|receipt| {
            [
                node.name(),
                receipt.unit.to_string(),
                duration(receipt.seconds),
                duration(median),
            ]
        }));
    }
    slow
}

fn warnings(receipts: &Receipts) -> Vec<String> {
    let mut warnings: Vec<String> = receipts.broken.iter().map(ToString::to_string).collect();
    for step in &receipts.left_over {
        warnings.push(format!(
            "step {step} is in the run and no longer part of the pipeline"
        ));
    }
    for node in steps::nodes(receipts) {
        if node.kind() == UnitKind::Report {
            continue;
        }
        let (name, first) = (node.name(), node.first());
        if !node.is_complete() {
            warnings.push(format!(
                "step {name}: {} of {} units are done",
                node.units.len(),
                first.units
            ));
        }
        if node
            .units
            .iter()
            .any(|receipt| receipt.settings != first.settings)
        {
            warnings.push(format!("step {name}: its units have different settings"));
        }
        let sum = |of: fn(&Receipt) -> u64| node.units.iter().map(of).sum::<u64>();
        let unscored = sum(|receipt| receipt.sums.unscored);
        if unscored > 0 {
            let samples = plural(unscored, "sample");
            warnings.push(format!(
                "step {name}: {samples} without a score or an embedding"
            ));
        }
        let not_compared = sum(|receipt| receipt.sums.not_embedded);
        if not_compared > 0 {
            let samples = plural(not_compared, "sample");
            warnings.push(format!(
                "step {name}: {samples} without an embedding, which were not compared"
            ));
        }
    }
    warnings
}
