//! `sluice run`: all steps of a pipeline, in this process.
//!
//! Each step is the stage's own program: its command line is made, parsed and run as if it had been
//! typed. So a step that fails can be done by hand, and nothing that `run` does is out of a workflow
//! engine's reach. All that can be known before the work is checked before it. Running it again does
//! what is not up to date.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc::channel;

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::json;
use sluice_harness::{
    Context, Desk, Shared, StepCount, parse_bytes, refuse_other_stage, refuse_overlap,
    refuse_unwritable, shell, spawn,
};
use sluice_manifest::text::masked;
use sluice_manifest::{Error, Receipt, RunInfo, UnitKind, layout};
use sluice_report::{Funnel, counted};
use sluice_store::{Location, Storage, Store};

use crate::Args as Sluice;
use crate::funnel::{StepLine, Summary, write};
use crate::models::{missing, models_folder, pull_missing};
use crate::pipeline::commands::{Given, Parameters, Setting, gathered};
use crate::pipeline::{self, Node, Pipeline, Values};

/// Cores for each step that runs beside others.
const CORES_A_STEP: usize = 2;

/// Presets: other defaults for parameters of the default pipeline, as TOML.
const PRESETS: [(&str, &str); 1] = [("small", include_str!("../pipelines/small.preset.toml"))];

