//! `sluice run`: all steps of a pipeline, in this process.
//!
//! Each step is the stage's own program. Its command line is built, parsed and run like one that a
//! user types. A failed step can therefore be run by hand, and `run` does nothing that a workflow
//! engine cannot do. Everything that can be checked is checked before the work. A second call does
//! the work that is not up to date.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::json;
use sluice_harness::{
    ProcessResources, Starter, StepCount, StepDone, ToolContext, parse_bytes, shell, spawn,
};
use sluice_manifest::text::masked;
use sluice_manifest::{Error, Receipt, RunInfo, UnitKind, layout};
use sluice_run::funnel::Funnel;
use sluice_run::{Run, counted, refuse_other_stage, refuse_overlap, refuse_unwritable};
use sluice_store::{Location, Storage, Store};

use crate::funnel::{StepSummary, Summary, write};
use crate::models::{missing, models_folder, pull_missing};
use crate::pass::{OpenStep, run_pass};
use crate::pipeline::commands::{Given, Parameters, Setting, gathered};
use crate::pipeline::{self, ParameterValues, Pipeline, PipelineNode};

/// Cores for each of several concurrent steps.
const CORES_A_STEP: usize = 2;

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

/// A running pipeline.
struct PipelineRun<'a> {
    args: &'a RunArgs,
    pipeline: &'a Pipeline,
    values: &'a ParameterValues,
    place: &'a str,
    store: &'a Store,
    shared: &'a ProcessResources,
    lines: Mutex<Vec<StepSummary>>,
    count: StepCount,
}

/// Nodes that run together.
struct Group<'a> {
    nodes: Vec<&'a PipelineNode>,
    /// The steps of the nodes, if they share a pass over the images; otherwise empty.
    pass: Vec<OpenStep>,
}

impl<'a> Group<'a> {
    fn of(node: &'a PipelineNode) -> Self {
        Self {
            nodes: vec![node],
            pass: Vec::new(),
        }
    }

    fn names(&self) -> Vec<&'a str> {
        self.nodes.iter().map(|node| node.name.as_str()).collect()
    }

    /// Returns whether the group's dependencies are done: those of its first node. The other nodes of a
    /// pass have the same survivors, and their models take images, even if the pipeline names an
    /// earlier step's embeddings for them.
    fn is_free(&self, done: &BTreeSet<&str>) -> bool {
        let first = self.nodes.first();
        first.is_some_and(|node| node.after.iter().all(|name| done.contains(name.as_str())))
    }
}

impl<'a> PipelineRun<'a> {
    /// Runs the nodes, independent ones concurrently if there are enough cores.
    fn all_nodes(&self) -> Result<()> {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let at_once = (self.args.jobs.unwrap_or(cpus) / CORES_A_STEP).max(1);
        let mut waiting = self.groups()?;
        let (sender, receiver) = channel();
        let mut done: BTreeSet<&str> = BTreeSet::new();
        let mut at_work = 0;
        let mut outcome = Ok(());
        std::thread::scope(|scope| {
            loop {
                while outcome.is_ok()
                    && at_work < at_once
                    && let Some(next) = waiting.iter().position(|group| group.is_free(&done))
                {
                    at_work += 1;
                    let group = waiting.remove(next);
                    let names = group.names();
                    let (sender, failed) = (sender.clone(), sender.clone());
                    let begun = spawn(scope, move || {
                        // The receiver waits for every started group.
                        let _ = sender.send((group.names(), self.one_group(&group)));
                    });
                    if let Err(e) = begun {
                        let _ = failed.send((names, Err(e.into())));
                    }
                }
                if at_work == 0 {
                    break; // every group is done, or one failed
                }
                // Unwrap safety: a running group owns a sender.
                let (names, result) = receiver.recv().expect("a group is at work");
                at_work -= 1;
                done.extend(names);
                if outcome.is_ok() {
                    outcome = result;
                }
            }
        });
        outcome
    }

