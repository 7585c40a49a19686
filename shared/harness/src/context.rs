//! What a program's `run` works with: the run's store, its share of the units, and the tally.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use rayon::prelude::*;
use sluice_manifest::dag::{FanOut, Step};
use sluice_manifest::{Counts, Error, Input, Receipt, Result, Unit, layout};
use sluice_store::{Location, Store};

use crate::args::Common;
use crate::logs::Progress;

/// What the steps of one process share.
#[derive(Debug, Clone, Default)]
pub struct Shared {
    /// Set by a signal: stop soon, leave nothing half-written.
    pub stop: Arc<AtomicBool>,
}

/// A program at work.
pub struct Context {
    /// The run.
    pub run: Store,
    /// Threads that may work at once.
    pub jobs: usize,
    pub(crate) force: bool,
    pub(crate) program: &'static str,
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
    /// Opens the run for a program.
    pub fn new(common: &Common, program: &'static str, shared: &Shared) -> Result<Self> {
        let run = Store::create(&Location::parse(&common.run)?)?;
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            run,
            jobs: common.jobs.unwrap_or(cpus).max(1),
            force: common.force,
            program,
            common: common.clone(),
            stop: shared.stop.clone(),
            progress: Mutex::default(),
            tally: Mutex::default(),
        })
    }

    /// Opens a run to look at it: nothing is written, and a run that is not there is not made.
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
        Self::new(&common, program, shared)
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
        step: &Step,
        units: Vec<Unit>,
        in_flight: usize,
        work: impl Fn(&Unit) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        let units = self.common.share(units)?;
        self.tally().units += units.len() as u64;
        let progress = Progress::new(step.name, units.len());
        *lock(&self.progress) = Some(progress.clone());
        let next = AtomicUsize::new(0);
        let failed: Mutex<Option<E>> = Mutex::new(None);
        let worker = || {
            while let Some(unit) = units.get(next.fetch_add(1, Ordering::Relaxed)) {
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

    /// A unit's receipt, where there is one.
    pub fn receipt(&self, step: &Step, unit: &Unit) -> Result<Option<Receipt>> {
        let path = layout::receipt(step.stage, unit);
        let Some(json) = self.run.get_if_there(&path)? else {
            return Ok(None);
        };
        match serde_json::from_slice::<Receipt>(&json) {
            Ok(receipt) if receipt.step == step.name => Ok(Some(receipt)),
            Ok(receipt) => Err(Error::data(format!(
                "{}: a receipt of step {:?}, expected {:?}",
                self.run.uri(&path),
                receipt.step,
                step.name
            ))),
            Err(e) => Err(
                Error::data(format!("{}: does not read: {e}", self.run.uri(&path)))
                    .hint("delete it to have the unit done again"),
            ),
        }
    }

    /// The receipt of a unit that must have been done before.
    pub fn required_receipt(&self, step: &Step, unit: &Unit) -> Result<Receipt> {
        self.receipt(step, unit)?.ok_or_else(|| {
            let path = layout::receipt(step.stage, unit);
            let sub = step
                .subcommand
                .map(|sub| format!(" {sub}"))
                .unwrap_or_default();
            Error::data(format!("{}: no such receipt", self.run.uri(&path))).hint(format!(
                "run `sluice-{}{sub} --run {}` first",
                step.stage, self.common.run
            ))
        })
    }

    /// The receipts of several units that must have been done before, in their order.
    pub fn required_receipts(&self, step: &Step, units: &[Unit]) -> Result<Vec<Receipt>> {
        units
            .par_iter()
            .map(|unit| self.required_receipt(step, unit))
            .collect()
    }

    /// A unit of an earlier step as an input.
    pub fn input(&self, step: &Step, unit: &Unit) -> Result<Input> {
        Ok(as_input(&self.required_receipt(step, unit)?))
    }

    /// All units of an earlier step as one input.
    pub fn combined_input(&self, step: &Step, units: &[Unit]) -> Result<Input> {
        let receipts = self.required_receipts(step, units)?;
        let inputs: Vec<Input> = receipts.iter().map(as_input).collect();
        Ok(Input::combined(step.name, &inputs))
    }

    /// The units that a step had when it ran, for steps whose units the plan does not tell. Their
    /// number stands in the receipt of the first one.
    pub fn units_of(&self, step: &Step, kind: &str) -> Result<Vec<Unit>> {
        let first = self.required_receipt(step, &Unit::numbered(kind, 0))?;
        Ok((0..first.units)
            .map(|index| Unit::numbered(kind, index))
            .collect())
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

    /// Says how many units the steps have that fan out over this; the result tells it to workflow
    /// engines.
    pub fn tells(&self, fan_out: FanOut, units: u64) {
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

    /// Removes units of a step that the present settings no longer have, with what they wrote.
    pub fn remove_stale(&self, step: &Step, kind: &str, present: &[Unit]) -> Result<()> {
        let present: BTreeSet<&str> = present.iter().map(Unit::as_str).collect();
        let prefix = format!("{}/receipts", step.stage);
        for object in self.run.list(&prefix)? {
            let name = object.path.rsplit('/').next().unwrap_or_default();
            let Some(name) = name.strip_suffix(".json") else {
                continue;
            };
            let numbered = name.rsplit_once('-').is_some_and(|(head, _)| head == kind);
            if !numbered || present.contains(name) {
                continue;
            }
            let receipt: Option<Receipt> =
                serde_json::from_slice(&self.run.get(&object.path)?).ok();
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

pub(crate) fn as_input(receipt: &Receipt) -> Input {
    Input {
        name: format!("{}/{}", receipt.step, receipt.unit),
        fingerprint: receipt.fingerprint.clone(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}
