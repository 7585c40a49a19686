//! A CSV table of the user's: comma separated, with a header, plain or gzipped.
//!
//! CSV has no types. A column counts as numeric where the first [`SAMPLED`] records hold numbers in
//! it and nothing else; where they hold nothing in it, its first value further on decides. Text that is not a number costs the row its score, not the import.

use std::io::{self, Read};

use ::csv::{ByteRecord, ErrorKind, Reader, ReaderBuilder};
use flate2::bufread::MultiGzDecoder;
use sluice_manifest::{Error, Result};

use super::object::UserObject;
use super::table::{Column, Numbers, Selection, TakeRow};
use crate::columns::score;

/// Records that tell a column's type.
const SAMPLED: usize = 1000;
/// Bytes of a record at most. A quote that is never closed would make the rest of the file one field.
const RECORD_BYTES: usize = 16 << 20;
/// Bytes that are parsed at once.
const BUFFER: usize = 256 << 10;

/// An open CSV table.
pub(super) struct CsvTable {
    pub object: UserObject,
    pub columns: Vec<Column>,
    gzipped: bool,
}

impl CsvTable {
    pub fn open(object: UserObject, gzipped: bool) -> Result<Self> {
        let mut records = Records::open(&object, gzipped)?;
        let names = records.header()?;
        let mut samples = vec![Sample::default(); names.len()];
        let mut record = ByteRecord::new();
        let mut count = 0;
        while (count < SAMPLED || samples.iter().any(Sample::is_empty))
            && records.next(&mut record)?
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
            gzipped,
        })
    }

    pub fn read(self, selection: &Selection, take: TakeRow<'_>) -> Result<()> {
        let mut records = Records::open(&self.object, self.gzipped)?;
        let mut record = ByteRecord::new();
        let mut row = vec![0.0; selection.values.len()];
        while records.next(&mut record)? {
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

/// The records of an object, front to back.
struct Records<'a> {
    object: &'a UserObject,
    reader: Reader<Limited>,
}

impl<'a> Records<'a> {
    fn open(object: &'a UserObject, gzipped: bool) -> Result<Self> {
        let plain = object.stream(0..object.bytes)?;
        let inner: Box<dyn Read> = match gzipped {
            true => Box::new(MultiGzDecoder::new(plain)),
            false => Box::new(plain),
        };
        let left = RECORD_BYTES;
        let reader = ReaderBuilder::new()
            .buffer_capacity(BUFFER)
            .from_reader(Limited { inner, left });
        Ok(Self { object, reader })
    }

    fn header(&mut self) -> Result<Vec<String>> {
        let header = self.reader.byte_headers();
        let header = header.map_err(|e| error(self.object, e))?.clone();
        if header.is_empty() {
            return Err(Error::data(format!("{}: is empty", self.object.uri)));
        }
        let names = header.iter().map(|name| {
            let name = String::from_utf8(name.to_vec());
            name.map_err(|_| self.object.unreadable("its header is not UTF-8 text"))
        });
        names.collect()
    }

    /// Reads the next record. Returns false at the end.
    fn next(&mut self, record: &mut ByteRecord) -> Result<bool> {
        self.reader.get_mut().left = RECORD_BYTES;
        let read = self.reader.read_byte_record(record);
        read.map_err(|e| error(self.object, e))
    }
}

fn error(object: &UserObject, e: ::csv::Error) -> Error {
    match e.into_kind() {
        ErrorKind::Io(e) => object.of_io(e),
        ErrorKind::UnequalLengths {
            pos,
            expected_len,
            len,
        } => {
            let line = pos.map_or(0, |position| position.line());
            Error::data(format!(
                "{}: line {line} has {len} fields, the header has {expected_len}",
                object.uri
            ))
            .hint("a field that holds a comma or a line break is written in double quotes")
        }
        kind => object.unreadable(format!("{kind:?}")),
    }
}

/// A stream that ends with an error where one record takes too many bytes.
struct Limited {
    inner: Box<dyn Read>,
    left: usize,
}

impl Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            let text = "a record is larger than 16 MiB: is a quote never closed?";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let read = self.inner.read(buffer)?;
        self.left = self.left.saturating_sub(read);
        Ok(read)
    }
}
