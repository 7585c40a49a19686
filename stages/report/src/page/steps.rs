//! The section about the steps, with their settings, models and versions.

use askama::Template;
use sluice_manifest::UnitKind;
use sluice_manifest::numbers::plural;
use sluice_run::steps::{self, NodeDone};
use sluice_run::{Receipts, settings};

/// The section about the steps.
#[derive(Debug, Template)]
#[template(path = "steps.html")]
pub(crate) struct Steps {
    steps: Vec<StepLine>,
}

/// A step, or one subcommand of a step.
#[derive(Debug)]
struct StepLine {
    name: String,
    state: String,
    settings: Vec<(String, String)>,
    version: String,
}

impl Steps {
    /// Creates the section from the receipts.
    pub(crate) fn new(receipts: &Receipts) -> Self {
        let nodes = steps::nodes(receipts).into_iter();
        let nodes = nodes.filter(|node| node.kind() != UnitKind::Report);
        Self {
            steps: nodes.map(step_line).collect(),
        }
    }
}

fn step_line(node: NodeDone<'_>) -> StepLine {
    let (units, first) = (node.units, node.first());
    let mut state = if node.is_complete() {
        plural(units.len() as u64, "unit")
    } else {
        format!("{} of {} units", units.len(), first.units)
    };
    let reused: u64 = units.iter().map(|receipt| receipt.sums.reused).sum();
    if reused > 0 {
        state += &format!("; {} taken over", plural(reused, "row"));
    }
    let mut settings = settings::of(first);
    if let Some(step) = &first.survivors_of {
        settings.push(("survivors of".into(), step.to_string()));
    }
    let mut versions: Vec<&str> = units.iter().map(|r| r.version.as_str()).collect();
    versions.sort_unstable();
    versions.dedup();
    StepLine {
        name: node.name(),
        state,
        settings,
        version: versions.join(", "),
    }
}
