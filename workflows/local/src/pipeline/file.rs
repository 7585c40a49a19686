//! The pipeline file: `[parameters]` and `[[steps]]`.

use serde::{Deserialize, Serialize};
use sluice_manifest::{Error, Result};
use toml::{Table, Value};

/// The default pipeline, as a file.
pub const DEFAULT: &str = include_str!("../../pipelines/curate.toml");

/// What a pipeline file holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PipelineFile {
    /// Parameters: a default, or a table with `default`, `value` and `help`.
    #[serde(default, skip_serializing_if = "Table::is_empty")]
    pub parameters: Table,
    /// The steps, in order.
    #[serde(default)]
    pub steps: Vec<Table>,
    /// Whether the first step was added to the file's.
    #[serde(skip)]
    pub has_added_first: bool,
}

/// A parameter that is more than a default.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParameterTable {
    /// Its value when none is given; none: it must be given.
    pub default: Option<String>,
    /// What its value is, in capitals; empty for a switch.
    pub value: Option<String>,
    /// What it is, in a line.
    pub help: Option<String>,
}

impl PipelineFile {
    /// Parses a file; `place` names it in errors.
    ///
    /// # Errors
    /// Usage, when it is not TOML or has other parts than `[parameters]` and `[[steps]]`.
    pub fn parse(text: &str, place: &str) -> Result<Self> {
        toml::from_str(text).map_err(|e| {
            Error::usage(format!("{place}: {e}"))
                .hint("`sluice pipeline show` prints the default pipeline as an example")
        })
    }

    /// Adds the steps that every pipeline has and a file need not mention: `partition` first, `report`
    /// last.
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

    /// Returns the file with the values of the parameters put in: what a run was made with.
    pub fn resolved(&self, values: &super::Values) -> Self {
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

/// Puts the values of the parameters in. None: the value is empty, so the entry is left out.
fn resolve(value: &Value, values: &super::Values) -> Option<Value> {
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
            // An empty entry of a table has a meaning: the model's own threshold.
            let entry = |value: &Value| resolve(value, values).unwrap_or_else(|| "".into());
            let entries = table.iter().map(|(key, value)| (key.clone(), entry(value)));
            Some(Value::Table(entries.collect()))
        }
        other => Some(other.clone()),
    }
}
