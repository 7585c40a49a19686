//! The scores and embeddings that earlier steps provide.
//!
//! Before the work, they are known from the pipeline file and the specs of the models. In a run,
//! they are known from the receipts.

use std::collections::BTreeMap;

use sluice_manifest::{Error, Result, ScoreColumn, ScoreName, StepName, Unit, UnitKind};
use sluice_store::Storage;

use crate::{InputPlaces, Run};

/// The outputs of a step that later steps can use.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StepOutputs {
    /// The columns of its scores. Empty if the step is not a scorer.
    pub scores: Vec<ScoreColumn>,
    /// The encoder of its embeddings.
    pub embedder: Option<Embedder>,
    /// Whether it assigns images to clusters.
    pub has_clusters: bool,
    /// The hashes that it computes on request. `None` if it is not `read`.
    pub hashes: Option<Vec<String>>,
    /// The reference sets that are named for it.
    pub references: Vec<ReferenceUse>,
}

/// Whether a step compares images with a reference set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceUse {
    /// The URI of the set.
    pub set: String,
    /// Why the step does not compare with it, if it does not.
    pub unused: Option<String>,
    /// What the user can do then.
    pub hint: Option<String>,
    /// Whether the set lacks what the step compares, or what it has is for other steps.
    pub is_lacking: bool,
}

/// The encoder of embeddings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Embedder {
    /// The name of the model. Heads refer to their encoder by this name.
    pub model: String,
    /// The number of values in an embedding, if the model's spec contains it.
    pub dimension: Option<usize>,
}

/// The outputs of the earlier steps, by step.
#[derive(Debug, Clone, Default)]
pub struct Upstream {
    /// Opens the models and locations for the check of a step.
    pub storage: Storage,
    steps: BTreeMap<StepName, StepOutputs>,
    /// The locations of the samples, if they are known.
    pub input: Option<InputPlaces>,
}

impl Upstream {
    /// Creates the outputs before the first step, which are empty.
    pub fn new(storage: Storage) -> Self {
        Self {
            storage,
            ..Self::default()
        }
    }

    /// Adds the outputs of a step.
    pub fn insert(&mut self, step: StepName, gives: StepOutputs) {
        self.steps.insert(step, gives);
    }

    /// Returns the columns of a scorer's scores.
    ///
    /// # Errors
    ///
    /// Returns a usage error if no earlier step provides such scores.
    pub fn scores(&self, step: &StepName) -> Result<&[ScoreColumn]> {
        let found = self.steps.get(step).map(|gives| gives.scores.as_slice());
        found.filter(|columns| !columns.is_empty()).ok_or_else(|| {
            let scorers = self.scorers().map(|(step, _)| step.to_string());
            let scorers: Vec<String> = scorers.collect();
            let error = Error::usage(format!("no earlier step gives the score {step}"));
            if scorers.is_empty() {
                error.hint("add the step that scores it before this one")
            } else {
                error.hint(format!("the scores are {}", scorers.join(", ")))
            }
        })
    }

    /// Returns all scorers with their columns.
    pub fn scorers(&self) -> impl Iterator<Item = (&StepName, &[ScoreColumn])> {
        let steps = self.steps.iter();
        let steps = steps.map(|(step, gives)| (step, gives.scores.as_slice()));
        steps.filter(|(_, columns)| !columns.is_empty())
    }

    /// Returns the column of one score.
    ///
    /// # Errors
    ///
    /// Returns a usage error if no earlier step provides it.
    pub fn score(&self, name: &ScoreName) -> Result<&ScoreColumn> {
        let columns = self.scores(&name.step)?;
        Ok(&columns[ScoreColumn::position(columns, name)?])
    }

    /// Checks that a step assigns images to clusters.
    ///
    /// # Errors
    ///
    /// Returns a usage error if no earlier step of this name does.
    pub fn refuse_without_clusters(&self, step: &StepName) -> Result<()> {
        if self.steps.get(step).is_some_and(|gives| gives.has_clusters) {
            return Ok(());
        }
        Err(
            Error::usage(format!("no earlier step {step} assigns images to clusters"))
                .hint("name a dedup step with the method semantic: --clusters-of"),
        )
    }

    /// Returns whether `read` computes a hash on request. If `read` is not known, it may.
    pub fn computes(&self, hash: &str) -> bool {
        let mut steps = self.steps.values();
        let hashes = steps.find_map(|gives| gives.hashes.as_ref());
        hashes.is_none_or(|hashes| hashes.iter().any(|computed| computed == hash))
    }

    /// Returns the encoders of all steps that provide embeddings.
    pub fn embedders(&self) -> impl Iterator<Item = &Embedder> {
        let steps = self.steps.values();
        steps.filter_map(|gives| gives.embedder.as_ref())
    }

    /// Returns the encoder of a step's embeddings.
    ///
    /// # Errors
    ///
    /// Returns a usage error if no earlier step of this name provides embeddings.
    pub fn embedder(&self, step: &StepName) -> Result<&Embedder> {
        let found = self
            .steps
            .get(step)
            .and_then(|gives| gives.embedder.as_ref());
        found.ok_or_else(|| {
            Error::usage(format!("no earlier step {step} gives embeddings"))
                .hint("add a step of the stage embed before this one, or name it with --embeddings")
        })
    }
}

impl Run {
    /// Returns the columns of a scorer's scores, from its first receipt.
    ///
    /// # Errors
    ///
    /// Returns a data error if the step has not run, a usage error if it provides no scores, and
    /// otherwise a storage error.
    pub fn score_columns(&self, step: &StepName) -> Result<Vec<ScoreColumn>> {
        let receipt = self.required_receipt(step, Unit::once(UnitKind::Partition))?;
        let columns: Vec<ScoreColumn> = receipt.scores.into_iter().map(|s| s.column).collect();
        if columns.is_empty() {
            Err(Error::usage(format!("the step {step} gives no scores"))
                .hint("name a step that scores"))
        } else {
            Ok(columns)
        }
    }

    /// Returns the outputs of these scorers, from their receipts.
    ///
    /// # Errors
    ///
    /// Fails like [`Run::score_columns`].
    pub fn upstream_scores<'s>(
        &self,
        steps: impl IntoIterator<Item = &'s StepName>,
    ) -> Result<Upstream> {
        let mut upstream = Upstream::new(self.storage.clone());
        for step in steps {
            let scores = self.score_columns(step)?;
            let gives = StepOutputs {
                scores,
                ..StepOutputs::default()
            };
            upstream.insert(step.clone(), gives);
        }
        Ok(upstream)
    }
}
