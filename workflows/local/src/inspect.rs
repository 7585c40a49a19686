//! `sluice inspect`: what a Parquet file holds.

use anyhow::Result;
use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use arrow::record_batch::RecordBatch;
use clap::Args;
use serde_json::{Map, Value};
use sluice_harness::Desk;
use sluice_manifest::Error;
use sluice_manifest::rows::{SCHEMA_KEY, VERSION_KEY};
use sluice_report::page::thousands;
use sluice_store::{Location, Table};

use crate::text::{columns, shorten};

/// A cell of the table has at most this many characters.
const CELL: usize = 32;
/// A table that is wider is shown row by row.
const WIDE: usize = 160;
/// Metadata that Arrow writes for itself.
const ARROW: &str = "ARROW:schema";

/// Print a manifest: its schema, its columns and its first rows
///
/// Example: sluice inspect runs/a/read/images/part-00000.parquet --columns image_id,reason
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The Parquet file, ours or any other
    #[arg(value_name = "MANIFEST")]
    pub manifest: String,

    /// Rows to print
    #[arg(long, env = "SLUICE_ROWS", value_name = "N", default_value_t = 10)]
    pub rows: usize,

    /// Print these columns only, with commas between them
    #[arg(
        long,
        env = "SLUICE_COLUMNS",
        value_name = "NAMES",
        value_delimiter = ','
    )]
    pub columns: Vec<String>,

    /// Print the rows alone, one JSON object a line, with nothing shortened
    #[arg(long)]
    pub json: bool,
}

/// Prints a manifest.
///
/// # Errors
/// Usage, when there is no such column; data, when the file cannot be read as Parquet.
pub fn inspect(args: &InspectArgs, desk: &mut Desk<'_>) -> Result<()> {
    let location = Location::parse(&args.manifest)?;
    let Some((folder, name)) = location.split() else {
        return Err(Error::usage(format!("{location}: not the path of a file")).into());
    };
    let mut table = desk.shared.storage.open(&folder)?.any_table(&name)?;
    for column in &args.columns {
        if table.schema().field_with_name(column).is_err() {
            let fields = table.schema().fields().iter();
            let names: Vec<&str> = fields.map(|field| field.name().as_str()).collect();
            return Err(Error::usage(format!("{location}: no column {column:?}"))
                .hint(format!("columns are {}", names.join(", ")))
                .into());
        }
    }
    if args.json {
        return each_row(&mut table, args, |row| {
            writeln!(desk.out, "{}", Value::Object(row))?;
            Ok(())
        });
    }
    write!(desk.out, "{}", head(&table, &location))?;
    let mut rows = Vec::new();
    each_row(&mut table, args, |row| {
        rows.push(row);
        Ok(())
    })?;
    let names: Vec<String> = match args.columns.as_slice() {
        [] => table
            .schema()
            .fields()
            .iter()
            .map(|f| f.name().clone())
            .collect(),
        chosen => chosen.to_vec(),
    };
    write!(desk.out, "{}", body(&names, &rows))?;
    let more = table.len().saturating_sub(rows.len() as u64);
    if more > 0 {
        writeln!(desk.out, "… {} more rows", thousands(more))?;
    }
    Ok(())
}

fn head(table: &Table, location: &Location) -> String {
    let metadata = table.all_metadata();
    let schema = match (metadata.get(SCHEMA_KEY), metadata.get(VERSION_KEY)) {
        (Some(name), Some(version)) => format!("{name}, version {version}"),
        _ => "not one of ours".to_owned(),
    };
    let mut lines = vec![
        vec!["manifest".to_owned(), location.to_string()],
        vec!["schema".to_owned(), schema],
        vec!["rows".to_owned(), thousands(table.len())],
    ];
    for (key, value) in metadata {
        if ![SCHEMA_KEY, VERSION_KEY, ARROW].contains(&key) {
            lines.push(vec![key.to_owned(), shorten(value, WIDE / 2)]);
        }
    }
    let mut text = columns(&lines, &[], "");
    text.push_str("\ncolumns\n");
    let fields = table.schema().fields().iter().map(|field| {
        let null = if field.is_nullable() {
            "may be null"
        } else {
            ""
        };
        vec![
            field.name().clone(),
            shorten(&field.data_type().to_string(), WIDE / 2),
            null.to_owned(),
        ]
    });
    text.push_str(&columns(&fields.collect::<Vec<_>>(), &[], "  "));
    text.push('\n');
    text
}

