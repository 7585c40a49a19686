//! What a program's `run` works with: the run's store, its share of the units, and the tally.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use rayon::prelude::*;
use sluice_manifest::{
    Counts, Error, FanOut, Input, Operation, Receipt, Result, StepName, Unit, UnitKind, layout,
};
use sluice_store::{Location, Store};

use crate::args::Common;
use crate::logs::Progress;

/// What the steps of one process share.
#[derive(Debug, Clone, Default)]
pub struct Shared {
    /// Set by a signal: stop soon, leave nothing half-written.
    pub stop: Arc<AtomicBool>,
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
    pub run: Store,
    /// Threads that may work at once.
    pub jobs: usize,
    pub(crate) force: bool,
    pub(crate) program: &'static str,
    node: Option<Node>,
    common: Common,
    stop: Arc<AtomicBool>,
    progress: Mutex<Option<Progress>>,
    tally: Mutex<Tally>,
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
    pub fan_out: BTreeMap<&'static str, u64>,
}

impl Context {
    /// Opens the run for a stage's program.
    ///
    /// # Errors
    /// Usage, when the run's URI is not valid.
    pub fn new(
        common: &Common,
        program: &'static str,
        node: Node,
        shared: &Shared,
    ) -> Result<Self> {
        Self::create(common, program, Some(node), shared)
    }

