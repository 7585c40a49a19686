//! The objects of a run.
//!
//! Whatever a program reads from a run is compared with the receipt that vouches for it, here and
//! nowhere else: manifests block by block as they are read, `run.json` as a whole. So damage ends the
//! program that meets it, and never becomes part of what a new receipt vouches for.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex};

use sluice_manifest::rows::Row;
use sluice_manifest::{
    Class, Error, Fingerprint, Output, Receipt, Result, StepName, Unit, UnitKind, layout,
};
use sluice_store::{Checked, Location, RowReader, Storage, Store, Table};

use crate::missing::Done;

use crate::context::lock;

/// The objects of a run. Those that are read by their path alone ([`Store::get`], [`Store::reader`])
/// are not checked.
#[derive(Debug, Clone)]
pub struct Run {
    store: Store,
    /// Whether receipts of damaged outputs are removed.
    mends: bool,
    /// The work of each unit that this process has as an input.
    relied_on: Arc<Mutex<HashMap<(StepName, Unit), Fingerprint>>>,
}

/// Returns the place of a run: the given one, or the run that wrote the curated dataset there.
///
/// # Errors
/// Data, when the folder does not exist; of storage.
pub(crate) fn run_at(storage: &Storage, place: &Location) -> Result<Location> {
    let store = storage.open(place)?;
    if store.stat(layout::RUN_INFO)?.is_some() {
        return Ok(place.clone());
    }
    let claim = store.get_if_there(layout::OUTPUT_CLAIM)?;
    let claim = claim.and_then(|json| serde_json::from_slice::<serde_json::Value>(&json).ok());
    match claim.as_ref().and_then(|claim| claim["run"].as_str()) {
        Some(run) if run.contains("://") => Location::parse(run),
        Some(run) => relative(place, run),
        None => Ok(place.clone()),
    }
}

/// Returns a place that is given as a path relative to another one.
fn relative(from: &Location, path: &str) -> Result<Location> {
    path.split('/').try_fold(from.clone(), |at, part| {
        if part != ".." {
            return Location::parse(&format!("{at}/{part}"));
        }
        let above = at.split().map(|(above, _)| above);
        above.ok_or_else(|| Error::data(format!("{from}: the run {path} is not a place")))
    })
}

impl Deref for Run {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

impl Run {
    /// Returns the run in a store. A run that `mends` removes a receipt once an output turns out to be
    /// other bytes than it says: the next run of its step does the unit again.
    pub fn new(store: Store, mends: bool) -> Self {
        Self {
            store,
            mends,
            relied_on: Arc::default(),
        }
    }

    /// Notes that the work of this process relies on what a receipt says. From then on, manifests of
    /// that unit are read only as long as they are of the same work: other processes may do the unit
    /// again at any time, with other settings.
    ///
    /// # Errors
    /// Transient, when the process relied on other work of the unit so far.
    pub(crate) fn rely_on(&self, receipt: &Receipt) -> Result<()> {
        let unit = (receipt.step.clone(), receipt.unit);
        let mut relied_on = lock(&self.relied_on);
        let before = relied_on.entry(unit).or_insert(receipt.fingerprint.clone());
        match *before == receipt.fingerprint {
            true => Ok(()),
            false => Err(self.done_again(receipt)),
        }
    }

    fn done_again(&self, receipt: &Receipt) -> Error {
        let (step, unit) = (&receipt.step, receipt.unit);
        let uri = self.store.uri(&layout::receipt(step, unit));
        Error::transient(format!("{uri}: {step} {unit} was done again meanwhile"))
    }

    /// Reads a manifest's rows.
    ///
    /// # Errors
    /// Data, when it was not written, or its bytes are not those that were.
    pub fn rows<R: Row>(&self, path: &str) -> Result<RowReader<R>> {
        self.store.checked_rows(self.vouched(path)?)
    }

    /// Opens a manifest for reading some of its columns as Arrow batches.
    ///
    /// # Errors
    /// As [`rows`](Self::rows).
    pub fn table(&self, path: &str, schema: &str, columns: &[&str]) -> Result<Table> {
        let checked = self.vouched(path)?;
        self.store.checked_table(checked, schema, columns)
    }

    /// Compares the content of a whole object with the receipt of the unit that wrote it.
    ///
    /// # Errors
    /// As [`rows`](Self::rows).
    pub fn compared<B: AsRef<[u8]>>(
        &self,
        receipt: Receipt,
        path: &str,
        content: Option<B>,
    ) -> Result<B> {
        let checked = self.checked(receipt, path)?;
        let content = content.ok_or_else(|| (checked.damaged)("no such object"))?;
        match checked.output.is(content.as_ref()) {
            true => Ok(content),
            false => Err((checked.damaged)(
                "its bytes are not those that were written",
            )),
        }
    }

    /// Returns a unit's receipt, where there is one.
    ///
    /// # Errors
    /// Data, when it is broken or was changed.
    pub fn receipt(&self, step: &StepName, unit: Unit) -> Result<Option<Receipt>> {
        let path = layout::receipt(step, unit);
        let Some(json) = self.store.get_if_there(&path)? else {
            return Ok(None);
        };
        let uri = self.store.uri(&path);
        let receipt = Receipt::parse(&json, &uri)?;
        match (&receipt.step, receipt.unit) == (step, unit) {
            true => Ok(Some(receipt)),
            false => Err(misplaced(&receipt, &uri)),
        }
    }

