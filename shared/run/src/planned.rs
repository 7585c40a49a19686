//! The steps of the run's pipeline file, `RUN/pipeline.toml`, which `sluice run` writes.
//!
//! A run without `sluice run`, or by a workflow engine, has no such file. Then no step is required.

use serde::Deserialize;
use sluice_manifest::{Error, Result, StepName, layout};

use crate::Run;

/// A step of the pipeline file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedStep {
    /// The name of the step.
    pub name: StepName,
    /// The stage of the step.
    pub stage: String,
}

/// The part of the file that is parsed.
#[derive(Debug, Deserialize)]
struct PipelineFile {
    #[serde(default)]
    steps: Vec<StepEntry>,
}

#[derive(Debug, Deserialize)]
struct StepEntry {
    stage: String,
    name: Option<StepName>,
}

/// Returns the steps of the run's pipeline file, or `None` if there is no file.
///
/// # Errors
///
/// Returns a data error if the file cannot be parsed, and otherwise a storage error.
pub fn steps(run: &Run) -> Result<Option<Vec<PlannedStep>>> {
    let Some(text) = run.get_if_there(layout::PIPELINE)? else {
        return Ok(None);
    };
    let wrong = |e: String| {
        let uri = run.uri(layout::PIPELINE);
        Error::data(format!("{uri}: cannot parse it: {e}"))
    };
    let text = std::str::from_utf8(&text).map_err(|e| wrong(e.to_string()))?;
    let file: PipelineFile = toml::from_str(text).map_err(|e| wrong(e.to_string()))?;
    let steps = file.steps.into_iter().map(|entry| {
        let name = match entry.name {
            Some(name) => name,
            None => StepName::new(&entry.stage)?,
        };
        Ok(PlannedStep {
            name,
            stage: entry.stage,
        })
    });
    steps.collect::<Result<_>>().map(Some)
}
