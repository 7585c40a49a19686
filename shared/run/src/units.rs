//! Units of earlier steps: their receipts as inputs, their outputs, and their removal.

use rayon::prelude::*;
use sluice_manifest::{
    Class, Error, Input, Output, OutputPath, Receipt, Result, StepName, Unit, UnitKind, layout,
};
use sluice_store::{Location, Store};

use crate::Run;

impl Run {
    /// Returns the receipts of several units that must be finished, in their order.
    ///
    /// # Errors
    ///
    /// Fails like [`Run::required_receipt`].
    pub fn required_receipts(&self, step: &StepName, units: &[Unit]) -> Result<Vec<Receipt>> {
        units
            .par_iter()
            .map(|&unit| self.required_receipt(step, unit))
            .collect()
    }

    /// Returns a unit of an earlier step as an input.
    ///
    /// # Errors
    ///
    /// Fails like [`Run::required_receipt`], and with a transient error if another process has
    /// repeated the unit since this one used it as an input.
    pub fn input(&self, step: &StepName, unit: Unit) -> Result<Input> {
        let receipt = self.required_receipt(step, unit)?;
        self.rely_on(&receipt)?;
        Ok(receipt.as_input())
    }

    /// Returns all units of a kind of an earlier step as one input.
    ///
    /// # Errors
    ///
    /// Fails like [`Run::input`].
    pub fn combined_input(&self, step: &StepName, kind: UnitKind) -> Result<Input> {
        let units = self.units_of(step, kind)?;
        let receipts = self.required_receipts(step, &units)?;
        receipts
            .iter()
            .try_for_each(|receipt| self.rely_on(receipt))?;
        let fingerprints = receipts.iter().map(|receipt| &receipt.fingerprint);
        Ok(Input::units(step, kind, fingerprints))
    }

    /// Returns the units of a step, whose number is in the receipt of the first one. The number is
    /// limited to one more than the existing receipts, so that a damaged receipt cannot make it
    /// huge.
    ///
    /// # Errors
    ///
    /// Fails like [`Run::required_receipt`].
    pub fn units_of(&self, step: &StepName, kind: UnitKind) -> Result<Vec<Unit>> {
        let stated = self.required_receipt(step, Unit::once(kind))?.units;
        let listed = self.list(&layout::receipts(step))?;
        let units = listed.iter().filter_map(|o| layout::receipt_at(&o.path));
        let there = units.filter(|(_, unit)| unit.kind == kind).count();
        let most = u32::try_from(there + 1).unwrap_or(u32::MAX);
        Ok(Unit::all(kind, stated.min(most)))
    }

    /// Removes the units of a step from number `count` on, with their outputs, because the current
    /// settings do not have them.
    ///
    /// # Errors
    ///
    /// Returns a storage error.
    pub fn remove_stale(&self, step: &StepName, kind: UnitKind, count: u32) -> Result<()> {
        self.remove_units(&layout::receipts(step), |_, unit| {
            unit.kind == kind && unit.index >= count
        })
    }

    /// Removes the units below a folder of the run for which `stale` returns true, with their
    /// outputs in the run. The outputs of a damaged receipt are unknown and are not removed.
    ///
    /// # Errors
    ///
    /// Returns a storage error.
    pub fn remove_units(
        &self,
        folder: &str,
        stale: impl Fn(&StepName, Unit) -> bool,
    ) -> Result<()> {
        for object in self.list(folder)? {
            let Some((step, unit)) = layout::receipt_at(&object.path) else {
                continue;
            };
            if !stale(&step, unit) {
                continue;
            }
            let receipt = data_or_none(self.receipt(&step, unit))?;
            self.delete(&object.path)?;
            for output in receipt.map(|r| r.outputs).unwrap_or_default() {
                if !output.path.is_outside() {
                    self.delete_inside(output.path.as_str())?;
                }
            }
        }
        Ok(())
    }

    /// Returns whether an output exists with the size in its receipt.
    ///
    /// # Errors
    ///
    /// Returns a usage or data error if the output's path is not that of an object, and otherwise a
    /// storage error.
    pub fn output_is_there(&self, output: &Output) -> Result<bool> {
        let info = match self.outside(&output.path)? {
            Some((store, name)) => store.stat(&name)?,
            None => self.stat(output.path.as_str())?,
        };
        Ok(info.is_some_and(|info| info.bytes == output.bytes))
    }

    /// Returns the store and the name of an output outside of the run, or `None` for one in the
    /// run.
    ///
    /// # Errors
    ///
    /// Returns a usage or data error if the path is not that of an object, and otherwise a storage
    /// error.
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
            // The output folder was removed. A read-only program must not create it again.
            None => Ok(Some((Store::clone(self), format!("missing/{name}")))),
        }
    }
}

/// Converts a data error to `None` and logs a warning, for data that will be written again.
///
/// # Errors
///
/// Returns all other errors.
pub fn data_or_none<T>(found: Result<Option<T>>) -> Result<Option<T>> {
    match found {
        Err(e) if e.class() == Class::Data => {
            tracing::warn!("{e}");
            Ok(None)
        }
        found => found,
    }
}
