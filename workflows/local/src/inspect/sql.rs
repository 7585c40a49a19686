//! `--sql`: a query over manifests, which DuckDB answers.
//!
//! Files are the view `manifest`. A run is a view for each of its folders of manifests, such as
//! `read_images` and `aesthetic_scores`, and the view `curated` for the tables of its output. DuckDB
//! reads the files itself; for those in a bucket it has its own credentials.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use sluice_harness::{Context, Desk};
use sluice_manifest::{Error, text};
use sluice_report::counted;

use super::files::File;

const PROGRAM: &str = "duckdb";
/// The view of files.
const FILES: &str = "manifest";
/// The view of the tables beside the output's shards.
const OUTPUT: &str = "curated";

/// The files of each view.
type Views = BTreeMap<String, Vec<String>>;

/// Returns the view of some files.
pub fn views_of_files(files: &[File]) -> Views {
    let uris = files.iter().map(File::uri).collect();
    Views::from([(FILES.to_owned(), uris)])
}

/// Returns the views of a run.
///
/// # Errors
/// Data, when the run's pipeline file cannot be parsed; of storage.
pub fn views_of_run(context: &Context) -> Result<Views> {
    let receipts = counted::receipts(context)?;
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
        let (name, uri) = match output.path.is_outside() {
            true => (OUTPUT.to_owned(), path.to_owned()),
            false => (folder.replace(['/', '-'], "_"), context.run.uri(path)),
        };
        views.entry(name).or_default().push(uri);
    }
    Ok(views)
}

/// Writes the answer to a query: a table, or with `json` one JSON object a line.
///
/// # Errors
/// Usage, when DuckDB is not there or refuses the query.
pub fn query(sql: &str, views: &Views, json: bool, desk: &mut Desk<'_>) -> Result<()> {
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
    // It ends early where it refuses a view; its words say why.
    let _ = input.write_all(script(sql, views).as_bytes());
    drop(input);
    let copied = io::copy(&mut output, desk.out);
    // Where nobody reads on, it must not wait to write.
    drop(output);
    let mut words = String::new();
    errors.read_to_string(&mut words)?;
    let status = child.wait()?;
    copied?;
    match status.success() {
        true => Ok(()),
        false => Err(
            Error::usage(format!("--sql: {}", text::shown(words.trim())))
                .hint(format!("the views are {}", names(views)))
                .into(),
        ),
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
