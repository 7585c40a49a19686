//! What a program's `run` works with: the run's store, its share of the units, and the tally.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use rayon::prelude::*;
use serde::Serialize;
use sluice_manifest::{
    Class, Counts, Error, FanOut, Input, Operation, Output, OutputPath, Receipt, Result, StepName,
    Unit, UnitKind, layout,
};
use sluice_store::{Location, Storage, Store};

use crate::args::Common;
use crate::budget::MemoryBudget;
use crate::cpu::CpuClock;
use crate::machine::default_memory;
use crate::owner::refuse_other_stage;
use crate::progress::{Progress, Weights};
use crate::run::{Run, run_at};
use crate::threads::spawn;

/// What the steps of one process share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// Set by a signal: stop soon, leave nothing half-written.
    pub stop: Arc<AtomicBool>,
    /// What opens stores.
    pub storage: Storage,
    /// Memory that decoding may take, in all steps together.
    pub memory: Arc<MemoryBudget>,
    /// Divides the CPU time of the process between the units in work.
    pub cpu: CpuClock,
}

impl Shared {
    /// Returns the same for a process that works with `jobs` threads and decodes in `memory` bytes;
    /// none are what the machine grants.
    #[must_use]
    pub fn with_memory(&self, jobs: Option<usize>, memory: Option<u64>) -> Self {
        let memory = memory.unwrap_or_else(|| default_memory(threads(jobs)));
        Self {
            memory: Arc::new(MemoryBudget::new(memory)),
            ..self.clone()
        }
    }
}

impl Default for Shared {
    fn default() -> Self {
        let stop = Arc::<AtomicBool>::default();
        Self {
            storage: Storage::new(stop.clone()),
            memory: Arc::new(MemoryBudget::new(default_memory(threads(None)))),
            cpu: CpuClock::default(),
            stop,
        }
    }
}

/// Returns the number of threads that work at once: by default the CPUs that the cgroup grants.
pub(crate) fn threads(jobs: Option<usize>) -> usize {
    jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// What runs: a step of the pipeline and the operation of its stage. A node of the DAG.
#[derive(Debug, Clone)]
pub struct Node {
    /// The step.
    pub step: StepName,
    /// Its stage.
    pub stage: &'static str,
    /// The operation of the stage that it runs.
    pub operation: &'static Operation,
    /// The deciding step whose survivors it works on.
    pub survivors_of: Option<StepName>,
}

impl Node {
    /// Returns the node's name in logs: the step, with the subcommand where the stage has some.
    pub fn name(&self) -> String {
        match self.operation.subcommand {
            Some(subcommand) => format!("{}-{subcommand}", self.step),
            None => self.step.to_string(),
        }
    }
}

/// A program at work.
pub struct Context {
    /// The run.
    pub run: Run,
    /// What opens other stores.
    pub storage: Storage,
    /// Threads that may work at once.
    pub jobs: usize,
    /// Memory that decoding may take.
    pub memory: Arc<MemoryBudget>,
    pub(crate) force: bool,
    pub(crate) program: &'static str,
    pub(crate) cpu: CpuClock,
    node: Option<Node>,
    pub(crate) common: Common,
    stop: Arc<AtomicBool>,
    progress: Mutex<Option<Progress>>,
    tally: Mutex<Tally>,
    /// Units that were begun and not committed.
    uncommitted: Mutex<BTreeSet<Unit>>,
    /// Until when it is looked whether there is work; none: it is done.
    pub(crate) look_until: Option<Instant>,
}

/// What was done, for the result.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub units: u64,
    pub done: u64,
    pub up_to_date: u64,
    pub samples: u64,
    pub counts: Counts,
    pub outputs: Vec<String>,
    pub output_bytes: u64,
    pub damaged_shards: u64,
    pub fan_out: BTreeMap<&'static str, u64>,
    /// Rows of scores or embeddings that were computed, and that were taken over; none where the step
    /// gives neither.
    pub rows: Option<(u64, u64)>,
    pub choices: BTreeMap<&'static str, Choice>,
    pub device: Option<DeviceUse>,
}

/// What a step's model ran on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeviceUse {
    /// The device, as `--device` names it.
    pub device: String,
    /// Its name, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Images that went through the model at once.
    pub batch_size: u64,
    /// The part of the time from the first batch on in which the model did not run; none where it did not
    /// run at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<f64>,
}

