//! Reads lists of paths and URIs: one sample for each row, with the other columns as metadata.

use serde_json::Value;
use sluice_harness::spawn;
use sluice_manifest::rows::FileRow;
use sluice_manifest::{Class, Error, Result};
use sluice_shard::IMAGE_EXTENSIONS;
use sluice_source::locate;
use sluice_store::{Location, Storage, Store};
use sluice_table::{JsonRow, Rows};

use crate::contents::InputOptions;
use crate::files::FileSample;
use crate::kinds::{extension_of, key_of};

/// Names of columns with paths or URIs, the most likely first.
const URLS: [&str; 12] = [
    "url",
    "uri",
    "path",
    "image_path",
    "image_uri",
    "image_url",
    "file_name",
    "filename",
    "file",
    "filepath",
    "image",
    "key",
];
/// The number of concurrent requests for the metadata of objects.
const TOGETHER: usize = 64;

/// Reads a list.
///
/// # Errors
///
/// Returns a usage error if it has no column of paths or no reachable object, a data error if it is
/// damaged, and otherwise a storage error.
pub fn read_list(
    storage: &Storage,
    input: &Store,
    path: &str,
    options: &InputOptions,
) -> Result<Vec<FileSample>> {
    let stem = key_of(path);
    let folder = ListFolder::of(input, path);
    let mut column = None;
    let mut samples = Vec::new();
    for (number, row) in Rows::open(input, path)?.enumerate() {
        let row = row?;
        let column = match &column {
            Some(column) => column,
            None => column.insert(url_column(&input.uri(path), &row, options)?),
        };
        let text = row
            .get(column.as_str())
            .and_then(Value::as_str)
            .unwrap_or_default();
        let file = folder.resolved(text);
        let extension = extension_of(&file);
        let known = IMAGE_EXTENSIONS
            .iter()
            .any(|known| known.eq_ignore_ascii_case(extension));
        let image = FileRow {
            extension: if known { extension } else { "jpg" }.to_owned(),
            text: text.is_empty().then(|| "the list names no file".to_owned()),
            path: Some(file),
            ..FileRow::default()
        };
        let mut sample = FileSample {
            key: format!("{stem}/{number:09}"),
            occurrence: 0,
            members: vec![image],
        };
        if row.len() > 1 || options.url_column.is_some() || is_table(path) {
            sample.describe(row, options.caption_column.as_deref());
        }
        samples.push(sample);
    }
    refuse_unreachable(storage, &input.uri(path), &samples)?;
    Ok(samples)
}

fn is_table(path: &str) -> bool {
    !matches!(
        sluice_table::TableFormat::of(path),
        Some(sluice_table::TableFormat::Lines)
    )
}

fn url_column(uri: &str, row: &JsonRow, options: &InputOptions) -> Result<String> {
    let names: Vec<&str> = row.keys().map(String::as_str).collect();
    let found = match options.url_column.as_deref() {
        Some(column) => names.iter().find(|name| **name == column),
        None => URLS
            .iter()
            .find_map(|url| names.iter().find(|name| name.eq_ignore_ascii_case(url))),
    };
    found.map(|name| (*name).to_owned()).ok_or_else(|| {
        let message = format!(
            "{uri}: no column of paths or URIs; the columns are {}",
            names.join(", ")
        );
        Error::usage(message).hint("name it with --url-column")
    })
}

/// The folder that a list's relative paths are resolved against.
struct ListFolder<'a> {
    input: &'a Store,
    /// The path below the input's root, with a trailing slash.
    path: String,
}

impl<'a> ListFolder<'a> {
    fn of(input: &'a Store, list: &str) -> Self {
        let path = list.rfind('/').map_or("", |slash| &list[..=slash]);
        Self {
            input,
            path: path.to_owned(),
        }
    }

    /// Resolves a path. A relative path is resolved against the list's folder or, if there is no
    /// such file, against the working directory.
    fn resolved(&self, text: &str) -> String {
        if text.contains("://") || text.starts_with('/') || text.is_empty() {
            return text.to_owned();
        }
        let below = format!("{}{}", self.path, text.trim_start_matches("./"));
        let Some(root) = self.input.location().as_local() else {
            return below;
        };
        match Location::parse(text) {
            Ok(here) if !root.join(&below).exists() => match here.as_local() {
                Some(path) if path.exists() => here.to_string(),
                _ => below,
            },
            _ => below,
        }
    }
}

/// Returns an error if no object of a list is in a supported store, such as a list of web
/// addresses.
fn refuse_unreachable(storage: &Storage, uri: &str, samples: &[FileSample]) -> Result<()> {
    let error = |sample: &FileSample| {
        let file = sample.file()?;
        let location = file.contains("://").then(|| Location::parse(file));
        location?
            .and_then(|location| storage.create(&location))
            .err()
    };
    let Some(first) = samples.first().and_then(error) else {
        return Ok(());
    };
    if samples.iter().any(|sample| error(sample).is_none()) {
        return Ok(());
    }
    Err(first
        .within(uri)
        .hint("download web addresses with img2dataset first: its output is an input"))
}

/// Requests the metadata of every listed object, several at a time. Records its size, or why it
/// cannot be read.
///
/// # Errors
///
/// Returns a transient error if a store does not answer, and a stopped error after a signal.
pub fn look_up(storage: &Storage, input: &Store, samples: &mut [FileSample]) -> Result<()> {
    let unknown = |sample: &&mut FileSample| {
        let image = sample.members.first();
        image.is_some_and(|image| image.bytes.is_none() && image.text.is_none())
    };
    let mut unknown: Vec<&mut FileSample> = samples.iter_mut().filter(unknown).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let share = unknown.len().div_ceil(TOGETHER);
    std::thread::scope(|scope| {
        let workers = unknown.chunks_mut(share).map(|samples| {
            spawn(scope, move || -> Result<()> {
                samples.iter_mut().try_for_each(|sample| {
                    storage.check_stop()?;
                    look_up_one(storage, input, &mut sample.members[0])
                })
            })
        });
        let workers = workers.collect::<Result<Vec<_>>>()?;
        workers.into_iter().try_for_each(|worker| {
            // Unwrap safety: a worker returns its errors.
            worker.join().expect("a worker does not panic")
        })
    })
}

fn look_up_one(storage: &Storage, input: &Store, row: &mut FileRow) -> Result<()> {
    let path = row.path.clone().unwrap_or_default();
    let found = locate(storage, input, &path).and_then(|(store, path)| store.stat(&path));
    match found {
        Ok(Some(info)) => {
            (row.bytes, row.etag, row.modified) = (Some(info.bytes), info.etag, info.modified);
        }
        Ok(None) => row.text = Some(format!("{path}: no such object")),
        Err(e) if matches!(e.class(), Class::Data | Class::Usage) => {
            row.text = Some(e.to_string());
        }
        Err(e) => return Err(e),
    }
    Ok(())
}
