//! Scores from a table of the user's, Parquet or CSV.
//!
//! The table is streamed once: of Parquet the key's column and the scores' columns, page by page; of
//! CSV record by record. What stays in memory is a 128-bit digest of each key and its scores as
//! `f32`, about 50 bytes a row, however long the keys are.
//!
//! A key that occurs in several rows is fine while the rows agree. Where they differ there is no
//! order that a user could rely on, so the key gets no score, is counted, and the first few such
//! keys are named.

mod csv;
mod key;
mod parquet;
mod table;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};

use sluice_manifest::{Error, Result};
use sluice_store::Store;

use crate::columns::{KeyDigest, MISSING};
pub use key::KeyField;
use table::{ScoreTable, Selection};

/// Conflicting keys that are named.
const NAMED_CONFLICTS: usize = 5;

/// How a table is joined to the images, and which columns are scores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportOptions {
    /// The field of ours that is matched.
    pub by: KeyField,
    /// The table's column of keys. None: the column named as the field.
    pub by_column: Option<String>,
    /// The score columns. Empty: every numeric column except the keys.
    pub columns: Vec<String>,
}

/// What the rows of a table gave. `rows` is the sum of the table's distinct keys,
/// `rows_without_key`, `repeated_rows` and `conflicting_rows`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImportCounts {
    /// Rows of the table.
    pub rows: u64,
    /// Rows whose key is null or empty.
    pub rows_without_key: u64,
    /// Rows that repeat an earlier row, scores included.
    pub repeated_rows: u64,
    /// Rows that repeat an earlier row's key with other scores.
    pub conflicting_rows: u64,
    /// Keys whose rows differ. They have no score.
    pub conflicting_keys: u64,
    /// Rows without a single score.
    pub rows_without_score: u64,
    /// Values of score columns that are null, not finite, or text that is not a number.
    pub missing_values: u64,
}

/// The scores of a table, by key.
#[derive(Debug)]
pub struct ImportedScores {
    by: KeyField,
    columns: Vec<String>,
    slots: HashMap<KeyDigest, u32>,
    /// The scores of each slot, one after the other.
    values: Vec<f32>,
    /// Slots that were looked up.
    used: Vec<AtomicBool>,
    conflicting: HashSet<u32>,
    conflicts: Vec<String>,
    counts: ImportCounts,
}

impl ImportedScores {
    /// Returns the names of the score columns. Reads the footer of a Parquet table, and the first
    /// thousand records of a CSV one.
    ///
    /// # Errors
    ///
    /// Fails as [`load`](Self::load) does, apart from what only the rows show.
    pub fn check(store: &Store, path: &str, options: &ImportOptions) -> Result<Vec<String>> {
        let table = ScoreTable::open(store, path)?;
        Ok(Selection::new(&table, options)?.names)
    }

    /// Reads a table. The object's name gives its format: `.parquet`, `.csv` or `.csv.gz`.
    ///
    /// # Errors
    ///
    /// Usage: the format is unknown; a column is missing, ambiguous or of a type that does not fit;
    /// there is no numeric column. Data: there is no such object, its format is not that of its name, a CSV
    /// row has another number of fields than the header, or there is no row, no key or no score.
    pub fn load(store: &Store, path: &str, options: &ImportOptions) -> Result<Self> {
        let table = ScoreTable::open(store, path)?;
        let selection = Selection::new(&table, options)?;
        let mut scores = Self::new(options.by.clone(), selection.names.clone());
        table.read(&selection, &mut |key, values| scores.add(key, values))?;
        scores
            .used
            .resize_with(scores.slots.len(), AtomicBool::default);
        scores.check_content(&store.uri(path), &selection.key_name)?;
        Ok(scores)
    }

    fn new(by: KeyField, columns: Vec<String>) -> Self {
        Self {
            by,
            columns,
            slots: HashMap::new(),
            values: Vec::new(),
            used: Vec::new(),
            conflicting: HashSet::new(),
            conflicts: Vec::new(),
            counts: ImportCounts::default(),
        }
    }

