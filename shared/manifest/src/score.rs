//! Scores: descriptions and summaries of their values.

use serde::{Deserialize, Serialize};

use crate::{Error, Histogram, Result, ScoreName, StepName};

/// Which scores a threshold keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// Scores at or above the threshold.
    #[default]
    AtLeast,
    /// Scores below the threshold.
    Below,
}

impl Keep {
    /// Returns whether a score passes a threshold. NaN never does.
    pub fn passes(self, score: f32, threshold: f32) -> bool {
        match self {
            Self::AtLeast => score >= threshold,
            Self::Below => score < threshold,
        }
    }
}

/// A column of `scores`, as described by its model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoreColumn {
    /// The column's name: [`ScoreColumn::ONLY`], or the output's name if there are several.
    pub name: String,
    /// The lowest and highest score to expect, if the model states them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<[f32; 2]>,
    /// The threshold that the model's authors recommend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f32>,
    /// Which side of the threshold the model's authors keep.
    #[serde(default)]
    pub keep: Keep,
}

impl ScoreColumn {
    /// The column name for models with one output.
    pub const ONLY: &'static str = "score";

    /// Creates a column with only a name.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            range: None,
            threshold: None,
            keep: Keep::default(),
        }
    }

    /// Returns the index of a score among the columns of its step.
    ///
    /// # Errors
    ///
    /// Returns a usage error if the step has no such output, or has several and `score` names none.
    pub fn position(columns: &[Self], score: &ScoreName) -> Result<usize> {
        let named = |name: &str| columns.iter().position(|column| column.name == name);
        let found = match &score.output {
            Some(output) => named(output),
            None if columns.len() == 1 => Some(0),
            None => named(Self::ONLY),
        };
        found.ok_or_else(|| {
            let names: Vec<String> = columns
                .iter()
                .map(|column| format!("{}.{}", score.step, column.name))
                .collect();
            let error = match &score.output {
                Some(output) => format!("step {} has no output {output:?}", score.step),
                None => format!("step {} has several outputs", score.step),
            };
            Error::usage(error).hint(format!("its scores are {}", names.join(", ")))
        })
    }
}

/// Returns the name of a score's column in the curated dataset: the step's name, followed by the
/// output's if there are several. `-` becomes `_`.
pub fn curated_column(step: &StepName, columns: usize, output: &str) -> String {
    match columns {
        1 => step.identifier(),
        _ => format!("{}_{output}", step.identifier()),
    }
}

/// A summary of a unit's scores: the column and a histogram of its values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoreSummary {
    /// The score's column.
    #[serde(flatten)]
    pub column: ScoreColumn,
    /// The histogram of the values.
    pub histogram: Histogram,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_found_among_columns() {
        let columns = ["drawing", "porn"].map(ScoreColumn::named);
        let find = |name: &str| ScoreColumn::position(&columns, &name.parse().unwrap());
        assert_eq!(find("nsfw.porn").unwrap(), 1);
        assert!(find("nsfw").is_err() && find("nsfw.x").is_err());
        let one = [ScoreColumn::named(ScoreColumn::ONLY)];
        assert_eq!(
            ScoreColumn::position(&one, &"a".parse().unwrap()).unwrap(),
            0
        );
    }
}
