//! Which files `sluice inspect` reads.

use anyhow::Result;
use glob::{MatchOptions, Pattern};
use sluice_harness::{Context, Desk};
use sluice_manifest::numbers::{bytes, thousands};
use sluice_manifest::{Error, UnitKind, layout};
use sluice_report::{counted, steps};
use sluice_store::{Location, Store, Table};

/// A Parquet file.
pub struct File {
    store: Store,
    name: String,
}

impl File {
    /// Returns where it is.
    pub fn uri(&self) -> String {
        self.store.uri(&self.name)
    }

    /// Opens the file.
    ///
    /// # Errors
    /// Data, when it cannot be read as Parquet.
    pub fn open(&self) -> Result<Table, Error> {
        self.store.any_table(&self.name)
    }
}

/// What a location leads to.
pub enum Found {
    /// A run.
    Run(Box<Context>),
    /// Files, at least one.
    Files(Vec<File>),
}

/// Returns the number of rows in all files.
///
/// # Errors
/// Data, when one cannot be read as Parquet.
pub fn total(files: &[File]) -> Result<u64, Error> {
    files.iter().map(|file| Ok(file.open()?.len())).sum()
}

/// Returns what a location leads to.
///
/// # Errors
/// Data, when there is nothing; of storage.
pub fn find(location: &Location, desk: &Desk<'_>) -> Result<Found> {
    let storage = &desk.shared.storage;
    let text = location.to_string();
    if let Some(at) = text.find(['*', '?', '[']) {
        let folder = text[..at].rfind('/').map_or("", |slash| &text[..slash]);
        let store = storage.open(&Location::parse(folder)?)?;
        let pattern =
            Pattern::new(&text).map_err(|e| Error::usage(format!("{text}: not a pattern: {e}")))?;
        let options = MatchOptions {
            require_literal_separator: true,
            ..MatchOptions::new()
        };
        let matches = |path: &str| pattern.matches_with(&store.uri(path), options);
        return files(&store, &text, matches);
    }
    if let Some((folder, name)) = location.split()
        && let Some(store) = storage.open_if_there(&folder)?
        && store.stat(&name)?.is_some()
    {
        return Ok(Found::Files(vec![File { store, name }]));
    }
    let Some(store) = storage.open_if_there(location)? else {
        return Err(Error::data(format!("{location}: no such file or folder")).into());
    };
    if store.stat(layout::RUN_INFO)?.is_some() {
        return Ok(Found::Run(Box::new(Context::look(
            &text,
            "sluice",
            &desk.shared,
        )?)));
    }
    files(&store, &text, |_| true)
}

fn files(store: &Store, text: &str, matches: impl Fn(&str) -> bool) -> Result<Found> {
    let objects = store.list("")?.into_iter();
    let tables =
        objects.filter(|object| object.path.ends_with(".parquet") && matches(&object.path));
    let files: Vec<File> = tables
        .map(|object| File {
            store: store.clone(),
            name: object.path,
        })
        .collect();
    match files.is_empty() {
        true => Err(Error::data(format!("{text}: no Parquet file")).into()),
        false => Ok(Found::Files(files)),
    }
}

/// Returns a table of what a run consists of: its steps, with units, samples and bytes.
///
/// # Errors
/// Data, when the run's pipeline file cannot be parsed; of storage.
pub fn overview(context: &Context) -> Result<Vec<Vec<String>>> {
    let receipts = counted::receipts(context)?;
    let head = ["step", "stage", "units", "samples", "bytes", "wrote"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for node in steps::nodes(&receipts) {
        if node.kind() == UnitKind::Report {
            continue;
        }
        let outputs = || node.units.iter().flat_map(|receipt| &receipt.outputs);
        let size: u64 = outputs().map(|output| output.bytes).sum();
        let samples: u64 = node.units.iter().map(|receipt| receipt.counts.input).sum();
        let first = outputs().next().map(|output| output.path.as_str());
        let folder = first
            .and_then(|path| path.rsplit_once('/'))
            .map(|(folder, _)| folder);
        rows.push(vec![
            node.name(),
            node.first().stage.clone(),
            thousands(node.units.len() as u64),
            thousands(samples),
            bytes(size),
            folder.unwrap_or_default().to_owned(),
        ]);
    }
    Ok(rows)
}
