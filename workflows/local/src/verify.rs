//! `sluice verify`: checks a run of any pipeline.
//!
//! The receipts name the steps, their inputs and their outputs. The check reads the manifests
//! again, repeats the decisions from the results of the deciding steps, and compares every member
//! of the curated dataset with its source bytes. A run without an export is checked as far as it
//! goes. Steps that are no longer part of the pipeline are listed, but not checked. All data is
//! streamed: units are checked one by one, `--jobs` at once.

mod checks;
mod duplicates;
mod filters;
mod images;
mod inputs;
mod objects;
mod output;
mod partition;
mod receipts;
mod scores;
mod shard;
mod source;
mod survivors;

use std::io::Write;

use anyhow::Result;
use clap::Args;
use rayon::prelude::*;
use serde_json::json;
use sluice_harness::{MemoryBudget, ToolContext};
use sluice_manifest::numbers::{plural, thousands};
use sluice_manifest::text::shown;
use sluice_manifest::{Error, Receipt, StepName};
use sluice_run::{Plan, Receipts, Run, counted, planned};
use sluice_source::InputReader;

use self::checks::{Check, CheckResults};
use self::survivors::Chains;
use crate::text::columns;

/// Prove a run: nothing lost, nothing changed, every byte where it should be
///
/// Checks the run of any pipeline. Exits with 3 when a check fails.
///
/// Example: sluice verify --run runs/a
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The run: a URI prefix, on local disk or in object storage
    #[arg(long, env = "SLUICE_RUN", value_name = "URI")]
    pub run: String,

    /// Do not read the source shards
    ///
    /// The output's images are then checked against the hashes in read/images, and its captions and
    /// other members only by name and size.
    #[arg(long)]
    pub quick: bool,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,

    /// Threads that work at once (default: the CPUs that the cgroup grants)
    #[arg(long, env = "SLUICE_JOBS", value_name = "N", value_parser = sluice_harness::jobs())]
    pub jobs: Option<usize>,
}

/// The data that the checks read.
struct CheckedRun<'a> {
    recorded: &'a Run,
    memory: &'a MemoryBudget,
    plan: &'a Plan,
    receipts: &'a Receipts,
    /// The steps of the run in topological order.
    steps: Vec<&'a StepName>,
    survivors: Chains<'a>,
    quick: bool,
}

impl<'a> CheckedRun<'a> {
    fn all_receipts(&self) -> impl Iterator<Item = &'a Receipt> {
        let receipts = self.receipts;
        self.steps.iter().flat_map(move |step| receipts.of(step))
    }
}

/// Checks a run.
///
/// # Errors
/// Data, when a check fails; or a storage error.
pub fn verify(args: &VerifyArgs, tool: &mut ToolContext<'_>) -> Result<()> {
    let recorded = Run::open_read_only(&tool.shared.storage, &args.run)?;
    let mut findings = CheckResults::default();
    let left_over = check(&recorded, &tool.shared.memory, args.quick, &mut findings)?;
    if args.json {
        let result = json!({ "checks": findings.as_json(), "left_over": left_over });
        writeln!(tool.out, "{result}")?;
    } else {
        print(&findings, tool.out)?;
        write!(tool.out, "{}", told(&recorded, &left_over))?;
    }
    match findings.failed().as_slice() {
        [] => Ok(()),
        failed => Err(refused(failed).into()),
    }
}

/// Returns the line about steps that are no longer part of the pipeline; empty if there are none.
fn told(recorded: &Run, left_over: &[StepName]) -> String {
    if left_over.is_empty() {
        return String::new();
    }
    let names: Vec<&str> = left_over.iter().map(StepName::as_str).collect();
    let folders: Vec<String> = names.iter().map(|name| recorded.uri(name)).collect();
    format!(
        "not part of the pipeline any more: {}; remove {} to free the space\n",
        names.join(", "),
        folders.join(", ")
    )
}