    fn create(
        common: &Common,
        program: &'static str,
        node: Option<Node>,
        shared: &Shared,
    ) -> Result<Self> {
        let run = Store::create(&Location::parse(&common.run)?)?;
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            run,
            jobs: common.jobs.unwrap_or(cpus).max(1),
            force: common.force,
            program,
            node,
            common: common.clone(),
            stop: shared.stop.clone(),
            progress: Mutex::default(),
            tally: Mutex::default(),
        })
    }

    /// Opens a run to look at it: nothing is written, and a run that is not there is not made.
    ///
    /// # Errors
    /// Data, when the folder does not exist.
    pub fn look(run: &str, program: &'static str, shared: &Shared) -> Result<Self> {
        let common = Common {
            run: run.to_owned(),
            partitions: None,
            task_index: None,
            task_count: None,
            jobs: None,
            force: false,
            result: None,
        };
        Store::open(&Location::parse(run)?)?;
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

    /// Does `work` for each unit that is this process's share, `in_flight` units at once. The
    /// first error ends it.
    pub fn each_unit<E: From<Error> + Send>(
        &self,
        units: Vec<Unit>,
        in_flight: usize,
        work: impl Fn(Unit) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        let units = self.common.share(units)?;
        self.tally().units += units.len() as u64;
        let progress = Progress::new(&self.node().name(), units.len());
        *lock(&self.progress) = Some(progress.clone());
        let next = AtomicUsize::new(0);
        let failed: Mutex<Option<E>> = Mutex::new(None);
        let worker = || {
            while let Some(&unit) = units.get(next.fetch_add(1, Ordering::Relaxed)) {
                let done = self.check_stop().map_err(E::from).and_then(|()| work(unit));
                if let Err(e) = done {
                    lock(&failed).get_or_insert(e);
                    next.store(units.len(), Ordering::Relaxed);
                    return;
                }
                progress.unit_done();
            }
        };
        let workers = in_flight.clamp(1, units.len().max(1));
        std::thread::scope(|scope| {
            for _ in 1..workers {
                scope.spawn(worker);
            }
            worker();
        });
        *lock(&self.progress) = None;
        match failed.into_inner().unwrap_or_else(|e| e.into_inner()) {
            Some(e) => Err(e),
            None => Ok(()),
        }
    }

    /// Returns a unit's receipt, where there is one.
    ///
    /// # Errors
    /// Data, when it cannot be parsed.
    pub fn receipt(&self, step: &StepName, unit: Unit) -> Result<Option<Receipt>> {
        let path = layout::receipt(step, unit);
        let Some(json) = self.run.get_if_there(&path)? else {
            return Ok(None);
        };
        let receipt = serde_json::from_slice(&json).map_err(|e| {
            Error::data(format!(
                "{}: cannot parse receipt: {e}",
                self.run.uri(&path)
            ))
            .hint("delete it to have the unit done again")
        })?;
        Ok(Some(receipt))
    }

    /// Returns the receipt of a unit that must have been done before.
    ///
    /// # Errors
    /// Data, when there is none; the hint names the step to run.
    pub fn required_receipt(&self, step: &StepName, unit: Unit) -> Result<Receipt> {
        self.receipt(step, unit)?.ok_or_else(|| {
            let path = layout::receipt(step, unit);
            Error::data(format!("{}: no such receipt", self.run.uri(&path)))
                .hint(format!("run the step {step} first, for all of its units"))
        })
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
    /// As [`Context::required_receipt`].
    pub fn input(&self, step: &StepName, unit: Unit) -> Result<Input> {
        Ok(self.required_receipt(step, unit)?.as_input())
    }

    /// Returns all units of a kind of an earlier step as one input.
    ///
    /// # Errors
    /// As [`Context::required_receipt`].
    pub fn combined_input(&self, step: &StepName, kind: UnitKind) -> Result<Input> {
        let units = self.units_of(step, kind)?;
        let receipts = self.required_receipts(step, &units)?;
        let fingerprints = receipts.iter().map(|receipt| &receipt.fingerprint);
        Ok(Input::units(step, kind, fingerprints))
    }

    /// Returns the units that a step had when it ran. The receipt of the first one has their number.
    ///
    /// # Errors
    /// As [`Context::required_receipt`].
    pub fn units_of(&self, step: &StepName, kind: UnitKind) -> Result<Vec<Unit>> {
        let first = self.required_receipt(step, Unit::once(kind))?;
        Ok(Unit::all(kind, first.units))
    }

    pub(crate) fn tally(&self) -> MutexGuard<'_, Tally> {
        lock(&self.tally)
    }

    pub(crate) fn advance(&self, samples: u64) {
        let total = {
            let mut tally = self.tally();
            tally.samples += samples;
            tally.samples
        };
        if let Some(progress) = &*lock(&self.progress) {
            progress.samples(total);
        }
    }

    /// Reports the number of units that later steps fan out over. Workflow engines read it from the
    /// result.
    pub fn report_fan_out(&self, fan_out: FanOut, units: u64) {
        self.tally().fan_out.insert(fan_out.as_str(), units);
    }

    /// Counts of the units done or found up to date so far.
    pub fn counts(&self) -> Counts {
        self.tally().counts.clone()
    }

    /// Units that were this process's share, and how many of them were up to date already.
    pub fn units(&self) -> (u64, u64) {
        let tally = self.tally();
        (tally.units, tally.up_to_date)
    }

    pub(crate) fn record(&self, receipt: &Receipt, worked: bool) {
        let mut tally = self.tally();
        if worked {
            tally.done += 1;
        } else {
            tally.up_to_date += 1;
        }
        tally.counts.merge(&receipt.counts);
        for output in &receipt.outputs {
            tally.output_bytes += output.bytes;
            tally.outputs.push(output.path.clone());
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

    /// Removes the units under a folder of the run that are `stale`, with what they wrote.
    ///
    /// # Errors
    /// Storage errors only.
    pub fn remove_units(
        &self,
        folder: &str,
        stale: impl Fn(&StepName, Unit) -> bool,
    ) -> Result<()> {
        for object in self.run.list(folder)? {
            let found = layout::receipt_at(&object.path);
            if !found.is_some_and(|(step, unit)| stale(&step, unit)) {
                continue;
            }
            // Another task may be removing it too.
            let json = self.run.get_if_there(&object.path)?;
            let receipt = json.and_then(|json| serde_json::from_slice::<Receipt>(&json).ok());
            self.run.delete(&object.path)?;
            for output in receipt.map(|r| r.outputs).unwrap_or_default() {
                self.delete_output(&output.path)?;
            }
        }
        Ok(())
    }

    /// Whether an output is there with the size that its receipt tells.
    pub fn output_is_there(&self, output: &sluice_manifest::Output) -> Result<bool> {
        let info = match self.outside(&output.path)? {
            Some((store, name)) => store.stat(&name)?,
            None => self.run.stat(&output.path)?,
        };
        Ok(info.is_some_and(|info| info.bytes == output.bytes))
    }

    fn delete_output(&self, path: &str) -> Result<()> {
        match self.outside(path)? {
            Some((store, name)) => store.delete(&name),
            None => self.run.delete(path),
        }
    }

    /// Where an output outside of the run lies; such outputs carry whole URIs.
    pub fn outside(&self, path: &str) -> Result<Option<(Store, String)>> {
        if !path.starts_with('/') && !path.contains("://") {
            return Ok(None);
        }
        let location = Location::parse(path)?;
        let Some((folder, name)) = location.split() else {
            return Err(Error::data(format!("{path}: not the path of an object")));
        };
        if folder.as_local().is_some_and(|folder| !folder.is_dir()) {
            // An output folder that was removed holds no outputs; looking must not make it.
            return Ok(Some((self.run.clone(), format!("missing/{name}"))));
        }
        Ok(Some((Store::open(&folder)?, name)))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}
