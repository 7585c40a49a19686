//! The page: what the template shows, as text.

use askama::Template;
use sluice_harness::Receipts;
use sluice_manifest::{Histogram, ReasonKind, RunInfo, ScoreColumn, ScoreName, StepName, UnitKind};

use crate::funnel::{Funnel, decided};
use crate::gather::{Found, Group};
use crate::histogram::{number, svg};
use crate::settings;
use crate::steps::{self, NodeDone};
use crate::thresholds::{self, Threshold};

/// The page about a run.
#[derive(Debug, Template)]
#[template(path = "report.html")]
pub struct Page {
    input: String,
    patterns: Vec<String>,
    /// Whether the patterns say more than the input.
    asked: bool,
    shards: String,
    bytes: String,
    partitions: String,
    outputs: Vec<Output>,
    funnel: Option<Funnel>,
    decided: bool,
    scores: Vec<Scores>,
    rejects: Vec<Reject>,
    read: bool,
    groups: Vec<Group>,
    deduplicated: bool,
    damaged: Vec<(String, String)>,
    damaged_more: u64,
    steps: Vec<StepLine>,
    version: &'static str,
}

/// A curated dataset.
#[derive(Debug)]
struct Output {
    uri: String,
    written: Option<String>,
}

/// A score.
#[derive(Debug)]
struct Scores {
    name: String,
    svg: Option<String>,
    note: String,
}

/// Samples that `read` rejected for one reason.
#[derive(Debug)]
struct Reject {
    reason: String,
    text: &'static str,
    count: u64,
    examples: Vec<(String, String)>,
}

/// A step, or one subcommand of a step.
#[derive(Debug)]
struct StepLine {
    name: String,
    state: String,
    seconds: String,
    settings: Vec<(String, String)>,
    version: String,
}

