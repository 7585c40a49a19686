//! The files of a model's weights: an ONNX file, and the files of external data that its graph names.

use std::io::Read;
use std::path::{Component, Path};

use sha2::{Digest, Sha256};
use sluice_manifest::{Error, Result};
use sluice_store::Store;

use crate::layout::onnx_file;
use crate::onnx::{self, Contents};
use crate::precision::Precision;

/// Returns the description in an ONNX file. The inner error is about the file.
pub(crate) fn contents(folder: &Store, onnx: &str) -> Result<Result<Contents, String>> {
    let bytes = folder.stat(onnx)?.map_or(0, |info| info.bytes);
    onnx::contents(bytes, |range| {
        let mut reader = folder.read_ranges(onnx, bytes);
        reader.prefetch(range.clone());
        reader.skip_to(range.start)?;
        let mut window = vec![0; (range.end - range.start) as usize];
        let read = reader.read_exact(&mut window);
        read.map_err(|e| Error::of_io(e, &folder.uri(onnx)))?;
        Ok(window)
    })
}

/// Whether a file that an ONNX file names is in its folder, as it has to be.
pub(crate) fn is_inside(file: &str) -> bool {
    let mut parts = Path::new(file).components();
    !file.is_empty() && parts.all(|part| matches!(part, Component::Normal(_)))
}

/// What is wrong with a file that is not.
const OUTSIDE: &str = "is not in the model's folder";

/// Returns the files that hold tensors of an ONNX file, in order of their names.
///
/// # Errors
/// Data, when one is missing or not in the folder.
pub(crate) fn external(folder: &Store, contents: &Contents, onnx: &str) -> Result<Vec<String>> {
    for file in &contents.external {
        let wrong = if !is_inside(file) {
            OUTSIDE
        } else if folder.stat(file)?.is_none() {
            "does not exist"
        } else {
            continue;
        };
        let uri = folder.uri(onnx);
        return Err(
            Error::data(format!("{uri}: has weights in {file:?}, which {wrong}"))
                .hint("pull the model again, with its external data beside it"),
        );
    }
    Ok(contents.external.iter().cloned().collect())
}

/// Returns the names of the files that hold an ONNX file's tensors, as paths from its folder. They may
/// be missing.
///
/// # Errors
/// Data, when the file is not a whole ONNX file, or names a file that is not in its folder.
pub fn data_names(folder: &Store, onnx: &str) -> Result<Vec<String>> {
    let uri = folder.uri(onnx);
    let contents = contents(folder, onnx)?
        .map_err(|wrong| Error::data(format!("{uri}: not a whole ONNX file: {wrong}")))?;
    match contents.external.iter().find(|name| !is_inside(name)) {
        None => Ok(contents.external.into_iter().collect()),
        Some(name) => Err(
            Error::data(format!("{uri}: has weights in {name:?}, which {OUTSIDE}"))
                .hint("export the model with its external data in the folder of the ONNX file"),
        ),
    }
}

/// Returns the SHA-256 of a precision's ONNX file and its external data; of a broken file, its own.
pub(crate) fn sha256_of(folder: &Store, precision: Precision) -> Result<String> {
    let onnx = onnx_file(precision);
    let graph = contents(folder, onnx)?.unwrap_or_default();
    sha256_of_graph(folder, onnx, &graph)
}

/// Returns the SHA-256 of an ONNX file followed by its external data, which its graph names.
pub(crate) fn sha256_of_graph(folder: &Store, onnx: &str, graph: &Contents) -> Result<String> {
    let mut files = vec![onnx.to_owned()];
    files.extend(external(folder, graph, onnx)?);
    sha256_of_files(folder, &files)
}

/// Returns the SHA-256 of one file.
///
/// # Errors
/// Data, when there is no such file; of storage.
pub fn file_sha256(folder: &Store, file: &str) -> Result<String> {
    sha256_of_files(folder, &[file.to_owned()])
}

/// Returns the SHA-256 of files, one after the other.
fn sha256_of_files(folder: &Store, files: &[String]) -> Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    for file in files {
        let mut reader = folder.reader(file)?;
        loop {
            let count = reader
                .read(&mut buffer)
                .map_err(|e| Error::of_io(e, &folder.uri(file)))?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
        }
    }
    Ok(hex::encode(hasher.finalize()))
}
