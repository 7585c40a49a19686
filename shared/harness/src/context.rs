//! What the `run` of a program works with: the run, the share of the units, and the totals.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use serde::Serialize;
use serde_json::Value;
use sluice_manifest::{
    Counts, DeviceUse, Error, FanOut, Operation, Output, Receipt, Result, StepName, Unit, UnitKind,
};
use sluice_run::{Run, refuse_other_stage};
use sluice_store::Storage;
use sluice_threads::{MemoryBudget, spawn};

use crate::args::Common;
use crate::cpu::CpuClock;
use crate::machine::default_memory;
use crate::progress::{Progress, Weights};

/// The resources that all steps of one process share.
#[derive(Debug, Clone)]
pub struct ProcessResources {
    /// Set by a signal. The work then stops soon, without partial outputs.
    pub stop: Arc<AtomicBool>,
    /// Opens stores.
    pub storage: Storage,
    /// The memory for decoding, for all steps together.
    pub memory: Arc<MemoryBudget>,
    /// Divides the CPU time of the process between the units in progress.
    pub cpu: CpuClock,
}

impl ProcessResources {
    /// Returns the same resources with a memory budget of `memory` bytes. `None` derives it from
    /// the machine and the number of threads `jobs`.
    #[must_use]
    pub fn with_memory(&self, jobs: Option<usize>, memory: Option<u64>) -> Self {
        let memory = memory.unwrap_or_else(|| default_memory(threads(jobs)));
        Self {
            memory: Arc::new(MemoryBudget::new(memory)),
            ..self.clone()
        }
    }
}

impl Default for ProcessResources {
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

/// Returns the number of worker threads. The default is the number of CPUs that the cgroup grants.
pub(crate) fn threads(jobs: Option<usize>) -> usize {
    jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// What a program runs: a step of the pipeline, and an operation of its stage.
#[derive(Debug, Clone)]
pub struct ProgramNode {
    /// The name of the step.
    pub step: StepName,
    /// The name of the step's stage.
    pub stage: &'static str,
    /// The operation of the stage.
    pub operation: &'static Operation,
    /// The deciding step whose survivors are processed.
    pub survivors_of: Option<StepName>,
}

impl ProgramNode {
    /// Returns the name in logs: the step, and the subcommand if the stage has several.
    pub fn name(&self) -> String {
        match self.operation.subcommand {
            Some(subcommand) => format!("{}-{subcommand}", self.step),
            None => self.step.to_string(),
        }
    }
}

/// A stage's program in progress: the run, which it dereferences to, and the share of its units.
pub struct Context {
    /// The run that the program reads and writes.
    pub run: Run,
    /// The maximum number of worker threads.
    pub jobs: usize,
    /// The memory for decoding.
    pub memory: Arc<MemoryBudget>,
    pub(crate) force: bool,
    pub(crate) program: &'static str,
    pub(crate) cpu: CpuClock,
    node: ProgramNode,
    pub(crate) common: Common,
    progress: Mutex<Option<Progress>>,
    totals: Mutex<Totals>,
    /// The units that were begun and not committed.
    uncommitted: Mutex<BTreeSet<Unit>>,
    /// Until when the program only checks whether there is work. `None`: it does the work.
    pub(crate) work_check_deadline: Option<Instant>,
}

/// The totals of all units, for the result.
#[derive(Debug, Clone, Default)]
pub(crate) struct Totals {
    pub units: u64,
    pub done: u64,
    pub up_to_date: u64,
    pub samples: u64,
    pub counts: Counts,
    pub outputs: Vec<String>,
    pub output_bytes: u64,
    pub damaged_shards: u64,
    pub fan_out: BTreeMap<&'static str, u64>,
    /// The numbers of computed and of reused rows, or `None` if the step writes neither scores nor
    /// embeddings.
    pub rows: Option<(u64, u64)>,
    pub choices: BTreeMap<&'static str, ChosenSetting>,
    pub reported: BTreeMap<&'static str, Value>,
    pub device: Option<DeviceUse>,
}

/// The value of a setting that a step chose because the user gave none.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChosenSetting {
    /// The chosen value.
    pub value: f64,
    /// The reason for this value.
    pub because: String,
    /// What the user can do if there was too little data to choose by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Totals {
    /// Returns whether there were units, and all were up to date.
    pub(crate) fn is_up_to_date(&self) -> bool {
        self.units > 0 && self.units == self.up_to_date
    }

    fn add_unit(&mut self, outputs: &[Output], worked: bool) {
        if worked {
            self.done += 1;
        } else {
            self.up_to_date += 1;
        }
        for output in outputs {
            self.output_bytes = self.output_bytes.saturating_add(output.bytes);
            self.outputs.push(output.path.to_string());
        }
    }
}

impl Deref for Context {
    type Target = Run;

