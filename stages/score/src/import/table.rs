//! A table of scores in any format, and the columns that are read.

use sluice_manifest::{Error, Result};
use sluice_store::Store;
use sluice_table::UserObject;

use super::ImportOptions;
use super::csv::CsvTable;
use super::parquet::ParquetTable;
use crate::columns::listed;

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub name: String,
    /// The type, for errors.
    pub kind: String,
    pub numbers: Numbers,
    /// Whether the values can be keys.
    pub key: bool,
}

/// Which values of a column are numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Numbers {
    /// All values, or null.
    All,
    /// Some, or it is unknown: such a column is read where its name is given.
    Some,
    /// None.
    None,
}

/// Takes a row: its key, and the values of the score columns in the selection's order.
pub(super) type TakeRow<'a> = &'a mut dyn FnMut(Option<&[u8]>, &[f32]) -> Result<()>;

/// A table whose columns are known and whose rows are still to be read.
pub(super) enum ScoreTable {
    Parquet(ParquetTable),
    Csv(CsvTable),
}

impl ScoreTable {
    pub(super) fn open(store: &Store, path: &str) -> Result<Self> {
        let name = path.to_ascii_lowercase();
        if name.ends_with(".parquet") {
            let object = open(store, path)?;
            return ParquetTable::open(object).map(Self::Parquet);
        }
        if name.ends_with(".csv") || name.ends_with(".csv.gz") {
            let object = open(store, path)?;
            return CsvTable::open(object).map(Self::Csv);
        }
        let uri = store.uri(path);
        Err(Error::usage(format!("{uri}: unknown format"))
            .hint("a table of scores is named *.parquet, *.csv or *.csv.gz"))
    }

    fn uri(&self) -> &str {
        match self {
            Self::Parquet(table) => table.uri(),
            Self::Csv(table) => &table.object.uri,
        }
    }

    fn columns(&self) -> &[Column] {
        match self {
            Self::Parquet(table) => &table.columns,
            Self::Csv(table) => &table.columns,
        }
    }

    pub(super) fn read(self, selection: &Selection, take: TakeRow<'_>) -> Result<()> {
        match self {
            Self::Parquet(table) => table.read(selection, take),
            Self::Csv(table) => table.read(selection, take),
        }
    }

    /// Returns the index of the only column of a name.
    fn find(&self, name: &str) -> Result<usize> {
        let columns = self.columns().iter().enumerate();
        let mut found = columns.filter(|(_, column)| column.name == name);
        match (found.next(), found.next()) {
            (Some((index, _)), None) => Ok(index),
            (Some(_), Some(_)) => Err(Error::usage(format!(
                "{}: several columns are named {name:?}",
                self.uri()
            ))),
            (None, _) => {
                let columns = listed(self.columns().iter().map(|column| &*column.name));
                Err(Error::usage(format!(
                    "{}: no column {name:?}; the columns are {columns}",
                    self.uri()
                )))
            }
        }
    }
}

fn open(store: &Store, path: &str) -> Result<UserObject> {
    let object = UserObject::open(store, path);
    object.map_err(|e| e.hint("--import takes the URI of one Parquet or CSV object"))
}

/// The columns that are read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Selection {
    pub key: usize,
    pub key_name: String,
    /// The score columns.
    pub values: Vec<usize>,
    /// Their names.
    pub names: Vec<String>,
}

impl Selection {
    pub(super) fn new(table: &ScoreTable, options: &ImportOptions) -> Result<Self> {
        let key_name = options.by_column.as_deref();
        let key_name = key_name.unwrap_or_else(|| options.by.column());
        let key = table.find(key_name).map_err(|e| {
            let hint = format!("--by-column names the column that holds {}", options.by);
            e.hint(hint)
        })?;
        let column = &table.columns()[key];
        if !column.key {
            return Err(Error::usage(format!(
                "{}: column {key_name:?} is {}, expected text or integers to match {}",
                table.uri(),
                column.kind,
                options.by
            )));
        }
        let values = match options.columns.as_slice() {
            [] => all_numbers(table, key)?,
            names => named(table, names)?,
        };
        let names = values
            .iter()
            .map(|&index| table.columns()[index].name.clone());
        let selection = Self {
            key,
            key_name: key_name.to_owned(),
            names: names.collect(),
            values,
        };
        selection.check_names(table)?;
        Ok(selection)
    }

    /// Scores become columns of a manifest: their names are unique and not taken.
    fn check_names(&self, table: &ScoreTable) -> Result<()> {
        for (index, name) in self.names.iter().enumerate() {
            table.find(name)?;
            let wrong = match name.as_str() {
                "image_id" => "cannot be a score",
                _ if self.names[..index].contains(name) => "is named twice",
                _ => continue,
            };
            return Err(
                Error::usage(format!("{}: column {name:?} {wrong}", table.uri()))
                    .hint("--columns names the columns that are scores"),
            );
        }
        Ok(())
    }
}

fn all_numbers(table: &ScoreTable, key: usize) -> Result<Vec<usize>> {
    let columns = table.columns().iter().enumerate();
    let numbers = columns.filter(|&(index, column)| {
        index != key && column.numbers == Numbers::All && !is_row_index(&column.name)
    });
    let numbers: Vec<_> = numbers.map(|(index, _)| index).collect();
    if numbers.is_empty() {
        let columns = table.columns().iter();
        let columns = columns.map(|column| format!("{:?} ({})", column.name, column.kind));
        let columns: Vec<_> = columns.take(20).collect();
        return Err(Error::usage(format!(
            "{}: no numeric column among {}",
            table.uri(),
            columns.join(", ")
        ))
        .hint("--columns names the columns that are scores"));
    }
    Ok(numbers)
}

/// pandas writes the row numbers of a frame under these names.
fn is_row_index(name: &str) -> bool {
    name.is_empty() || name.starts_with("__index_level_")
}

fn named(table: &ScoreTable, names: &[String]) -> Result<Vec<usize>> {
    let find = |name: &String| {
        let index = table.find(name)?;
        let column = &table.columns()[index];
        match column.numbers {
            Numbers::None => Err(Error::usage(format!(
                "{}: column {name:?} is {}, expected numbers",
                table.uri(),
                column.kind
            ))),
            _ => Ok(index),
        }
    };
    names.iter().map(find).collect()
}
