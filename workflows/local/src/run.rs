//! `sluice run`: all steps of the DAG, one after the other, in this process.
//!
//! Each step is the stage's own program: its command line is made, parsed and run as if it had been
//! typed. So a step that fails can be done by hand, and nothing that `run` does is out of a
//! workflow engine's reach. Running it again does what is not up to date.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::json;
use sluice_harness::{Context, Desk, Shared, shell};
use sluice_manifest::dag::{self, STEPS, Step};
use sluice_manifest::{Error, layout};
use sluice_report::Funnel;
use sluice_store::Location;

use crate::Args as Sluice;
use crate::commands::{Parameters, command};
use crate::funnel::{StepLine, Summary, write};
use crate::programs::StageProgram;

/// Curate a dataset on this machine: all steps, from the shards to the report
///
/// Run it again to go on where it stopped, or after changing an option: only what the change
/// affects is done again.
///
/// Example: sluice run --input data/ --output out/ --min-aesthetic 5.0 --max-nsfw 0.5
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// The DAG's parameters
    #[command(flatten)]
    pub parameters: Parameters,

    /// Where the run's manifests go (default: beside the output, its name with .run)
    #[arg(long, env = "SLUICE_RUN", value_name = "URI")]
    pub run: Option<String>,

    /// Threads that work at once (default: the CPUs that the cgroup grants)
    #[arg(long, env = "SLUICE_JOBS", value_name = "N")]
    pub jobs: Option<usize>,

    /// Do all work again even where it is up to date
    #[arg(long, env = "SLUICE_FORCE")]
    pub force: bool,

    /// Write the JSON result to this file too
    #[arg(long, env = "SLUICE_RESULT", value_name = "FILE")]
    pub result: Option<PathBuf>,
}

impl RunArgs {
    /// Where the run lies.
    ///
    /// Refuses places that would get in each other's way: the input is never written to, and the
    /// output holds the dataset and nothing else.
    pub fn place(&self) -> Result<String, Error> {
        let output = Location::parse(self.parameters.one("output"))?;
        let run = match &self.run {
            Some(run) => Location::parse(run)?,
            None if output.split().is_none() => {
                return Err(
                    Error::usage(format!("--output {output} has no place beside it"))
                        .hint("name one for the run's manifests: --run URI"),
                );
            }
            None => Location::parse(&format!("{output}.run"))?,
        };
        let apart = |a: &str, b: &Location, c: &str, d: &Location| match inside(b, d) {
            true => Err(Error::usage(format!("{a} {b} lies inside of {c} {d}"))
                .hint("choose places beside each other")),
            false => Ok(()),
        };
        apart("--run", &run, "--output", &output)?;
        apart("--output", &output, "--run", &run)?;
        for input in self.parameters.all("input") {
            let input = Location::parse(input)?;
            apart("--output", &output, "--input", &input)?;
            apart("--run", &run, "--input", &input)?;
            apart("--input", &input, "--output", &output)?;
        }
        Ok(run.to_string())
    }
}

/// Whether `a` is `b` or lies in it.
fn inside(a: &Location, b: &Location) -> bool {
    let (a, b) = (a.to_string(), b.to_string());
    a == b || a.strip_prefix(&b).is_some_and(|rest| rest.starts_with('/'))
}

/// Variables that make a stage do a share of its units; `run` does all of them.
const SHARES: [&str; 3] = [
    "SLUICE_PARTITIONS",
    "SLUICE_TASK_INDEX",
    "SLUICE_TASK_COUNT",
];

