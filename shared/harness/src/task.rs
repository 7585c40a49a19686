//! A unit of work, from its beginning to its receipt.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use serde::Serialize;
use sluice_manifest::layout::Manifest;
use sluice_manifest::{
    Blocks, Counts, Error, Fingerprint, Input, InputOf, Output, OutputPath, Receipt, Result,
    ScoreSummary, StepName, Sums, Times, Unit, UnitKind, layout,
};
use sluice_store::Store;

use crate::Context;
use crate::context::{Node, data_or_none};
use crate::cpu::CpuShare;

/// What shapes a unit's outputs.
pub struct Work<S> {
    /// The unit.
    pub unit: Unit,
    /// How many units of this kind the step has.
    pub units: usize,
    /// The settings that can change the outputs. They are written to the receipt.
    pub settings: S,
    /// What is read.
    pub inputs: Vec<Input>,
}

/// A unit that has work to do. It is done with [`commit`](Self::commit) only: work that succeeds
/// without one fails as a bug.
#[must_use = "a unit is done when its task is committed"]
pub struct Task<'a> {
    context: &'a Context,
    node: &'a Node,
    receipt: Receipt,
    previous: Option<Receipt>,
    is_previous_removed: bool,
    /// The receipt of another process that did the same work meanwhile. Its outputs stay.
    done_meanwhile: Option<Receipt>,
    /// Further sums that later steps need.
    pub sums: Sums,
    started: Instant,
    started_at: SystemTime,
    cpu: CpuShare,
}

