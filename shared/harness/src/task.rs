//! A unit of work, from its beginning to its receipt.

use std::collections::BTreeMap;
use std::time::Instant;

use sluice_manifest::dag::Step;
use sluice_manifest::{Counts, Error, Fingerprint, Input, Output, Receipt, Result, Unit, layout};
use sluice_store::Store;

use crate::Context;

/// What shapes a unit's outputs.
pub struct Work<'a> {
    /// The step.
    pub step: &'a Step,
    /// Version of what the step does: raised when the same inputs give other outputs.
    pub version: u32,
    /// The unit.
    pub unit: &'a Unit,
    /// How many units the step has.
    pub units: usize,
    /// The settings that can change the outputs.
    pub settings: serde_json::Value,
    /// Those of them that the costly part of the work depends on, where a cheap part can be done
    /// alone (a score's threshold).
    pub basis: Option<serde_json::Value>,
    /// What is read.
    pub inputs: Vec<Input>,
}

/// A unit that has work to do.
pub struct Task<'a> {
    context: &'a Context,
    step: Step,
    unit: Unit,
    receipt: Receipt,
    previous: Option<Receipt>,
    started: Instant,
}

impl Context {
    /// Begins a unit of work; none when it is up to date.
    ///
    /// The receipt of earlier work is removed, so that outputs which are being replaced are never
    /// vouched for.
    pub fn begin(&self, work: Work<'_>) -> Result<Option<Task<'_>>> {
        let Work {
            step,
            version,
            unit,
            units,
            settings,
            basis,
            inputs,
        } = work;
        let fingerprint = Fingerprint::of_work(step.name, version, &settings.to_string(), &inputs);
        let basis = basis
            .map(|basis| Fingerprint::of_work(step.name, version, &basis.to_string(), &inputs));
        let previous = match self.force {
            true => None,
            false => self.receipt(step, unit).unwrap_or_else(|e| {
                tracing::warn!(step = step.name, unit = unit.as_str(), "{e}");
                None
            }),
        };
        let mut reusable = None;
        if let Some(previous) = previous {
            let same = previous.fingerprint == fingerprint;
            let there = || -> Result<bool> {
                for output in &previous.outputs {
                    if !self.output_is_there(output)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            };
            let same_basis = basis.is_some() && previous.basis == basis;
            if (same || same_basis) && there()? {
                if same {
                    tracing::debug!(step = step.name, unit = unit.as_str(), "up to date");
                    let receipt = self.with_units(previous, units)?;
                    self.record(&receipt, false);
                    return Ok(None);
                }
                reusable = Some(previous);
            }
        }
        self.run.delete(&layout::receipt(step.stage, unit))?;
        let receipt = Receipt {
            stage: step.stage.to_owned(),
            step: step.name.to_owned(),
            unit: unit.clone(),
            units: units as u32,
            fingerprint,
            basis,
            settings,
            inputs,
            outputs: Vec::new(),
            counts: Counts::default(),
            sums: BTreeMap::new(),
            seconds: 0.0,
            program: self.program.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        Ok(Some(Task {
            context: self,
            step: *step,
            unit: unit.clone(),
            receipt,
            previous: reusable,
            started: Instant::now(),
        }))
    }
}

impl Context {
    /// A receipt tells how many units its step has, which changes when a dataset grows or shrinks.
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
        let path = layout::receipt(&receipt.stage, &receipt.unit);
        self.run.put(&path, json)
    }
}

impl Task<'_> {
    /// Path of a manifest of this unit.
    pub fn path(&self, kind: &str) -> String {
        layout::manifest(self.step.stage, kind, &self.unit)
    }

    /// The receipt of earlier work whose outputs still hold but for the cheap part ([`Work::basis`]).
    pub fn reusable(&self) -> Option<&Receipt> {
        self.previous.as_ref()
    }

    /// Tells the progress that samples went through, and stops when a signal asked for it.
    pub fn advance(&self, samples: usize) -> Result<()> {
        self.context.advance(samples as u64);
        self.context.check_stop()
    }

    /// Adds an object of the run to the receipt.
    pub fn wrote(&mut self, output: Output) {
        self.receipt.outputs.push(output);
    }

    /// Adds an object outside of the run to the receipt.
    pub fn wrote_outside(&mut self, store: &Store, output: Output) {
        let path = store.uri(&output.path);
        self.receipt.outputs.push(Output { path, ..output });
    }

    /// Adds a sum to the receipt.
    pub fn sum(&mut self, name: &str, value: u64) {
        self.receipt.sums.insert(name.to_owned(), value);
    }

    /// Checks that no sample got lost, and writes the receipt: the unit is done.
    pub fn commit(mut self, counts: Counts) -> Result<()> {
        let names_unit = |e: Error| Error::bug(format!("{} {}: {e}", self.step.name, self.unit));
        counts.check().map_err(names_unit)?;
        self.receipt.counts = counts;
        self.receipt.seconds = self.started.elapsed().as_secs_f64();
        self.context.put_receipt(&self.receipt)?;
        let counts = &self.receipt.counts;
        tracing::info!(
            step = self.step.name,
            unit = self.unit.as_str(),
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
