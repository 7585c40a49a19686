//! `model.int8.onnx`: what `--precision int8` runs.

use std::io::Read;
use std::ops::Range;

use sluice_manifest::{Error, Result};
use sluice_store::{Location, Storage, Store};

use crate::convert::quantize::quantize;
use crate::layout::{ONNX_INT8, SPEC};
use crate::model::Model;
use crate::precision::Precision;
use crate::spec::Spec;
use crate::weights::sha256_of;

/// A model whose weights were quantised.
#[derive(Debug, Clone)]
pub struct QuantizedModel {
    /// The folder that has it.
    pub folder: Location,
    /// Matrix products whose weights are in 8 bits.
    pub products: usize,
    /// Bytes of the new ONNX file.
    pub bytes: u64,
}

impl Model {
    /// Writes `model.int8.onnx`: the model with the weights of its matrix products in 8 bits, into
    /// `folder` with a `model.toml`, or beside the model itself.
    ///
    /// # Errors
    /// Usage, when the model has no such products; data, when a file is broken; of storage.
    pub fn quantize(&self, storage: &Storage, folder: Option<&Location>) -> Result<QuantizedModel> {
        let files = self
            .files
            .as_ref()
            .ok_or_else(|| Error::usage(format!("model {:?} has no weights", self.spec.name)))?;
        let read = |file: &str, range| read_range(&files.folder, file, range);
        let quantized =
            quantize(&files.folder.get(&files.onnx)?, read).map_err(|e| e.within(&files.uri()))?;
        let target = match folder {
            Some(folder) => storage.create(folder)?,
            None => files.root().clone(),
        };
        let bytes = quantized.onnx.len() as u64;
        target.put(ONNX_INT8, quantized.onnx)?;
        let spec = match folder {
            Some(_) => Some(self.spec.clone()),
            None => stated_spec(&target)?,
        };
        if let Some(mut spec) = spec {
            spec.sha256 = spec.sha256.filter(|_| folder.is_none());
            spec.sha256_int8 = Some(sha256_of(&target, Precision::Int8)?);
            target.put(SPEC, spec.text()?)?;
        }
        target.tidy();
        Ok(QuantizedModel {
            folder: target.location().clone(),
            products: quantized.products,
            bytes,
        })
    }
}

/// Returns a folder's `model.toml`, where it states the SHA-256 of the model's files.
fn stated_spec(folder: &Store) -> Result<Option<Spec>> {
    let Some(text) = folder.get_if_there(SPEC)? else {
        return Ok(None);
    };
    let spec = Spec::parse(&String::from_utf8_lossy(&text), &folder.uri(SPEC))?;
    Ok(Some(spec).filter(|spec| spec.sha256.is_some() || spec.sha256_int8.is_some()))
}

/// Reads a range of a file; one that ends behind the file's end goes to its end.
fn read_range(folder: &Store, file: &str, range: Range<u64>) -> Result<Vec<u8>> {
    let missing = || Error::data(format!("{}: no such file", folder.uri(file)));
    let bytes = folder.stat(file)?.ok_or_else(missing)?.bytes;
    let range = range.start..range.end.min(bytes);
    if range.start >= range.end {
        return Err(
            Error::data(format!("{}: is cut", folder.uri(file))).hint("pull the model again")
        );
    }
    let mut reader = folder.stretches(file, bytes);
    reader.want(range.clone());
    reader.skip_to(range.start)?;
    let mut content = vec![0; (range.end - range.start) as usize];
    let read = reader.read_exact(&mut content);
    read.map_err(|e| Error::of_io(e, &folder.uri(file)))?;
    Ok(content)
}
