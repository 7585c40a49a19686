//! The steps that a run was to have: `RUN/pipeline.toml`, which `sluice run` writes.
//!
//! A run that was made by hand or by a workflow engine has no such file; then nothing is demanded
//! that was not run.

use serde::Deserialize;
use sluice_harness::Context;
use sluice_manifest::{Error, Result, StepName, layout};

/// A step of the pipeline file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedStep {
    /// Its name.
    pub name: StepName,
    /// Its stage.
    pub stage: String,
}

/// What is read of the file.
#[derive(Debug, Deserialize)]
struct File {
    #[serde(default)]
    steps: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    stage: String,
    name: Option<StepName>,
}

/// Returns the steps of the run's pipeline file; none at all where there is no file.
///
/// # Errors
/// Data, when the file cannot be parsed.
pub fn steps(context: &Context) -> Result<Option<Vec<PlannedStep>>> {
    let Some(text) = context.run.get_if_there(layout::PIPELINE)? else {
        return Ok(None);
    };
    let wrong = |e: String| {
        let uri = context.run.uri(layout::PIPELINE);
        Error::data(format!("{uri}: cannot parse it: {e}"))
    };
    let text = std::str::from_utf8(&text).map_err(|e| wrong(e.to_string()))?;
    let file: File = toml::from_str(text).map_err(|e| wrong(e.to_string()))?;
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
