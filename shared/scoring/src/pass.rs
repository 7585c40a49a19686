//! Steps that run models on the images of the same survivors, in one pass over these images.
//!
//! For each partition the steps that are not up to date are begun. Each image file that one step or more
//! need is read once, and decoded once for all models that take it at the same reduction ([`each_batch`]).
//! Everything else is separate: batches, sessions, manifests, receipts. So a step writes the same bytes
//! whether it has a pass of its own or shares one, and each way continues what the other has begun.

use sluice_harness::{Context, OpenUnit, Program, Work, each_unit};
use sluice_inference::{BatchOptions, Images, PixelTensor, Runner, TensorBatch, each_batch};
use sluice_manifest::{ABOUT_DEVICE, Error, ImageId, Input, Receipt, Result, Unit};
use sluice_model::Model;
use sluice_pixels::Fidelity;
use sluice_run::{PartitionPlan, Plan, Survivors};
use sluice_store::{Storage, Store};

use crate::reuse::{Join, Previous};
use crate::settings::Settings;

/// Partitions at once on a CPU: one reads and decodes its first batch while another is in inference.
const IN_FLIGHT: usize = 2;

/// A step that runs a model on images and writes one row of numbers for each.
pub trait ImageStep: Send + Sync {
    /// Returns the model.
    fn model(&self) -> &Model;

    /// Returns how closely the model's pixels must match those of a full decode.
    fn fidelity(&self) -> Fidelity;

    /// Adds to a receipt what the model's spec states and what cannot change the outputs.
    fn state(&self, receipt: &mut Receipt);

    /// Returns the unit's previous manifest, if its rows can be taken over.
    ///
    /// # Errors
    /// Storage errors only.
    fn previous(&self, open_unit: &OpenUnit<'_>) -> Result<Option<Previous>>;

    /// Begins the unit's manifest.
    ///
    /// # Errors
    /// Of the model, when it is run for the size of its output; of storage.
    fn open(
        &self,
        context: &Context,
        open_unit: &OpenUnit<'_>,
        runner: &Runner<'_>,
    ) -> Result<Box<dyn StepWriter + '_>>;
}

/// The manifest of a unit that is being written.
pub trait StepWriter {
    /// Returns the rows that follow from the model's output for this many images.
    ///
    /// # Errors
    /// Usage, when the output has another size than the model's spec states.
    fn rows(&self, output: Vec<f32>, images: usize) -> Result<Vec<f32>>;

    /// Adds an image's row.
    ///
    /// # Errors
    /// Usage, when the row has another length than the model's spec states; of storage.
    fn push(&mut self, id: ImageId, row: &[f32]) -> Result<()>;

    /// Completes the manifest and the unit. `join` has counted the samples.
    ///
    /// # Errors
    /// Storage errors only.
    fn commit(self: Box<Self>, open_unit: OpenUnit<'_>, join: &Join) -> Result<()>;
}

/// Runs the models of one or more steps on the images of the partitions that are this process's share.
/// The steps must work on the same samples ([`Context::has_same_samples`]).
///
/// # Errors
/// Of the first step that fails: usage, when a model does not run or gives another output than its spec
/// states; data, when an earlier step has not been run or a shard has changed; transient, when a device
/// fails or another process replaced a manifest that rows were taken over from; of storage.
pub fn run_images(steps: &[(&Context, &dyn ImageStep)]) -> Result<()> {
    let contexts: Vec<&Context> = steps.iter().map(|(context, _)| *context).collect();
    let Some(first) = contexts.first() else {
        return Ok(());
    };
    let plan = first.plan()?;
    let pass = Pass {
        steps: steps
            .iter()
            .map(|(context, step)| Step::new(context, *step))
            .collect(),
        context: first,
        input: &plan.input()?,
        survivors: &first.survivors(first.node().survivors_of.as_ref())?,
        plan: &plan,
    };
    let in_flight = pass
        .steps
        .iter()
        .map(|step| step.runner.in_flight(IN_FLIGHT));
    let in_flight = in_flight.max().unwrap_or(1);
    each_unit(&contexts, plan.units(), in_flight, |unit| {
        pass.partition(unit)
    })?;
    for step in &pass.steps {
        if let Some(device) = step.runner.device_use() {
            step.context.report_device(device);
        }
    }
    Ok(())
}

struct Pass<'a> {
    steps: Vec<Step<'a>>,
    /// Of the first step: what all steps read is read by it.
    context: &'a Context,
    plan: &'a Plan,
    input: &'a Store,
    survivors: &'a Survivors<'a>,
}

struct Step<'a> {
    context: &'a Context,
    step: &'a dyn ImageStep,
    runner: Runner<'a>,
}

