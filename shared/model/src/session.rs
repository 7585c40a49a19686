//! ONNX Runtime: rows of numbers in, rows of numbers out.

use std::borrow::Cow;
use std::io::Read;

use half::f16;
use ort::environment::Environment;
use ort::session::builder::SessionBuilder;
use ort::session::{Session as OrtSession, SessionInputValue, SessionOutputs};
use ort::value::{DynValue, Tensor, TensorRef};
use sluice_manifest::{Class, Error, Result};
use sluice_pixels::Number;
use sluice_store::Store;

use crate::layout::Files;
use crate::library::environment;
use crate::onnx::Contents;
use crate::placement::Placement;
use crate::pooling;
use crate::precision::Precision;
use crate::provider::{Failure, Input, is_on, providers};
use crate::spec::Spec;
use crate::weights::external;
use crate::wiring::{Element, Text, Wiring};

/// A loaded model.
pub struct Session {
    session: OrtSession,
    name: String,
    wiring: Wiring,
    /// What every element of the text inputs is.
    text: i64,
    /// Rows that the device has memory for, where it had none for a batch.
    most_rows: Option<usize>,
}

/// How a session is made.
#[derive(Clone, Copy)]
pub(crate) struct Options<'a> {
    pub placement: &'a Placement,
    pub precision: Precision,
    pub threads: usize,
}

/// Numbers that a session takes.
#[derive(Debug, Clone, Copy)]
pub enum TensorValues<'a> {
    /// Any numbers.
    Float32(&'a [f32]),
    /// Pixels as they are, for a model whose input is of bytes.
    Uint8(&'a [u8]),
}

/// A type of numbers that a session takes.
pub trait InputNumber: Number {
    /// Returns these numbers with their type.
    fn values(numbers: &[Self]) -> TensorValues<'_>;
}

impl InputNumber for f32 {
    fn values(numbers: &[Self]) -> TensorValues<'_> {
        TensorValues::Float32(numbers)
    }
}

impl InputNumber for u8 {
    fn values(numbers: &[Self]) -> TensorValues<'_> {
        TensorValues::Uint8(numbers)
    }
}

impl Session {
    /// Loads a model. `changed` is an ONNX file that runs in place of the model's own, with its external
    /// data.
    pub(crate) fn load(
        files: &Files,
        changed: Option<&[u8]>,
        spec: &Spec,
        graph: &Contents,
        options: Options<'_>,
    ) -> Result<Self> {
        let (folder, onnx) = (&files.folder, files.onnx.as_str());
        let uri = files.uri();
        let wiring = Wiring::of(spec, graph, &uri)?;
        let device = options.placement.device;
        let broken = |e: ort::Error| match Failure::of(&e) {
            Failure::Model => Error::usage(format!("{uri}: does not load: {e}")),
            Failure::NoMemory | Failure::Device => {
                Error::transient(format!("{uri}: does not load on {device}: {e}"))
            }
        };
        let mut builder = builder(spec, &wiring, options)?;
        let session = match (folder.location().as_local(), changed) {
            (Some(path), None) => builder.commit_from_file(path.join(onnx)),
            _ => {
                for file in external(folder, graph, onnx)? {
                    let data = content(folder, &file)?;
                    builder = builder
                        .with_external_initializer_file_in_memory(&file, data.into())
                        .map_err(|e| broken(e.into()))?;
                }
                match changed {
                    Some(changed) => builder.commit_from_memory(changed),
                    None => builder.commit_from_memory(&content(folder, onnx)?),
                }
            }
        };
        let session = session.map_err(broken)?;
        is_on(&session, device).map_err(|e| {
            Error::usage(format!(
                "{uri}: ONNX Runtime did not take --device {device}: {e}"
            ))
        })?;
        Ok(Self {
            name: spec.name.clone(),
            wiring,
            text: 0,
            most_rows: None,
            session,
        })
    }

    /// Sets what the text inputs are fed with.
    pub(crate) fn set_text(&mut self, value: i64) {
        self.text = value;
    }

    /// Whether the model has inputs of text.
    pub(crate) fn has_text(&self) -> bool {
        !self.wiring.text.is_empty()
    }

    /// Runs a batch: `shape` is `[rows, …]`, `values` its numbers. Returns `rows * width` numbers.
    ///
    /// A row's output does not depend on the other rows of its batch: a graph that quantises all rows
    /// of a run with one scale gets one row a run. A graph that takes a fixed number of rows is run as
    /// often as it needs; the last row is repeated to fill it up. If the device has no memory for a
    /// batch, the batch size is halved from then on.
    ///
    /// # Errors
    /// Usage, when the graph does not run, or gives an output of another shape. Transient, when the
    /// device fails, or has no memory for one row.
    pub fn run<N: InputNumber>(&mut self, shape: &[usize], values: &[N]) -> Result<Vec<f32>> {
        let rows = shape.first().copied().unwrap_or(0);
        if rows == 0 {
            return Ok(Vec::new());
        }
        let length = values.len() / rows;
        let mut found = Vec::new();
        let mut at = 0;
        while at < rows {
            let taken = self.rows_at_once(rows).min(rows - at);
            let part = &values[at * length..(at + taken) * length];
            match self.run_part(taken, &shape[1..], part) {
                Ok(mut part) => {
                    found.append(&mut part);
                    at += taken;
                }
                Err((Failure::NoMemory, e)) if self.can_halve(taken) => {
                    self.most_rows = Some(taken / 2);
                    tracing::warn!(
                        model = self.name,
                        "no memory for a batch of {taken}, {} at a time from now on: {e}",
                        taken / 2
                    );
                }
                Err((_, e)) => return Err(e),
            }
        }
        Ok(found)
    }

