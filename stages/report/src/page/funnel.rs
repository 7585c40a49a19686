//! The section with the funnel and the duration of each step.

use askama::Template;
use sluice_manifest::numbers::{bytes, duration, percent, rate, thousands};
use sluice_manifest::{Dropped, UnitKind};
use sluice_run::funnel::{Funnel, decided};
use sluice_run::{Receipts, steps};

use crate::findings::Findings;
use crate::times::StepTimes;

/// The section with the funnel and the duration of each step.
#[derive(Debug, Template)]
#[template(path = "funnel.html")]
pub(crate) struct FunnelSection {
    /// Whether the export has decided all partitions.
    decided: bool,
    rows: Vec<FunnelRow>,
    times: Vec<TimeRow>,
}

/// A row of the funnel.
#[derive(Debug)]
struct FunnelRow {
    /// `total` or `drop`.
    kind: &'static str,
    step: String,
    reason: String,
    text: &'static str,
    count: String,
    share: String,
    bytes: String,
    /// The width of the bar in percent.
    width: String,
}

/// The duration of a step.
#[derive(Debug)]
struct TimeRow {
    step: String,
    units: usize,
    samples: String,
    wall: String,
    cpu: String,
    throughput: String,
}

impl FunnelSection {
    /// Creates the section from the receipts.
    pub(crate) fn new(receipts: &Receipts, findings: &Findings) -> Self {
        let funnel = Funnel::of_run(receipts);
        let decided = decided(receipts).is_some();
        let nodes = steps::nodes(receipts).into_iter();
        let nodes = nodes.filter(|node| node.kind() != UnitKind::Report);
        Self {
            rows: funnel
                .map(|funnel| rows(&funnel, findings, decided))
                .unwrap_or_default(),
            times: nodes
                .map(|node| time_row(node.name(), &StepTimes::of(node.units), node.units.len()))
                .collect(),
            decided,
        }
    }
}

fn rows(funnel: &Funnel, findings: &Findings, decided: bool) -> Vec<FunnelRow> {
    let all: u64 = findings.kept_bytes + findings.dropped_bytes.values().sum::<u64>();
    let row = |kind, step: &str, reason: String, text, count: u64, size: u64| FunnelRow {
        kind,
        step: step.to_owned(),
        reason,
        text,
        count: thousands(count),
        share: percent(count, funnel.input),
        bytes: bytes(size),
        width: format!("{:.2}", count as f64 * 100.0 / funnel.input.max(1) as f64),
    };
    let mut rows = vec![row(
        "total",
        "came in",
        String::new(),
        "",
        funnel.input,
        all,
    )];
    for level in &funnel.steps {
        for found in &level.reasons {
            let dropped = Dropped {
                step: level.step.clone(),
                reason: found.reason.clone(),
            };
            let size = findings.dropped_bytes.get(&dropped).copied();
            let (name, reason) = (level.step.as_str(), found.reason.to_string());
            rows.push(row(
                "drop",
                name,
                reason,
                found.text,
                found.count,
                size.unwrap_or(0),
            ));
        }
    }
    let name = if decided { "kept" } else { "left" };
    rows.push(row(
        "total",
        name,
        String::new(),
        "",
        funnel.kept,
        findings.kept_bytes,
    ));
    rows
}

fn time_row(step: String, times: &StepTimes, units: usize) -> TimeRow {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
    TimeRow {
        step,
        units,
        samples: match times.samples {
            0 => "–".to_owned(),
            samples => thousands(samples),
        },
        wall: or_dash(times.wall.map(duration)),
        cpu: or_dash(times.cpu.map(duration)),
        throughput: or_dash(times.throughput().map(rate)),
    }
}
