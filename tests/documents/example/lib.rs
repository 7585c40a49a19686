//! `sluice-colour`: scores how colourful images are.
//!
//! The measure of Hasler and Süsstrunk, "Measuring colourfulness in natural images" (2003):
//! `sqrt(var(rg) + var(yb)) + 0.3 * sqrt(mean(rg)^2 + mean(yb)^2)` over the pixels, with
//! `rg = R - G` and `yb = (R + G) / 2 - B`. Grey images have 0, very colourful ones about 100.

use anyhow::Result;
use clap::Parser;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sluice_harness::{Common, Context, MemoryBudget, Program, StepArgs, Work};
use sluice_inference::Images;
use sluice_manifest::layout::SCORES;
use sluice_manifest::{ImageId, Operation, Resources, Role, ScoreColumn, Unit, UnitKind, rows};
use sluice_pixels::{Limits, RgbImage, decode_admitted};
use sluice_run::{PartitionPlan, Plan, StepOutputs, Survivors, Upstream};
use sluice_scoring::{Join, Previous, ScoreWriter};
use sluice_store::Store;

/// The number of images that are decoded at once.
const AT_ONCE: usize = 64;

/// Score how colourful the images are
///
/// Example: sluice-colour --run runs/a
#[derive(Debug, Parser)]
#[command(name = "sluice-colour", version)]
pub struct Args {
    /// The arguments of every step after `read`.
    #[command(flatten)]
    pub step: StepArgs,
}

/// The settings that determine the scores: none.
#[derive(Debug, Serialize, Deserialize)]
pub struct Settings {}

impl Program for Args {
    const NAME: &'static str = "sluice-colour";
    const ROLE: Role = Role::Scorer;
    const OPERATIONS: &'static [Operation] = &[Operation {
        subcommand: None,
        unit: UnitKind::Partition,
        resources: Resources::Cpu,
        after: &[],
        revision: 1,
    }];

    fn common(&self) -> &Common {
        &self.step.common
    }

    fn step_args(&self) -> Option<&StepArgs> {
        Some(&self.step)
    }

    fn check(&self, _upstream: &Upstream) -> Result<StepOutputs> {
        Ok(StepOutputs {
            scores: columns(),
            ..StepOutputs::default()
        })
    }

    fn run(&self, context: &Context) -> Result<()> {
        let plan = context.plan()?;
        let colour = Colour {
            context,
            input: &plan.input()?,
            survivors: &context.survivors(self.step.survivors_of.as_ref())?,
            plan: &plan,
        };
        context.each_unit(plan.units(), 1, |unit| colour.partition(unit))
    }
}

/// A score from 0 to 1 is `ScoreColumn { range: Some([0.0, 1.0]), ..ScoreColumn::named(…) }`. A
/// filter refuses thresholds outside it.
fn columns() -> Vec<ScoreColumn> {
    vec![ScoreColumn::named(ScoreColumn::ONLY)]
}

struct Colour<'a> {
    context: &'a Context,
    plan: &'a Plan,
    input: &'a Store,
    survivors: &'a Survivors<'a>,
}

impl Colour<'_> {
    fn partition(&self, unit: Unit) -> Result<()> {
        let planned: &PartitionPlan = self.plan.partition(unit)?;
        let work = Work {
            unit,
            units: self.plan.partitions.len(),
            settings: Settings {},
            inputs: self.survivors.inputs(planned.partition)?,
        };
        let Some(open_unit) = self.context.begin(work)? else {
            return Ok(()); // up to date
        };
        // When only the survivors changed, existing rows are reused.
        let previous = Previous::of(&open_unit, &SCORES, rows::SCORES, &[ScoreColumn::ONLY])?;
        let previous = previous.as_ref();
        let images = Images {
            run: &self.context.run,
            input: self.input,
            partition: planned,
            survivors: self.survivors,
        };
        let mut files = images.files(Previous::has_row(previous, self.context)?)?;
        let mut writer = ScoreWriter::open(self.context, &open_unit, &columns(), &[])?;
        let mut join = Join::open(self.context, self.survivors, planned.partition, previous)?;
        loop {
            let batch = files.by_ref().take(AT_ONCE);
            let batch = batch.collect::<sluice_manifest::Result<Vec<_>>>()?;
            if batch.is_empty() {
                break;
            }
            open_unit.advance(batch.len())?;
            let scored: Vec<(ImageId, f32)> = batch
                .into_par_iter()
                .map(|(id, file)| (id, score(&file, &self.context.memory)))
                .collect();
            for (id, score) in scored {
                join.advance(Some(&id), |id, scores| writer.push(id, scores))?;
                writer.push(id, &[score])?;
            }
        }
        join.advance(None, |id, scores| writer.push(id, scores))?;
        join.check_same(previous)?;
        Ok(writer.commit(open_unit, join.survivors, join.reused)?)
    }
}

/// Returns an image file's score, or NaN if it cannot be decoded; then the image has no row.
/// Decoding waits until the budget of `--memory` has room for the pixels.
fn score(file: &[u8], memory: &MemoryBudget) -> f32 {
    let mut _share = None;
    let mut admit = |bytes| _share = Some(memory.take(bytes));
    match decode_admitted(file, &Limits::default(), &mut admit) {
        Ok(decoded) => colourfulness(&decoded.upright()),
        Err(_) => f32::NAN,
    }
}

/// Returns the colourfulness of an image.
pub fn colourfulness(image: &RgbImage) -> f32 {
    let (mut sums, mut squares) = ([0.0_f64; 2], [0.0_f64; 2]);
    for pixel in image.data.chunks_exact(3) {
        let [r, g, b] = [pixel[0], pixel[1], pixel[2]].map(f64::from);
        for (axis, value) in [r - g, (r + g) / 2.0 - b].into_iter().enumerate() {
            sums[axis] += value;
            squares[axis] += value * value;
        }
    }
    let count = (image.data.len() / 3).max(1) as f64;
    let mean_square = |axis: usize| (sums[axis] / count).powi(2);
    let variance = |axis: usize| squares[axis] / count - mean_square(axis);
    let deviation = (variance(0) + variance(1)).max(0.0).sqrt();
    let mean = (mean_square(0) + mean_square(1)).sqrt();
    (deviation + 0.3 * mean) as f32
}