    /// Returns the number of rows that go through at once where a batch has so many: fewer after there was
    /// no memory for a batch.
    pub fn batch_size(&self, asked: usize) -> usize {
        self.most_rows.map_or(asked, |most| most.min(asked))
    }

    fn rows_at_once(&self, rows: usize) -> usize {
        let most = if self.wiring.is_alone {
            1
        } else {
            self.wiring.rows.unwrap_or(rows)
        };
        most.min(self.most_rows.unwrap_or(most)).max(1)
    }

    /// Whether a run of so many rows can be done as two.
    fn can_halve(&self, rows: usize) -> bool {
        rows > 1 && self.wiring.rows.is_none()
    }

    /// Runs one row. Returns the only number of each of these outputs.
    pub(crate) fn run_scalars<N: InputNumber>(
        &mut self,
        inner: &[usize],
        row: &[N],
        outputs: &[String],
    ) -> Result<Vec<f32>> {
        let Self {
            session,
            name,
            wiring,
            text,
            ..
        } = self;
        let at_once = wiring.rows.unwrap_or(1);
        let values = filled_up(row, 1, at_once);
        let failed = |e: ort::Error| failed(name, &e).1;
        let values = N::values(&values);
        let found = infer(session, wiring, *text, at_once, inner, values).map_err(failed)?;
        let number = |output: &String| {
            let numbers = found.get(output).map(numbers).transpose();
            let numbers = numbers.map_err(failed)?;
            Ok(numbers
                .and_then(|(_, numbers)| numbers.first().copied())
                .unwrap_or_default())
        };
        outputs.iter().map(number).collect()
    }

    /// Runs rows, filled up to the number that the graph takes.
    fn run_part<N: InputNumber>(
        &mut self,
        rows: usize,
        inner: &[usize],
        values: &[N],
    ) -> Result<Vec<f32>, (Failure, Error)> {
        let at_once = self.wiring.rows.unwrap_or(rows);
        let values = filled_up(values, rows, at_once);
        let mut found = self.run_at_once(at_once, inner, N::values(&values))?;
        found.truncate(found.len() / at_once * rows);
        Ok(found)
    }

    fn run_at_once(
        &mut self,
        rows: usize,
        inner: &[usize],
        values: TensorValues<'_>,
    ) -> Result<Vec<f32>, (Failure, Error)> {
        let Self {
            session,
            name,
            wiring,
            text,
            ..
        } = self;
        let failed = |e: ort::Error| failed(name, &e);
        let wrong = |e: Error| (Failure::Model, e);
        let outputs = infer(session, wiring, *text, rows, inner, values).map_err(failed)?;
        let output = outputs.get(&wiring.output).ok_or_else(|| {
            let error = format!("model {name}: no output {:?}", wiring.output);
            wrong(Error::usage(error))
        })?;
        let (shape, values) = numbers(output).map_err(failed)?;
        pooling::rows(&shape, &values, rows, wiring.pooling).map_err(|what| {
            let error = format!("model {name}: output {:?} {what}", wiring.output);
            wrong(Error::usage(error).hint(
                "name another output in model.toml, or set pooling = \"cls\" or \"mean\" there",
            ))
        })
    }
}

/// Runs a graph on so many rows.
fn infer<'s>(
    session: &'s mut OrtSession,
    wiring: &Wiring,
    text: i64,
    rows: usize,
    inner: &[usize],
    values: TensorValues<'_>,
) -> ort::Result<SessionOutputs<'s>> {
    let mut shape = vec![rows as i64];
    shape.extend(inner.iter().map(|&size| size as i64));
    let main = tensor(wiring.element, shape, values)?;
    let mut inputs = vec![(wiring.input.as_str(), main)];
    for input in &wiring.text {
        inputs.push((input.name.as_str(), constant(input, rows, text)?));
    }
    session.run(inputs)
}

/// Returns what an error of a run means, and the error with the model's name.
fn failed(model: &str, e: &ort::Error) -> (Failure, Error) {
    let failure = Failure::of(e);
    let class = match failure {
        Failure::Model => Class::Usage,
        Failure::NoMemory | Failure::Device => Class::Transient,
    };
    (failure, Error::new(class, format!("model {model}: {e}")))
}

