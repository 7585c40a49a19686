//! The pipeline file: `[parameters]` and `[[steps]]`.

use serde::{Deserialize, Serialize};
use sluice_manifest::{Error, Result};
use toml::{Table, Value};

/// The default pipeline, as a file.
pub const DEFAULT: &str = include_str!("../../pipelines/curate.toml");

/// The contents of a pipeline file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PipelineFile {
    /// Parameters: a default, or a table with `default`, `value`, `help`, `type`, `min` and `section`.
    #[serde(default, skip_serializing_if = "Table::is_empty")]
    pub parameters: Table,
    /// The steps, in order.
    #[serde(default)]
    pub steps: Vec<Table>,
    /// Whether the first step was added, because the file does not have it.
    #[serde(skip)]
    pub has_added_first: bool,
}

/// A parameter with more than a default.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParameterTable {
    /// The default value; `None` if the parameter is required.
    pub default: Option<String>,
    /// The metavariable of the value, in capitals; empty for a switch.
    pub value: Option<String>,
    /// The help text, one line.
    pub help: Option<String>,
    /// The type of its values; `None` for any text.
    #[serde(rename = "type")]
    pub kind: Option<ParameterKind>,
    /// The lower bound of a number.
    pub min: Option<f64>,
    /// The heading under which the help and forms list it.
    pub section: Option<String>,
}

/// The type of a parameter's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ParameterKind {
    /// A whole number.
    Integer,
    /// A finite number.
    Number,
}

impl ParameterKind {
    /// Returns a text as a number, by the syntax of rules and flags; `None` if it is not a number.
    pub fn number(self, text: &str) -> Option<f64> {
        let is_plain = text.starts_with(|c: char| c.is_ascii_digit() || c == '-');
        let number = match self {
            Self::Integer => text.parse::<i64>().ok().map(|number| number as f64),
            Self::Number => text.parse::<f64>().ok(),
        };
        number.filter(|number| is_plain && number.is_finite())
    }
}

impl PipelineFile {
    /// Parses a file. `place` is its name in error messages.
    ///
    /// # Errors
    /// Usage, when it is not TOML or has parts other than `[parameters]` and `[[steps]]`.
    pub fn parse(text: &str, place: &str) -> Result<Self> {
        toml::from_str(text).map_err(|e| {
            Error::usage(format!("{place}: {e}"))
                .hint("`sluice pipeline show` prints the default pipeline as an example")
        })
    }

    /// Adds the steps that a file may omit: `partition` at the start, `report` at the end.
    pub fn complete(&mut self) {
        let step = |stage: &str| Table::from_iter([("stage".to_owned(), stage.into())]);
        if !self.has_stage("partition") {
            self.steps.insert(0, step("partition"));
            self.has_added_first = true;
        }
        if !self.has_stage("report") {
            self.steps.push(step("report"));
        }
        for (stage, key) in [("partition", "input"), ("export", "output")] {
            for step in &mut self.steps {
                if step.get("stage").and_then(Value::as_str) == Some(stage) {
                    let value = format!("${{{key}}}");
                    step.entry(key).or_insert(Value::String(value));
                }
            }
        }
    }

    /// Whether a step has this stage.
    pub fn has_stage(&self, stage: &str) -> bool {
        let mut stages = self
            .steps
            .iter()
            .filter_map(|step| step.get("stage")?.as_str());
        stages.any(|other| other == stage)
    }

    /// Returns the file with the values of the parameters, as a record of the run's settings.
    pub fn resolved(&self, values: &super::ParameterValues) -> Self {
        let steps = self.steps.iter().map(|step| {
            let entries = step.iter().filter_map(|(key, value)| {
                let value = resolve(value, values)?;
                Some((key.clone(), value))
            });
            entries.collect()
        });
        Self {
            parameters: Table::new(),
            steps: steps.collect(),
            has_added_first: false,
        }
    }
}

/// Substitutes the parameters in a value. Returns `None` if the result is empty: the entry is left
/// out.
fn resolve(value: &Value, values: &super::ParameterValues) -> Option<Value> {
    match value {
        Value::String(text) => {
            let words = super::words::substitute_text(text, values);
            match words.as_slice() {
                [] => None,
                [one] => (!one.is_empty() || text.is_empty()).then(|| one.as_str().into()),
                many => Some(many.to_vec().into()),
            }
        }
        Value::Table(table) => {
            // An empty entry of a table is kept: it means the model's own threshold.
            let entry = |value: &Value| resolve(value, values).unwrap_or_else(|| "".into());
            let entries = table.iter().map(|(key, value)| (key.clone(), entry(value)));
            Some(Value::Table(entries.collect()))
        }
        other => Some(other.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::ParameterValues;

    #[test]
    fn tables_keep_the_order_of_the_file() {
        let text = "[[steps]]\nrule = { z = 'width > 1', a = 'width > 2', m = 'width > 3' }\n\
            stage = 'filter'\n";
        let file = PipelineFile::parse(text, "test").unwrap();
        let names = |file: &PipelineFile| -> Vec<String> {
            let rules = file.steps[0]["rule"].as_table().unwrap();
            rules.keys().cloned().collect()
        };
        assert_eq!(names(&file), ["z", "a", "m"]);
        let recorded = toml::to_string(&file.resolved(&ParameterValues::new())).unwrap();
        let again = PipelineFile::parse(&recorded, "test").unwrap();
        assert_eq!(names(&again), ["z", "a", "m"]);
        assert_eq!(again, file);
    }

    #[test]
    fn numbers_are_those_of_rules_and_flags() {
        let fits = |kind: ParameterKind, texts: &[&str]| -> Vec<bool> {
            texts
                .iter()
                .map(|text| kind.number(text).is_some())
                .collect()
        };
        assert_eq!(fits(ParameterKind::Integer, &["0", "256", "-3"]), [true; 3]);
        let wrong = [
            "",
            "+1",
            "1.5",
            "1e3",
            "one",
            "1 || true",
            " 1",
            "9223372036854775808",
        ];
        assert_eq!(fits(ParameterKind::Integer, &wrong), [false; 8]);
        assert_eq!(
            fits(ParameterKind::Number, &["0", "2.5", "-3", "1e3"]),
            [true; 4]
        );
        let wrong = [
            "",
            "+1",
            "nan",
            "inf",
            "-inf",
            "1e999",
            "3)",
            "(3)",
            "3 || true",
        ];
        assert_eq!(fits(ParameterKind::Number, &wrong), [false; 9]);
    }
}
