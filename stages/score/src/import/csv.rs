//! A CSV table of the user's: comma separated, with a header, plain or gzipped.
//!
//! CSV has no types. A column counts as numeric where the first [`SAMPLED`] records hold numbers in
//! it and nothing else; where they hold nothing in it, its first value further on decides. Text that is not a number costs the row its score, not the import.

use ::csv::ByteRecord;
use sluice_manifest::{Error, Result};
use sluice_table::{Records, UserObject};

use super::table::{Column, Numbers, Selection, TakeRow};
use crate::columns::score;

/// Records that determine a column's type.
const SAMPLED: usize = 1000;

/// An open CSV table.
pub(super) struct CsvTable {
    pub object: UserObject,
    pub columns: Vec<Column>,
}

impl CsvTable {
    pub(super) fn open(object: UserObject) -> Result<Self> {
        let mut records = Records::open(&object)?;
        let names = records.header()?;
        let mut samples = vec![Sample::default(); names.len()];
        let mut record = ByteRecord::new();
        let mut count = 0;
        while (count < SAMPLED || samples.iter().any(Sample::is_empty))
            && records.read(&mut record)?
        {
            count += 1;
            let fields = samples.iter_mut().zip(&record);
            let fields = fields.filter(|(sample, _)| count <= SAMPLED || sample.is_empty());
            fields.for_each(|(sample, field)| sample.add(field));
        }
        if count == 0 {
            return Err(Error::data(format!("{}: has no rows", object.uri)));
        }
        let columns = names.into_iter().zip(samples).map(|(name, sample)| Column {
            name,
            kind: if sample.is_empty() { "empty" } else { "text" }.to_owned(),
            numbers: sample.numbers(),
            key: true,
        });
        Ok(Self {
            columns: columns.collect(),
            object,
        })
    }

    pub(super) fn read(self, selection: &Selection, take: TakeRow<'_>) -> Result<()> {
        let mut records = Records::open(&self.object)?;
        let mut record = ByteRecord::new();
        let mut row = vec![0.0; selection.values.len()];
        while records.read(&mut record)? {
            for (value, &index) in row.iter_mut().zip(&selection.values) {
                *value = score(number(&record[index]));
            }
            take(Some(&record[selection.key]), &row)?;
        }
        Ok(())
    }
}

/// What some records hold in a column.
#[derive(Debug, Clone, Default)]
struct Sample {
    numbers: usize,
    texts: usize,
}

impl Sample {
    fn add(&mut self, field: &[u8]) {
        match number(field) {
            Some(value) if value.is_nan() => {}
            Some(_) => self.numbers += 1,
            None if is_missing(field) => {}
            None => self.texts += 1,
        }
    }

    fn is_empty(&self) -> bool {
        (self.numbers, self.texts) == (0, 0)
    }

    fn numbers(&self) -> Numbers {
        match (self.numbers, self.texts) {
            (1.., 0) => Numbers::All,
            (0, 1..) => Numbers::None,
            _ => Numbers::Some,
        }
    }
}

/// Returns whether a field is one of the usual words for no value.
fn is_missing(field: &[u8]) -> bool {
    let words: [&[u8]; 5] = [b"", b"na", b"n/a", b"null", b"none"];
    let field = field.trim_ascii();
    words.iter().any(|word| word.eq_ignore_ascii_case(field))
}

/// Parses a number, or a boolean as 0 or 1.
fn number(field: &[u8]) -> Option<f64> {
    let text = str::from_utf8(field.trim_ascii()).ok()?;
    match text {
        _ if text.eq_ignore_ascii_case("true") => Some(1.0),
        _ if text.eq_ignore_ascii_case("false") => Some(0.0),
        _ => text.parse().ok(),
    }
}
