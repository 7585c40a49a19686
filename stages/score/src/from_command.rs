//! The scorer that runs a program of the user's, once for each unit.

use std::collections::HashMap;

use anyhow::Result;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Float32Type;
use serde::{Deserialize, Serialize};
use sluice_harness::{Context, OpenUnit, Work};
use sluice_inference::Images;
use sluice_manifest::layout::{EMBEDDINGS, SCORES};
use sluice_manifest::text::masked;
use sluice_manifest::{Error, ImageId, ScoreColumn, StepName, Unit, rows};
use sluice_run::{Plan, Survivors, Upstream};
use sluice_scoring::{Join, Previous, ScoreWriter};
use sluice_store::Store;

use crate::command::ScoreCommand;
use crate::command::samples::{SampleBatch, Sent};
use crate::named_columns;
use crate::samples::Samples;

/// The settings that shape the scores of a program. What else the program depends on is unknown: when
/// it changes, change its command line, or use --force.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// The command line, credentials in its URIs left out.
    pub command: String,
    /// What it gets.
    pub send: Vec<String>,
    /// The columns of scores.
    pub outputs: Vec<String>,
}

/// What the rehearsal states as the length of an embedding where the model's spec does not state it.
const UNKNOWN_DIMENSION: usize = 1;

/// Scores from a program.
pub(crate) struct FromCommand {
    command: ScoreCommand,
    sent: Vec<Sent>,
    embeddings: StepName,
}

/// The program's scores by image id, one for each output.
type Answers = HashMap<String, Vec<f32>>;

/// What all units need.
struct Run<'a> {
    scorer: &'a FromCommand,
    context: &'a Context,
    plan: &'a Plan,
    input: &'a Store,
    survivors: &'a Survivors<'a>,
}

impl FromCommand {
    /// Takes the command.
    ///
    /// # Errors
    /// Usage, when a column is sent twice.
    pub(crate) fn new(
        command: ScoreCommand,
        sent: Vec<Sent>,
        embeddings: Option<StepName>,
    ) -> Result<Self, Error> {
        SampleBatch::new(&sent, 1)?;
        Ok(Self {
            command,
            sent,
            embeddings: embeddings.unwrap_or_else(|| StepName::fixed("embed")),
        })
    }

    /// Checks the command, starts the program once with no images, and checks that embeddings are there
    /// where they are sent. Returns the columns of the scores.
    ///
    /// # Errors
    /// Usage; transient, when the program asks to be started again.
    pub(crate) fn check(&self, upstream: &Upstream) -> Result<Vec<ScoreColumn>> {
        self.command.check()?;
        let mut dimension = UNKNOWN_DIMENSION;
        if self.sent.contains(&Sent::Embedding) {
            let embedder = upstream.embedder(&self.embeddings)?;
            dimension = embedder.dimension.unwrap_or(dimension);
        }
        let samples = SampleBatch::new(&self.sent, dimension)?;
        let stop = || upstream.storage.check_stop();
        self.command.rehearse(samples.schema(), &stop)?;
        Ok(named_columns(&self.command.outputs))
    }

    /// Scores the partitions that are this process's share.
    ///
    /// # Errors
    /// Of the class that follows from the program's exit; of storage.
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        self.command.check()?;
        let plan = context.plan()?;
        let run = Run {
            scorer: self,
            context,
            input: &plan.input()?,
            plan: &plan,
            survivors: &context.survivors(context.node().survivors_of.as_ref())?,
        };
        context.each_unit(plan.units(), 1, |unit| run.partition(unit))
    }
}

impl Run<'_> {
    fn partition(&self, unit: Unit) -> Result<()> {
        let scorer = self.scorer;
        let planned = self.plan.partition(unit)?;
        let mut inputs = self.survivors.inputs(planned.partition)?;
        if scorer.sent.contains(&Sent::Embedding) {
            inputs.push(self.context.input(&scorer.embeddings, unit)?);
        }
        let outputs = &scorer.command.outputs;
        let work = Work {
            unit,
            units: self.plan.partitions.len(),
            settings: Settings {
                command: masked(&scorer.command.command).into_owned(),
                send: scorer.sent.iter().map(Sent::to_string).collect(),
                outputs: outputs.clone(),
            },
            inputs,
        };
        let Some(open_unit) = self.context.begin(work)? else {
            return Ok(());
        };
        let names: Vec<&str> = outputs.iter().map(String::as_str).collect();
        let previous = Previous::of(&open_unit, &SCORES, rows::SCORES, &names)?;
        let images = Images {
            run: &self.context.run,
            input: self.input,
            partition: planned,
            survivors: self.survivors,
        };
        let (sent, mut answers) = self.ask(&open_unit, images, previous.as_ref())?;
        let columns = named_columns(outputs);
        let mut writer = ScoreWriter::open(self.context, &open_unit, &columns, &[])?;
        let partition = planned.partition;
        let mut join = Join::open(self.context, self.survivors, partition, previous.as_ref())?;
        for id in sent {
            if let Some(scores) = answers.remove(id.as_str()) {
                join.advance(Some(&id), |id, scores| writer.push(id, scores))?;
                writer.push(id, &scores)?;
            }
        }
        join.advance(None, |id, scores| writer.push(id, scores))?;
        Ok(writer.commit(open_unit, join.survivors, join.reused)?)
    }

    /// Runs the program on the images that have no row yet. Returns those that were sent, in order,
    /// and the answers.
    fn ask(
        &self,
        open_unit: &OpenUnit<'_>,
        images: Images<'_>,
        previous: Option<&Previous>,
    ) -> Result<(Vec<ImageId>, Answers)> {
        let scorer = self.scorer;
        let embeddings = EMBEDDINGS.path(&scorer.embeddings, open_unit.unit());
        let skip = Previous::has_row(previous, self.context)?;
        let samples = Samples::open(
            images,
            &self.context.memory,
            &scorer.sent,
            &embeddings,
            skip,
        )?;
        let schema = samples.schema().clone();
        let sent = samples.sent();
        let mut answers = HashMap::new();
        let mut samples = samples.peekable();
        if samples.peek().is_none() {
            return Ok((Vec::new(), answers)); // nothing is left to score
        }
        let context = self.context;
        scorer.command.run(
            &open_unit.unit().to_string(),
            &schema,
            samples,
            &|| context.check_stop(),
            |batch| {
                open_unit.advance(batch.num_rows())?;
                take_answers(&batch, &scorer.command.outputs, &mut answers)
            },
        )?;
        let sent = std::mem::take(&mut *sent.lock().unwrap_or_else(|e| e.into_inner()));
        Ok((sent, answers))
    }
}

fn take_answers(
    batch: &RecordBatch,
    outputs: &[String],
    answers: &mut Answers,
) -> Result<(), Error> {
    let ids = batch["image_id"].as_string::<i32>();
    for row in 0..batch.num_rows() {
        let scores = outputs.iter().map(|name| {
            let column = batch[name.as_str()].as_primitive::<Float32Type>();
            if column.is_valid(row) {
                column.value(row)
            } else {
                f32::NAN
            }
        });
        answers.insert(ids.value(row).to_owned(), scores.collect());
    }
    Ok(())
}
