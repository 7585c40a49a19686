//! A shared pass over the images for steps that run models on the images of the same survivors.
//!
//! Reading and decoding cost as much as a small model. `sluice run` and `sluice steps` therefore run
//! such steps together: each image file is read and decoded once, and then processed by every model.
//! The outputs are the same as when the programs run one after the other.

use std::time::Instant;

use anyhow::Result;
use serde_json::Value;
use sluice_harness::{Context, ProcessResources, Starter, StepDone, open_step, task_done};
use sluice_scoring::{ImageProgram, ImageStep, run_images};

/// Opens a command line whose program may run a model on images; `None` if it does not.
pub type OpenImages = fn(&[String], &ProcessResources, Starter) -> Result<Option<OpenStep>>;

/// A step that runs a model on images, and its open run.
pub struct OpenStep {
    context: Context,
    step: Box<dyn ImageStep>,
}

/// Opens a command line; `None` if its model does not run on images.
///
/// # Errors
/// Returns a usage error when the program would refuse the command line.
pub fn open<P: ImageProgram>(
    command: &[String],
    shared: &ProcessResources,
    starter: Starter,
) -> Result<Option<OpenStep>> {
    let (program, context) = open_step::<P>(command, shared, starter)?;
    let step = program.image_step(&context.storage)?;
    Ok(step.map(|step| OpenStep { context, step }))
}

impl OpenStep {
    /// Whether it is another step that works on the same units and samples.
    pub fn has_same_samples(&self, other: &Self) -> bool {
        let [one, two] = [&self.context, &other.context];
        one.node().name() != two.node().name() && one.has_same_samples(two)
    }

    /// Returns the results of the step.
    ///
    /// # Errors
    /// Returns a bug error when a unit was begun and not committed.
    pub fn done(&self, started: Instant) -> Result<StepDone> {
        Ok(StepDone::of(&self.context, started)?)
    }

    /// Returns the step's result as an engine's task, and whether it was up to date.
    ///
    /// # Errors
    /// The errors of [`done`](Self::done).
    pub fn task_done(&self) -> Result<(Value, bool)> {
        Ok(task_done(&self.context)?)
    }
}

/// Runs steps on the same samples in one pass.
///
/// # Errors
/// Returns the error of the first step that fails.
pub fn run_pass(steps: &[OpenStep]) -> Result<()> {
    let names: Vec<String> = steps.iter().map(|it| it.context.node().name()).collect();
    tracing::info!(steps = names.join(", "), "one pass over the images");
    let parts = steps.iter().map(|it| (&it.context, &*it.step));
    let outcome = run_images(&parts.collect::<Vec<_>>());
    steps.iter().for_each(|it| it.context.run.tidy());
    Ok(outcome?)
}