    fn deref(&self) -> &Run {
        &self.run
    }
}

impl Context {
    /// Opens the run for a stage's program.
    ///
    /// # Errors
    ///
    /// Returns a usage error if the run's URI is not valid, if another stage uses the name of the
    /// step, or if the step is to process its own survivors, and otherwise a storage error.
    pub fn new(
        common: &Common,
        program: &'static str,
        node: ProgramNode,
        shared: &ProcessResources,
    ) -> Result<Self> {
        let ProgramNode { step, stage, .. } = &node;
        if node.survivors_of.as_ref() == Some(step) {
            let error = Error::usage(format!("--survivors-of {step}: the step itself"));
            return Err(error.hint("name the deciding step before it"));
        }
        let run = Run::open(&shared.storage, &common.run)?;
        refuse_other_stage(&run, step, stage)?;
        Ok(Self {
            run,
            jobs: threads(common.jobs),
            memory: shared.memory.clone(),
            force: common.force,
            program,
            cpu: shared.cpu.clone(),
            node,
            common: common.clone(),
            progress: Mutex::default(),
            totals: Mutex::default(),
            uncommitted: Mutex::default(),
            work_check_deadline: None,
        })
    }

    /// Returns the step and the operation that the program runs.
    pub fn node(&self) -> &ProgramNode {
        &self.node
    }

    /// Returns the name of the step that the program runs.
    pub fn step(&self) -> &StepName {
        &self.node.step
    }

    /// Returns the units in the share of this process.
    ///
    /// # Errors
    ///
    /// Returns a usage error if the arguments name units that do not exist.
    pub fn share(&self, units: Vec<Unit>) -> Result<Vec<Unit>> {
        self.common.share(units)
    }

    /// Calls `work` for each unit in the share of this process, for `in_flight` units concurrently.
    /// Stops at the first error.
    ///
    /// # Errors
    ///
    /// Fails like `work`, with a usage error if the share is not valid, and with a bug if `work`
    /// succeeds without a commit.
    pub fn each_unit<E: From<Error> + Send>(
        &self,
        units: Vec<Unit>,
        in_flight: usize,
        work: impl Fn(Unit) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        each_unit(&[self], units, in_flight, work)
    }

    /// Returns whether another step processes the same units and samples of the same run.
    pub fn has_same_samples(&self, other: &Self) -> bool {
        let of = |context: &Self| {
            let common = &context.common;
            (
                context.run.location().to_string(),
                context.node().survivors_of.clone(),
                common.partitions.clone(),
                (common.task_index, common.task_count),
            )
        };
        of(self) == of(other)
    }

    fn begin_units(&self, units: &[Unit]) {
        self.totals().units += units.len() as u64;
        let progress = Progress::new(&self.node().name(), self.weights(units));
        *lock(&self.progress) = Some(progress);
    }

    fn end_unit(&self, unit: Unit) -> Result<()> {
        self.check_unit_committed(unit)?;
        // A program that only checks for work completes no units.
        if self.work_check_deadline.is_none()
            && let Some(progress) = &*lock(&self.progress)
        {
            progress.unit_done();
        }
        Ok(())
    }

    /// Returns the weights of the units for a progress bar. Reads nothing if no progress bar is
    /// shown.
    fn weights(&self, units: &[Unit]) -> Weights {
        let are_parts = units
            .first()
            .is_some_and(|unit| unit.kind == UnitKind::Partition);
        let known = if !are_parts || !std::io::stderr().is_terminal() {
            None
        } else if *self.step() == StepName::read() {
            self.bytes_of(units)
        } else {
            self.accepted_in(units)
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

    /// Returns the number of images that `read` accepted in each partition.
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

    /// Returns whether the first of these units is in the share of this process. In a fan-out, the
    /// task with the first unit does the work that is needed once.
    ///
    /// # Errors
    ///
    /// Returns a usage error if the share is not valid.
    pub fn has_first(&self, units: &[Unit]) -> Result<bool> {
        Ok(self.common.share(units.to_vec())?.first() == units.first())
    }

    /// Ends a program that only checks for work, once it has found some or its time is over.
    pub(crate) fn end_work_check(&self, is_work: bool) -> Result<()> {
        match self.work_check_deadline {
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
        if lock(&self.uncommitted).contains(&unit) {
            Err(self.not_committed(unit))
        } else {
            Ok(())
        }
    }

    /// Returns an error if a unit was begun and not committed although the work succeeded.
    pub(crate) fn check_committed(&self) -> Result<()> {
        let first = lock(&self.uncommitted).first().copied();
        first.map_or(Ok(()), |unit| Err(self.not_committed(unit)))
    }

    fn not_committed(&self, unit: Unit) -> Error {
        let name = self.node.name();
        Error::bug(format!("{name} {unit}: ended without a commit"))
    }

    pub(crate) fn totals(&self) -> MutexGuard<'_, Totals> {
        lock(&self.totals)
    }

    pub(crate) fn advance(&self, unit: Unit, samples: u64) {
        self.totals().samples += samples;
        if let Some(progress) = &*lock(&self.progress) {
            progress.advance(unit, samples);
        }
    }

    /// Reports the number of units that later steps fan out over. Workflow engines read it from the
    /// result.
    pub fn report_fan_out(&self, fan_out: FanOut, units: u64) {
        self.totals().fan_out.insert(fan_out.as_str(), units);
    }

    /// Reports a setting that the step chose, in the result and in the log.
    pub fn report_choice(&self, setting: &'static str, choice: ChosenSetting) {
        let ChosenSetting { value, because, .. } = &choice;
        match &choice.hint {
            Some(hint) => tracing::warn!("{setting} {value}: {because}; hint: {hint}"),
            None => tracing::info!("{setting} {value}: {because}"),
        }
        self.totals().choices.insert(setting, choice);
    }

    /// Reports a fact about the work, as a field of the result.
    pub fn report(&self, field: &'static str, fact: Value) {
        self.totals().reported.insert(field, fact);
    }

    /// Returns the reported facts, by field of the result.
    pub fn reported(&self) -> BTreeMap<&'static str, Value> {
        self.totals().reported.clone()
    }

    /// Records a unit without a receipt as done or, unless there was work, as up to date.
    pub fn record_unit(&self, outputs: &[Output], worked: bool) {
        self.totals().add_unit(outputs, worked);
    }

    /// Reports the device that the step's model ran on, in the result and in the log.
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
        self.totals().device = Some(device);
    }

