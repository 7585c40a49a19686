//! `sluice run`: all steps of a pipeline, in this process.
//!
//! Each step is the stage's own program. Its command line is built, parsed and run like one that a
//! user types. A failed step can therefore be run by hand, and `run` does nothing that a workflow
//! engine cannot do. Everything that can be checked is checked before the work. A second call does
//! the work that is not up to date.

mod group;
mod pipeline_run;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use anyhow::Result;
use clap::Args;
use serde_json::json;
use sluice_harness::{ProcessResources, StepCount, ToolContext, parse_bytes, shell};
use sluice_manifest::{Error, Receipt, RunInfo, UnitKind, layout};
use sluice_run::funnel::Funnel;
use sluice_run::{Run, counted, refuse_other_stage, refuse_overlap, refuse_unwritable};
use sluice_store::{Location, Storage, Store};

use self::pipeline_run::PipelineRun;
use crate::funnel::{StepSummary, Summary, write};
use crate::models::{missing, models_folder, pull_missing};
use crate::pipeline::commands::{Given, Parameters, Setting, gathered};
use crate::pipeline::{self, ParameterValues, Pipeline};

/// Presets: other defaults for parameters of the default pipeline, as TOML.
const PRESETS: [(&str, &str); 1] = [("small", include_str!("../pipelines/small.preset.toml"))];

/// Curate a dataset on this machine: all steps of a pipeline, from the shards to the report
///
/// Run it again to resume, or after changing an option: only the affected work is done again. The
/// flags under headings belong to the default pipeline.
///
/// Example: sluice run --input data/ --output out/ --min-aesthetic 5.0 --max-nsfw 0.5
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// The pipeline file (default: the default pipeline, which `sluice pipeline show` prints)
    #[arg(long, env = "SLUICE_PIPELINE", value_name = "URI")]
    pub pipeline: Option<String>,

    /// Other defaults for the default pipeline: small (models for a laptop, less accurate)
    #[arg(long, env = "SLUICE_PRESET", value_name = "NAME", value_parser = PRESETS.map(|(name, _)| name), conflicts_with = "pipeline")]
    pub preset: Option<String>,

    /// The value of a parameter of the pipeline file
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<Setting>,

    /// Parameters of the default pipeline, and of files with parameters of the same names
    #[command(flatten)]
    pub parameters: Parameters,

    /// Where the run's manifests go (default: the output's path with .run appended)
    #[arg(long, env = "SLUICE_RUN", value_name = "URI")]
    pub run: Option<String>,

    /// Threads that work at once (default: the CPUs that the cgroup grants)
    #[arg(long, env = "SLUICE_JOBS", value_name = "N", value_parser = sluice_harness::jobs())]
    pub jobs: Option<usize>,

    /// Memory for decoding, shared by all threads: bytes, or 768M, 2G (default: 96M for each
    /// thread)
    ///
    /// At least 768M, and at most half of the memory that the cgroup grants.
    #[arg(long, env = "SLUICE_MEMORY", value_name = "BYTES", value_parser = parse_bytes)]
    pub memory: Option<u64>,

    /// Check everything and print the command line of each step; write nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Run all work again, even if it is up to date
    #[arg(long, env = "SLUICE_FORCE")]
    pub force: bool,

    /// First download missing models: those of the catalogue, and hf://ORG/NAME
    #[arg(long)]
    pub pull: bool,

    /// Replace an existing output, even one that another program wrote
    #[arg(long, env = "SLUICE_OVERWRITE")]
    pub overwrite: bool,

    /// Write the JSON result to this file too
    #[arg(long, env = "SLUICE_RESULT", value_name = "FILE")]
    pub result: Option<PathBuf>,
}