impl Page {
    /// Returns the page about what was run.
    pub fn new(info: &RunInfo, receipts: &Receipts, mut found: Found) -> Self {
        let read = StepName::read();
        let dropped_by_read = receipts.counts(&read, UnitKind::Part).dropped;
        let rejects = dropped_by_read.into_iter().map(|(dropped, count)| {
            let examples = found.rejects.remove(&dropped.reason).unwrap_or_default();
            let examples = examples.into_iter().map(|e| (e.image_id, e.detail));
            Reject {
                reason: dropped.reason.to_string(),
                text: dropped.reason.text(),
                count,
                examples: examples.collect(),
            }
        });
        let rejects = rejects.collect();
        let nodes = steps::nodes(receipts).into_iter();
        let nodes = nodes.filter(|node| node.kind() != UnitKind::Report);
        let mut deciders = receipts.steps().into_iter();
        Self {
            input: info.input.clone(),
            patterns: info.patterns.clone(),
            asked: info.patterns != [info.input.as_str()],
            shards: plural(info.shards, "shard"),
            bytes: bytes(info.bytes),
            partitions: plural(info.partitions.into(), "partition"),
            outputs: outputs(receipts),
            funnel: Funnel::of_run(receipts),
            decided: decided(receipts).is_some(),
            scores: scores(receipts),
            rejects,
            read: receipts.is_complete(&read, UnitKind::Part),
            groups: found.groups,
            deduplicated: deciders.any(|step| steps::duplicates(receipts, step).next().is_some()),
            damaged_more: found.damaged_total - found.damaged.len() as u64,
            damaged: found.damaged,
            steps: nodes.map(step_line).collect(),
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    /// Returns the width of a funnel's bar, in percent.
    fn share(&self, count: &u64) -> String {
        let input = self.funnel.as_ref().map_or(0, |funnel| funnel.input);
        format!("{:.2}", *count as f64 * 100.0 / input.max(1) as f64)
    }
}

impl Group {
    /// Returns how many members the page does not name.
    fn more(&self) -> u64 {
        self.count - self.members.len() as u64
    }
}

fn outputs(receipts: &Receipts) -> Vec<Output> {
    let exports = steps::exports(receipts).into_iter();
    let datasets = exports.filter_map(|step| steps::dataset(receipts, step));
    let outputs = datasets.map(|dataset| Output {
        uri: dataset.uri,
        written: dataset.is_complete.then(|| {
            let shards = plural(dataset.shards, "shard");
            format!("{} in {shards}", bytes(dataset.bytes))
        }),
    });
    outputs.collect()
}

/// Returns every output of every scorer.
fn scores(receipts: &Receipts) -> Vec<Scores> {
    let thresholds = thresholds::of_run(receipts);
    let mut scores = Vec::new();
    for step in receipts.steps() {
        let columns = receipts.of(step).first().map(|receipt| &receipt.scores);
        let columns: Vec<ScoreColumn> = columns
            .into_iter()
            .flatten()
            .map(|score| score.column.clone())
            .collect();
        for (position, column) in columns.iter().enumerate() {
            let of_column = thresholds.iter().filter(|(_, threshold)| {
                threshold.score.step == *step
                    && ScoreColumn::position(&columns, &threshold.score).ok() == Some(position)
            });
            let of_column: Vec<_> = of_column.collect();
            let name = ScoreName {
                step: step.clone(),
                output: (columns.len() > 1).then(|| column.name.clone()),
            };
            scores.push(score(name.to_string(), receipts, step, column, &of_column));
        }
    }
    scores
}

fn score(
    name: String,
    receipts: &Receipts,
    step: &StepName,
    column: &ScoreColumn,
    thresholds: &[&(&StepName, Threshold)],
) -> Scores {
    let mut histogram = Histogram::default();
    let mut unscored = 0;
    for receipt in receipts.of(step) {
        let mut summaries = receipt.scores.iter();
        let summary = summaries.find(|score| score.column.name == column.name);
        if let Some(summary) = summary {
            histogram.merge(&summary.histogram);
        }
        unscored += receipt.sums.unscored;
    }
    let lines: Vec<(f32, String)> = thresholds
        .iter()
        .map(|(filter, threshold)| (threshold.value, format!("{filter}: {}", limit(threshold))))
        .collect();
    let mut notes = vec![format!("{} scored", plural(histogram.count(), "image"))];
    if unscored > 0 {
        notes.push(format!("{} without a score", thousands(unscored)));
    }
    if let Some(source) = receipts.of(step).first().and_then(settings::source) {
        notes.push(format!("from {source}"));
    }
    match lines.is_empty() {
        true => notes.push("no filter sets a threshold".to_owned()),
        false => notes.extend(lines.iter().map(|(_, line)| line.clone())),
    }
    Scores {
        svg: svg(&histogram, &name, &lines),
        name,
        note: notes.join("; "),
    }
}

fn limit(threshold: &Threshold) -> String {
    let value = number(threshold.value);
    match threshold.reason {
        ReasonKind::AboveMax => format!("below {value}"),
        ReasonKind::BelowTop => format!("at least {value} (top)"),
        _ => format!("at least {value}"),
    }
}

fn step_line(node: NodeDone<'_>) -> StepLine {
    let (units, first) = (node.units, node.first());
    let mut state = match node.is_complete() {
        true => plural(units.len() as u64, "unit"),
        false => format!("{} of {} units", units.len(), first.units),
    };
    let reused: u64 = units.iter().map(|receipt| receipt.sums.reused).sum();
    if reused > 0 {
        state += &format!("; {} taken over", plural(reused, "row"));
    }
    let seconds: f64 = units.iter().map(|receipt| receipt.seconds).sum();
    let mut settings = settings::of(first);
    if let Some(step) = &first.survivors_of {
        settings.push(("survivors of".into(), step.to_string()));
    }
    if units
        .iter()
        .any(|receipt| receipt.settings != first.settings)
    {
        settings.push(("note".into(), "other units have other settings".into()));
    }
    let mut versions: Vec<&str> = units.iter().map(|r| r.version.as_str()).collect();
    versions.sort_unstable();
    versions.dedup();
    StepLine {
        name: node.name(),
        state,
        seconds: format!("{seconds:.1}"),
        settings,
        version: versions.join(", "),
    }
}

/// Returns `1,234,567` for `1234567`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns a number of bytes for people.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut size = bytes as f64 / 1000.0;
    let mut unit = 0;
    while size >= 999.95 && unit + 1 < UNITS.len() {
        size /= 1000.0;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}

/// Returns `1 shard`, `2 shards`.
pub fn plural(count: u64, noun: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{} {noun}{s}", thousands(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        let numbers = [0, 999, 1000, 1_234_567].map(thousands);
        assert_eq!(numbers, ["0", "999", "1,000", "1,234,567"]);
        let sizes = [999, 1000, 999_999, 8_600_000_000].map(bytes);
        assert_eq!(sizes, ["999 B", "1.0 kB", "1.0 MB", "8.6 GB"]);
        assert_eq!([1, 2].map(|n| plural(n, "shard")), ["1 shard", "2 shards"]);
    }
}