    /// Returns the receipt of a unit that must have been done before.
    ///
    /// # Errors
    /// Data, when there is none; the hint names the step to run.
    pub fn required_receipt(&self, step: &StepName, unit: Unit) -> Result<Receipt> {
        match self.receipt(step, unit)? {
            Some(receipt) => Ok(receipt),
            None => Err(match Done::of(self, step, &[unit.kind])?.as_slice() {
                [done] if done.lacks(unit) => done.error(self),
                _ => {
                    let path = layout::receipt(step, unit);
                    Error::data(format!("{}: no such receipt", self.store.uri(&path)))
                        .hint(format!("run the step {step} first, for all of its units"))
                }
            }),
        }
    }

    /// Returns an error if units of a step are missing. A step without any unit is not an error here.
    ///
    /// # Errors
    /// Data; the message names the units, and the hint the share that they belong to.
    pub fn refuse_incomplete(&self, step: &StepName, kinds: &[UnitKind]) -> Result<()> {
        let done = Done::of(self, step, kinds)?;
        match done.iter().find(|done| !done.is_complete()) {
            Some(done) => Err(done.error(self)),
            None => Ok(()),
        }
    }

    /// Returns what a manifest was when its unit was done.
    fn vouched(&self, path: &str) -> Result<Checked> {
        let written_by = layout::written_by(path);
        let (step, unit) = written_by
            .ok_or_else(|| Error::bug(format!("{path} is not the path of a manifest")))?;
        let receipt = self.required_receipt(&step, unit)?;
        let relied_on = lock(&self.relied_on).get(&(step, unit)).cloned();
        match relied_on.is_none_or(|fingerprint| fingerprint == receipt.fingerprint) {
            true => self.checked(receipt, path),
            false => Err(self.done_again(&receipt)),
        }
    }

    fn checked(&self, receipt: Receipt, path: &str) -> Result<Checked> {
        let output: Option<&Output> = receipt.output(path);
        let output = output.cloned().ok_or_else(|| {
            let (step, unit) = (&receipt.step, receipt.unit);
            Error::data(format!(
                "{}: {step} {unit} did not write it",
                self.store.uri(path)
            ))
            .hint(format!("run the step {step} again with --force"))
        })?;
        let (run, path) = (self.clone(), path.to_owned());
        let hash = output.blake3.clone();
        Ok(Checked {
            output,
            damaged: Arc::new(move |what| match run.store.blake3(&path) {
                Ok(now) if now == hash => {
                    let uri = run.store.uri(&path);
                    Error::transient(format!("{uri}: {what}, but they are there: try again"))
                }
                Err(e) if e.class() != Class::Data => e,
                _ => run.damaged(&receipt, &path, what),
            }),
        })
    }

    /// Removes the receipt of a damaged output, and returns the error for it.
    fn damaged(&self, receipt: &Receipt, path: &str, what: &str) -> Error {
        let (step, unit, uri) = (&receipt.step, receipt.unit, self.store.uri(path));
        if let Ok(Some(now)) = self.receipt(step, unit)
            && now != *receipt
        {
            return self.done_again(receipt);
        }
        let path = layout::receipt(step, unit);
        let removed = self.mends && self.store.delete(&path).is_ok();
        let force = if removed { "" } else { " with --force" };
        Error::data(format!("{uri}: damaged: {what}")).hint(format!(
            "run the step {step} again{force}: it makes {unit} anew; then the steps after it"
        ))
    }
}

/// Returns the error for a receipt at another one's path.
pub(crate) fn misplaced(receipt: &Receipt, uri: &str) -> Error {
    let (step, unit) = (&receipt.step, receipt.unit);
    Error::data(format!("{uri}: is the receipt of {step} {unit}"))
        .hint("run its step again: the unit is done anew")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_found_by_its_output() {
        let storage = Storage::default();
        let at = |place: &str| Location::parse(place).unwrap();
        let put = |place: &str, name: &str, text: &str| {
            let store = storage.create(&at(place)).unwrap();
            store.put(name, text.to_owned()).unwrap();
        };
        put("memory://m/data/out.run", layout::RUN_INFO, "{}");
        for (output, run) in [
            ("memory://m/data/out", "../out.run"),
            ("memory://m/else/where/out", "../../../data/out.run"),
            ("memory://other/out", "memory://m/data/out.run"),
        ] {
            put(
                output,
                layout::OUTPUT_CLAIM,
                &format!(r#"{{"run": {run:?}}}"#),
            );
            let found = run_at(&storage, &at(output)).unwrap();
            assert_eq!(found.to_string(), "memory://m/data/out.run", "{output}");
        }
        let itself = at("memory://m/data/out.run");
        assert_eq!(run_at(&storage, &itself).unwrap(), itself);
        put("memory://m/no-claim", "a.tar", "");
        let other = at("memory://m/no-claim");
        assert_eq!(run_at(&storage, &other).unwrap(), other);
    }
}