fn refused(failed: &[Check]) -> Error {
    let names: Vec<&str> = failed.iter().map(|check| check.name()).collect();
    let message = format!(
        "{} failed: {}",
        plural(names.len() as u64, "check"),
        names.join(", ")
    );
    match failed {
        // Without a readable plan, running a step again does not help. The check's message gives
        // the hint.
        [Check::Plan] => Error::data(message),
        _ => Error::data(message)
            .hint("run the step that wrote it again with --force, then the steps after it"),
    }
}

/// Runs all checks. Returns the steps that are no longer part of the pipeline.
fn check(
    recorded: &Run,
    memory: &MemoryBudget,
    quick: bool,
    findings: &mut CheckResults,
) -> Result<Vec<StepName>> {
    let Some(plan) = findings.take(Check::Plan, recorded.plan())? else {
        return Ok(Vec::new());
    };
    let planned = findings.take(Check::Plan, planned::steps(recorded))?;
    let planned = planned.flatten();
    let mut receipts = recorded.receipts()?;
    counted::retain(&mut receipts, planned.as_deref());
    let left_over = receipts.left_over.clone();
    let steps = receipts.steps();
    let all = steps.iter().flat_map(|step| receipts.of(step));
    let run = CheckedRun {
        recorded,
        memory,
        plan: &plan,
        survivors: Chains::of(recorded, all, findings)?,
        receipts: &receipts,
        steps,
        quick,
    };
    receipts::check(&run, &planned.unwrap_or_default(), findings);
    inputs::check(&run, findings);
    findings.merge(objects::check(&run)?);
    if let Some(input) = findings.take(Check::Source, plan.input())? {
        let reader = InputReader::new(recorded, &input, &recorded.storage);
        source_unchanged(&run, &reader, findings)?;
        let partitions: Vec<CheckResults> = plan
            .partitions
            .par_iter()
            .map(|planned| partition::check(&run, planned))
            .collect::<Result<_, Error>>()?;
        for found in partitions {
            findings.merge(found);
        }
        duplicates::check(&run, findings)?;
        output::check(&run, &input, findings)?;
    }
    Ok(left_over)
}

fn source_unchanged(
    run: &CheckedRun<'_>,
    input: &InputReader,
    findings: &mut CheckResults,
) -> Result<(), Error> {
    for row in run.plan.partitions.iter().flat_map(|p| &p.shards) {
        findings.take(Check::Source, input.check_unchanged(row))?;
    }
    Ok(())
}

fn print(findings: &CheckResults, out: &mut dyn Write) -> std::io::Result<()> {
    let mut rows = Vec::new();
    for (check, result) in findings.iter() {
        let state = match (result.failed, result.passed) {
            (0, 0) => "-",
            (0, _) => "ok",
            _ => "failed",
        };
        let looked = thousands(result.passed + result.failed);
        rows.push(vec![
            state.to_owned(),
            check.name().to_owned(),
            looked,
            check.about().to_owned(),
        ]);
    }
    write!(out, "{}", columns(&rows, &[2], ""))?;
    for (check, result) in findings.iter() {
        if result.failed == 0 {
            continue;
        }
        writeln!(out, "\n{}:", check.name())?;
        for failure in &result.failures {
            writeln!(out, "  {}", shown(failure).replace('\n', "\n    "))?;
        }
        let more = result.failed - result.failures.len() as u64;
        if more > 0 {
            writeln!(out, "  and {} more", thousands(more))?;
        }
    }
    let failed = findings.failed().len();
    let passed = findings
        .iter()
        .filter(|(_, found)| found.failed == 0 && found.passed > 0)
        .count();
    let unlooked = Check::ALL.len() - failed - passed;
    let verdict = if failed == 0 { "sound" } else { "not sound" };
    let mut line = format!(
        "the run is {verdict}: {} passed",
        plural(passed as u64, "check")
    );
    for (count, what) in [(failed, "failed"), (unlooked, "had nothing to look at")] {
        if count > 0 {
            line.push_str(&format!(", {count} {what}"));
        }
    }
    writeln!(out, "\n{line}")
}
