//! Checks of a model before its work, and loading it.

use sluice_manifest::{Error, Result};
use sluice_pixels::RgbImage;
use sluice_threads::spawn;

use super::{Model, width_of};
use crate::layout::Files;
use crate::library;
use crate::machine::Machine;
use crate::session::{Options, Session};
use crate::spec::{Activation, Kind};
use crate::weights::{external, sha256_of_graph};
use crate::wiring::{self, Wiring};

impl Model {
    /// Compares the ONNX file's content with the SHA-256 in the spec.
    ///
    /// # Errors
    /// Data, when it differs; of storage.
    pub fn verify(&self) -> Result<()> {
        let Some(files) = &self.files else {
            return Ok(());
        };
        let Some(expected) = self.spec.sha256_of(&files.onnx) else {
            return Ok(());
        };
        let found = sha256_of_graph(&files.folder, &files.onnx, &self.graph)?;
        if found == expected {
            return Ok(());
        }
        Err(Error::data(format!(
            "{}: SHA-256 is {found}, the spec says {expected}",
            files.uri()
        ))
        .hint("pull the model again"))
    }

    /// Checks the model before the work: the files of its external data exist, its inputs can be
    /// fed, its output has the width that the spec needs, and it runs on one sample. The SHA-256 in the
    /// spec is verified when the model is loaded for work.
    ///
    /// # Errors
    /// Data, when external data are missing; usage, when inputs or output do not fit, or the model does
    /// not run.
    pub fn check(&self) -> Result<()> {
        let Some(files) = &self.files else {
            return Ok(());
        };
        self.check_graph(files)?;
        self.try_out(files).map(drop)
    }

    /// Checks the model like [`check`](Self::check); without ONNX Runtime, everything except the sample.
    /// Returns the number of values in the sample's output.
    ///
    /// # Errors
    /// As of [`check`](Self::check).
    pub fn check_what_can_be(&self) -> Result<Option<usize>> {
        let Some(files) = &self.files else {
            return Ok(None);
        };
        self.check_graph(files)?;
        if library::is_there() {
            self.try_out(files)
        } else {
            Ok(None)
        }
    }

    /// Checks the graph without running it.
    pub(super) fn check_graph(&self, files: &Files) -> Result<()> {
        external(&files.folder, &self.graph, &files.onnx)?;
        if let Some(operator) = &self.graph.random {
            return Err(Error::usage(format!(
                "{}: its output is random: it has the operator {operator}",
                files.uri()
            ))
            .hint(RANDOM));
        }
        Wiring::of(&self.spec, &self.graph, &files.uri())?;
        self.check_widths(&files.uri())
    }

    /// Checks the widths of input and output, where the ONNX file states them.
    fn check_widths(&self, uri: &str) -> Result<()> {
        let wrong = |what: String| Error::usage(format!("{uri}: {what}"));
        let output = wiring::output_of(&self.spec, &self.graph).map_err(wrong)?;
        let Some(width) = width_of(output) else {
            return Ok(());
        };
        let name = &output.name;
        if let (Kind::Embedder, Some(dimension)) = (self.spec.kind, self.spec.dimension)
            && width != dimension as u64
        {
            let what = format!("output {name:?} has {width} values, expected {dimension}");
            return Err(wrong(what).hint(PROJECTION));
        }
        let columns = self.spec.columns();
        let needed = columns
            .iter()
            .flatten()
            .max()
            .map_or(1, |column| column + 1);
        if width < needed as u64 {
            let what = format!("output {name:?} has {width} values, at least {needed} are needed");
            return Err(wrong(what).hint("name the right output and columns in model.toml"));
        }
        let labels = self.spec.labels.len();
        if labels > 0 && width != labels as u64 {
            let what = format!("output {name:?} has {width} values, but there are {labels} labels");
            return Err(wrong(what));
        }
        Ok(())
    }

    /// Loads the model and runs it on one sample. Returns the number of values in the output.
    fn try_out(&self, files: &Files) -> Result<Option<usize>> {
        self.run_sample(&mut self.load(files, 1)?, &files.uri())
    }