impl<'a> Step<'a> {
    fn new(context: &'a Context, step: &'a dyn ImageStep) -> Self {
        Self {
            runner: Runner::new(step.model(), context.jobs),
            context,
            step,
        }
    }

    /// Begins a unit. Returns `None` if it is up to date.
    fn begin(&self, unit: Unit, units: usize, inputs: Vec<Input>) -> Result<Option<Begun<'_>>> {
        let work = Work {
            unit,
            units,
            settings: Settings {
                model: self.step.model().settings(),
                decoding: Some(self.step.fidelity()),
            },
            inputs,
        };
        let state = |receipt: &mut Receipt| self.step.state(receipt);
        let Some(open_unit) = self.context.begin_described(work, state)? else {
            return Ok(None);
        };
        let previous = self.step.previous(&open_unit)?;
        Ok(Some(Begun {
            step: self,
            open_unit,
            previous,
        }))
    }
}

/// A step's unit that has work to do.
struct Begun<'a> {
    step: &'a Step<'a>,
    open_unit: OpenUnit<'a>,
    previous: Option<Previous>,
}

impl Pass<'_> {
    fn partition(&self, unit: Unit) -> Result<()> {
        let planned = self.plan.partition(unit)?;
        let inputs = self.survivors.inputs(planned.partition)?;
        let units = self.plan.partitions.len();
        let mut begun = Vec::new();
        for step in &self.steps {
            let of_step = step.begin(unit, units, inputs.clone());
            begun.extend(of_step.map_err(|e| self.named(step, e))?);
        }
        if begun.is_empty() {
            return Ok(());
        }
        let written = self.write(planned, &begun)?;
        for (mut begun, written) in begun.into_iter().zip(written) {
            let Written {
                writer,
                join,
                computed,
            } = written;
            let devices = begun.devices(computed, join.reused);
            begun.open_unit.about(ABOUT_DEVICE, &devices);
            let committed = writer.commit(begun.open_unit, &join);
            committed.map_err(|e| self.named(begun.step, e))?;
        }
        Ok(())
    }

    /// Returns an error with the name of the step that it is of, where several steps share the pass.
    fn named(&self, step: &Step<'_>, e: Error) -> Error {
        match self.steps.len() {
            1 => e,
            _ => e.within(&step.context.node().name()),
        }
    }

    /// Runs the models, and returns the manifests with all rows.
    fn write<'s>(&self, planned: &PartitionPlan, begun: &[Begun<'s>]) -> Result<Vec<Written<'s>>> {
        let images = Images {
            run: &self.context.run,
            input: self.input,
            partition: planned,
            survivors: self.survivors,
        };
        let mut outputs = Vec::new();
        for begun in begun {
            let output = Output::open(begun, images);
            outputs.push(output.map_err(|e| self.named(begun.step, e))?);
        }
        let feeds = begun.iter().map(Begun::feed).collect::<Result<Vec<_>>>()?;
        let have_row = begun.iter().map(Begun::has_row);
        let mut have_row = have_row.collect::<Result<Vec<_>>>()?;
        let takes = |id: &ImageId| {
            let mut models = Vec::new();
            for (model, has_row) in have_row.iter_mut().enumerate() {
                if !has_row(id)? {
                    models.push(model);
                }
            }
            Ok(models)
        };
        let memory = &self.context.memory;
        each_batch(images, memory, &feeds, takes, |model, batch| {
            let output = &mut outputs[model];
            let taken = output.take(batch);
            taken.map_err(|e| self.named(output.begun.step, e))
        })?;
        let finish = |output: Output<'_, 's>| {
            let step = output.begun.step;
            output.finish().map_err(|e| self.named(step, e))
        };
        outputs.into_iter().map(finish).collect()
    }
}

