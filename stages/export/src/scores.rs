//! Chooses the scores that go into the output, and their column names.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sluice_manifest::rows::{CuratedRow, Row};
use sluice_manifest::{Error, Result, ScoreColumn, StepName, curated_column};

use crate::curated::EMBEDDING;

/// A score that goes into the output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CuratedScore {
    /// The step that computes the score.
    pub step: StepName,
    /// The column in the step's scores.
    pub output: String,
    /// The column in the output.
    pub column: String,
}

/// Returns the output columns for the scores of these steps, in their order.
///
/// # Errors
///
/// Returns a usage error if two columns would have the same name.
pub fn curated_scores<'a>(
    steps: impl IntoIterator<Item = (&'a StepName, &'a [ScoreColumn])>,
) -> Result<Vec<CuratedScore>> {
    let scores = steps.into_iter().flat_map(|(step, columns)| {
        columns.iter().map(|column| CuratedScore {
            step: step.clone(),
            output: column.name.clone(),
            column: curated_column(step, columns.len(), &column.name),
        })
    });
    let scores: Vec<CuratedScore> = scores.collect();
    refuse_collisions(&scores)?;
    Ok(scores)
}

fn refuse_collisions(scores: &[CuratedScore]) -> Result<()> {
    let fields = CuratedRow::fields();
    let fixed = fields.iter().map(|field| field.name().as_str());
    let mut owners: BTreeMap<&str, String> = fixed
        .chain([EMBEDDING])
        .map(|name| (name, "a column that every output has".to_owned()))
        .collect();
    for score in scores {
        let owner = format!("the score {:?} of the step {}", score.output, score.step);
        if let Some(other) = owners.insert(&score.column, owner) {
            let (CuratedScore { step, output, .. }, column) = (score, &score.column);
            return Err(Error::usage(format!(
                "the score {output:?} of the step {step} would be the column {column:?} of the \
                 output, which is {other}"
            ))
            .hint("give the step another --step name, or name the scores to write with --scores"));
        }
    }
    Ok(())
}

/// Returns the scores grouped by step, in order, because the scores of one step are read together.
pub fn by_step(scores: &[CuratedScore]) -> impl Iterator<Item = (&StepName, &[CuratedScore])> {
    let groups = scores.chunk_by(|a, b| a.step == b.step);
    groups.filter_map(|group| Some((&group.first()?.step, group)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(steps: &[(&'static str, &[&str])]) -> Result<Vec<String>> {
        let steps: Vec<(StepName, Vec<ScoreColumn>)> = steps
            .iter()
            .map(|(step, columns)| {
                let columns = columns.iter().map(|name| ScoreColumn::named(name));
                (StepName::fixed(step), columns.collect())
            })
            .collect();
        let steps = steps
            .iter()
            .map(|(step, columns)| (step, columns.as_slice()));
        let scores = curated_scores(steps)?;
        Ok(scores.into_iter().map(|score| score.column).collect())
    }

    #[test]
    fn columns_are_named_after_steps() {
        let names = named(&[("nsfw-2", &["score"]), ("tags", &["cat", "dog"])]).unwrap();
        assert_eq!(names, ["nsfw_2", "tags_cat", "tags_dog"]);
    }

    #[test]
    fn equal_names_are_refused() {
        for (steps, column) in [
            (&[("width", &["score"][..])][..], "width"),
            (&[("embedding", &["score"])], "embedding"),
            (&[("a", &["b", "c"]), ("a-b", &["score"])], "a_b"),
            (&[("a", &["score"]), ("a", &["score"])], "a"),
        ] {
            let error = named(steps).unwrap_err().to_string();
            assert!(error.contains(&format!("the column {column:?}")), "{error}");
        }
    }
}