/// The value of a setting that a step chose itself, because none was given.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Choice {
    /// The value.
    pub value: f64,
    /// Why it is this one.
    pub because: String,
    /// What to do where nothing is known that the value was chosen by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Tally {
    /// Whether there were units, and none had work to do.
    pub fn is_up_to_date(&self) -> bool {
        self.units > 0 && self.units == self.up_to_date
    }
}

impl Context {
    /// Opens the run for a stage's program.
    ///
    /// # Errors
    /// Usage, when the run's URI is not valid, or the step's name is taken by another stage.
    pub fn new(
        common: &Common,
        program: &'static str,
        node: Node,
        shared: &Shared,
    ) -> Result<Self> {
        let context = Self::create(common, program, Some(node), shared)?;
        let Node { step, stage, .. } = context.node();
        refuse_other_stage(&context.run, step, stage)?;
        Ok(context)
    }

    fn create(
        common: &Common,
        program: &'static str,
        node: Option<Node>,
        shared: &Shared,
    ) -> Result<Self> {
        let storage = shared.storage.clone();
        let run = storage.create(&Location::parse(&common.run)?)?;
        let run = Run::new(run, node.is_some());
        Ok(Self {
            run,
            storage,
            jobs: threads(common.jobs),
            memory: shared.memory.clone(),
            force: common.force,
            program,
            cpu: shared.cpu.clone(),
            node,
            common: common.clone(),
            stop: shared.stop.clone(),
            progress: Mutex::default(),
            tally: Mutex::default(),
            uncommitted: Mutex::default(),
            look_until: None,
        })
    }

    /// Opens a run to look at it, named by its own place or by that of its output: nothing is written,
    /// and a run that is not there is not made.
    ///
    /// # Errors
    /// Data, when the folder does not exist.
    pub fn look(run: &str, program: &'static str, shared: &Shared) -> Result<Self> {
        let place = run_at(&shared.storage, &Location::parse(run)?)?;
        let common = Common::on(place.to_string());
        Self::create(&common, program, None, shared)
    }

    /// Returns what the program is at work on.
    ///
    /// # Panics
    /// In programs that are not a stage's.
    pub fn node(&self) -> &Node {
        // Unwrap safety: stages' programs open their context with a node, and others do no work.
        self.node.as_ref().expect("a stage's program")
    }

    pub(crate) fn own_step(&self) -> Option<&StepName> {
        self.node.as_ref().map(|node| &node.step)
    }

    /// Returns the name of the step that the program is at work on.
    pub fn step(&self) -> &StepName {
        &self.node().step
    }