/// Does all steps, and tells where the samples went.
pub fn run(args: &RunArgs, desk: &mut Desk<'_>) -> Result<()> {
    desk.result = Some(json!({}));
    if let Some(name) = SHARES.iter().find(|name| std::env::var_os(name).is_some()) {
        let refused = Error::usage(format!("{name} is set, but sluice run does all units"));
        return Err(refused.hint(format!("unset {name}")).into());
    }
    let run = args.place()?;
    let commands: Vec<_> = STEPS
        .iter()
        .map(|step| (step, command(step, args, &run)))
        .collect();
    // All of them first: a flag that is wrong for the last step must not come out after hours.
    for (step, command) in &commands {
        check(step, command).with_context(|| shell(command))?;
    }
    tracing::info!(run, "the run's manifests");
    let mut lines = Vec::new();
    let outcome = commands
        .iter()
        .try_for_each(|(step, command)| one(step, command, &desk.shared, &mut lines));
    let finished = outcome.is_ok();
    desk.up_to_date = finished && lines.iter().all(StepLine::is_up_to_date);
    let summary = summary(args, run, lines, &desk.shared);
    let summary = match (outcome, summary) {
        (Ok(()), summary) => summary?,
        (Err(e), Ok(summary)) => {
            desk.result = Some(summary.as_json());
            return Err(e);
        }
        (Err(e), Err(_)) => return Err(e),
    };
    desk.result = Some(summary.as_json());
    write(&summary, desk.up_to_date, desk.err)?;
    Ok(())
}

/// Fails when a step's program would refuse its command line.
pub(crate) fn check(step: &Step, command: &[String]) -> Result<()> {
    (program_of(step)?.check)(command)
}

fn one(
    step: &'static Step,
    command: &[String],
    shared: &Shared,
    lines: &mut Vec<StepLine>,
) -> Result<()> {
    tracing::debug!(step = step.name, "{}", shell(command));
    let done = (program_of(step)?.run)(command, shared)
        .with_context(|| format!("step {} (by hand: `{}`)", step.name, shell(command)))?;
    tracing::info!(
        step = step.name,
        units = done.units,
        up_to_date = done.up_to_date,
        seconds = (done.seconds * 1000.0).round() / 1000.0,
        "step done"
    );
    lines.push(StepLine {
        step: step.name,
        command: shell(command),
        done,
    });
    Ok(())
}

/// What the run holds now.
fn summary(
    args: &RunArgs,
    run: String,
    steps: Vec<StepLine>,
    shared: &Shared,
) -> Result<Summary, Error> {
    let context = Context::look(&run, <Sluice as sluice_harness::Tool>::NAME, shared)?;
    let receipts = context.receipts()?;
    let counts = receipts.counts(&dag::EXPORT_DECIDE);
    counts.check()?;
    let decided = receipts.complete(&dag::EXPORT_DECIDE);
    let written = receipts.of(&dag::EXPORT_WRITE).iter();
    let shards = written
        .flat_map(|receipt| &receipt.outputs)
        .filter(|output| output.path.ends_with(".tar"));
    let (output_shards, output_bytes) = shards.fold((0, 0), |(n, b), o| (n + 1, b + o.bytes));
    Ok(Summary {
        output: Location::parse(args.parameters.one("output"))?.to_string(),
        report: context.run.uri(layout::REPORT),
        run,
        funnel: decided.then(|| Funnel::of(&counts)),
        output_shards,
        output_bytes,
        steps,
    })
}

fn program_of(step: &Step) -> Result<&'static StageProgram> {
    let name = format!("sluice-{}", step.stage);
    let found = StageProgram::named(&name);
    found.ok_or_else(|| Error::bug(format!("no program {name}")).into())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::Command;

    fn place(line: &str) -> Result<String, Error> {
        let args = Sluice::try_parse_from(line.split(' ')).unwrap();
        let Command::Run(args) = args.command else {
            panic!("{line}");
        };
        args.place()
    }

    #[test]
    fn the_run_lies_beside_the_output() {
        let run = place("sluice run --input /data --output /out/x/").unwrap();
        assert_eq!(run, "/out/x.run");
        let run = place("sluice run --input /data --output /out/x --run /runs/x").unwrap();
        assert_eq!(run, "/runs/x");
    }

    #[test]
    fn places_do_not_get_in_each_others_way() {
        for line in [
            "sluice run --input /data --output /data/out",
            "sluice run --input /data --output /data",
            "sluice run --input /data --output /out --run /out/run",
            "sluice run --input /data --output /run/out --run /run",
            "sluice run --input /data --output /out --run /data/run",
            "sluice run --input /out/a.tar --output /out",
        ] {
            assert!(place(line).is_err(), "{line}");
        }
    }
}