impl RunArgs {
    /// Returns the pipeline and the values of its parameters.
    ///
    /// # Errors
    /// Usage, when the pipeline cannot be loaded or a required parameter is missing.
    pub fn load(&self, storage: &Storage) -> Result<(Pipeline, Vec<Given>)> {
        let mut pipeline = pipeline::open(storage, self.pipeline.as_deref())?;
        if self.overwrite {
            pipeline.switch_on("overwrite");
        }
        let mut given = self.preset_values()?;
        given.extend(self.parameters.of(&pipeline, self.pipeline.as_deref())?);
        given.extend(gathered(&self.set));
        let attempt = |given: &[Given]| pipeline.values(given).map(drop).map_err(Into::into);
        let checked = attempt(&given);
        checked.map_err(|e| self.parameters.name_culprit(e, &given, attempt))?;
        let values = pipeline.values(&given)?;
        if let Some(parameter) = pipeline.missing(&values).next() {
            let name = &parameter.name;
            let is_flag = ["input", "output"].contains(&name.as_str());
            let error = if is_flag {
                Error::usage(format!("--{name} is required: {}", parameter.help))
            } else {
                Error::usage(format!("parameter {name} is required"))
                    .hint(format!("give it a value: --set {name}=VALUE"))
            };
            return Err(error.into());
        }
        Ok((pipeline, given))
    }

    /// Checks everything that can be known before the work.
    ///
    /// # Errors
    /// Returns the error of the first step that could not run, with the responsible flag or
    /// variable.
    fn check(
        &self,
        storage: &Storage,
        pipeline: &Pipeline,
        given: &[Given],
        place: &str,
    ) -> Result<()> {
        let attempt = |given: &[Given]| pipeline.check(storage, place, &pipeline.values(given)?);
        attempt(given).map_err(|e| self.parameters.name_culprit(e, given, attempt))
    }

    fn preset_values(&self) -> Result<Vec<Given>> {
        let named = |(name, _): &&(&str, &str)| Some(*name) == self.preset.as_deref();
        let Some((name, text)) = PRESETS.iter().find(named) else {
            return Ok(Vec::new());
        };
        let values: BTreeMap<String, String> = toml::from_str(text)
            .map_err(|e| Error::bug(format!("the preset {name} does not parse: {e}")))?;
        let values = values.into_iter();
        Ok(values.map(|(name, value)| (name, vec![value])).collect())
    }

    /// Returns the location of the run, and refuses locations that overlap: the input is never
    /// written to, and the output contains only the dataset.
    ///
    /// # Errors
    /// Usage, when locations overlap or the run's location is unknown.
    pub fn place(&self, values: &ParameterValues) -> Result<String, Error> {
        let one = |name: &str| values.get(name).and_then(|values| values.first());
        let output = one("output").map(|uri| Location::parse(uri)).transpose()?;
        let run = match (&self.run, &output) {
            (Some(run), _) => Location::parse(run)?,
            (None, Some(output)) if output.split().is_some() => {
                Location::parse(&format!("{output}.run"))?
            }
            (None, _) => {
                return Err(
                    Error::usage("no location for the run's manifests").hint("pass one: --run URI")
                );
            }
        };
        if let Some(output) = &output {
            refuse_overlap(("--run", &run), ("--output", output))?;
        }
        for input in values.get("input").into_iter().flatten() {
            let input = Location::parse(input)?;
            refuse_overlap(("--run", &run), ("--input", &input))?;
            if let Some(output) = &output {
                refuse_overlap(("--output", output), ("--input", &input))?;
            }
        }
        Ok(run.to_string())
    }
}