    /// Runs a loaded model on one sample. Returns the number of values in the output.
    fn run_sample(&self, session: &mut Session, uri: &str) -> Result<Option<usize>> {
        let Some((shape, values)) = self.sample() else {
            return Ok(None);
        };
        let output = session.run(&shape, &values)?;
        let wrong = |what: String| Err(Error::usage(format!("{uri}: {what}")));
        let count = Some(output.len());
        if self.graph.has_dropout && session.run(&shape, &values)? != output {
            let what = "its output is random: it has a Dropout in training mode";
            return wrong(what.to_owned()).map_err(|e| e.hint(RANDOM));
        }
        if output.iter().any(|value| !value.is_finite()) {
            return wrong("its output for a sample is not finite".to_owned());
        }
        if self.spec.activation == Some(Activation::Softmax) && are_probabilities(&output) {
            let what = "its output is probabilities already, softmax would be applied twice";
            let hint = "write a model.toml with activation = \"none\"";
            return wrong(what.to_owned()).map_err(|e| e.hint(hint));
        }
        if self.spec.kind != Kind::Embedder {
            return self.spec.scores(output, 1).map(|_| count);
        }
        if let Some(dimension) = self.spec.dimension.filter(|it| *it != output.len()) {
            let found = output.len();
            let what = format!("gives embeddings of {found} values, expected {dimension}");
            return wrong(what).map_err(|e| e.hint(PROJECTION));
        }
        if session.has_text() {
            session.set_text(1);
            let other = session.run(&shape, &values)?;
            session.set_text(0);
            if other != output {
                return wrong("its embeddings depend on the text inputs".to_owned());
            }
        }
        Ok(count)
    }

    /// Returns an input of one row: a picture with edges and gradients, or a vector of length 1; `None` if
    /// its size is unknown.
    pub(crate) fn sample(&self) -> Option<(Vec<usize>, Vec<f32>)> {
        if let Some(preprocess) = &self.spec.preprocess {
            let picture = RgbImage::from_fn(96, 64, |x, y| {
                [
                    (x * 2) as u8,
                    (y * 3) as u8,
                    ((x / 8 + y / 8) % 2 * 200) as u8,
                ]
            });
            let mut tensor = vec![0.0; preprocess.tensor_len()];
            preprocess.tensor(&picture, &mut tensor);
            return Some((preprocess.tensor_shape(1).to_vec(), tensor));
        }
        let width = self.spec.dimension?;
        Some((vec![1, width], vec![(width as f32).sqrt().recip(); width]))
    }

    /// Loads the model into ONNX Runtime with `threads` threads for work. In the meantime it verifies
    /// the model's bytes, and it checks what [`check`](Self::check) does.
    ///
    /// # Errors
    /// As of [`check`](Self::check) and [`verify`](Self::verify).
    pub fn session(&self, threads: usize) -> Result<Session> {
        let files = self.on_disk()?;
        self.warn_of_saturation(files, Machine::this())?;
        std::thread::scope(|scope| {
            let verified = spawn(scope, || self.verify())?;
            let session = self.check_graph(files);
            let session = session.and_then(|()| self.load(files, threads));
            // Unwrap safety: a panic of that thread is passed on.
            verified.join().expect("verifying does not panic")?;
            let mut session = session?;
            self.run_sample(&mut session, &files.uri())?;
            Ok(session)
        })
    }

    /// Loads an ONNX file that was made of the model's own into ONNX Runtime. It has the same inputs and
    /// external data, and further outputs.
    ///
    /// # Errors
    /// Usage, when it does not load; of storage.
    pub(crate) fn load_graph(&self, onnx: &[u8]) -> Result<Session> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        self.load_any(self.on_disk()?, Some(onnx), threads)
    }

    fn on_disk(&self) -> Result<&Files> {
        let files = self.files.as_ref();
        files.ok_or_else(|| Error::bug(format!("model {:?} has no ONNX file", self.spec.name)))
    }

    fn load(&self, files: &Files, threads: usize) -> Result<Session> {
        self.load_any(files, None, threads)
    }

    fn load_any(&self, files: &Files, changed: Option<&[u8]>, threads: usize) -> Result<Session> {
        let options = Options {
            placement: &self.placement,
            precision: self.precision,
            threads,
        };
        Session::load(files, changed, &self.spec, &self.graph, options)
    }
}

/// What to do about a model whose outputs are random.
const RANDOM: &str = "export it for inference, without random masks: masked autoencoders (ViT-MAE) \
    as the plain encoder";

/// Whether several numbers are at least 0 and sum to 1.
fn are_probabilities(numbers: &[f32]) -> bool {
    let sum: f32 = numbers.iter().sum();
    numbers.len() > 1 && numbers.iter().all(|&number| number >= 0.0) && (sum - 1.0).abs() < 1e-4
}

/// What may be wrong with an embedder whose embeddings have another length.
const PROJECTION: &str = "an export without the projection gives other vectors: CLIP needs \
    CLIPVisionModelWithProjection and its output image_embeds";
