//! All facts about one image that a run's manifests contain.

use arrow::array::{Array, AsArray};
use arrow::datatypes::Float32Type;
use serde::Serialize;
use sluice_manifest::layout::{EMBEDDINGS, SCORES};
use sluice_manifest::rows::{self, PlanRow, SampleRow, ShardKind, Status};
use sluice_manifest::{ImageId, Partition, Receipt, Result, ScoreName, StepName, Unit, UnitKind};
use sluice_run::{planned, settings, steps};

use super::decisions::{Decision, FinalDecision, Link, Neighbour, first_drop};
use super::lookup::{Lookup, row_of};
use super::output::OutputPlace;

/// All known facts about an image.
#[derive(Debug, Serialize)]
pub struct ImageFacts {
    /// The image.
    pub image_id: ImageId,
    /// Its partition.
    pub partition: Partition,
    /// Its shard.
    pub shard: String,
    /// Its row of `read/images`; `None` if `read` has not processed it.
    pub sample: Option<SampleRow>,
    /// Whether encoders computed an embedding. Encoders that the image did not reach are left out.
    pub embeddings: Vec<EmbeddedBy>,
    /// The scores. Scorers that the image did not reach are left out.
    pub scores: Vec<ImageScore>,
    /// The decisions of the deciding steps, up to the step that dropped it.
    pub decisions: Vec<Decision>,
    /// The images that it duplicates, and why.
    pub duplicates: Vec<Link>,
    /// Other duplicates of the same image, or of this one.
    pub neighbours: Vec<Neighbour>,
    /// The final decision: the export's, or, before the export ran, that of the step that dropped
    /// it.
    pub decision: Option<FinalDecision>,
    /// Its location in the curated dataset.
    pub output: Option<OutputPlace>,
    /// Steps that have not processed this image.
    pub not_run: Vec<String>,
}

/// Whether an encoder computed an embedding.
#[derive(Debug, Serialize)]
pub struct EmbeddedBy {
    /// The encoder's step.
    pub step: StepName,
    /// The model.
    pub model: Option<String>,
    /// Whether there is an embedding.
    pub embedded: bool,
}

/// The score of an image from one scorer.
#[derive(Debug, Serialize)]
pub struct ImageScore {
    /// The score's name: the step, and the output if the step has several.
    pub name: ScoreName,
    /// The model, or the object that the score was imported from.
    pub model: Option<String>,
    /// The score; `None` if the image has none.
    pub score: Option<f32>,
}