/// Runs all steps, and reports the funnel.
///
/// # Errors
/// Usage, before any work; afterwards the error of the first step that fails.
pub fn run(args: &RunArgs, tool: &mut ToolContext<'_>) -> Result<()> {
    tool.result = Some(json!({}));
    let storage = &tool.shared.storage;
    let (pipeline, given) = args.load(storage)?;
    let values = pipeline.values(&given)?;
    let place = args.place(&values)?;
    let location = Location::parse(&place)?;
    refuse_unwritable("--run", &location)?;
    if let Some(store) = storage.open_if_there(&location)? {
        refuse_other_run(&store, &pipeline)?;
    }
    if args.pull {
        let models = models_of(&pipeline, &place, &values)?;
        if args.dry_run && would_pull(&models, tool)? {
            return print(&pipeline, &place, &values, tool);
        }
        pull_missing(&models, tool)?;
    }
    let storage = &tool.shared.storage;
    args.check(storage, &pipeline, &given, &place)?;
    if args.dry_run {
        return print(&pipeline, &place, &values, tool);
    }
    let store = storage.create(&location)?;
    tracing::info!(run = place, "the run's manifests");
    let work = PipelineRun {
        args,
        pipeline: &pipeline,
        values: &values,
        place: &place,
        store: &store,
        shared: &tool.shared,
        lines: Mutex::default(),
        count: StepCount::new(pipeline.nodes.len()),
    };
    let outcome = work.all_nodes();
    let lines = work.lines.into_inner().unwrap_or_else(|e| e.into_inner());
    let finished = outcome.is_ok();
    tool.up_to_date = finished && lines.iter().all(StepSummary::is_up_to_date);
    let summary = summary(&place, &values, lines, &tool.shared);
    let summary = match (outcome, summary) {
        (Ok(()), summary) => summary?,
        (Err(e), Ok(summary)) => {
            tool.result = Some(summary.as_json());
            return Err(e);
        }
        (Err(e), Err(_)) => return Err(e),
    };
    tool.result = Some(summary.as_json());
    write(&summary, tool.up_to_date, tool.err)?;
    Ok(())
}

/// Refuses a location with a run of another layout version, or with steps of other stages.
fn refuse_other_run(store: &Store, pipeline: &Pipeline) -> Result<()> {
    if let Some(json) = store.get_if_there(layout::RUN_INFO)? {
        RunInfo::check_layout(&json, &store.uri(layout::RUN_INFO))?;
    }
    for node in &pipeline.nodes {
        refuse_other_stage(store, &node.step, node.program.stage())?;
    }
    Ok(())
}

/// Prints the models that would be pulled, and returns whether there are any. Without them, the
/// steps cannot be checked.
fn would_pull(models: &[(String, Location)], tool: &mut ToolContext<'_>) -> Result<bool> {
    let missing = missing(models, &tool.shared.storage)?;
    for (name, cache) in &missing {
        writeln!(tool.err, "the model {name} would be pulled into {cache}")?;
    }
    Ok(!missing.is_empty())
}

/// Prints the steps that would run.
fn print(
    pipeline: &Pipeline,
    place: &str,
    values: &ParameterValues,
    tool: &mut ToolContext<'_>,
) -> Result<()> {
    writeln!(tool.err, "nothing was done; these are the steps:")?;
    for node in &pipeline.nodes {
        writeln!(tool.err, "{}", shell(&node.command(place, values)))?;
    }
    Ok(())
}

/// Returns the models in the steps' command lines, each with its folder of models.
fn models_of(
    pipeline: &Pipeline,
    place: &str,
    values: &ParameterValues,
) -> Result<Vec<(String, Location)>, Error> {
    let mut models = Vec::new();
    for node in &pipeline.nodes {
        let command = node.command(place, values);
        let value = |flag: &str| command.iter().find_map(|word| word.strip_prefix(flag));
        let Some(model) = value("--model=") else {
            continue;
        };
        let cache = value("--models=").map_or_else(models_folder, str::to_owned);
        models.push((model.to_owned(), Location::parse(&cache)?));
    }
    models.dedup();
    Ok(models)
}

/// Returns the results of the run.
fn summary(
    place: &str,
    values: &ParameterValues,
    steps: Vec<StepSummary>,
    shared: &ProcessResources,
) -> Result<Summary, Error> {
    let recorded = Run::open_read_only(&shared.storage, place)?;
    let receipts = counted::receipts(&recorded)?;
    let funnel = Funnel::of_run(&receipts);
    let written = receipts
        .steps()
        .into_iter()
        .flat_map(|step| receipts.of_kind(step, UnitKind::Shard));
    let shards = written.filter_map(Receipt::shard_object);
    let (output_shards, output_bytes) = shards.fold((0, 0), |(n, b), o| (n + 1, b + o.bytes));
    let output = values.get("output").and_then(|values| values.first());
    let output = output.map(|uri| Location::parse(uri)).transpose()?;
    Ok(Summary {
        output: output.map_or_else(|| "none".to_owned(), |output| output.to_string()),
        report: recorded.uri(layout::REPORT),
        run: place.to_owned(),
        funnel,
        output_shards,
        output_bytes,
        steps,
    })
}
