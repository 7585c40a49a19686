//! A unit of work, from its beginning to its receipt.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;
use sluice_manifest::layout::Manifest;
use sluice_manifest::{
    Counts, Error, Fingerprint, Input, InputOf, Output, Receipt, Result, ScoreSummary, StepName,
    Sums, Unit, UnitKind, layout,
};
use sluice_store::Store;

use crate::Context;
use crate::context::Node;

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

/// A unit that has work to do.
pub struct Task<'a> {
    context: &'a Context,
    node: &'a Node,
    receipt: Receipt,
    previous: Option<Receipt>,
    is_previous_removed: bool,
    /// Further sums that later steps need.
    pub sums: Sums,
    started: Instant,
}

impl Context {
    /// Begins a unit of work; none when it is up to date.
    ///
    /// # Errors
    /// Storage errors only. A receipt that cannot be parsed counts as none.
    pub fn begin<S: Serialize>(&self, work: Work<S>) -> Result<Option<Task<'_>>> {
        let node = self.node();
        let unit = work.unit;
        let settings = serde_json::to_value(&work.settings)
            .map_err(|e| Error::bug(format!("settings do not serialise: {e}")))?;
        let operation = node.operation;
        let name = match operation.subcommand {
            Some(subcommand) => format!("{} {subcommand}", node.stage),
            None => node.stage.to_owned(),
        };
        let fingerprint = Fingerprint::of_work(
            &name,
            operation.version,
            &settings.to_string(),
            &work.inputs,
        );
        let previous = match self.force {
            true => None,
            false => self.receipt(&node.step, unit).unwrap_or_else(|e| {
                tracing::warn!(step = node.name(), unit = unit.to_string(), "{e}");
                None
            }),
        };
        if let Some(previous) = &previous
            && previous.fingerprint == fingerprint
            && previous.survivors_of == node.survivors_of
            && self.outputs_are_there(previous)?
        {
            tracing::debug!(step = node.name(), unit = unit.to_string(), "up to date");
            let receipt = self.with_units(previous.clone(), work.units)?;
            self.record(&receipt, false);
            return Ok(None);
        }
        let receipt = Receipt {
            step: node.step.clone(),
            stage: node.stage.to_owned(),
            subcommand: operation.subcommand.map(str::to_owned),
            unit,
            units: work.units as u32,
            survivors_of: node.survivors_of.clone(),
            decides: Vec::new(),
            revision: operation.version,
            fingerprint,
            settings,
            inputs: work.inputs,
            outputs: Vec::new(),
            counts: Counts::default(),
            sums: Sums::default(),
            scores: Vec::new(),
            about: BTreeMap::new(),
            seconds: 0.0,
            program: self.program.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        Ok(Some(Task {
            context: self,
            node,
            receipt,
            previous,
            is_previous_removed: false,
            sums: Sums::default(),
            started: Instant::now(),
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

    /// A receipt has the number of units of its step, which changes when a dataset grows or shrinks.
    /// That alone is no reason to do a unit again.
    fn with_units(&self, mut receipt: Receipt, units: usize) -> Result<Receipt> {
        if receipt.units != units as u32 {
            receipt.units = units as u32;
            self.put_receipt(&receipt)?;
        }
        Ok(receipt)
    }

    fn put_receipt(&self, receipt: &Receipt) -> Result<()> {
        let json = serde_json::to_vec_pretty(receipt)
            .map_err(|e| Error::bug(format!("a receipt does not serialise: {e}")))?;
        let path = layout::receipt(&receipt.step, receipt.unit);
        self.run.put(&path, json)
    }
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
        self.context.advance(samples as u64);
        self.context.check_stop()
    }

    /// Makes an output of the run appear and adds it to the receipt. The receipt of earlier work goes
    /// first, so that it never vouches for an output that is being replaced.
    ///
    /// # Errors
    /// As `finish`, or of storage.
    pub fn publish(&mut self, finish: impl FnOnce() -> Result<Output>) -> Result<()> {
        self.remove_previous()?;
        self.receipt.outputs.push(finish()?);
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
        self.remove_previous()?;
        let output = finish()?;
        let path = store.uri(&output.path);
        self.receipt.outputs.push(Output { path, ..output });
        Ok(())
    }

    /// Marks the unit as one of a deciding step, with the kinds of units that hold its decisions.
    pub fn decides(&mut self, kinds: &[UnitKind]) {
        self.receipt.decides = kinds.to_vec();
    }

    /// Adds what describes the work and cannot change its outputs.
    pub fn about(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            self.receipt.about.insert(name.to_owned(), text.to_owned());
        }
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
        let output = previous.outputs.iter().find(|output| output.path == path);
        let Some(output) = output else {
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
        if !self.is_previous_removed {
            let path = layout::receipt(&self.node.step, self.receipt.unit);
            self.context.run.delete(&path)?;
            self.is_previous_removed = true;
        }
        Ok(())
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
        self.receipt.counts = counts;
        self.receipt.sums = self.sums;
        self.receipt.seconds = self.started.elapsed().as_secs_f64();
        self.context.put_receipt(&self.receipt)?;
        let counts = &self.receipt.counts;
        tracing::info!(
            step = name,
            unit = unit.to_string(),
            samples = counts.input,
            kept = counts.kept,
            dropped = counts.dropped_total(),
            seconds = (self.receipt.seconds * 1000.0).round() / 1000.0,
            "done"
        );
        self.context.record(&self.receipt, true);
        Ok(())
    }
}
