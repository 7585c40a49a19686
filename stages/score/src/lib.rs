//! `sluice-score`: the general scorer. Scores come from a model, from a table of the user's
//! ([`import`]), or from a program of the user's ([`command`]).
//!
//! It gives scores and decides nothing: `sluice-filter` does. There can be any number of instances in
//! a pipeline, each with its own name.

mod columns;
pub mod command;
mod from_command;
mod from_table;
pub mod import;
mod samples;

use std::time::Duration;

use anyhow::Result;
use clap::builder::NonEmptyStringValueParser;
use clap::{Args as ClapArgs, Parser};
use sluice_harness::{Common, Context, Program, StepArgs};
use sluice_manifest::{Error, Operation, Resources, Role, ScoreColumn, StepName, UnitKind};
use sluice_run::{StepOutputs, Upstream};
use sluice_scoring::{ImageProgram, ImageStep, ScorerArgs};
use sluice_store::Storage;

use crate::command::samples::Sent;
use crate::from_command::FromCommand;
use crate::from_table::FromTable;
use crate::import::KeyField;

/// Score images with a model, from a table, or with a program of your own
///
/// Example: sluice-score --run runs/a --step clip --import s3://bucket/clip-scores.parquet --by key
#[derive(Debug, Parser)]
#[command(name = "sluice-score", version)]
pub struct Args {
    /// Where the scores come from: a model, a table or a program.
    #[command(flatten)]
    pub source: ScoreSource,

    /// How a table is joined with the samples.
    #[command(flatten)]
    pub table: TableArgs,

    /// What a program receives and returns.
    #[command(flatten)]
    pub program: ProgramArgs,

    /// The arguments of every scorer that runs a model.
    #[command(flatten)]
    pub scorer: ScorerArgs,
}

/// Where the scores come from.
#[derive(Debug, Clone, ClapArgs)]
#[group(required = true, multiple = false)]
pub struct ScoreSource {
    /// A model: one of the catalogue, or the URI of a folder with model.onnx and model.toml
    #[arg(long, env = "SLUICE_SCORE_MODEL", value_name = "MODEL")]
    pub model: Option<String>,

    /// A table with scores: a .parquet, .csv or .csv.gz object
    #[arg(long, env = "SLUICE_SCORE_IMPORT", value_name = "URI")]
    pub import: Option<String>,

    /// A program that gets samples as an Arrow IPC stream and answers with scores, for sh -c
    #[arg(long, env = "SLUICE_SCORE_COMMAND", value_name = "COMMAND")]
    pub command: Option<String>,
}

/// How a table is read.
#[derive(Debug, Clone, ClapArgs)]
pub struct TableArgs {
    /// What of an image the table is matched by: image_id, key, sha256 or metadata.<path>
    #[arg(
        long,
        env = "SLUICE_SCORE_BY",
        conflicts_with_all = ["model", "command"],
        value_name = "FIELD",
        default_value = "image_id"
    )]
    pub by: KeyField,

    /// The table's column with it (default: the column of the same name)
    #[arg(
        long,
        env = "SLUICE_SCORE_BY_COLUMN",
        conflicts_with_all = ["model", "command"],
        value_name = "COLUMN"
    )]
    pub by_column: Option<String>,

    /// The table's columns of scores (default: all numeric columns)
    #[arg(
        long,
        env = "SLUICE_SCORE_COLUMNS",
        conflicts_with_all = ["model", "command"],
        value_name = "COLUMNS",
        value_delimiter = ',',
        value_parser = NonEmptyStringValueParser::new()
    )]
    pub columns: Vec<String>,
}