    /// Fails when a signal asked the program to stop. Called between batches of work.
    pub fn check_stop(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::stopped());
        }
        Ok(())
    }

    /// Returns the units that are this process's share.
    ///
    /// # Errors
    /// Usage, when the arguments name units that there are not.
    pub fn share(&self, units: Vec<Unit>) -> Result<Vec<Unit>> {
        self.common.share(units)
    }

    /// Does `work` for each unit that is this process's share, `in_flight` units at once. The
    /// first error ends it.
    ///
    /// # Errors
    /// Of `work`; usage, when the share is not valid; a bug, when `work` succeeds and its task was
    /// not committed.
    pub fn each_unit<E: From<Error> + Send>(
        &self,
        units: Vec<Unit>,
        in_flight: usize,
        work: impl Fn(Unit) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        let units = self.share(units)?;
        self.tally().units += units.len() as u64;
        let progress = Progress::new(&self.node().name(), self.weights(&units));
        *lock(&self.progress) = Some(progress.clone());
        let next = AtomicUsize::new(0);
        let failed: Mutex<Option<E>> = Mutex::new(None);
        let worker = || {
            while let Some(&unit) = units.get(next.fetch_add(1, Ordering::Relaxed)) {
                let done = || -> Result<(), E> {
                    self.check_stop()?;
                    work(unit)?;
                    Ok(self.check_unit_committed(unit)?)
                };
                if let Err(e) = done() {
                    lock(&failed).get_or_insert(e);
                    next.store(units.len(), Ordering::Relaxed);
                    return;
                }
                // Who only looks whether there is work does none.
                if self.look_until.is_none() {
                    progress.unit_done();
                }
            }
        };
        let workers = in_flight.clamp(1, units.len().max(1));
        std::thread::scope(|scope| {
            for _ in 1..workers {
                if let Err(e) = spawn(scope, worker) {
                    lock(&failed).get_or_insert(e.into());
                    next.store(units.len(), Ordering::Relaxed);
                }
            }
            worker();
        });
        *lock(&self.progress) = None;
        match failed.into_inner().unwrap_or_else(|e| e.into_inner()) {
            Some(e) => Err(e),
            None => Ok(()),
        }
    }

    /// Returns how much work units are, for a progress bar. Where nobody sees one nothing is read for it.
    fn weights(&self, units: &[Unit]) -> Weights {
        let are_parts = units
            .first()
            .is_some_and(|unit| unit.kind == UnitKind::Part);
        let known = match are_parts && std::io::stderr().is_terminal() {
            true if *self.step() == StepName::read() => self.bytes_of(units),
            true => self.accepted_in(units),
            false => None,
        };
        known.unwrap_or_else(|| Weights::equal(units))
    }

    fn bytes_of(&self, units: &[Unit]) -> Option<Weights> {
        let plan = self.plan().ok()?;
        let wanted: BTreeSet<&Unit> = units.iter().collect();
        let of = plan.partitions.iter().map(|planned| {
            let bytes = planned.shards.iter().map(|shard| shard.bytes).sum();
            (Unit::from(planned.partition), bytes)
        });
        Some(Weights {
            units: of.filter(|(unit, _)| wanted.contains(unit)).collect(),
            are_images: false,
        })
    }

    /// Returns how many images `read` accepted in each partition.
    fn accepted_in(&self, units: &[Unit]) -> Option<Weights> {
        let receipts = self.required_receipts(&StepName::read(), units).ok()?;
        let of = receipts
            .iter()
            .map(|receipt| (receipt.unit, receipt.counts.kept));
        Some(Weights {
            units: of.collect(),
            are_images: true,
        })
    }

    /// Returns whether the first of these units is this process's share. Of the tasks of a fan-out, that
    /// one does what is to be done once.
    ///
    /// # Errors
    /// Usage, when the share is not valid.
    pub fn has_first(&self, units: &[Unit]) -> Result<bool> {
        Ok(self.common.share(units.to_vec())?.first() == units.first())
    }

    /// Ends a program that only looks whether there is work: when there is some, or when it has looked
    /// long enough.
    pub(crate) fn end_look(&self, is_work: bool) -> Result<()> {
        match self.look_until {
            Some(until) if is_work || Instant::now() > until => Err(Error::stopped()),
            _ => Ok(()),
        }
    }

    pub(crate) fn begun(&self, unit: Unit) {
        lock(&self.uncommitted).insert(unit);
    }

    pub(crate) fn committed(&self, unit: Unit) {
        lock(&self.uncommitted).remove(&unit);
    }

    fn check_unit_committed(&self, unit: Unit) -> Result<()> {
        match lock(&self.uncommitted).contains(&unit) {
            true => Err(self.not_committed(unit)),
            false => Ok(()),
        }
    }

    /// Fails when a task was dropped without a commit although the work ended without an error.
    pub(crate) fn check_committed(&self) -> Result<()> {
        let first = lock(&self.uncommitted).first().copied();
        first.map_or(Ok(()), |unit| Err(self.not_committed(unit)))
    }

    fn not_committed(&self, unit: Unit) -> Error {
        let name = self.node.as_ref().map(Node::name).unwrap_or_default();
        Error::bug(format!("{name} {unit}: ended without a commit"))
    }

    /// Returns a unit's receipt, where there is one.
    ///
    /// # Errors
    /// Data, when it is broken or was changed.
    pub fn receipt(&self, step: &StepName, unit: Unit) -> Result<Option<Receipt>> {
        self.run.receipt(step, unit)
    }

    /// Returns the receipt of a unit that must have been done before.
    ///
    /// # Errors
    /// Data, when there is none; the hint names the step to run.
    pub fn required_receipt(&self, step: &StepName, unit: Unit) -> Result<Receipt> {
        self.check_stop()?;
        let receipt = self.run.required_receipt(step, unit);
        if receipt.is_err() {
            // A run of another version has its receipts elsewhere.
            self.run_info()?;
        }
        receipt
    }

    /// Returns the receipts of several units that must have been done before, in their order.
    ///
    /// # Errors
    /// As [`Context::required_receipt`].
    pub fn required_receipts(&self, step: &StepName, units: &[Unit]) -> Result<Vec<Receipt>> {
        units
            .par_iter()
            .map(|&unit| self.required_receipt(step, unit))
            .collect()
    }

    /// Returns a unit of an earlier step as an input.
    ///
    /// # Errors
    /// As [`Context::required_receipt`]; transient, when the unit was done again since this process
    /// took it as an input.
    pub fn input(&self, step: &StepName, unit: Unit) -> Result<Input> {
        let receipt = self.required_receipt(step, unit)?;
        self.run.rely_on(&receipt)?;
        Ok(receipt.as_input())
    }

    /// Returns all units of a kind of an earlier step as one input.
    ///
    /// # Errors
    /// As [`Context::input`].
    pub fn combined_input(&self, step: &StepName, kind: UnitKind) -> Result<Input> {
        let units = self.units_of(step, kind)?;
        let receipts = self.required_receipts(step, &units)?;
        receipts
            .iter()
            .try_for_each(|receipt| self.run.rely_on(receipt))?;
        let fingerprints = receipts.iter().map(|receipt| &receipt.fingerprint);
        Ok(Input::units(step, kind, fingerprints))
    }

    /// Returns the units that a step had when it ran. The receipt of the first one has their number. It
    /// is not believed beyond the receipts that are there and one more, which is then missing.
    ///
    /// # Errors
    /// As [`Context::required_receipt`].
    pub fn units_of(&self, step: &StepName, kind: UnitKind) -> Result<Vec<Unit>> {
        let stated = self.required_receipt(step, Unit::once(kind))?.units;
        let listed = self.run.list(&layout::receipts(step))?;
        let units = listed.iter().filter_map(|o| layout::receipt_at(&o.path));
        let there = units.filter(|(_, unit)| unit.kind == kind).count();
        let most = u32::try_from(there + 1).unwrap_or(u32::MAX);
        Ok(Unit::all(kind, stated.min(most)))
    }

    pub(crate) fn tally(&self) -> MutexGuard<'_, Tally> {
        lock(&self.tally)
    }

    pub(crate) fn advance(&self, unit: Unit, samples: u64) {
        self.tally().samples += samples;
        if let Some(progress) = &*lock(&self.progress) {
            progress.advance(unit, samples);
        }
    }

    /// Reports the number of units that later steps fan out over. Workflow engines read it from the
    /// result.
    pub fn report_fan_out(&self, fan_out: FanOut, units: u64) {
        self.tally().fan_out.insert(fan_out.as_str(), units);
    }

    /// Reports a setting that the step chose itself: in the result, and in the log.
    pub fn report_choice(&self, setting: &'static str, choice: Choice) {
        let Choice { value, because, .. } = &choice;
        match &choice.hint {
            Some(hint) => tracing::warn!("{setting} {value}: {because}; hint: {hint}"),
            None => tracing::info!("{setting} {value}: {because}"),
        }
        self.tally().choices.insert(setting, choice);
    }

    /// Reports what the step's model ran on: in the result, and in the log.
    pub fn report_device(&self, device: DeviceUse) {
        let step = self.node().name();
        let DeviceUse {
            name,
            batch_size,
            idle,
            ..
        } = &device;
        let name = name.as_deref();
        tracing::info!(
            step,
            device = device.device,
            name,
            batch_size,
            idle,
            "model ran"
        );
        self.tally().device = Some(device);
    }

    /// Returns what the step's model ran on.
    pub fn device(&self) -> Option<DeviceUse> {
        self.tally().device.clone()
    }

    /// Returns the settings that the step chose itself.
    pub fn choices(&self) -> BTreeMap<&'static str, Choice> {
        self.tally().choices.clone()
    }

    /// Counts of the units done or found up to date so far.
    pub fn counts(&self) -> Counts {
        self.tally().counts.clone()
    }

    /// Returns the number of damaged shards in the units done or found up to date so far.
    pub fn damaged_shards(&self) -> u64 {
        self.tally().damaged_shards
    }

    /// Units that were this process's share, and how many of them were up to date already.
    pub fn units(&self) -> (u64, u64) {
        let tally = self.tally();
        (tally.units, tally.up_to_date)
    }

    /// Rows of scores or embeddings that were computed and rows that were taken over; none where the step
    /// gives neither. Units that were up to date have none of both.
    pub fn rows(&self) -> Option<(u64, u64)> {
        self.tally().rows
    }

    pub(crate) fn record(&self, receipt: &Receipt, worked: bool) {
        if let Some(progress) = &*lock(&self.progress) {
            progress.counted(receipt.unit, receipt.counts.input);
        }
        let mut tally = self.tally();
        if worked {
            tally.done += 1;
        } else {
            tally.up_to_date += 1;
        }
        if let Some(of_unit) = receipt.rows() {
            let (computed, reused) = if worked { of_unit } else { (0, 0) };
            let so_far = tally.rows.unwrap_or_default();
            tally.rows = Some((so_far.0 + computed, so_far.1 + reused));
        }
        tally.counts.merge(&receipt.counts);
        tally.damaged_shards += receipt.sums.damaged_shards;
        for output in &receipt.outputs {
            tally.output_bytes = tally.output_bytes.saturating_add(output.bytes);
            tally.outputs.push(output.path.to_string());
        }
    }

    /// Removes the units of a step from number `count` on, with what they wrote: the settings no
    /// longer have them.
    ///
    /// # Errors
    /// Storage errors only.
    pub fn remove_stale(&self, step: &StepName, kind: UnitKind, count: u32) -> Result<()> {
        self.remove_units(&layout::receipts(step), |_, unit| {
            unit.kind == kind && unit.index >= count
        })
    }

    /// Removes the units under a folder of the run that are `stale`, with what they wrote in the run.
    /// Of a receipt that cannot be trusted it is not known what it wrote.
    ///
    /// # Errors
    /// Storage errors only.
    pub fn remove_units(
        &self,
        folder: &str,
        stale: impl Fn(&StepName, Unit) -> bool,
    ) -> Result<()> {
        for object in self.run.list(folder)? {
            let Some((step, unit)) = layout::receipt_at(&object.path) else {
                continue;
            };
            if !stale(&step, unit) {
                continue;
            }
            let receipt = data_or_none(self.receipt(&step, unit))?;
            self.run.delete(&object.path)?;
            for output in receipt.map(|r| r.outputs).unwrap_or_default() {
                if !output.path.is_outside() {
                    self.run.delete_inside(output.path.as_str())?;
                }
            }
        }
        Ok(())
    }

    /// Whether an output is there with the size that its receipt states.
    pub fn output_is_there(&self, output: &Output) -> Result<bool> {
        let info = match self.outside(&output.path)? {
            Some((store, name)) => store.stat(&name)?,
            None => self.run.stat(output.path.as_str())?,
        };
        Ok(info.is_some_and(|info| info.bytes == output.bytes))
    }

    /// Returns the folder and the name of an output outside of the run; none for one in the run.
    ///
    /// # Errors
    /// Usage or data, when the path is not one of an object.
    pub fn outside(&self, path: &OutputPath) -> Result<Option<(Store, String)>> {
        if !path.is_outside() {
            return Ok(None);
        }
        let location = Location::parse(path.as_str())?;
        let Some((folder, name)) = location.split() else {
            return Err(Error::data(format!("{path}: not the path of an object")));
        };
        match self.storage.open_if_there(&folder)? {
            Some(store) => Ok(Some((store, name))),
            // An output folder that was removed holds no outputs; looking must not make it.
            None => Ok(Some((Store::clone(&self.run), format!("missing/{name}")))),
        }
    }
}

/// Returns none in place of unusable data, which will be made anew, and logs a warning.
///
/// # Errors
/// All others.
pub fn data_or_none<T>(found: Result<Option<T>>) -> Result<Option<T>> {
    match found {
        Err(e) if e.class() == Class::Data => {
            tracing::warn!("{e}");
            Ok(None)
        }
        found => found,
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}