    /// Returns the device that the step's model ran on.
    pub fn device(&self) -> Option<DeviceUse> {
        self.totals().device.clone()
    }

    /// Returns the settings that the step chose.
    pub fn choices(&self) -> BTreeMap<&'static str, ChosenSetting> {
        self.totals().choices.clone()
    }

    /// Returns the sample counts of the units that are done or up to date.
    pub fn counts(&self) -> Counts {
        self.totals().counts.clone()
    }

    /// Returns the number of damaged shards in the units that are done or up to date.
    pub fn damaged_shards(&self) -> u64 {
        self.totals().damaged_shards
    }

    /// Returns the number of units in the share of this process, and how many were up to date.
    pub fn units(&self) -> (u64, u64) {
        let totals = self.totals();
        (totals.units, totals.up_to_date)
    }

    /// Returns the numbers of computed and of reused rows, or `None` if the step writes neither
    /// scores nor embeddings. Units that were up to date are not counted.
    pub fn rows(&self) -> Option<(u64, u64)> {
        self.totals().rows
    }

    pub(crate) fn record(&self, receipt: &Receipt, worked: bool) {
        if let Some(progress) = &*lock(&self.progress) {
            progress.counted(receipt.unit, receipt.counts.input);
        }
        let mut totals = self.totals();
        totals.add_unit(&receipt.outputs, worked);
        if let Some(of_unit) = receipt.rows() {
            let (computed, reused) = if worked { of_unit } else { (0, 0) };
            let so_far = totals.rows.unwrap_or_default();
            totals.rows = Some((so_far.0 + computed, so_far.1 + reused));
        }
        totals.counts.merge(&receipt.counts);
        totals.damaged_shards += receipt.sums.damaged_shards;
    }
}

/// Calls `work` for each unit in the share of this process, for `in_flight` units concurrently, for
/// one step or for several steps with the same samples ([`Context::has_same_samples`]). Stops at the
/// first error.
///
/// # Errors
///
/// Fails like `work`, with a usage error if the share is not valid, and with a bug if `work`
/// succeeds without a commit.
pub fn each_unit<E: From<Error> + Send>(
    steps: &[&Context],
    units: Vec<Unit>,
    in_flight: usize,
    work: impl Fn(Unit) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let Some(first) = steps.first() else {
        return Ok(());
    };
    let units = first.share(units)?;
    steps.iter().for_each(|step| step.begin_units(&units));
    let next = AtomicUsize::new(0);
    let failed: Mutex<Option<E>> = Mutex::new(None);
    let worker = || {
        while let Some(&unit) = units.get(next.fetch_add(1, Ordering::Relaxed)) {
            let done = || -> Result<(), E> {
                first.check_stop()?;
                work(unit)?;
                Ok(steps.iter().try_for_each(|step| step.end_unit(unit))?)
            };
            if let Err(e) = done() {
                lock(&failed).get_or_insert(e);
                next.store(units.len(), Ordering::Relaxed);
                return;
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
    for step in steps {
        *lock(&step.progress) = None;
    }
    match failed.into_inner().unwrap_or_else(|e| e.into_inner()) {
        Some(e) => Err(e),
        None => Ok(()),
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}