/// Returns rows, with the last one repeated up to a number of rows.
fn filled_up<N: Copy>(values: &[N], rows: usize, at_once: usize) -> Cow<'_, [N]> {
    let mut values = Cow::Borrowed(values);
    let last = values.len() - values.len() / rows..values.len();
    for _ in rows..at_once {
        values.to_mut().extend_from_within(last.clone());
    }
    values
}

/// Returns what makes a session on a device.
fn builder(spec: &Spec, wiring: &Wiring, options: Options<'_>) -> Result<SessionBuilder> {
    let device = options.placement.device;
    let failed = |e: ort::Error| {
        let error = format!("--device {device}: ONNX Runtime does not take it: {e}");
        Error::usage(error).hint("`sluice doctor` shows what this machine has for models")
    };
    // A graph with other inputs of free sizes, or of a fixed number of rows, takes no other profile.
    let is_free = wiring.rows.is_none() && wiring.text.is_empty();
    let preprocess = spec.preprocess.as_ref().filter(|_| is_free);
    let sizes = preprocess.map(|preprocess| preprocess.tensor_shape(1));
    let input = sizes
        .as_ref()
        .map(|sizes| (wiring.input.as_str(), &sizes[1..]));
    configured(environment()?, options, input).map_err(failed)
}

/// Returns why ONNX Runtime does not take a device, such as a provider that does not load; `None` if it
/// does.
pub(crate) fn refusal(placement: &Placement) -> Result<Option<String>> {
    let options = Options {
        placement,
        precision: Precision::default(),
        threads: 1,
    };
    let configured = configured(environment()?, options, None);
    Ok(configured.err().map(|e| e.to_string()))
}

fn configured(
    environment: &Environment,
    options: Options<'_>,
    input: Option<Input<'_>>,
) -> ort::Result<SessionBuilder> {
    let providers = providers(options.placement, options.precision, options.threads, input);
    Ok(OrtSession::builder(environment)?
        .with_intra_threads(options.threads)?
        .with_inter_threads(1)?
        // Idle threads must not take the cores from decoding.
        .with_config_entry("session.intra_op.allow_spinning", "0")?
        .with_execution_providers(providers)?)
}

/// Returns the tensor of an input.
fn tensor<'v>(
    element: Element,
    shape: Vec<i64>,
    values: TensorValues<'v>,
) -> ort::Result<SessionInputValue<'v>> {
    let half =
        |values: &mut dyn Iterator<Item = f32>| values.map(f16::from_f32).collect::<Vec<_>>();
    Ok(match (element, values) {
        (Element::Float32, TensorValues::Float32(values)) => {
            TensorRef::from_array_view((shape, values))?.into()
        }
        (Element::Uint8, TensorValues::Uint8(values)) => {
            TensorRef::from_array_view((shape, values))?.into()
        }
        (Element::Float16, TensorValues::Float32(values)) => {
            Tensor::from_array((shape, half(&mut values.iter().copied())))?.into()
        }
        (Element::Uint8, TensorValues::Float32(values)) => {
            let values: Vec<u8> = values.iter().map(|&value| value as u8).collect();
            Tensor::from_array((shape, values))?.into()
        }
        (Element::Float32, TensorValues::Uint8(values)) => {
            let values: Vec<f32> = values.iter().map(|&value| f32::from(value)).collect();
            Tensor::from_array((shape, values))?.into()
        }
        (Element::Float16, TensorValues::Uint8(values)) => {
            Tensor::from_array((shape, half(&mut values.iter().map(|&it| f32::from(it)))))?.into()
        }
    })
}

/// Returns the tensor of an input of text.
fn constant(text: &Text, rows: usize, value: i64) -> ort::Result<SessionInputValue<'static>> {
    let sizes = text.shape.iter().map(|size| size.unwrap_or(rows));
    let count = sizes.clone().product();
    let shape: Vec<i64> = sizes.map(|size| size as i64).collect();
    Ok(if text.is_wide {
        Tensor::from_array((shape, vec![value; count]))?.into()
    } else {
        Tensor::from_array((shape, vec![value as i32; count]))?.into()
    })
}

/// Returns the shape and the numbers of an output.
fn numbers(output: &DynValue) -> ort::Result<(Vec<i64>, Cow<'_, [f32]>)> {
    if let Ok((shape, values)) = output.try_extract_tensor::<f16>() {
        let values = values.iter().map(|value| value.to_f32()).collect();
        return Ok((shape.to_vec(), Cow::Owned(values)));
    }
    let (shape, values) = output.try_extract_tensor::<f32>()?;
    Ok((shape.to_vec(), Cow::Borrowed(values)))
}

/// A model's file, in memory.
fn content(folder: &Store, file: &str) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    let read = folder.reader(file)?.read_to_end(&mut content);
    read.map_err(|e| Error::of_io(e, &folder.uri(file)))?;
    Ok(content)
}
