//! A unit of work, from its start to its receipt.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use serde::Serialize;
use sluice_manifest::layout::Manifest;
use sluice_manifest::{
    Blocks, Counts, Error, Fingerprint, Input, InputOf, Output, OutputPath, Receipt, Result,
    ScoreSummary, StepName, Sums, Times, Unit, UnitKind, layout,
};
use sluice_run::data_or_none;
use sluice_store::Store;

use crate::Context;
use crate::context::ProgramNode;
use crate::cpu::CpuShare;

/// Everything that shapes the outputs of a unit.
pub struct Work<S> {
    /// The unit to process.
    pub unit: Unit,
    /// The number of units of this kind in the step.
    pub units: usize,
    /// The settings that can change the outputs. They are written to the receipt.
    pub settings: S,
    /// The inputs that are read.
    pub inputs: Vec<Input>,
}

/// A unit that is not up to date. [`commit`](Self::commit) completes it; work that succeeds without
/// a commit fails as a bug.
#[must_use = "a unit is done when its open_unit is committed"]
pub struct OpenUnit<'a> {
    context: &'a Context,
    node: &'a ProgramNode,
    receipt: Receipt,
    previous: Option<Receipt>,
    is_previous_removed: bool,
    /// The receipt of another process that completed the same work in the meantime. Its outputs are
    /// kept.
    done_meanwhile: Option<Receipt>,
    /// Additional sums that later steps need.
    pub sums: Sums,
    started: Instant,
    started_at: SystemTime,
    cpu: CpuShare,
}