impl Context {
    /// Begins a unit of work; none when it is up to date.
    ///
    /// # Errors
    /// Storage errors only. A receipt that is broken or was changed counts as none.
    pub fn begin<S: Serialize>(&self, work: Work<S>) -> Result<Option<Task<'_>>> {
        self.begin_stating(work, |_| ())
    }

    /// Begins a unit as [`begin`](Self::begin) does. `state` adds to the receipt what cannot change
    /// the outputs, such as a licence or a model's own threshold. It is added to the receipt of a
    /// unit that is up to date, too.
    ///
    /// # Errors
    /// As of [`begin`](Self::begin).
    pub fn begin_stating<S: Serialize>(
        &self,
        work: Work<S>,
        state: impl FnOnce(&mut Receipt),
    ) -> Result<Option<Task<'_>>> {
        let node = self.node();
        let mut receipt = new_receipt(node, self.program, work)?;
        receipt.share = self.common.task_share()?;
        let unit = receipt.unit;
        self.end_look(false)?;
        let previous = match self.force {
            true => None,
            false => data_or_none(self.receipt(&node.step, unit))?,
        };
        if let Some(previous) = &previous
            && previous.fingerprint == receipt.fingerprint
            && previous.survivors_of == node.survivors_of
            && self.outputs_are_there(previous)?
        {
            tracing::debug!(step = node.name(), unit = unit.to_string(), "up to date");
            self.amend(previous, &receipt, state)?;
            self.record(previous, false);
            return Ok(None);
        }
        self.end_look(true)?;
        state(&mut receipt);
        self.begun(unit);
        Ok(Some(Task {
            context: self,
            node,
            receipt,
            previous,
            is_previous_removed: false,
            done_meanwhile: None,
            sums: Sums::default(),
            started: Instant::now(),
            started_at: SystemTime::now(),
            cpu: self.cpu.begin(),
        }))
    }

    fn outputs_are_there(&self, receipt: &Receipt) -> Result<bool> {
        for output in &receipt.outputs {
            if !self.output_is_there(output)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Brings the receipt of a unit that is up to date in line with what does not change its outputs:
    /// the step's number of units, which changes when a dataset grows or shrinks, and what `state`
    /// adds.
    fn amend(
        &self,
        previous: &Receipt,
        now: &Receipt,
        state: impl FnOnce(&mut Receipt),
    ) -> Result<()> {
        let mut amended = previous.clone();
        amended.units = now.units;
        state(&mut amended);
        if amended == *previous {
            return Ok(());
        }
        // One that another process removed meanwhile vouches for nothing any more.
        let there = data_or_none(self.receipt(&previous.step, previous.unit))?;
        if there.as_ref() != Some(previous) {
            return Ok(());
        }
        // Equal, but for the last place of numbers that were parsed.
        amended.settings.clone_from(&now.settings);
        self.put_receipt(&amended)
    }

    fn put_receipt(&self, receipt: &Receipt) -> Result<()> {
        let path = layout::receipt(&receipt.step, receipt.unit);
        self.run.put(&path, receipt.to_json()?)
    }
}

/// Returns the receipt of a unit before its work: what is known of it.
fn new_receipt<S: Serialize>(node: &Node, program: &'static str, work: Work<S>) -> Result<Receipt> {
    let settings = serde_json::to_value(&work.settings)
        .map_err(|e| Error::bug(format!("settings do not serialise: {e}")))?;
    let units = u32::try_from(work.units);
    let units = units.map_err(|_| Error::usage(format!("{} units are too many", work.units)))?;
    let mut receipt = Receipt {
        step: node.step.clone(),
        stage: node.stage.to_owned(),
        subcommand: node.operation.subcommand.map(str::to_owned),
        unit: work.unit,
        units,
        survivors_of: node.survivors_of.clone(),
        decides: Vec::new(),
        revision: node.operation.version,
        fingerprint: Fingerprint::of([]),
        settings,
        inputs: work.inputs,
        outputs: Vec::new(),
        counts: Counts::default(),
        sums: Sums::default(),
        scores: Vec::new(),
        about: BTreeMap::new(),
        seconds: 0.0,
        times: None,
        share: None,
        program: program.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    receipt.fingerprint = receipt.computed_fingerprint();
    Ok(receipt)
}

impl Task<'_> {
    /// Returns the unit.
    pub fn unit(&self) -> Unit {
        self.receipt.unit
    }

    /// Returns the path of a manifest of this unit.
    pub fn path<R>(&self, manifest: &Manifest<R>) -> String {
        manifest.path(&self.node.step, self.receipt.unit)
    }

    /// Returns the receipt of earlier work on the unit, whose outputs are there until the first call
    /// of [`publish`](Self::publish).
    pub fn previous(&self) -> Option<&Receipt> {
        self.previous.as_ref()
    }

    /// Reports progress, and fails when a signal asked the program to stop.
    ///
    /// # Errors
    /// Stopped, after a signal.
    pub fn advance(&self, samples: usize) -> Result<()> {
        self.context.advance(self.receipt.unit, samples as u64);
        self.context.check_stop()
    }

    /// Makes an output of the run appear and adds it to the receipt. The receipt of earlier work goes
    /// first, so that it never vouches for an output that is being replaced. When another process
    /// has done the same work meanwhile, its outputs and its receipt stay, and this output does not
    /// appear.
    ///
    /// # Errors
    /// As `finish`, or of storage.
    pub fn publish(&mut self, finish: impl FnOnce() -> Result<Output>) -> Result<()> {
        self.remove_previous()?;
        if self.done_meanwhile.is_none() {
            self.receipt.outputs.push(finish()?);
        }
        Ok(())
    }

    /// As [`publish`](Self::publish), for an object outside of the run.
    ///
    /// # Errors
    /// As `finish`, or of storage.
    pub fn publish_outside(
        &mut self,
        store: &Store,
        finish: impl FnOnce() -> Result<Output>,
    ) -> Result<()> {
        self.publish(|| {
            let output = finish()?;
            let path = OutputPath::new(store.uri(output.path.as_str()))?;
            // The dataset is the user's: no step reads it back.
            let blocks = Blocks::default();
            Ok(Output {
                path,
                blocks,
                ..output
            })
        })
    }

    /// Marks the unit as one of a deciding step, with the kinds of units that hold its decisions.
    pub fn decides(&mut self, kinds: &[UnitKind]) {
        self.receipt.decides = kinds.to_vec();
    }

    /// Adds what describes the work and cannot change its outputs.
    pub fn about(&mut self, name: &str, text: &str) {
        self.receipt.set_about(name, text);
    }

    /// Whether rows of the unit's previous manifest can be taken over: it was made by the same
    /// operation with the same settings, from the same samples, and its bytes are those that the
    /// receipt states. Only the survivors differ.
    ///
    /// # Errors
    /// Storage errors only.
    pub fn is_reusable<R>(&self, manifest: &Manifest<R>) -> Result<bool> {
        let Some(previous) = &self.previous else {
            return Ok(false);
        };
        let samples = |receipt: &Receipt| {
            let read = StepName::read();
            let inputs = receipt.inputs.iter();
            let mut of_read = inputs
                .filter(|input| matches!(&input.of, InputOf::Unit { step, .. } if *step == read));
            of_read.next().cloned()
        };
        let path = self.path(manifest);
        let Some(output) = previous.output(&path) else {
            return Ok(false);
        };
        Ok(previous.settings == self.receipt.settings
            && previous.revision == self.receipt.revision
            && samples(previous).is_some()
            && samples(previous) == samples(&self.receipt)
            && self.context.output_is_there(output)?
            && self.context.run.blake3(&path)? == output.blake3)
    }

    /// Adds what is known of the scores.
    pub fn scores(&mut self, scores: Vec<ScoreSummary>) {
        self.receipt.scores = scores;
    }

    fn remove_previous(&mut self) -> Result<()> {
        if self.is_previous_removed {
            return Ok(());
        }
        self.is_previous_removed = true;
        let path = layout::receipt(&self.node.step, self.receipt.unit);
        let Some(json) = self.context.run.get_if_there(&path)? else {
            return Ok(());
        };
        // One that cannot be parsed is replaced.
        let now = Receipt::parse(&json, &self.context.run.uri(&path));
        if let Some(now) = data_or_none(now.map(Some))?
            && self.is_done_by(&now)?
        {
            self.done_meanwhile = Some(now);
            return Ok(());
        }
        self.context.run.delete(&path)
    }

    fn times(&self) -> Times {
        let milliseconds = |seconds: f64| (seconds * 1000.0).round() / 1000.0;
        let since = self.started_at.duration_since(SystemTime::UNIX_EPOCH);
        Times {
            started: milliseconds(since.unwrap_or_default().as_secs_f64()),
            cpu_seconds: milliseconds(self.cpu.seconds()),
        }
    }

    /// Whether a receipt is one of the same work, written since this task began.
    fn is_done_by(&self, now: &Receipt) -> Result<bool> {
        let is_same = now.fingerprint == self.receipt.fingerprint
            && now.survivors_of == self.receipt.survivors_of
            && self.previous.as_ref() != Some(now);
        Ok(is_same && !self.context.force && self.context.outputs_are_there(now)?)
    }

    /// Checks that no sample got lost, and writes the receipt: the unit is done.
    ///
    /// # Errors
    /// A bug, when the counts do not sum; of storage.
    pub fn commit(mut self, counts: Counts) -> Result<()> {
        let (name, unit) = (self.node.name(), self.receipt.unit);
        counts
            .check()
            .map_err(|e| Error::bug(format!("{name} {unit}: {e}")))?;
        self.remove_previous()?;
        if let Some(receipt) = &self.done_meanwhile {
            tracing::info!(
                step = name,
                unit = unit.to_string(),
                "done by another process"
            );
            self.context.committed(unit);
            self.context.record(receipt, false);
            return Ok(());
        }
        self.receipt.counts = counts;
        self.receipt.sums = self.sums;
        self.receipt.seconds = self.started.elapsed().as_secs_f64();
        self.receipt.times = Some(self.times());
        self.context.put_receipt(&self.receipt)?;
        self.context.committed(unit);
        let counts = &self.receipt.counts;
        tracing::info!(
            step = name,
            unit = unit.to_string(),
            samples = counts.input,
            kept = counts.kept,
            dropped = counts.dropped_total(),
            reused = self.receipt.rows().map(|(_, reused)| reused),
            seconds = (self.receipt.seconds * 1000.0).round() / 1000.0,
            "done"
        );
        self.context.record(&self.receipt, true);
        Ok(())
    }
}

#[cfg(test)]
mod races;
#[cfg(test)]
mod tests;