impl Lookup<'_> {
    /// Returns all facts about an image.
    ///
    /// # Errors
    /// Usage, when there is no such image; data, when a manifest is missing or broken.
    pub fn facts(&self, image_id: &str) -> Result<ImageFacts> {
        let (shard, sample) = self.locate(image_id)?;
        let (partition, unit) = (shard.partition, Unit::from(shard.partition));
        let id: ImageId = match &sample {
            Some(sample) => sample.image_id.clone(),
            None => id_of(shard, image_id),
        };
        let mut facts = ImageFacts {
            partition,
            shard: shard.shard.to_string(),
            embeddings: Vec::new(),
            scores: Vec::new(),
            decisions: Vec::new(),
            duplicates: Vec::new(),
            neighbours: Vec::new(),
            decision: self.exported(&id, partition)?,
            output: None,
            not_run: self.not_run(unit)?,
            image_id: id,
            sample,
        };
        let Some(sample) = &facts.sample else {
            return Ok(facts);
        };
        if sample.status == Status::Rejected {
            let rejected = FinalDecision {
                keep: false,
                step: Some(StepName::read()),
                reason: sample.reason.clone(),
                detail: sample.detail.clone(),
            };
            facts.decision = facts.decision.or(Some(rejected));
            return Ok(facts);
        }
        let decided = self.decisions_about(&facts.image_id, partition)?;
        for step in self.receipts.steps() {
            let receipt = self.receipts.unit(step, unit);
            if let Some(receipt) = receipt.filter(|receipt| self.has_reached(receipt, &decided)) {
                facts
                    .embeddings
                    .extend(self.embedded(receipt, &facts.image_id)?);
                facts.scores.extend(self.scores(receipt, &facts.image_id)?);
            }
        }
        facts.decisions = self.chain_of(&decided);
        facts.duplicates = self.links(&facts.image_id, partition)?;
        facts.neighbours = self.neighbours(&facts.image_id, &facts.duplicates)?;
        facts.decision = facts.decision.or_else(|| first_drop(&facts.decisions));
        if facts
            .decision
            .as_ref()
            .is_some_and(|decision| decision.keep)
        {
            facts.output = self.output(sample, partition)?;
        }
        Ok(facts)
    }

    /// Returns the steps that have not processed the image's partition. Steps with other units
    /// count as a whole.
    fn not_run(&self, unit: Unit) -> Result<Vec<String>> {
        let nodes = steps::nodes(self.receipts).into_iter();
        let nodes = nodes.filter(|node| match node.kind() {
            UnitKind::Report => false,
            UnitKind::Partition => self.receipts.unit(node.step, unit).is_none(),
            _ => !node.is_complete(),
        });
        let mut names: Vec<String> = nodes.map(|node| node.name()).collect();
        for step in self.receipts.steps() {
            let mut kinds = steps::decides(self.receipts, step).iter();
            if kinds.any(|kind| self.receipts.of_kind(step, *kind).is_empty()) {
                names.push(step.to_string());
            }
        }
        let planned = planned::steps(self.recorded)?.into_iter().flatten();
        let planned = planned.filter(|planned| self.receipts.of(&planned.name).is_empty());
        let planned = planned.filter(|planned| planned.stage != "report");
        names.extend(planned.map(|planned| planned.name.to_string()));
        Ok(names)
    }

    fn embedded(&self, receipt: &Receipt, id: &ImageId) -> Result<Option<EmbeddedBy>> {
        if !steps::has_written(receipt, |step, unit| EMBEDDINGS.path(step, unit)) {
            return Ok(None);
        }
        let path = EMBEDDINGS.path(&receipt.step, receipt.unit);
        let table = self
            .recorded
            .table(&path, rows::EMBEDDINGS, &["image_id"])?;
        Ok(Some(EmbeddedBy {
            step: receipt.step.clone(),
            model: settings::source(receipt),
            embedded: row_of(table, id)?.is_some(),
        }))
    }

    fn scores(&self, receipt: &Receipt, id: &ImageId) -> Result<Vec<ImageScore>> {
        let columns: Vec<&str> = receipt
            .scores
            .iter()
            .map(|s| s.column.name.as_str())
            .collect();
        if columns.is_empty() {
            return Ok(Vec::new());
        }
        let path = SCORES.path(&receipt.step, receipt.unit);
        let names = [&["image_id"], columns.as_slice()].concat();
        let table = self.recorded.table(&path, rows::SCORES, &names)?;
        let found = row_of(table, id)?;
        let score = |column: &str| {
            let (batch, row) = found.as_ref()?;
            let column = batch
                .column_by_name(column)?
                .as_primitive_opt::<Float32Type>()?;
            column.is_valid(*row).then(|| column.value(*row))
        };
        let scores = columns.iter().map(|column| ImageScore {
            name: ScoreName {
                step: receipt.step.clone(),
                output: (columns.len() > 1).then(|| (*column).to_owned()),
            },
            model: settings::source(receipt),
            score: score(column),
        });
        Ok(scores.collect())
    }
}

/// Returns the id of an image that is not in a manifest yet.
pub(super) fn id_of(shard: &PlanRow, image_id: &str) -> ImageId {
    let stem = match shard.kind {
        ShardKind::Files => "",
        ShardKind::Tar | ShardKind::Parquet => shard.shard.stem(),
    };
    let key = image_id.strip_prefix(stem).unwrap_or(image_id);
    shard.image_id(key.trim_start_matches('/'), 0)
}
