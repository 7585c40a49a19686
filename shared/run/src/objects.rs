//! The objects of a run, compared with their receipts.
//!
//! Everything that a program reads from a run is compared with the receipt of the unit that wrote
//! it: manifests block by block while they are read, `run.json` as a whole. This happens only in
//! this module. Damage ends the program that reads it, and never becomes an input of a new receipt.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sluice_manifest::rows::Row;
use sluice_manifest::{
    Class, Error, Fingerprint, Output, Receipt, Result, StepName, Unit, UnitKind, layout,
};
use sluice_store::{Checked, Location, RowReader, Storage, Store, Table};

use crate::missing::UnitsDone;

/// The objects of a run. Objects that are read by path ([`Store::get`], [`Store::reader`]) are not
/// compared.
#[derive(Debug, Clone)]
pub struct Run {
    /// Opens the stores of models, inputs and outputs.
    pub storage: Storage,
    store: Store,
    /// Whether receipts of damaged outputs are removed.
    removes_receipts: bool,
    /// The fingerprints of the units that this process has used as inputs.
    relied_on: Arc<Mutex<HashMap<(StepName, Unit), Fingerprint>>>,
}

/// Returns the location of a run: the given one, or that of the run that wrote the curated dataset
/// there.
///
/// # Errors
///
/// Returns a data error if the folder does not exist, and otherwise a storage error.
fn run_at(storage: &Storage, place: &Location) -> Result<Location> {
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

/// Resolves a path relative to another location.
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
    /// Opens a run for a step, and creates its folder if it does not exist. If an output turns out
    /// to be damaged, its receipt is removed, so that the next run of its step repeats the unit.
    ///
    /// # Errors
    ///
    /// Returns a usage error if the URI is not valid, and otherwise a storage error.
    pub fn open(storage: &Storage, uri: &str) -> Result<Self> {
        Self::at(storage, &Location::parse(uri)?, true)
    }

    /// Opens a run for reading only. `uri` is that of the run or of its curated dataset. Removes no
    /// receipts.
    ///
    /// # Errors
    ///
    /// Returns a data error if the folder does not exist, a usage error if the URI is not valid, and
    /// otherwise a storage error.
    pub fn open_read_only(storage: &Storage, uri: &str) -> Result<Self> {
        let place = run_at(storage, &Location::parse(uri)?)?;
        Self::at(storage, &place, false)
    }

    fn at(storage: &Storage, place: &Location, removes_receipts: bool) -> Result<Self> {
        Ok(Self {
            store: storage.create(place)?,
            storage: storage.clone(),
            removes_receipts,
            relied_on: Arc::default(),
        })
    }

    /// Checks whether the program should stop.
    ///
    /// # Errors
    ///
    /// Returns a stopped error after a signal.
    pub fn check_stop(&self) -> Result<()> {
        self.storage.check_stop()
    }

    /// Records that this process uses a unit as an input. From then on, its manifests can be read
    /// only while its receipt has the same fingerprint, because other processes may repeat the unit
    /// with other settings at any time.
    ///
    /// # Errors
    ///
    /// Returns a transient error if the process has used the unit with another fingerprint.
    pub(crate) fn rely_on(&self, receipt: &Receipt) -> Result<()> {
        let unit = (receipt.step.clone(), receipt.unit);
        let mut relied_on = self.relied_on();
        let before = relied_on.entry(unit).or_insert(receipt.fingerprint.clone());
        if *before == receipt.fingerprint {
            Ok(())
        } else {
            Err(self.done_again(receipt))
        }
    }

    fn relied_on(&self) -> MutexGuard<'_, HashMap<(StepName, Unit), Fingerprint>> {
        self.relied_on
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn done_again(&self, receipt: &Receipt) -> Error {
        let (step, unit) = (&receipt.step, receipt.unit);
        let uri = self.store.uri(&layout::receipt(step, unit));
        Error::transient(format!(
            "{uri}: {step} {unit} was repeated by another process"
        ))
    }

    /// Reads the rows of a manifest.
    ///
    /// # Errors
    ///
    /// Returns a data error if it was not written, or if its bytes differ from those that were, and
    /// otherwise a storage error.
    pub fn rows<R: Row>(&self, path: &str) -> Result<RowReader<R>> {
        self.store.checked_rows(self.vouched(path)?)
    }

    /// Reads some columns of a manifest as Arrow batches.
    ///
    /// # Errors
    ///
    /// Fails like [`rows`](Self::rows).
    pub fn table(&self, path: &str, schema: &str, columns: &[&str]) -> Result<Table> {
        let checked = self.vouched(path)?;
        self.store.checked_table(checked, schema, columns)
    }

    /// Compares the content of an object with the receipt of the unit that wrote it.
    ///
    /// # Errors
    ///
    /// Fails like [`rows`](Self::rows).
    pub fn compared<B: AsRef<[u8]>>(
        &self,
        receipt: Receipt,
        path: &str,
        content: Option<B>,
    ) -> Result<B> {
        let checked = self.checked(receipt, path)?;
        let content = content.ok_or_else(|| (checked.damaged)("no such object"))?;
        if checked.output.is(content.as_ref()) {
            Ok(content)
        } else {
            Err((checked.damaged)(
                "its bytes are not those that were written",
            ))
        }
    }

    /// Returns the receipt of a unit, or `None` if there is none.
    ///
    /// # Errors
    ///
    /// Returns a data error if it is damaged or modified, and otherwise a storage error.
    pub fn receipt(&self, step: &StepName, unit: Unit) -> Result<Option<Receipt>> {
        let path = layout::receipt(step, unit);
        let Some(json) = self.store.get_if_there(&path)? else {
            return Ok(None);
        };
        let uri = self.store.uri(&path);
        let receipt = Receipt::parse(&json, &uri)?;
        if (&receipt.step, receipt.unit) == (step, unit) {
            Ok(Some(receipt))
        } else {
            Err(misplaced(&receipt, &uri))
        }
    }

    /// Returns the receipt of a unit that must be finished.
    ///
    /// # Errors
    ///
    /// Returns a data error if there is none, with a hint that names the step to run, a stopped
    /// error after a signal, and otherwise a storage error.
    pub fn required_receipt(&self, step: &StepName, unit: Unit) -> Result<Receipt> {
        self.check_stop()?;
        if let Some(receipt) = self.receipt(step, unit)? {
            return Ok(receipt);
        }
        // A run in the layout of another version has its receipts elsewhere.
        self.run_info()?;
        Err(match UnitsDone::of(self, step, &[unit.kind])?.as_slice() {
            [done] if done.is_missing(unit) => done.error(self),
            _ => {
                let path = layout::receipt(step, unit);
                Error::data(format!("{}: no such receipt", self.store.uri(&path)))
                    .hint(format!("run the step {step} first, for all of its units"))
            }
        })
    }

    /// Returns an error if some units of a step are missing, but not if all are.
    ///
    /// # Errors
    ///
    /// Returns a data error that names the units, with a hint that names their shares, and
    /// otherwise a storage error.
    pub fn refuse_incomplete(&self, step: &StepName, kinds: &[UnitKind]) -> Result<()> {
        let done = UnitsDone::of(self, step, kinds)?;
        match done.iter().find(|done| !done.is_complete()) {
            Some(done) => Err(done.error(self)),
            None => Ok(()),
        }
    }

    /// Returns the expected size and checksum of a manifest.
    fn vouched(&self, path: &str) -> Result<Checked> {
        let written_by = layout::written_by(path);
        let (step, unit) = written_by
            .ok_or_else(|| Error::bug(format!("{path} is not the path of a manifest")))?;
        let receipt = self.required_receipt(&step, unit)?;
        let relied_on = self.relied_on().get(&(step, unit)).cloned();
        if relied_on.is_none_or(|fingerprint| fingerprint == receipt.fingerprint) {
            self.checked(receipt, path)
        } else {
            Err(self.done_again(&receipt))
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

    /// Removes the receipt of a damaged output. Returns the error for the output.
    fn damaged(&self, receipt: &Receipt, path: &str, what: &str) -> Error {
        let (step, unit, uri) = (&receipt.step, receipt.unit, self.store.uri(path));
        if let Ok(Some(now)) = self.receipt(step, unit)
            && now != *receipt
        {
            return self.done_again(receipt);
        }
        let path = layout::receipt(step, unit);
        let removed = self.removes_receipts && self.store.delete(&path).is_ok();
        let force = if removed { "" } else { " with --force" };
        Error::data(format!("{uri}: damaged: {what}")).hint(format!(
            "run the step {step} again{force}: this repeats {unit}; then run the steps after it"
        ))
    }
}

/// Returns the error for a receipt at the path of another one.
pub(crate) fn misplaced(receipt: &Receipt, uri: &str) -> Error {
    let (step, unit) = (&receipt.step, receipt.unit);
    Error::data(format!("{uri}: is the receipt of {step} {unit}"))
        .hint("run its step again, which repeats the unit")
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
