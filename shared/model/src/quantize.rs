//! The ONNX files that `--precision` runs, made of `model.onnx`.
//!
//! A made file states in its metadata which file it was made of, and that file's SHA-256. So a file that
//! was made of earlier weights is found out ([`Model::find`]).

use std::collections::BTreeSet;
use std::io::Read;
use std::ops::Range;

use sluice_manifest::{Error, Result};
use sluice_store::{Location, Storage, Store};

use crate::convert::half::{Half, Halved, Pixels, Plan, halve};
use crate::convert::quantize::{Made, quantize, saturates};
use crate::convert::with_metadata;
use crate::layout::{Files, ONNX, SPEC, onnx_file};
use crate::library;
use crate::machine::Machine;
use crate::model::Model;
use crate::onnx::Origin;
use crate::precision::Precision;
use crate::ranges::Ranges;
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
    /// Constants and values of the graph that are too large for float16. What computes with them stays
    /// in float32.
    pub too_large: Vec<String>,
}

impl Model {
    /// Writes the ONNX file of a precision, such as `model.int8.onnx`, into `folder` with a
    /// `model.toml`, or into the model's own folder.
    ///
    /// For float16 it measures how large the values of the graph become: on one picture, and on the
    /// images that `feed` runs. Those that are too large stay in float32.
    ///
    /// # Errors
    /// Usage, when the model has no matrix products or is not in float32; data, when a file is broken or
    /// is not the one that the spec states; of storage; of `feed`.
    pub fn quantize(
        &self,
        storage: &Storage,
        precision: Precision,
        folder: Option<&Location>,
        feed: impl FnOnce(&mut Ranges) -> Result<()>,
    ) -> Result<QuantizedModel> {
        let files = self
            .files
            .as_ref()
            .ok_or_else(|| Error::usage(format!("model {:?} has no weights", self.spec.name)))?;
        let target = match folder {
            Some(folder) => storage.create(folder)?,
            None => files.root().clone(),
        };
        let stated = spec_in(&target)?;
        if folder.is_some() {
            self.refuse_other(&target, stated.as_ref())?;
        }
        self.verify()?;
        let onnx = files.folder.get(&files.onnx)?;
        let read = |file: &str, range| read_range(&files.folder, file, range);
        let wrong = |e: Error| e.within(&files.uri());
        let (made, too_large) = match precision {
            Precision::Float32 => return Err(wrong(Error::usage("it is in float32 already"))),
            Precision::Int8 => (quantize(&onnx, read).map_err(wrong)?, BTreeSet::new()),
            Precision::Bfloat16 => {
                let plan = self.half(Half::Bfloat16)?;
                let halved = halve(&onnx, &plan, read).map_err(wrong)?;
                (halved.made, BTreeSet::new())
            }
            Precision::Float16 => self.in_float16(files, &onnx, feed)?,
        };
        drop(onnx);
        let origin = Origin {
            file: files.path_from_root(),
            sha256: self.sha256.clone(),
        };
        let onnx = with_metadata(made.onnx, &origin.entries());
        let file = onnx_file(precision);
        let bytes = onnx.len() as u64;
        target.put(file, onnx)?;
        let spec = match folder {
            Some(_) => Some(self.spec.clone()),
            None => stated.filter(Spec::states_sha256),
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
            products: made.products,
            bytes,
            too_large: too_large.into_iter().collect(),
        })
    }

    /// Returns the model in float16, and the names of what is too large for it.
    fn in_float16(
        &self,
        files: &Files,
        onnx: &[u8],
        feed: impl FnOnce(&mut Ranges) -> Result<()>,
    ) -> Result<(Made, BTreeSet<String>)> {
        let mut plan = self.half(Half::Float16)?;
        let halve = |plan: &Plan| {
            let read = |file: &str, range| read_range(&files.folder, file, range);
            halve(onnx, plan, read).map_err(|e| e.within(&files.uri()))
        };
        let Halved {
            made,
            values,
            mut too_large,
        } = halve(&plan)?;
        if !library::is_there() {
            tracing::warn!(
                "ONNX Runtime does not load, so nothing checked whether float16 can hold the values of the graph"
            );
            return Ok((made, too_large));
        }
        let mut ranges = Ranges::of(self, onnx, &values)?;
        feed(&mut ranges)?;
        plan.too_large = ranges.too_large();
        if plan.too_large.is_empty() {
            return Ok((made, too_large));
        }
        drop((made, ranges));
        let made = halve(&plan)?.made;
        too_large.append(&mut plan.too_large);
        Ok((made, too_large))
    }

    /// Logs a warning if the model has weights of 8 bits, and the processor no exact sums of them.
    pub(crate) fn warn_of_saturation(&self, files: &Files, machine: &Machine) -> Result<()> {
        let is_quantized = self.precision == Precision::Int8 || self.graph.quantizes_batches;
        if machine.has_vnni || !is_quantized {
            return Ok(());
        }
        let onnx = files.folder.get(&files.onnx)?;
        if saturates(&onnx, |file, range| read_range(&files.folder, file, range))? {
            machine.warn_of_saturation(&self.spec.name);
        }
        Ok(())
    }

    /// Refuses a folder that has another model.
    fn refuse_other(&self, folder: &Store, stated: Option<&Spec>) -> Result<()> {
        let is_other = match stated {
            Some(spec) => spec.name != self.spec.name,
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
            too_large: BTreeSet::new(),
        })
    }
}

/// Returns a folder's `model.toml`, where there is one.
fn spec_in(folder: &Store) -> Result<Option<Spec>> {
    let text = folder.get_if_there(SPEC)?;
    let parse = |text: &[u8]| Spec::parse(&String::from_utf8_lossy(text), &folder.uri(SPEC));
    text.map(|text| parse(&text)).transpose()
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