impl Begun<'_> {
    fn feed(&self) -> Result<BatchOptions<'_>> {
        let runner = &self.step.runner;
        BatchOptions::of(runner.model, self.step.step.fidelity(), runner.ahead())
    }

    /// Returns a function that reports whether an image has a row in the previous manifest.
    fn has_row(&self) -> Result<impl FnMut(&ImageId) -> Result<bool> + use<'_>> {
        Previous::has_row(self.previous.as_ref(), self.step.context)
    }

    /// Returns the devices of the unit's rows, of which some were computed and some taken over.
    fn devices(&self, computed: u64, reused: u64) -> String {
        let previous = self.open_unit.previous().filter(|_| reused > 0);
        let before = previous.and_then(|receipt| receipt.about.get(ABOUT_DEVICE));
        self.step
            .runner
            .describe(before.map(String::as_str), computed)
    }
}

/// A step's manifest of a unit, and the rows that it takes over.
struct Output<'b, 's> {
    begun: &'b Begun<'s>,
    writer: Box<dyn StepWriter + 's>,
    join: Join,
    /// Images that the model ran on.
    computed: u64,
}

/// A step's manifest of a unit with all rows.
struct Written<'s> {
    writer: Box<dyn StepWriter + 's>,
    join: Join,
    /// Images that the model ran on.
    computed: u64,
}

impl<'b, 's> Output<'b, 's> {
    fn open(begun: &'b Begun<'s>, images: Images<'_>) -> Result<Self> {
        let Step {
            context,
            step,
            runner,
        } = begun.step;
        let partition = images.partition.partition;
        let previous = begun.previous.as_ref();
        Ok(Self {
            writer: step.open(context, &begun.open_unit, runner)?,
            join: Join::open(context, images.survivors, partition, previous)?,
            computed: 0,
            begun,
        })
    }

    /// Runs the model on a batch.
    fn take(&mut self, batch: &mut TensorBatch) -> Result<()> {
        let runner = &self.begun.step.runner;
        let output = match &batch.tensor {
            PixelTensor::Float32(numbers) => runner.run(&batch.shape, numbers)?,
            PixelTensor::Uint8(numbers) => runner.run(&batch.shape, numbers)?,
        };
        let rows = self.writer.rows(output, batch.ids.len())?;
        self.begun.open_unit.advance(batch.ids.len())?;
        self.computed += batch.ids.len() as u64;
        let width = (rows.len() / batch.ids.len().max(1)).max(1);
        for (id, row) in batch.ids.drain(..).zip(rows.chunks(width)) {
            self.advance(Some(&id))?;
            self.writer.push(id, row)?;
        }
        Ok(())
    }

    /// Takes over the rows before an image, or up to the end.
    fn advance(&mut self, to: Option<&ImageId>) -> Result<()> {
        let writer = &mut self.writer;
        self.join
            .advance(to, |id, row| writer.push(id, row))
            .map(drop)
    }

    fn finish(mut self) -> Result<Written<'s>> {
        self.advance(None)?;
        self.join.check_same(self.begun.previous.as_ref())?;
        Ok(Written {
            writer: self.writer,
            join: self.join,
            computed: self.computed,
        })
    }
}

/// A stage that may run a model on images.
pub trait ImageProgram: Program {
    /// Returns the step, or `None` if its model does not run on images.
    ///
    /// # Errors
    /// Usage, when the model does not exist or the device is not available; of storage.
    fn image_step(&self, storage: &Storage) -> Result<Option<Box<dyn ImageStep>>>;
}