/// Returns the rows as a table, or one block for each row where the table would be too wide.
fn body(names: &[String], rows: &[Map<String, Value>]) -> String {
    let mut lines = vec![names.to_vec()];
    let cells = |row: &Map<String, Value>| -> Vec<String> {
        let cells = names.iter().map(|name| cell(row.get(name)));
        cells.collect()
    };
    lines.extend(rows.iter().map(cells));
    let right: Vec<usize> = (0..names.len())
        .filter(|&i| {
            let mut values = rows.iter().filter_map(|row| row.get(&names[i]));
            values.all(|value| value.is_number() || value.is_null())
        })
        .collect();
    let table = columns(&lines, &right, "");
    let width = table.lines().map(|line| line.chars().count()).max();
    if width.unwrap_or(0) <= WIDE {
        return table;
    }
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        text.push_str(&format!("row {number}\n"));
        let pairs = names.iter().map(|name| {
            let value = row.get(name).unwrap_or(&Value::Null);
            vec![name.clone(), long(value, WIDE / 2)]
        });
        text.push_str(&columns(&pairs.collect::<Vec<_>>(), &[], "  "));
    }
    text
}

fn cell(value: Option<&Value>) -> String {
    long(value.unwrap_or(&Value::Null), CELL)
}

/// Returns a value with at most about `limit` characters; a long list gives its length.
fn long(value: &Value, limit: usize) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => shorten(text, limit),
        Value::Array(items) if items.len() > 4 && items.iter().all(Value::is_number) => {
            let first: Vec<String> = items.iter().take(3).map(Value::to_string).collect();
            format!("[{}, … {} values]", first.join(", "), items.len())
        }
        other => shorten(&other.to_string(), limit),
    }
}

/// Calls `each` with the first rows.
fn each_row(
    table: &mut Table,
    args: &InspectArgs,
    mut each: impl FnMut(Map<String, Value>) -> Result<()>,
) -> Result<()> {
    let mut left = args.rows;
    while left > 0 {
        let Some(batch) = table.next() else { break };
        let batch = batch?;
        let batch = batch.slice(0, left.min(batch.num_rows()));
        left -= batch.num_rows();
        let batch = match args.columns.as_slice() {
            [] => batch,
            names => {
                let indices: Result<Vec<usize>, _> = names
                    .iter()
                    .map(|name| batch.schema().index_of(name))
                    .collect();
                batch.project(&indices?)?
            }
        };
        for row in json_rows(&batch)? {
            each(row)?;
        }
    }
    Ok(())
}

fn json_rows(batch: &RecordBatch) -> Result<Vec<Map<String, Value>>> {
    let mut lines = Vec::new();
    let mut writer = WriterBuilder::new()
        .with_explicit_nulls(true)
        .build::<_, LineDelimited>(&mut lines);
    writer.write(batch)?;
    writer.finish()?;
    drop(writer);
    let rows = serde_json::Deserializer::from_slice(&lines).into_iter();
    Ok(rows.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn long_values_are_shortened() {
        let vector = json!([0.5, 0.25, 1.0, 2.0, 3.0]);
        assert_eq!(long(&vector, 10), "[0.5, 0.25, 1.0, … 5 values]");
        assert_eq!(long(&json!("0123456789"), 5), "0123…");
        assert_eq!(long(&Value::Null, 5), "-");
    }
}
