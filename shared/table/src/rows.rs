//! Reads the rows of a table of any format as JSON objects.

use std::io::{BufRead, BufReader};

use ::csv::ByteRecord;
use serde_json::{Map, Value};
use sluice_manifest::{Error, Result};
use sluice_store::Store;

use crate::csv::{Limited, RECORD_BYTES, Records};
use crate::format::TableFormat;
use crate::json::JsonColumns;
use crate::object::UserObject;
use crate::parquet::{Batches, ParquetTable};

/// A row: values by column name.
pub type JsonRow = Map<String, Value>;

/// The column name for the values of a list of text.
const LINE: &str = "url";

/// The rows of a table.
pub struct Rows {
    object: UserObject,
    records: AnyRecords,
}

enum AnyRecords {
    Batches {
        batches: Box<Batches>,
        rows: std::vec::IntoIter<JsonRow>,
    },
    Csv {
        names: Vec<String>,
        records: Box<Records>,
    },
    Lines {
        reader: BufReader<Limited>,
        number: u64,
        json: bool,
    },
}

impl Rows {
    /// Opens a table. The format is detected from its name.
    ///
    /// # Errors
    ///
    /// Returns a usage error if the format is unknown, a data error if the table does not exist or
    /// has another format, and otherwise a storage error.
    pub fn open(store: &Store, path: &str) -> Result<Self> {
        let object = UserObject::open(store, path)?;
        let records =
            match object.format() {
                None => {
                    return Err(Error::usage(format!("{}: unknown format", object.uri)).hint(
                    "tables are named *.parquet, *.csv, *.tsv, *.jsonl or *.txt, all but the \
                     first also with .gz",
                ));
                }
                Some(TableFormat::Parquet) => {
                    let table = ParquetTable::open(object.clone())?;
                    let columns = JsonColumns::of(table.schema());
                    AnyRecords::Batches {
                        batches: Box::new(table.batches(&columns.roots)?),
                        rows: Vec::new().into_iter(),
                    }
                }
                Some(TableFormat::Csv | TableFormat::Tsv) => {
                    let mut records = Records::open(&object)?;
                    AnyRecords::Csv {
                        names: records.header()?,
                        records: Box::new(records),
                    }
                }
                Some(format) => AnyRecords::Lines {
                    reader: BufReader::new(Limited::open(&object)?),
                    number: 0,
                    json: format == TableFormat::JsonLines,
                },
            };
        Ok(Self { object, records })
    }

    fn step(&mut self) -> Result<Option<JsonRow>> {
        match &mut self.records {
            AnyRecords::Batches { batches, rows } => loop {
                if let Some(row) = rows.next() {
                    return Ok(Some(row));
                }
                let Some(batch) = batches.next() else {
                    return Ok(None);
                };
                *rows = JsonColumns::rows(&batch?).into_iter();
            },
            AnyRecords::Csv { names, records } => {
                let mut record = ByteRecord::new();
                let there = records.read(&mut record)?;
                Ok(there.then(|| csv_row(names, &record)))
            }
            AnyRecords::Lines {
                reader,
                number,
                json,
            } => next_line(&self.object, reader, number, *json),
        }
    }
}

impl Iterator for Rows {
    type Item = Result<JsonRow>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

/// CSV has no types. A field that is a JSON number becomes a number, all others stay text, such as
/// `007`.
fn csv_row(names: &[String], record: &ByteRecord) -> JsonRow {
    let value = |field: &[u8]| {
        let text = String::from_utf8_lossy(field);
        let number = serde_json::from_str::<Value>(&text).ok();
        let number = number.filter(|value| value.is_number() || value.is_boolean());
        if text.is_empty() {
            Value::Null
        } else {
            number.unwrap_or_else(|| text.into())
        }
    };
    let fields = names.iter().zip(record);
    let fields = fields.map(|(name, field)| (name.clone(), value(field)));
    fields.collect()
}

fn next_line(
    object: &UserObject,
    reader: &mut BufReader<Limited>,
    number: &mut u64,
    json: bool,
) -> Result<Option<JsonRow>> {
    let mut line = Vec::new();
    loop {
        line.clear();
        reader.get_mut().left = RECORD_BYTES;
        let read = reader.read_until(b'\n', &mut line);
        if read.map_err(|e| object.of_io(e))? == 0 {
            return Ok(None);
        }
        *number += 1;
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_start_matches('\u{feff}').trim();
        if text.is_empty() {
            continue;
        }
        if !json {
            return Ok(Some(JsonRow::from_iter([(LINE.to_owned(), text.into())])));
        }
        let row = serde_json::from_str(text);
        return row.map(Some).map_err(|e| {
            Error::data(format!(
                "{}: line {number} is not a JSON object: {e}",
                object.uri
            ))
        });
    }
}

#[cfg(test)]
mod tests {
    use sluice_store::{Location, Storage};

    use super::*;

    fn store() -> Store {
        let location = Location::parse("memory://table-rows").unwrap();
        Storage::default().create(&location).unwrap()
    }

    fn rows(name: &str, content: &str) -> Result<Vec<String>> {
        let store = store();
        store.put(name, content.as_bytes().to_vec()).unwrap();
        let rows = Rows::open(&store, name)?;
        rows.map(|row| Ok(Value::Object(row?).to_string()))
            .collect()
    }

    #[test]
    fn every_format_gives_objects() {
        for (name, content, expected) in [
            (
                "a.csv",
                "url,n,zip,flag\na b.jpg,1.5,007,true\n\"x,y\",,,\n",
                vec![
                    r#"{"flag":true,"n":1.5,"url":"a b.jpg","zip":"007"}"#,
                    r#"{"flag":null,"n":null,"url":"x,y","zip":null}"#,
                ],
            ),
            ("a.tsv", "url\tn\na,b\t2\n", vec![r#"{"n":2,"url":"a,b"}"#]),
            (
                "a.txt",
                "\u{feff}a.jpg\r\n\n  b c.jpg \n",
                vec![r#"{"url":"a.jpg"}"#, r#"{"url":"b c.jpg"}"#],
            ),
            (
                "a.jsonl",
                "{\"a\": [1]}\n\n{}\n",
                vec![r#"{"a":[1]}"#, "{}"],
            ),
        ] {
            let sorted = |text: &String| serde_json::from_str::<Value>(text).unwrap();
            let found: Vec<Value> = rows(name, content).unwrap().iter().map(sorted).collect();
            let expected: Vec<Value> = expected
                .iter()
                .map(|text| sorted(&(*text).to_owned()))
                .collect();
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn what_is_no_table_is_an_error_that_says_where() {
        for (name, content, word) in [
            ("b.jsonl", "{}\n[1]\n", "line 2 is not a JSON object"),
            ("b.csv", "a,b\n1\n", "line 2 has 1 fields"),
            ("b.parquet", "PAR1", "not a usable Parquet file"),
            ("b.json", "{}", "unknown format"),
        ] {
            let error = rows(name, content).unwrap_err().to_string();
            assert!(error.contains(word) && error.contains(name), "{error}");
        }
    }
}