    fn add(&mut self, key: Option<&[u8]>, values: &[f32]) -> Result<()> {
        let missing = values.iter().filter(|value| value.is_nan()).count();
        self.counts.rows += 1;
        self.counts.missing_values += missing as u64;
        self.counts.rows_without_score += u64::from(missing == values.len());
        let Some(key) = key.filter(|key| !key.is_empty()) else {
            self.counts.rows_without_key += 1;
            return Ok(());
        };
        let next = u32::try_from(self.slots.len())
            .map_err(|_| Error::data("more than 4 billion keys in a table of scores"))?;
        let slot = *self.slots.entry(self.digest(key)).or_insert(next);
        if slot == next {
            self.values.extend_from_slice(values);
        } else if !self.conflicting.contains(&slot) && same(self.of_slot(slot), values) {
            self.counts.repeated_rows += 1;
        } else {
            self.counts.conflicting_rows += 1;
            self.mark_conflicting(slot, key);
        }
        Ok(())
    }

    fn mark_conflicting(&mut self, slot: u32, key: &[u8]) {
        if !self.conflicting.insert(slot) {
            return;
        }
        self.counts.conflicting_keys += 1;
        if self.conflicts.len() < NAMED_CONFLICTS {
            self.conflicts
                .push(String::from_utf8_lossy(key).into_owned());
        }
        let width = self.columns.len();
        self.values[slot as usize * width..][..width].fill(MISSING);
    }

    fn check_content(&self, uri: &str, key: &str) -> Result<()> {
        let rows = self.counts.rows;
        if self.slots.is_empty() {
            return Err(Error::data(format!(
                "{uri}: column {key:?} is empty in all {rows} rows"
            )));
        }
        if self.values.iter().all(|value| value.is_nan()) {
            let columns = self.columns.join(", ");
            return Err(Error::data(format!(
                "{uri}: no usable number in {rows} rows of {columns}"
            ))
            .hint(
                "numbers are written with a decimal point; keys whose rows differ have no score",
            ));
        }
        Ok(())
    }

    /// Returns the scores of a key in the order of [`columns`](Self::columns), NaN for a missing one;
    /// None where the table has no such key.
    pub fn lookup(&self, key: &str) -> Option<&[f32]> {
        let slot = *self.slots.get(&self.digest(key.as_bytes()))?;
        self.used[slot as usize].store(true, Ordering::Relaxed);
        Some(self.of_slot(slot))
    }

    fn of_slot(&self, slot: u32) -> &[f32] {
        let width = self.columns.len();
        &self.values[slot as usize * width..][..width]
    }

    /// Hashes are written in either case; ours are lower case.
    fn digest(&self, key: &[u8]) -> KeyDigest {
        match self.by {
            KeyField::Sha256 => KeyDigest::of(&key.to_ascii_lowercase()),
            _ => KeyDigest::of(key),
        }
    }

    /// Returns the names of the score columns.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Returns the number of distinct keys.
    pub fn keys(&self) -> u64 {
        self.slots.len() as u64
    }

    /// Returns what the rows gave.
    pub fn counts(&self) -> &ImportCounts {
        &self.counts
    }

    /// Returns the first few keys whose rows differ.
    pub fn conflicts(&self) -> &[String] {
        &self.conflicts
    }

    /// Returns the number of keys that no [`lookup`](Self::lookup) asked for. The number is meaningful
    /// only after all images of all partitions were looked up in this process.
    pub fn unused_keys(&self) -> u64 {
        let unused = self
            .used
            .iter()
            .filter(|used| !used.load(Ordering::Relaxed));
        unused.count() as u64
    }
}

/// Returns whether two rows have the same scores, and lack the same.
fn same(left: &[f32], right: &[f32]) -> bool {
    let mut pairs = left.iter().zip(right);
    pairs.all(|(left, right)| left == right || (left.is_nan() && right.is_nan()))
}

#[cfg(test)]
mod tests;
