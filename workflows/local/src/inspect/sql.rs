//! `--sql`: runs a query over manifests with DuckDB.
//!
//! Files are the view `manifest`. A run has a view for each folder of manifests, such as
//! `read_images` and `aesthetic_scores`, and the view `curated` for the tables of its output.
//! DuckDB reads the files itself, with its own credentials for object stores.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use sluice_harness::ToolContext;
use sluice_manifest::{Error, text};
use sluice_run::{Run, counted};

use super::files::ManifestFile;

const PROGRAM: &str = "duckdb";
/// The view of the files.
const FILES: &str = "manifest";
/// The view of the output's tables.
const OUTPUT: &str = "curated";

/// The files of each view.
type Views = BTreeMap<String, Vec<String>>;

/// Returns the view of the given files.
pub(super) fn views_of_files(files: &[ManifestFile]) -> Views {
    let uris = files.iter().map(ManifestFile::uri).collect();
    Views::from([(FILES.to_owned(), uris)])
}

/// Returns the views of a run.
///
/// # Errors
/// Data, when the run's pipeline file cannot be parsed; or a storage error.
pub(super) fn views_of_run(recorded: &Run) -> Result<Views> {
    let receipts = counted::receipts(recorded)?;
    let units = receipts
        .steps()
        .into_iter()
        .flat_map(|step| receipts.of(step));
    let mut views = Views::new();
    for output in units.flat_map(|receipt| &receipt.outputs) {
        let path = output.path.as_str();
        let Some((folder, _)) = path.rsplit_once('/').filter(|_| path.ends_with(".parquet")) else {
            continue;
        };
        let (name, uri) = if output.path.is_outside() {
            (OUTPUT.to_owned(), path.to_owned())
        } else {
            (folder.replace(['/', '-'], "_"), recorded.uri(path))
        };
        views.entry(name).or_default().push(uri);
    }
    Ok(views)
}

/// Prints the result of a query: a table, or with `json` one JSON object per line.
///
/// # Errors
/// Usage, when DuckDB is not installed or rejects the query.
pub(super) fn query(
    sql: &str,
    views: &Views,
    json: bool,
    tool: &mut ToolContext<'_>,
) -> Result<()> {
    let program = program().ok_or_else(|| {
        Error::usage(format!("--sql: no program {PROGRAM} on the PATH")).hint(
            "install DuckDB (pip install duckdb-cli), or select rows with --where and --columns",
        )
    })?;
    let mut child = Command::new(program)
        .args([
            "-batch",
            "-bail",
            "-no-init",
            if json { "-jsonlines" } else { "-box" },
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {PROGRAM}"))?;
    let mut input = child.stdin.take().context("no pipe to DuckDB")?;
    let mut output = child.stdout.take().context("no pipe from DuckDB")?;
    let mut errors = child.stderr.take().context("no pipe from DuckDB")?;
    // DuckDB exits early when it rejects a view. Its message gives the reason.
    let _ = input.write_all(script(sql, views).as_bytes());
    drop(input);
    let copied = io::copy(&mut output, tool.out);
    // If the output is closed, DuckDB must not block on a write.
    drop(output);
    let mut words = String::new();
    errors.read_to_string(&mut words)?;
    let status = child.wait()?;
    copied?;
    if status.success() {
        Ok(())
    } else {
        Err(
            Error::usage(format!("--sql: {}", text::shown(words.trim())))
                .hint(format!("the views are {}", names(views)))
                .into(),
        )
    }
}

fn names(views: &Views) -> String {
    views
        .keys()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut programs = std::env::split_paths(&path).map(|folder| folder.join(PROGRAM));
    programs.find(|program| program.is_file())
}

fn script(sql: &str, views: &Views) -> String {
    let mut script = String::new();
    for (name, uris) in views {
        let uris: Vec<String> = uris.iter().map(|uri| quoted(uri, '\'')).collect();
        script.push_str(&format!(
            "CREATE VIEW {} AS SELECT * FROM read_parquet([{}], union_by_name = true);\n",
            quoted(name, '"'),
            uris.join(", ")
        ));
    }
    script + sql.trim().trim_end_matches(';') + ";\n"
}

fn quoted(text: &str, quote: char) -> String {
    let twice = format!("{quote}{quote}");
    format!("{quote}{}{quote}", text.replace(quote, &twice))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_views() {
        let views = Views::from([("read_images".to_owned(), vec!["/a/it's.parquet".to_owned()])]);
        assert_eq!(
            script("SELECT 1;", &views),
            "CREATE VIEW \"read_images\" AS SELECT * FROM \
             read_parquet(['/a/it''s.parquet'], union_by_name = true);\nSELECT 1;\n"
        );
    }
}
