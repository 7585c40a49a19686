//! Scores: what is known of a score besides its values.

use serde::{Deserialize, Serialize};

use crate::{Error, Histogram, Result, ScoreName, StepName};

/// Which scores a threshold keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// Scores at or above it.
    #[default]
    AtLeast,
    /// Scores below it.
    Below,
}

impl Keep {
    /// Whether a score passes a threshold. NaN does not.
    pub fn passes(self, score: f32, threshold: f32) -> bool {
        match self {
            Self::AtLeast => score >= threshold,
            Self::Below => score < threshold,
        }
    }
}

/// A column of `scores`, as its model describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoreColumn {
    /// The column's name: [`ScoreColumn::ONLY`], or the output's where there are several.
    pub name: String,
    /// Lowest and highest score to expect, where the model states them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<[f32; 2]>,
    /// The model's own threshold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f32>,
    /// Which side of the threshold the model's authors keep.
    #[serde(default)]
    pub keep: Keep,
}

impl ScoreColumn {
    /// The column of models with one output.
    pub const ONLY: &'static str = "score";

    /// A column of which nothing is known but its name.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            range: None,
            threshold: None,
            keep: Keep::default(),
        }
    }

    /// Returns the place of a score among the columns of its step.
    ///
    /// # Errors
    /// Usage, when the step has no such output, or has several and none is named.
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

/// The name of a score as a column of the curated dataset: the step's name, with the output's
/// behind it where there are several. `_` stands for `-`.
pub fn curated_column(step: &StepName, columns: usize, output: &str) -> String {
    match columns {
        1 => step.identifier(),
        _ => format!("{}_{output}", step.identifier()),
    }
}

/// A score of a unit: its column and the histogram of its values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoreSummary {
    /// The column.
    #[serde(flatten)]
    pub column: ScoreColumn,
    /// The values' histogram.
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