    /// Returns the nodes in groups, in order. Nodes that run models on the images of the same survivors
    /// are one group.
    fn groups(&self) -> Result<Vec<Group<'a>>> {
        let mut groups: Vec<Group<'_>> = Vec::new();
        for node in &self.pipeline.nodes {
            let Some(step) = self.image_step(node)? else {
                groups.push(Group::of(node));
                continue;
            };
            let is_same = |group: &&mut Group<'_>| {
                let first = group.pass.first();
                first.is_some_and(|first| first.has_same_samples(&step))
            };
            match groups.iter_mut().find(is_same) {
                Some(group) => {
                    group.nodes.push(node);
                    group.pass.push(step);
                }
                None => groups.push(Group {
                    nodes: vec![node],
                    pass: vec![step],
                }),
            }
        }
        Ok(groups)
    }

    /// Returns the step of a node that runs a model on images, or `None` if no other node may do so for
    /// the same survivors.
    fn image_step(&self, node: &PipelineNode) -> Result<Option<OpenStep>> {
        let survivors =
            |node: &'a PipelineNode| node.program.images.map(|_| node.argument("survivors-of"));
        let Some(open) = node.program.images else {
            return Ok(None);
        };
        let own = Some(node.argument("survivors-of"));
        let nodes = self.pipeline.nodes.iter();
        if nodes.filter(|other| survivors(other) == own).count() < 2 {
            return Ok(None);
        }
        let opened = open(&self.command(node), self.shared, Starter::Run);
        opened.with_context(|| format!("step {}", node.name))
    }

    fn command(&self, node: &PipelineNode) -> Vec<String> {
        let mut command = node.command(self.place, self.values);
        if let Some(jobs) = self.args.jobs {
            command.push(format!("--jobs={jobs}"));
        }
        if self.args.force {
            command.push("--force".to_owned());
        }
        command
    }

    fn one_group(&self, group: &Group<'_>) -> Result<()> {
        for node in &group.nodes {
            tracing::debug!(step = node.name, "{}", shell(&self.command(node)));
            self.count.begin(&node.name);
        }
        let done = match group.nodes.as_slice() {
            [node] => (node.program.run)(&self.command(node), self.shared).map(|done| vec![done]),
            _ => self.one_pass(&group.pass),
        };
        group
            .nodes
            .iter()
            .for_each(|node| self.count.end(&node.name));
        let done = done.with_context(|| {
            let by_hand = group.nodes.iter().map(|node| shell(&self.command(node)));
            let by_hand: Vec<String> = by_hand.map(|command| format!("`{command}`")).collect();
            let step = if by_hand.len() == 1 { "step" } else { "steps" };
            let names = group.names().join(", ");
            format!("{step} {names} (by hand: {})", by_hand.join(", "))
        })?;
        for (node, done) in group.nodes.iter().zip(done) {
            let others = group.names().into_iter().filter(|name| *name != node.name);
            let shared_with = others.map(str::to_owned).collect();
            self.end_node(node, shared_with, done)?;
        }
        Ok(())
    }

    fn one_pass(&self, pass: &[OpenStep]) -> Result<Vec<StepDone>> {
        let started = Instant::now();
        run_pass(pass)?;
        pass.iter().map(|step| step.done(started)).collect()
    }

    fn end_node(
        &self,
        node: &PipelineNode,
        shared_with: Vec<String>,
        done: StepDone,
    ) -> Result<()> {
        tracing::info!(
            step = node.name,
            units = done.units,
            up_to_date = done.up_to_date,
            seconds = (done.seconds * 1000.0).round() / 1000.0,
            "step done"
        );
        if node.operation.unit == UnitKind::Plan && node.after.is_empty() {
            self.put_pipeline()?;
        }
        let mut lines = self.lines.lock().unwrap_or_else(|e| e.into_inner());
        lines.push(StepSummary {
            step: node.name.clone(),
            command: shell(&self.command(node)),
            shared_with,
            done,
        });
        Ok(())
    }

    /// Writes the pipeline file into the run, after the check that the run belongs to this input.
    fn put_pipeline(&self) -> Result<()> {
        let resolved = self.pipeline.file.resolved(self.values);
        let text = toml::to_string(&resolved)?;
        Ok(self
            .store
            .put(layout::PIPELINE, masked(&text).into_owned())?)
    }
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::{Args as Sluice, SluiceCommand};

    fn args(line: &str) -> RunArgs {
        let args = Sluice::try_parse_from(line.split(' ')).unwrap();
        match args.command {
            SluiceCommand::Run(args) => *args,
            _ => panic!("{line}"),
        }
    }

    fn place(line: &str) -> Result<String> {
        let args = args(line);
        let (pipeline, given) = args.load(&Storage::default())?;
        Ok(args.place(&pipeline.values(&given)?)?)
    }

    #[test]
    fn the_run_is_beside_the_output() {
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
            "sluice run --input /data",
            "sluice run --output /out",
            "sluice run --input /data --output file:///data/./out",
            "sluice run --input /data/ --output /x/../data",
            "sluice run --input s3://b/in --output S3://b//in/out",
            "sluice run --input s3://b/in --output s3://b/out --run s3://b/out/run",
        ] {
            assert!(place(line).is_err(), "{line}");
        }
    }

    /// Returns the error of a command line. Without `typed`, its values come from the environment.
    fn refused(line: &str, typed: bool) -> String {
        let line = format!("sluice run --input memory://in --output memory://out {line}");
        let mut args = args(&line);
        if !typed {
            args.parameters.from_line.clear();
        }
        let storage = Storage::default();
        let loaded = args.load(&storage);
        let checked = loaded
            .and_then(|(pipeline, given)| args.check(&storage, &pipeline, &given, "memory://run"));
        format!("{:#}", checked.unwrap_err())
    }

    #[test]
    fn errors_name_the_flag_or_the_variable() {
        for (line, flag, variable) in [
            (
                "--max-nsfw abc",
                "--max-nsfw: step filter: ",
                "SLUICE_MAX_NSFW",
            ),
            (
                "--min-aesthetic nan",
                "--min-aesthetic: step filter: ",
                "SLUICE_MIN_AESTHETIC",
            ),
            ("--eps 3", "'--eps <EPS>'", "SLUICE_EPS"),
            ("--keep foo", "best, hard, easy, random", "SLUICE_KEEP"),
            ("--min-side -1", "parameter min-side: ", "SLUICE_MIN_SIDE"),
            ("--eps 0.1 --ranges 0", "'--ranges <N>'", "SLUICE_RANGES"),
        ] {
            let (typed, set) = (refused(line, true), refused(line, false));
            assert!(typed.contains(flag), "{line}: {typed}");
            let start = format!("{variable} of the environment: ");
            assert!(set.starts_with(&start), "{line}: {set}");
        }
    }

    #[test]
    fn a_preset_is_a_set_of_defaults() {
        let all = lines("sluice run --input data --output out --preset small --eps 0.2");
        for word in [
            "efficientnet-lite0",
            "technical-quality",
            "opennsfw",
            "--eps=0.2",
        ] {
            assert!(all.contains(word), "{word}");
        }
    }

    /// Returns the command lines of the default pipeline.
    fn lines(line: &str) -> String {
        let args = args(line);
        let (pipeline, given) = args.load(&Storage::default()).unwrap();
        let mut values = pipeline.values(&given).unwrap();
        if !line.contains("--models") {
            values.remove("models"); // may be set in the environment
        }
        let lines = pipeline
            .nodes
            .iter()
            .map(|node| shell(&node.command("runs/a", &values)));
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn options_that_were_not_given_are_left_out() {
        insta::assert_snapshot!(lines("sluice run --input data --output out"), @r"
        sluice-partition --run=runs/a --input=data
        sluice-read --run=runs/a
        sluice-filter --run=runs/a --step=usable '--rule=large=min(width, height) >= 1' '--rule=shape=aspect <= 1000000'
        sluice-dedup exact --run=runs/a --step=exact --survivors-of=usable --methods=exact
        sluice-embed --run=runs/a --survivors-of=exact --model=clip-vit-l14
        sluice-aesthetic --run=runs/a --survivors-of=exact --embeddings=embed --model=laion-aesthetic-v2
        sluice-nsfw --run=runs/a --survivors-of=exact --embeddings=embed --model=laion-nsfw
        sluice-filter --run=runs/a --survivors-of=exact --min=aesthetic= --max=nsfw=
        sluice-dedup pairs --run=runs/a --survivors-of=filter --methods=perceptual,semantic
        sluice-dedup perceptual --run=runs/a --survivors-of=filter --methods=perceptual,semantic --rank-by=aesthetic
        sluice-dedup fit --run=runs/a --survivors-of=filter --embeddings=embed --methods=perceptual,semantic
        sluice-dedup assign --run=runs/a --survivors-of=filter --embeddings=embed --methods=perceptual,semantic --rank-by=aesthetic
        sluice-dedup match --run=runs/a --survivors-of=filter --methods=perceptual,semantic
        sluice-export decide --run=runs/a --survivors-of=dedup
        sluice-export plan --run=runs/a --survivors-of=dedup --scores=aesthetic,nsfw --output=out
        sluice-export write --run=runs/a --survivors-of=dedup
        sluice-export index --run=runs/a --survivors-of=dedup
        sluice-report --run=runs/a
        ");
    }

    #[test]
    fn options_reach_their_step() {
        let all = "sluice run --input a/*.tar b --output out --embedder e --aesthetic s --nsfw n \
            --min-aesthetic -1.5 --max-nsfw 0.5 --eps 0.15 --keep hard --clusters 7 --max-distance 3 \
            --min-side 200 --max-aspect 3 --bytes-per-shard 1000000 --shards-per-partition 2 \
            --embeddings --models /models";
        insta::assert_snapshot!(lines(all), @r"
        sluice-partition --run=runs/a '--input=a/*.tar' --input=b --shards-per-partition=2
        sluice-read --run=runs/a
        sluice-filter --run=runs/a --step=usable '--rule=large=min(width, height) >= 200' '--rule=shape=aspect <= 3'
        sluice-dedup exact --run=runs/a --step=exact --survivors-of=usable --methods=exact
        sluice-embed --run=runs/a --survivors-of=exact --models=/models --model=e
        sluice-aesthetic --run=runs/a --survivors-of=exact --embeddings=embed --models=/models --model=s
        sluice-nsfw --run=runs/a --survivors-of=exact --embeddings=embed --models=/models --model=n
        sluice-filter --run=runs/a --survivors-of=exact --min=aesthetic=-1.5 --max=nsfw=0.5
        sluice-dedup pairs --run=runs/a --survivors-of=filter --methods=perceptual,semantic --max-distance=3
        sluice-dedup perceptual --run=runs/a --survivors-of=filter --methods=perceptual,semantic --rank-by=aesthetic --max-distance=3
        sluice-dedup fit --run=runs/a --survivors-of=filter --embeddings=embed --methods=perceptual,semantic --clusters=7
        sluice-dedup assign --run=runs/a --survivors-of=filter --embeddings=embed --methods=perceptual,semantic --rank-by=aesthetic
        sluice-dedup match --run=runs/a --survivors-of=filter --methods=perceptual,semantic --eps=0.15 --keep=hard
        sluice-export decide --run=runs/a --survivors-of=dedup
        sluice-export plan --run=runs/a --survivors-of=dedup --scores=aesthetic,nsfw --output=out --bytes-per-shard=1000000 --embeddings=true
        sluice-export write --run=runs/a --survivors-of=dedup
        sluice-export index --run=runs/a --survivors-of=dedup
        sluice-report --run=runs/a
        ");
    }
}
