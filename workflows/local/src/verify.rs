//! `sluice verify`: proves a run, whatever its pipeline is.
//!
//! The receipts name the steps, what each was made from and what it wrote. The manifests are read
//! again, the decisions are made again from what the deciding steps wrote, and every member of the
//! curated dataset is compared with the bytes that it came from. A run without an export is checked
//! as far as it goes. Steps that are not part of the pipeline any more are named and not checked.
//! Everything streams: units are checked one by one, `--jobs` at once.

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
use sluice_harness::{Context, Desk, Plan, Receipts};
use sluice_manifest::numbers::{plural, thousands};
use sluice_manifest::text::shown;
use sluice_manifest::{Error, Receipt, StepName};
use sluice_report::{counted, planned};
use sluice_source::InputReader;

use self::checks::{Check, Findings};
use self::survivors::Chains;
use crate::text::columns;

/// Prove a run: nothing lost, nothing changed, every byte where it should be
///
/// Checks what was run, whatever the pipeline is. Exits with 3 when a check fails.
///
/// Example: sluice verify --run runs/a
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The run: a URI prefix, on local disk or in object storage
    #[arg(long, env = "SLUICE_RUN", value_name = "URI")]
    pub run: String,

    /// Do not read the source shards
    ///
    /// The output's images are then checked against the hashes that were taken when they were read,
    /// its captions and other members by name and size alone.
    #[arg(long)]
    pub quick: bool,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,

    /// Threads that work at once (default: the CPUs that the cgroup grants)
    #[arg(long, env = "SLUICE_JOBS", value_name = "N", value_parser = sluice_harness::jobs())]
    pub jobs: Option<usize>,
}

/// What the checks look at.
struct Run<'a> {
    context: &'a Context,
    plan: &'a Plan,
    receipts: &'a Receipts,
    /// The steps that were run, each after those that it read from.
    steps: Vec<&'a StepName>,
    survivors: Chains<'a>,
    quick: bool,
}

impl<'a> Run<'a> {
    fn all_receipts(&self) -> impl Iterator<Item = &'a Receipt> {
        let receipts = self.receipts;
        self.steps.iter().flat_map(move |step| receipts.of(step))
    }
}

/// Checks a run.
///
/// # Errors
/// Data, when a check fails; of storage.
pub fn verify(args: &VerifyArgs, desk: &mut Desk<'_>) -> Result<()> {
    let context = Context::look(&args.run, "sluice", &desk.shared)?;
    let mut findings = Findings::default();
    let left_over = check(&context, args.quick, &mut findings)?;
    match args.json {
        true => {
            let result = json!({ "checks": findings.as_json(), "left_over": left_over });
            writeln!(desk.out, "{result}")?;
        }
        false => {
            print(&findings, desk.out)?;
            write!(desk.out, "{}", told(&context, &left_over))?;
        }
    }
    match findings.failed().as_slice() {
        [] => Ok(()),
        failed => Err(refused(failed).into()),
    }
}

/// Returns the line about steps that are not part of the pipeline any more; empty where there are
/// none.
fn told(context: &Context, left_over: &[StepName]) -> String {
    if left_over.is_empty() {
        return String::new();
    }
    let names: Vec<&str> = left_over.iter().map(StepName::as_str).collect();
    let folders: Vec<String> = names.iter().map(|name| context.run.uri(name)).collect();
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
        // A run without a plan that can be read needs something else, which the check has said.
        [Check::Plan] => Error::data(message),
        _ => Error::data(message)
            .hint("run the step that wrote it again with --force, then the steps after it"),
    }
}

/// Makes all checks. Returns the steps that are not part of the pipeline any more.
fn check(context: &Context, quick: bool, findings: &mut Findings) -> Result<Vec<StepName>> {
    let Some(plan) = findings.take(Check::Plan, context.plan())? else {
        return Ok(Vec::new());
    };
    let planned = findings.take(Check::Plan, planned::steps(context))?;
    let planned = planned.flatten();
    let mut receipts = context.receipts()?;
    counted::retain(&mut receipts, planned.as_deref());
    let left_over = receipts.left_over.clone();
    let steps = receipts.steps();
    let all = steps.iter().flat_map(|step| receipts.of(step));
    let run = Run {
        context,
        plan: &plan,
        survivors: Chains::of(context, all, findings)?,
        receipts: &receipts,
        steps,
        quick,
    };
    receipts::check(&run, &planned.unwrap_or_default(), findings);
    inputs::check(&run, findings);
    findings.merge(objects::check(&run)?);
    if let Some(input) = findings.take(Check::Source, plan.input())? {
        let reader = InputReader::new(&context.run, &input, &context.storage);
        source_unchanged(&run, &reader, findings)?;
        let partitions: Vec<Findings> = plan
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
    run: &Run<'_>,
    input: &InputReader,
    findings: &mut Findings,
) -> Result<(), Error> {
    for row in run.plan.partitions.iter().flat_map(|p| &p.shards) {
        findings.take(Check::Source, input.check_unchanged(row))?;
    }
    Ok(())
}

fn print(findings: &Findings, out: &mut dyn Write) -> std::io::Result<()> {
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
