//! The files that `sluice inspect` reads.

use anyhow::Result;
use glob::{MatchOptions, Pattern};
use sluice_harness::ToolContext;
use sluice_manifest::numbers::{bytes, thousands};
use sluice_manifest::{Error, UnitKind, layout};
use sluice_run::{Run, counted, steps};
use sluice_store::{Location, Store, Table};

/// A Parquet file in a store, not opened yet.
pub(super) struct ManifestFile {
    store: Store,
    name: String,
}

impl ManifestFile {
    /// Returns its URI, for messages and DuckDB.
    pub(super) fn uri(&self) -> String {
        self.store.uri(&self.name)
    }

    /// Opens the file.
    ///
    /// # Errors
    /// Data, when the file cannot be read as Parquet.
    pub(super) fn open(&self) -> Result<Table, Error> {
        self.store.any_table(&self.name)
    }
}

/// The contents of a location.
pub(super) enum InspectTarget {
    /// A run.
    Run(Box<Run>),
    /// Files, at least one.
    Files(Vec<ManifestFile>),
}

/// Returns the number of rows in all files.
///
/// # Errors
/// Data, when a file cannot be read as Parquet.
pub(super) fn total(files: &[ManifestFile]) -> Result<u64, Error> {
    files.iter().map(|file| Ok(file.open()?.len())).sum()
}

/// Returns the contents of a location.
///
/// # Errors
/// Data, when there is no such file; or a storage error.
pub(super) fn find(location: &Location, tool: &ToolContext<'_>) -> Result<InspectTarget> {
    let storage = &tool.shared.storage;
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
        return Ok(InspectTarget::Files(vec![ManifestFile { store, name }]));
    }
    let Some(store) = storage.open_if_there(location)? else {
        return Err(Error::data(format!("{location}: no such file or folder")).into());
    };
    if store.stat(layout::RUN_INFO)?.is_some() {
        return Ok(InspectTarget::Run(Box::new(Run::open_read_only(
            &tool.shared.storage,
            &text,
        )?)));
    }
    files(&store, &text, |_| true)
}

fn files(store: &Store, text: &str, matches: impl Fn(&str) -> bool) -> Result<InspectTarget> {
    let objects = store.list("")?.into_iter();
    let tables =
        objects.filter(|object| object.path.ends_with(".parquet") && matches(&object.path));
    let files: Vec<ManifestFile> = tables
        .map(|object| ManifestFile {
            store: store.clone(),
            name: object.path,
        })
        .collect();
    if files.is_empty() {
        Err(Error::data(format!("{text}: no Parquet file")).into())
    } else {
        Ok(InspectTarget::Files(files))
    }
}

/// Returns a table of a run's steps, with units, samples and bytes.
///
/// # Errors
/// Data, when the run's pipeline file cannot be parsed; or a storage error.
pub(super) fn overview(recorded: &Run) -> Result<Vec<Vec<String>>> {
    let receipts = counted::receipts(recorded)?;
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