/// What a program gets and gives.
#[derive(Debug, Clone, ClapArgs)]
pub struct ProgramArgs {
    /// What the program gets of each image: image, pixels:WxH, caption, metadata, embedding
    #[arg(
        long,
        env = "SLUICE_SCORE_SEND",
        conflicts_with_all = ["model", "import"],
        value_name = "COLUMNS",
        value_delimiter = ',',
        default_value = "image"
    )]
    pub send: Vec<Sent>,

    /// The columns of scores that the program answers with
    #[arg(
        long,
        env = "SLUICE_SCORE_OUTPUTS",
        conflicts_with_all = ["model", "import"],
        value_name = "NAMES",
        value_delimiter = ',',
        value_parser = NonEmptyStringValueParser::new(),
        default_value = "score"
    )]
    pub outputs: Vec<String>,

    /// Seconds that the program may be silent before it is stopped and tried again; 0: no limit
    #[arg(
        long,
        env = "SLUICE_SCORE_TIME_LIMIT",
        conflicts_with_all = ["model", "import"],
        value_name = "SECONDS",
        default_value_t = 600
    )]
    pub time_limit: u64,
}

/// A scorer that was checked.
enum Scorer {
    Model(Box<sluice_scoring::ModelScorer>),
    Table(Box<FromTable>),
    Program(FromCommand),
}

impl Args {
    fn scorer(&self, storage: &Storage) -> Result<Scorer, Error> {
        if let Some(model) = &self.source.model {
            return Ok(Scorer::Model(Box::new(self.scorer.scorer(storage, model)?)));
        }
        if let Some(uri) = &self.source.import {
            return Ok(Scorer::Table(Box::new(FromTable::new(
                storage,
                uri,
                &self.table,
            )?)));
        }
        let step = self.node().step;
        let limit = self.program.time_limit;
        let command = self.source.command.clone().unwrap_or_default();
        let scorer = FromCommand::new(
            command::ScoreCommand {
                command,
                outputs: self.program.outputs.clone(),
                time_limit: (limit > 0).then(|| Duration::from_secs(limit)),
                step: step.to_string(),
            },
            self.program.send.clone(),
            self.scorer.embeddings.clone(),
        )?;
        Ok(Scorer::Program(scorer))
    }
}

impl Program for Args {
    const NAME: &'static str = "sluice-score";
    const ROLE: Role = Role::Scorer;
    const OPERATIONS: &'static [Operation] = &[Operation {
        subcommand: None,
        unit: UnitKind::Partition,
        resources: Resources::Model,
        after: &[],
        revision: 1,
    }];

    fn common(&self) -> &Common {
        &self.scorer.step.common
    }

    fn step_args(&self) -> Option<&StepArgs> {
        Some(&self.scorer.step)
    }

    fn needs(&self) -> Result<Vec<StepName>> {
        let sends_embeddings = self.program.send.contains(&Sent::Embedding);
        Ok(match (&self.source.model, &self.source.command) {
            (Some(model), _) => self.scorer.needs(model),
            (None, Some(_)) if sends_embeddings => self.scorer.embeddings.iter().cloned().collect(),
            _ => Vec::new(),
        })
    }

    fn check(&self, upstream: &Upstream) -> Result<StepOutputs> {
        let scores = match self.scorer(&upstream.storage)? {
            Scorer::Model(scorer) => return Ok(scorer.check(upstream)?),
            Scorer::Table(scorer) => scorer.columns().to_vec(),
            Scorer::Program(scorer) => scorer.check(upstream)?,
        };
        Ok(StepOutputs {
            scores,
            ..StepOutputs::default()
        })
    }

    fn run(&self, context: &Context) -> Result<()> {
        match self.scorer(&context.storage)? {
            Scorer::Model(scorer) => Ok(scorer.run(context)?),
            Scorer::Table(scorer) => scorer.run(context),
            Scorer::Program(scorer) => scorer.run(context),
        }
    }
}

impl ImageProgram for Args {
    fn image_step(&self, storage: &Storage) -> Result<Option<Box<dyn ImageStep>>, Error> {
        let Some(model) = &self.source.model else {
            return Ok(None);
        };
        let scorer = self.scorer.scorer(storage, model)?;
        Ok(scorer.into_image_step())
    }
}

/// Columns of which nothing is known but their names.
fn named_columns(names: &[String]) -> Vec<ScoreColumn> {
    names.iter().map(|name| ScoreColumn::named(name)).collect()
}
