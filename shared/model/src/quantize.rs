//! The ONNX files that `--precision` runs, made of `model.onnx`.

use std::io::Read;
use std::ops::Range;

use sluice_manifest::{Error, Result};
use sluice_store::{Location, Storage, Store};

use crate::convert::half::{Half, Pixels, Plan, halve};
use crate::convert::quantize::{Made, quantize};
use crate::layout::{ONNX, SPEC, onnx_file};
use crate::model::Model;
use crate::precision::Precision;
use crate::spec::{Kind, Spec};
use crate::weights::sha256_of;
use crate::wiring::{self, Wiring};

/// A model whose weights were brought to another precision.
#[derive(Debug, Clone)]
pub struct QuantizedModel {
    /// The folder that has it.
    pub folder: Location,
    /// The name of the new ONNX file.
    pub file: &'static str,
    /// Matrix products and convolutions whose weights are in the new precision.
    pub products: usize,
    /// Bytes of the new ONNX file.
    pub bytes: u64,
}

impl Model {
    /// Writes the ONNX file of a precision, such as `model.int8.onnx`, into `folder` with a
    /// `model.toml`, or into the model's own folder.
    ///
    /// # Errors
    /// Usage, when the model has no matrix products or is not in float32; data, when a file is broken; of
    /// storage.
    pub fn quantize(
        &self,
        storage: &Storage,
        precision: Precision,
        folder: Option<&Location>,
    ) -> Result<QuantizedModel> {
        let files = self
            .files
            .as_ref()
            .ok_or_else(|| Error::usage(format!("model {:?} has no weights", self.spec.name)))?;
        let target = match folder {
            Some(folder) => storage.create(folder)?,
            None => files.root().clone(),
        };
        if folder.is_some() {
            self.refuse_other(&target)?;
        }
        let onnx = files.folder.get(&files.onnx)?;
        let read = |file: &str, range| read_range(&files.folder, file, range);
        let made = match precision {
            Precision::Float32 => Err(Error::usage("it is in float32 already")),
            Precision::Int8 => quantize(&onnx, read),
            Precision::Float16 => halve(&onnx, &self.half(Half::Float16)?, read),
            Precision::Bfloat16 => halve(&onnx, &self.half(Half::Bfloat16)?, read),
        };
        let Made { onnx, products } = made.map_err(|e| e.within(&files.uri()))?;
        let file = onnx_file(precision);
        let bytes = onnx.len() as u64;
        target.put(file, onnx)?;
        let spec = match folder {
            Some(_) => Some(self.spec.clone()),
            None => stated_spec(&target)?,
        };
        if let Some(mut spec) = spec {
            spec.sha256 = spec.sha256.filter(|_| folder.is_none());
            *spec.sha256_mut(precision) = Some(sha256_of(&target, precision)?);
            target.put(SPEC, spec.text()?)?;
        }
        target.tidy();
        Ok(QuantizedModel {
            folder: target.location().clone(),
            file,
            products,
            bytes,
        })
    }

    /// Refuses a folder that has another model.
    fn refuse_other(&self, folder: &Store) -> Result<()> {
        let is_other = match folder.get_if_there(SPEC)? {
            Some(text) => {
                let spec = Spec::parse(&String::from_utf8_lossy(&text), &folder.uri(SPEC))?;
                spec.name != self.spec.name
            }
            None => folder.stat(ONNX)?.is_some(),
        };
        if is_other {
            let folder = folder.location();
            return Err(Error::usage(format!("{folder}: it has another model"))
                .hint("choose an empty folder, or none: the file is then written beside the model's own"));
        }
        Ok(())
    }

    /// Returns what is kept in float32, and how pixels become the input.
    fn half(&self, half: Half) -> Result<Plan> {
        let wrong = |what: String| Error::usage(format!("model {:?}: {what}", self.spec.name));
        if self.spec.kind != Kind::Embedder {
            return Err(wrong("a scorer runs in float32".to_owned())
                .hint("other precisions are for encoders: sluice-embed --precision"));
        }
        let uri = self
            .files
            .as_ref()
            .map(|files| files.uri())
            .unwrap_or_default();
        let wiring = Wiring::of(&self.spec, &self.graph, &uri)?;
        let output = wiring::output_of(&self.spec, &self.graph).map_err(wrong)?;
        let pixels = self
            .spec
            .preprocess
            .as_ref()
            .filter(|_| !self.takes_bytes());
        Ok(Plan {
            half,
            output: output.name.clone(),
            pixels: pixels.map(|preprocess| Pixels::of(preprocess, &wiring.input)),
        })
    }
}

/// Returns a folder's `model.toml`, where it states the SHA-256 of the model's files.
fn stated_spec(folder: &Store) -> Result<Option<Spec>> {
    let Some(text) = folder.get_if_there(SPEC)? else {
        return Ok(None);
    };
    let mut spec = Spec::parse(&String::from_utf8_lossy(&text), &folder.uri(SPEC))?;
    let states_any = Precision::ALL
        .iter()
        .any(|&precision| spec.sha256_mut(precision).is_some());
    Ok(states_any.then_some(spec))
}

/// Reads a range of a file, at most up to the file's end.
fn read_range(folder: &Store, file: &str, range: Range<u64>) -> Result<Vec<u8>> {
    let missing = || Error::data(format!("{}: no such file", folder.uri(file)));
    let bytes = folder.stat(file)?.ok_or_else(missing)?.bytes;
    let range = range.start..range.end.min(bytes);
    if range.start >= range.end {
        return Err(
            Error::data(format!("{}: is cut", folder.uri(file))).hint("pull the model again")
        );
    }
    let mut reader = folder.read_ranges(file, bytes);
    reader.prefetch(range.clone());
    reader.skip_to(range.start)?;
    let mut content = vec![0; (range.end - range.start) as usize];
    let read = reader.read_exact(&mut content);
    read.map_err(|e| Error::of_io(e, &folder.uri(file)))?;
    Ok(content)
}
