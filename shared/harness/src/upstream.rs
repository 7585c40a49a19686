//! What the steps before a step give: scores and embeddings.
//!
//! Before the work it is known from the pipeline file and the models' specs; in a run, from the
//! receipts of the steps that were done.

use std::collections::BTreeMap;

use sluice_manifest::{Error, Result, ScoreColumn, ScoreName, StepName, Unit, UnitKind};
use sluice_store::Storage;

use crate::{Context, InputPlaces};

/// What a step gives to the steps after it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Gives {
    /// Columns of its scores; none for steps that are no scorers.
    pub scores: Vec<ScoreColumn>,
    /// The encoder whose embeddings it gives.
    pub embedder: Option<Embedder>,
}

/// The encoder that embeddings come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Embedder {
    /// The model's name. Heads name their encoder by it.
    pub model: String,
    /// Values of an embedding, where the model's spec states them.
    pub dimension: Option<usize>,
}

/// What the steps before give, by step.
#[derive(Debug, Clone, Default)]
pub struct Upstream {
    /// What opens the models and the places that a step's check looks at.
    pub storage: Storage,
    steps: BTreeMap<StepName, Gives>,
    /// Where the samples come from, as far as it is known.
    pub input: Option<InputPlaces>,
}

impl Upstream {
    /// Returns what a first step finds: nothing.
    pub fn new(storage: Storage) -> Self {
        Self {
            storage,
            ..Self::default()
        }
    }

    /// Notes what a step gives.
    pub fn insert(&mut self, step: StepName, gives: Gives) {
        self.steps.insert(step, gives);
    }

    /// Returns the columns of a scorer's scores.
    ///
    /// # Errors
    /// Usage, when no step before gives such scores.
    pub fn scores(&self, step: &StepName) -> Result<&[ScoreColumn]> {
        let found = self.steps.get(step).map(|gives| gives.scores.as_slice());
        found.filter(|columns| !columns.is_empty()).ok_or_else(|| {
            let scorers = self.scorers().map(|(step, _)| step.to_string());
            let scorers: Vec<String> = scorers.collect();
            let error = Error::usage(format!("no step before gives the score {step}"));
            match scorers.is_empty() {
                true => error.hint("add the step that scores it before this one"),
                false => error.hint(format!("the scores are {}", scorers.join(", "))),
            }
        })
    }

    /// Returns all scorers with their columns.
    pub fn scorers(&self) -> impl Iterator<Item = (&StepName, &[ScoreColumn])> {
        let steps = self.steps.iter();
        let steps = steps.map(|(step, gives)| (step, gives.scores.as_slice()));
        steps.filter(|(_, columns)| !columns.is_empty())
    }

    /// Returns what is known of one score.
    ///
    /// # Errors
    /// Usage, when no step before gives it.
    pub fn score(&self, name: &ScoreName) -> Result<&ScoreColumn> {
        let columns = self.scores(&name.step)?;
        Ok(&columns[ScoreColumn::position(columns, name)?])
    }

    /// Returns the encoders of all steps that give embeddings.
    pub fn embedders(&self) -> impl Iterator<Item = &Embedder> {
        let steps = self.steps.values();
        steps.filter_map(|gives| gives.embedder.as_ref())
    }

    /// Returns the encoder whose embeddings a step gives.
    ///
    /// # Errors
    /// Usage, when no step before gives embeddings under this name.
    pub fn embedder(&self, step: &StepName) -> Result<&Embedder> {
        let found = self
            .steps
            .get(step)
            .and_then(|gives| gives.embedder.as_ref());
        found.ok_or_else(|| {
            Error::usage(format!("no step {step} before gives embeddings"))
                .hint("add a step of the stage embed before this one, or name it with --embeddings")
        })
    }
}

impl Context {
    /// Returns the columns of a scorer's scores, from its first receipt.
    ///
    /// # Errors
    /// Data, when the step has not been run; usage, when it gives no scores.
    pub fn score_columns(&self, step: &StepName) -> Result<Vec<ScoreColumn>> {
        let receipt = self.required_receipt(step, Unit::once(UnitKind::Part))?;
        let columns: Vec<ScoreColumn> = receipt.scores.into_iter().map(|s| s.column).collect();
        match columns.is_empty() {
            true => Err(Error::usage(format!("the step {step} gives no scores"))
                .hint("name a step that scores")),
            false => Ok(columns),
        }
    }

    /// Returns what these scorers give, from their receipts.
    ///
    /// # Errors
    /// As [`Context::score_columns`].
    pub fn upstream_scores<'s>(
        &self,
        steps: impl IntoIterator<Item = &'s StepName>,
    ) -> Result<Upstream> {
        let mut upstream = Upstream::new(self.storage.clone());
        for step in steps {
            let scores = self.score_columns(step)?;
            let embedder = None;
            upstream.insert(step.clone(), Gives { scores, embedder });
        }
        Ok(upstream)
    }
}