/// Curate a dataset on this machine: all steps of a pipeline, from the shards to the report
///
/// Run it again to go on where it stopped, or after changing an option: only what the change
/// affects is done again. The flags under headings belong to the default pipeline.
///
/// Example: sluice run --input data/ --output out/ --min-aesthetic 5.0 --max-nsfw 0.5
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// The pipeline file (default: the default pipeline, which `sluice pipeline show` prints)
    #[arg(long, env = "SLUICE_PIPELINE", value_name = "URI")]
    pub pipeline: Option<String>,

    /// Other defaults for the default pipeline: small (models for a laptop, less exact than the usual
    /// ones)
    #[arg(long, env = "SLUICE_PRESET", value_name = "NAME", value_parser = PRESETS.map(|(name, _)| name), conflicts_with = "pipeline")]
    pub preset: Option<String>,

    /// The value of a parameter of the pipeline file
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<Setting>,

    /// Parameters of the default pipeline, and of files that have parameters of the same names
    #[command(flatten)]
    pub parameters: Parameters,

    /// Where the run's manifests go (default: beside the output, its name with .run)
    #[arg(long, env = "SLUICE_RUN", value_name = "URI")]
    pub run: Option<String>,

    /// Threads that work at once (default: the CPUs that the cgroup grants)
    #[arg(long, env = "SLUICE_JOBS", value_name = "N", value_parser = sluice_harness::jobs())]
    pub jobs: Option<usize>,

    /// Memory for decoding, all threads together: bytes, or 768M, 2G (default: 96M for each thread)
    ///
    /// At least 768M, and at most half of what the cgroup grants.
    #[arg(long, env = "SLUICE_MEMORY", value_name = "BYTES", value_parser = parse_bytes)]
    pub memory: Option<u64>,

    /// Check everything and print the command line of each step; nothing is written
    #[arg(long)]
    pub dry_run: bool,

    /// Do all work again even where it is up to date
    #[arg(long, env = "SLUICE_FORCE")]
    pub force: bool,

    /// Get the models that are missing first: of the catalogue, and hf://ORG/NAME
    #[arg(long)]
    pub pull: bool,

    /// Replace an existing output, whatever wrote it
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
            let error = match is_flag {
                true => Error::usage(format!("--{name} is required: {}", parameter.help)),
                false => Error::usage(format!("parameter {name} is required"))
                    .hint(format!("give it a value: --set {name}=VALUE")),
            };
            return Err(error.into());
        }
        Ok((pipeline, given))
    }

    /// Checks all that can be known before the work.
    ///
    /// # Errors
    /// Of the first step that could not work, with the flag or the variable that it is about.
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

    /// Returns where the run is, and refuses places that would get in each other's way: the input is
    /// never written to, and the output holds the dataset and nothing else.
    ///
    /// # Errors
    /// Usage, when places overlap or no place for the run is known.
    pub fn place(&self, values: &Values) -> Result<String, Error> {
        let one = |name: &str| values.get(name).and_then(|values| values.first());
        let output = one("output").map(|uri| Location::parse(uri)).transpose()?;
        let run = match (&self.run, &output) {
            (Some(run), _) => Location::parse(run)?,
            (None, Some(output)) if output.split().is_some() => {
                Location::parse(&format!("{output}.run"))?
            }
            (None, _) => {
                return Err(
                    Error::usage("no place for the run's manifests").hint("name one: --run URI")
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

/// Does all steps, and reports where the samples went.
///
/// # Errors
/// Usage, before any work; of the first step that fails.
pub fn run(args: &RunArgs, desk: &mut Desk<'_>) -> Result<()> {
    desk.result = Some(json!({}));
    let storage = &desk.shared.storage;
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
        if args.dry_run && would_pull(&models, desk)? {
            return print(&pipeline, &place, &values, desk);
        }
        pull_missing(&models, desk)?;
    }
    let storage = &desk.shared.storage;
    args.check(storage, &pipeline, &given, &place)?;
    if args.dry_run {
        return print(&pipeline, &place, &values, desk);
    }
    let store = storage.create(&location)?;
    tracing::info!(run = place, "the run's manifests");
    let work = Work {
        args,
        pipeline: &pipeline,
        values: &values,
        place: &place,
        store: &store,
        shared: &desk.shared,
        lines: Mutex::default(),
        count: StepCount::new(pipeline.nodes.len()),
    };
    let outcome = work.all_nodes();
    let lines = work.lines.into_inner().unwrap_or_else(|e| e.into_inner());
    let finished = outcome.is_ok();
    desk.up_to_date = finished && lines.iter().all(StepLine::is_up_to_date);
    let summary = summary(&place, &values, lines, &desk.shared);
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

/// Refuses a place with a run of another layout, or with steps of other stages.
fn refuse_other_run(store: &Store, pipeline: &Pipeline) -> Result<()> {
    if let Some(json) = store.get_if_there(layout::RUN_INFO)? {
        RunInfo::check_layout(&json, &store.uri(layout::RUN_INFO))?;
    }
    for node in &pipeline.nodes {
        refuse_other_stage(store, &node.step, node.program.stage())?;
    }
    Ok(())
}

/// Prints which models would be pulled; returns whether there are any. Until they are here, the steps
/// cannot be checked.
fn would_pull(models: &[(String, Location)], desk: &mut Desk<'_>) -> Result<bool> {
    let missing = missing(models, &desk.shared.storage)?;
    for (name, cache) in &missing {
        writeln!(desk.err, "the model {name} would be pulled into {cache}")?;
    }
    Ok(!missing.is_empty())
}

/// Prints what would be done.
fn print(pipeline: &Pipeline, place: &str, values: &Values, desk: &mut Desk<'_>) -> Result<()> {
    writeln!(desk.err, "nothing was done; these are the steps:")?;
    for node in &pipeline.nodes {
        writeln!(desk.err, "{}", shell(&node.command(place, values)))?;
    }
    Ok(())
}

/// Returns the models that the steps' command lines name, with the folder of models of each.
fn models_of(
    pipeline: &Pipeline,
    place: &str,
    values: &Values,
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

/// A pipeline at work.
struct Work<'a> {
    args: &'a RunArgs,
    pipeline: &'a Pipeline,
    values: &'a Values,
    place: &'a str,
    store: &'a Store,
    shared: &'a Shared,
    lines: Mutex<Vec<StepLine>>,
    count: StepCount,
}

impl Work<'_> {
    /// Runs the nodes, several at once where they do not depend on each other and there are cores.
    fn all_nodes(&self) -> Result<()> {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let at_once = (self.args.jobs.unwrap_or(cpus) / CORES_A_STEP).max(1);
        let nodes = &self.pipeline.nodes;
        let (sender, receiver) = channel();
        let mut begun: BTreeSet<&str> = BTreeSet::new();
        let mut done: BTreeSet<&str> = BTreeSet::new();
        let mut outcome = Ok(());
        std::thread::scope(|scope| {
            while done.len() < nodes.len() {
                let is_free = |node: &&Node| {
                    !begun.contains(node.name.as_str())
                        && node.after.iter().all(|name| done.contains(name.as_str()))
                };
                let room = at_once - (begun.len() - done.len());
                let free: Vec<&Node> = nodes.iter().filter(is_free).take(room).collect();
                for node in free.into_iter().filter(|_| outcome.is_ok()) {
                    begun.insert(&node.name);
                    let sender = sender.clone();
                    let failed = sender.clone();
                    let begun = spawn(scope, move || {
                        // The receiver waits for every node that was begun.
                        let _ = sender.send((node, self.one_node(node)));
                    });
                    if let Err(e) = begun {
                        let _ = failed.send((node, Err(e.into())));
                    }
                }
                if begun.len() == done.len() {
                    break; // after a failure
                }
                // Unwrap safety: a node at work holds a sender.
                let (node, result) = receiver.recv().expect("a node is at work");
                done.insert(&node.name);
                if outcome.is_ok() {
                    outcome = result;
                }
            }
        });
        outcome
    }

    fn one_node(&self, node: &Node) -> Result<()> {
        let mut command = node.command(self.place, self.values);
        if let Some(jobs) = self.args.jobs {
            command.push(format!("--jobs={jobs}"));
        }
        if self.args.force {
            command.push("--force".to_owned());
        }
        let name = node.name.as_str();
        tracing::debug!(step = name, "{}", shell(&command));
        self.count.begin(name);
        let done = (node.program.run)(&command, self.shared);
        self.count.end(name);
        let done = done.with_context(|| format!("step {name} (by hand: `{}`)", shell(&command)))?;
        tracing::info!(
            step = name,
            units = done.units,
            up_to_date = done.up_to_date,
            seconds = (done.seconds * 1000.0).round() / 1000.0,
            "step done"
        );
        if node.operation.unit == UnitKind::Plan && node.after.is_empty() {
            self.put_pipeline()?;
        }
        let mut lines = self.lines.lock().unwrap_or_else(|e| e.into_inner());
        lines.push(StepLine {
            step: node.name.clone(),
            command: shell(&command),
            done,
        });
        Ok(())
    }

    /// Writes what the run is made with, once it is clear that the run is this input's.
    fn put_pipeline(&self) -> Result<()> {
        let resolved = self.pipeline.file.resolved(self.values);
        let text = toml::to_string(&resolved)?;
        Ok(self
            .store
            .put(layout::PIPELINE, masked(&text).into_owned())?)
    }
}

/// What the run holds now.
fn summary(
    place: &str,
    values: &Values,
    steps: Vec<StepLine>,
    shared: &Shared,
) -> Result<Summary, Error> {
    let context = Context::look(place, <Sluice as sluice_harness::Tool>::NAME, shared)?;
    let receipts = counted::receipts(&context)?;
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
        report: context.run.uri(layout::REPORT),
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
    use crate::Command;

    fn args(line: &str) -> RunArgs {
        let args = Sluice::try_parse_from(line.split(' ')).unwrap();
        match args.command {
            Command::Run(args) => *args,
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

    /// Returns why a command line is refused; not `typed`: with its values from the environment.
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

    /// The command lines of the default pipeline.
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
