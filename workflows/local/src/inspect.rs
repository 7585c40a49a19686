//! `sluice inspect`: prints Parquet files (one, all of a folder, or those that match a pattern), or
//! lists the manifests of a run.

mod files;
mod filter;
mod sql;

use anyhow::Result;
use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use arrow::record_batch::RecordBatch;
use clap::Args;
use serde_json::{Map, Value};
use sluice_harness::ToolContext;
use sluice_manifest::Error;
use sluice_manifest::numbers::{plural, thousands};
use sluice_manifest::rows::{SCHEMA_KEY, VERSION_KEY};
use sluice_store::{Location, Table};

use self::files::{InspectTarget, ManifestFile};
use self::filter::RowFilter;
use crate::text::{columns, shorten};

/// The maximum length of a table cell in characters.
const CELL: usize = 32;
/// The width above which a table is printed row by row.
const WIDE: usize = 160;
/// The metadata key that Arrow writes itself.
const ARROW: &str = "ARROW:schema";

/// Print manifests: their schema, their columns and their first rows
///
/// For a run, prints its steps and their manifests. For a folder or a pattern, prints the rows of
/// all Parquet files.
///
/// Example: sluice inspect runs/a/read/images --columns image_id,reason --where "status == 'rejected'"
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// A Parquet file, from Sluice or any other program; a folder or a pattern with * of such
    /// files; or a run
    #[arg(value_name = "MANIFEST")]
    pub manifest: String,

    /// Rows to print
    #[arg(
        long,
        visible_alias = "head",
        env = "SLUICE_ROWS",
        value_name = "N",
        default_value_t = 10
    )]
    pub rows: usize,

    /// Print only these columns, separated by commas
    #[arg(
        long,
        env = "SLUICE_COLUMNS",
        value_name = "NAMES",
        value_delimiter = ','
    )]
    pub columns: Vec<String>,

    /// Print only rows for which this CEL expression over their columns is true
    #[arg(long = "where", value_name = "EXPRESSION")]
    pub condition: Option<String>,

    /// Print the result of this SQL query: files are the view `manifest`, a run has views such as
    /// `read_images`
    ///
    /// Runs the program `duckdb`, which must be on the PATH.
    #[arg(long, value_name = "QUERY", conflicts_with_all = ["condition", "columns", "rows"])]
    pub sql: Option<String>,

    /// Print only the rows, one JSON object per line, without shortening values
    #[arg(long)]
    pub json: bool,
}

/// Prints manifests, or lists those of a run.
///
/// # Errors
/// Usage, when a column or file does not exist; data, when a file cannot be read as Parquet.
pub fn inspect(args: &InspectArgs, tool: &mut ToolContext<'_>) -> Result<()> {
    let location = Location::parse(&args.manifest)?;
    let files = match files::find(&location, tool)? {
        InspectTarget::Run(context) => {
            if let Some(query) = &args.sql {
                return sql::query(query, &sql::views_of_run(&context)?, args.json, tool);
            }
            let rows = files::overview(&context)?;
            write!(tool.out, "{}", columns(&rows, &[2, 3, 4], ""))?;
            return Ok(());
        }
        InspectTarget::Files(files) => files,
    };
    if let Some(query) = &args.sql {
        return sql::query(query, &sql::views_of_files(&files), args.json, tool);
    }
    let first = files[0].open()?;
    check_columns(&args.columns, &first, &location)?;
    let condition = args.condition.as_deref();
    let filter = condition
        .map(|text| RowFilter::new(text, first.schema()))
        .transpose()?;
    let mut rows = RowSelection {
        left: args.rows,
        columns: &args.columns,
        filter,
    };
    if args.json {
        return rows.each(&files, |row| {
            Ok(writeln!(tool.out, "{}", Value::Object(row))?)
        });
    }
    let total = files::total(&files)?;
    write!(tool.out, "{}", head(&first, &location, files.len(), total))?;
    let mut found = Vec::new();
    rows.each(&files, |row| {
        found.push(row);
        Ok(())
    })?;
    let names: Vec<String> = match args.columns.as_slice() {
        [] => names(&first),
        chosen => chosen.to_vec(),
    };
    write!(tool.out, "{}", body(&names, &found))?;
    let more = total.saturating_sub(found.len() as u64);
    if more > 0 && args.condition.is_none() {
        writeln!(tool.out, "… {} more rows", thousands(more))?;
    }
    Ok(())
}

fn names(table: &Table) -> Vec<String> {
    let fields = table.schema().fields().iter();
    fields.map(|field| field.name().clone()).collect()
}

fn check_columns(wanted: &[String], table: &Table, location: &Location) -> Result<(), Error> {
    let names = names(table);
    match wanted.iter().find(|column| !names.contains(column)) {
        None => Ok(()),
        Some(column) => Err(Error::usage(format!("{location}: no column {column:?}"))
            .hint(format!("columns are {}", names.join(", ")))),
    }
}

fn head(table: &Table, location: &Location, files: usize, rows: u64) -> String {
    let metadata = table.all_metadata();
    let schema = match (metadata.get(SCHEMA_KEY), metadata.get(VERSION_KEY)) {
        (Some(name), Some(version)) => format!("{name}, version {version}"),
        _ => "not a Sluice manifest".to_owned(),
    };
    let mut lines = vec![
        vec!["manifest".to_owned(), location.to_string()],
        vec!["schema".to_owned(), schema],
        vec!["rows".to_owned(), thousands(rows)],
    ];
    if files > 1 {
        lines.push(vec!["files".to_owned(), plural(files as u64, "file")]);
    }
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

/// Returns the rows as a table, or as one block per row if the table would be too wide.
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

/// Returns a value shortened to about `limit` characters. A long list is shown with its length.
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

/// The selection of rows that are printed.
struct RowSelection<'a> {
    left: usize,
    columns: &'a [String],
    filter: Option<RowFilter>,
}

impl RowSelection<'_> {
    /// Calls `each` with the first rows that pass the filter.
    fn each(
        &mut self,
        files: &[ManifestFile],
        mut each: impl FnMut(Map<String, Value>) -> Result<()>,
    ) -> Result<()> {
        for file in files {
            let mut table = file.open()?;
            while self.left > 0
                && let Some(batch) = table.next()
            {
                self.of_batch(&batch?, &mut each)?;
            }
        }
        Ok(())
    }

    fn of_batch(
        &mut self,
        batch: &RecordBatch,
        each: &mut impl FnMut(Map<String, Value>) -> Result<()>,
    ) -> Result<()> {
        // Rows that are tested need all columns; others need only the printed columns, at the
        // printed width.
        let batch = match (&self.filter, self.columns) {
            (None, []) => batch.slice(0, self.left.min(batch.num_rows())),
            (None, names) => {
                let indices = names.iter().map(|name| batch.schema().index_of(name));
                let indices = indices.collect::<Result<Vec<usize>, _>>()?;
                batch
                    .slice(0, self.left.min(batch.num_rows()))
                    .project(&indices)?
            }
            (Some(_), _) => batch.clone(),
        };
        for mut row in json_rows(&batch)? {
            if self.left == 0 {
                break;
            }
            if let Some(filter) = &self.filter {
                if !filter.passes(&row) {
                    continue;
                }
                row.retain(|name, _| self.columns.is_empty() || self.columns.contains(name));
            }
            self.left -= 1;
            each(row)?;
        }
        Ok(())
    }
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