impl Context {
    /// Begins a unit of work. Returns `None` if it is up to date.
    ///
    /// # Errors
    ///
    /// Returns a storage error. A receipt that is damaged or modified counts as missing.
    pub fn begin<S: Serialize>(&self, work: Work<S>) -> Result<Option<OpenUnit<'_>>> {
        self.begin_described(work, |_| ())
    }

    /// Begins a unit like [`begin`](Self::begin). `describe` adds values to the receipt that cannot
    /// change the outputs, such as a licence or a model's own threshold. They are also updated in
    /// the receipt of a unit that is up to date.
    ///
    /// # Errors
    ///
    /// Fails like [`begin`](Self::begin).
    pub fn begin_described<S: Serialize>(
        &self,
        work: Work<S>,
        describe: impl FnOnce(&mut Receipt),
    ) -> Result<Option<OpenUnit<'_>>> {
        let node = self.node();
        let mut receipt = new_receipt(node, self.program, work)?;
        receipt.share = self.common.task_share()?;
        let unit = receipt.unit;
        self.end_work_check(false)?;
        let previous = if self.force {
            None
        } else {
            data_or_none(self.receipt(&node.step, unit))?
        };
        if let Some(previous) = &previous
            && previous.fingerprint == receipt.fingerprint
            && previous.survivors_of == node.survivors_of
            && self.outputs_are_there(previous)?
        {
            tracing::debug!(step = node.name(), unit = unit.to_string(), "up to date");
            self.update_receipt(previous, &receipt, describe)?;
            self.record(previous, false);
            return Ok(None);
        }
        self.end_work_check(true)?;
        describe(&mut receipt);
        self.begun(unit);
        Ok(Some(OpenUnit {
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

    /// Updates the values in the receipt of an up-to-date unit that do not change its outputs: the
    /// number of units, which changes when a dataset grows or shrinks, and the values that `describe`
    /// adds.
    fn update_receipt(
        &self,
        previous: &Receipt,
        now: &Receipt,
        describe: impl FnOnce(&mut Receipt),
    ) -> Result<()> {
        let mut updated = previous.clone();
        updated.units = now.units;
        describe(&mut updated);
        if updated == *previous {
            return Ok(());
        }
        // If another process removed the receipt in the meantime, it must not be written again.
        let there = data_or_none(self.receipt(&previous.step, previous.unit))?;
        if there.as_ref() != Some(previous) {
            return Ok(());
        }
        // The settings are equal except for the last digits of parsed numbers.
        updated.settings.clone_from(&now.settings);
        self.put_receipt(&updated)
    }

    fn put_receipt(&self, receipt: &Receipt) -> Result<()> {
        let path = layout::receipt(&receipt.step, receipt.unit);
        self.run.put(&path, receipt.to_json()?)
    }
}

/// Returns the receipt of a unit before its work, without outputs and counts.
fn new_receipt<S: Serialize>(
    node: &ProgramNode,
    program: &'static str,
    work: Work<S>,
) -> Result<Receipt> {
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
        revision: node.operation.revision,
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

impl OpenUnit<'_> {
    /// Returns the unit.
    pub fn unit(&self) -> Unit {
        self.receipt.unit
    }

    /// Returns the path of a manifest of this unit.
    pub fn path<R>(&self, manifest: &Manifest<R>) -> String {
        manifest.path(&self.node.step, self.receipt.unit)
    }

    /// Returns the receipt of earlier work on the unit. Its outputs exist until the first call of
    /// [`publish`](Self::publish).
    pub fn previous(&self) -> Option<&Receipt> {
        self.previous.as_ref()
    }

    /// Reports progress and checks whether the program should stop.
    ///
    /// # Errors
    ///
    /// Returns a stopped error after a signal.
    pub fn advance(&self, samples: usize) -> Result<()> {
        self.context.advance(self.receipt.unit, samples as u64);
        self.context.check_stop()
    }

    /// Writes an output of the run and adds it to the receipt. The receipt of earlier work is
    /// removed first, so that no receipt refers to an output that is being replaced. If another
    /// process has completed the same work in the meantime, its outputs and its receipt are kept,
    /// and this output is not written.
    ///
    /// # Errors
    ///
    /// Fails like `finish`, and with a storage error.
    pub fn publish(&mut self, finish: impl FnOnce() -> Result<Output>) -> Result<()> {
        self.remove_previous()?;
        if self.done_meanwhile.is_none() {
            self.receipt.outputs.push(finish()?);
        }
        Ok(())
    }

    /// Writes an object outside of the run, like [`publish`](Self::publish).
    ///
    /// # Errors
    ///
    /// Fails like `finish`, and with a storage error.
    pub fn publish_outside(
        &mut self,
        store: &Store,
        finish: impl FnOnce() -> Result<Output>,
    ) -> Result<()> {
        self.publish(|| {
            let output = finish()?;
            let path = OutputPath::new(store.uri(output.path.as_str()))?;
            // The dataset belongs to the user, and no step reads it.
            let blocks = Blocks::default();
            Ok(Output {
                path,
                blocks,
                ..output
            })
        })
    }

    /// Marks the unit as one of a deciding step. `kinds` are the kinds of units that contain its
    /// decisions.
    pub fn decides(&mut self, kinds: &[UnitKind]) {
        self.receipt.decides = kinds.to_vec();
    }

    /// Adds a description of the work that cannot change its outputs.
    pub fn about(&mut self, name: &str, text: &str) {
        self.receipt.set_about(name, text);
    }

    /// Returns whether rows of the unit's previous manifest can be reused: it was written by the
    /// same operation with the same settings, from the same samples, and its bytes match its
    /// receipt. Only the survivors differ.
    ///
    /// # Errors
    ///
    /// Returns a storage error.
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

    /// Adds the summaries of the scores.
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
        // A receipt that cannot be parsed is replaced.
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

    /// Returns whether a receipt describes the same work and was written since this one was begun.
    fn is_done_by(&self, now: &Receipt) -> Result<bool> {
        let is_same = now.fingerprint == self.receipt.fingerprint
            && now.survivors_of == self.receipt.survivors_of
            && self.previous.as_ref() != Some(now);
        Ok(is_same && !self.context.force && self.context.outputs_are_there(now)?)
    }

    /// Checks the sample counts and writes the receipt, which completes the unit.
    ///
    /// # Errors
    ///
    /// Returns a bug if the counts do not add up, and otherwise a storage error.
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
