//! ONNX Runtime: rows of numbers in, rows of numbers out.

use std::borrow::Cow;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use half::f16;

use ort::environment::Environment;
use ort::ep::{ArbitrarilyConfigurableExecutionProvider, ExecutionProviderDispatch, OpenVINO};
use ort::session::{Session as OrtSession, SessionInputValue};
use ort::value::{DynValue, Tensor, TensorRef};
use sluice_manifest::{Error, Result};
use sluice_store::Store;

use crate::layout::Files;
use crate::onnx::Contents;
use crate::pooling;
use crate::precision::Precision;
use crate::spec::Spec;
use crate::weights::external;
use crate::wiring::{Element, Text, Wiring};

static ENVIRONMENT: OnceLock<Result<Environment, String>> = OnceLock::new();

/// A loaded model.
pub struct Session {
    session: OrtSession,
    name: String,
    wiring: Wiring,
    /// What every element of the text inputs is.
    text: i64,
}

impl Session {
    pub(crate) fn load(
        files: &Files,
        spec: &Spec,
        graph: &Contents,
        precision: Precision,
        threads: usize,
    ) -> Result<Self> {
        let (folder, onnx) = (&files.folder, files.onnx.as_str());
        let uri = files.uri();
        let wiring = Wiring::of(spec, graph, &uri)?;
        let broken = |e: &dyn std::fmt::Display| Error::usage(format!("{uri}: does not load: {e}"));
        let builder = OrtSession::builder(environment()?).map_err(|e| broken(&e))?;
        let builder = builder
            .with_intra_threads(threads)
            .map_err(|e| broken(&e))?;
        let builder = builder.with_inter_threads(1).map_err(|e| broken(&e))?;
        // Idle threads must not take the cores from decoding.
        let mut builder = builder
            .with_config_entry("session.intra_op.allow_spinning", "0")
            .map_err(|e| broken(&e))?;
        if precision == Precision::Bfloat16 {
            builder = builder
                .with_execution_providers([bfloat16(threads)])
                .map_err(|e| {
                    Error::usage(format!("precision bfloat16 needs ONNX Runtime with its OpenVINO provider: {e}"))
                        .hint("set ORT_DYLIB_PATH to the libonnxruntime.so of the Python package onnxruntime-openvino (capi/)")
                })?;
        }
        let session = match folder.location().as_local() {
            Some(path) => builder.commit_from_file(path.join(onnx)),
            None => {
                for file in external(folder, graph, onnx)? {
                    let data = content(folder, &file)?;
                    builder = builder
                        .with_external_initializer_file_in_memory(&file, data.into())
                        .map_err(|e| broken(&e))?;
                }
                builder.commit_from_memory(&content(folder, onnx)?)
            }
        };
        let session = session.map_err(|e| broken(&e))?;
        Ok(Self {
            name: spec.name.clone(),
            wiring,
            text: 0,
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

    /// Runs a batch: `shape` is `[rows, …]`, `values` its numbers. Gives `rows * width` numbers.
    ///
    /// A row's output does not depend on the other rows of its batch: a graph that quantises all rows
    /// of a run with one scale gets one row a run. A graph that takes a fixed number of rows is run as
    /// often as it needs; the last row is repeated to fill it up.
    ///
    /// # Errors
    /// Usage, when the graph does not run, or gives an output of another shape.
    pub fn run(&mut self, shape: &[usize], values: &[f32]) -> Result<Vec<f32>> {
        let rows = shape.first().copied().unwrap_or(0);
        if rows == 0 {
            return Ok(Vec::new());
        }
        let length = values.len() / rows;
        let fixed = self.wiring.rows;
        let most = if self.wiring.is_alone {
            1
        } else {
            fixed.unwrap_or(rows)
        };
        let mut found = Vec::new();
        for values in values.chunks((most * length).max(1)) {
            let taken = values.len() / length.max(1);
            let at_once = fixed.unwrap_or(taken);
            let mut values = Cow::Borrowed(values);
            let last = values.len() - length;
            for _ in taken..at_once {
                values.to_mut().extend_from_within(last..last + length);
            }
            let mut part = self.run_at_once(at_once, &shape[1..], &values)?;
            part.truncate(part.len() / at_once * taken);
            found.append(&mut part);
        }
        Ok(found)
    }

    fn run_at_once(&mut self, rows: usize, inner: &[usize], values: &[f32]) -> Result<Vec<f32>> {
        let failed = |e: ort::Error| Error::usage(format!("model {}: {e}", self.name));
        let wiring = &self.wiring;
        let mut shape = vec![rows as i64];
        shape.extend(inner.iter().map(|&size| size as i64));
        let main = tensor(wiring.element, shape, values).map_err(failed)?;
        let mut inputs = vec![(wiring.input.as_str(), main)];
        for text in &wiring.text {
            let constant = constant(text, rows, self.text).map_err(failed)?;
            inputs.push((text.name.as_str(), constant));
        }
        let outputs = self.session.run(inputs).map_err(failed)?;
        let name = &wiring.output;
        let Some(output) = outputs.get(name) else {
            return Err(Error::usage(format!(
                "model {}: no output {name:?}",
                self.name
            )));
        };
        let (shape, values) = numbers(output).map_err(failed)?;
        pooling::rows(&shape, &values, rows, wiring.pooling).map_err(|what| {
            let error = format!("model {}: output {name:?} {what}", self.name);
            Error::usage(error).hint(
                "name another output in model.toml, or set pooling = \"cls\" or \"mean\" there",
            )
        })
    }
}

/// Returns the tensor of an input.
fn tensor(element: Element, shape: Vec<i64>, values: &[f32]) -> ort::Result<SessionInputValue<'_>> {
    Ok(match element {
        Element::Float32 => TensorRef::from_array_view((shape, values))?.into(),
        Element::Float16 => {
            let values: Vec<f16> = values.iter().map(|&value| f16::from_f32(value)).collect();
            Tensor::from_array((shape, values))?.into()
        }
        Element::Uint8 => {
            let values: Vec<u8> = values.iter().map(|&value| value as u8).collect();
            Tensor::from_array((shape, values))?.into()
        }
    })
}

/// Returns the tensor of an input of text.
fn constant(text: &Text, rows: usize, value: i64) -> ort::Result<SessionInputValue<'static>> {
    let sizes = text.shape.iter().map(|size| size.unwrap_or(rows));
    let count = sizes.clone().product();
    let shape: Vec<i64> = sizes.map(|size| size as i64).collect();
    Ok(match text.is_wide {
        true => Tensor::from_array((shape, vec![value; count]))?.into(),
        false => Tensor::from_array((shape, vec![value as i32; count]))?.into(),
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

/// OpenVINO's kernels for bfloat16; ONNX Runtime's own CPU provider has none on x86.
fn bfloat16(threads: usize) -> ExecutionProviderDispatch {
    let properties = serde_json::json!({
        "CPU": {
            "INFERENCE_PRECISION_HINT": "bf16",
            "INFERENCE_NUM_THREADS": threads.to_string(),
            "NUM_STREAMS": "1",
        }
    });
    OpenVINO::default()
        .with_device_type("CPU")
        .with_arbitrary_config("load_config", properties.to_string())
        .build()
        .error_on_failure()
}

/// A model's file, in memory.
fn content(folder: &Store, file: &str) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    let read = folder.reader(file)?.read_to_end(&mut content);
    read.map_err(|e| Error::of_io(e, &folder.uri(file)))?;
    Ok(content)
}

/// Returns whether ONNX Runtime's library is found.
pub(crate) fn is_there() -> bool {
    environment().is_ok()
}

/// Loads ONNX Runtime's library, once.
fn environment() -> Result<&'static Environment> {
    let loaded = ENVIRONMENT.get_or_init(|| {
        refuse_telemetry();
        let library = library();
        let shown = library.display().to_string();
        let builder = ort::init_from(&library).map_err(|e| format!("{shown}: {e}"))?;
        builder
            .with_name("sluice")
            // It is on by default, and what we curate is nobody's business.
            .with_telemetry(false)
            .build()
            .map_err(|e| format!("{shown}: {e}"))
    });
    loaded.as_ref().map_err(|e| {
        Error::usage(format!("ONNX Runtime does not load: {e}")).hint(
            "set ORT_DYLIB_PATH to libonnxruntime.so; the Python package onnxruntime holds one (capi/libonnxruntime.so.*)",
        )
    })
}

/// ONNX Runtime's Python packages carry a library that reports to its makers. Only this variable,
/// set before the library loads, keeps all of it from being sent.
#[expect(unsafe_code, reason = "changing the environment has no safe form")]
fn refuse_telemetry() {
    const VARIABLE: &str = "ORT_DISABLE_TELEMETRY";
    if std::env::var_os(VARIABLE).is_none() {
        // SAFETY: Rust code reads the environment under std's lock, and no C library of ours reads
        // it on another thread while the first model loads.
        unsafe { std::env::set_var(VARIABLE, "1") };
    }
}

/// `ORT_DYLIB_PATH`, or the library beside the program, or that of the Python package `onnxruntime` where
/// the program was installed with it, or the one that the system's loader finds.
fn library() -> PathBuf {
    const NAME: &str = "libonnxruntime.so";
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()) {
        return path.into();
    }
    let program = std::env::current_exe().ok();
    let folder = program.as_ref().and_then(|program| program.parent());
    let beside = folder.map(|folder| folder.join(NAME));
    let beside = beside.filter(|path| path.exists());
    let found = beside.or_else(|| of_python(folder?.parent()?));
    found.unwrap_or_else(|| NAME.into())
}

#[expect(
    clippy::disallowed_methods,
    reason = "a library that the system's loader opens is on local disk"
)]
/// Returns the library of the package `onnxruntime` in a Python environment.
fn of_python(environment: &Path) -> Option<PathBuf> {
    let entries = |folder: PathBuf| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        paths.into_iter()
    };
    let is_library = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("libonnxruntime.so")
    };
    let packages = ["site-packages", "dist-packages"];
    let pythons = entries(environment.join("lib"));
    let mut folders =
        pythons.flat_map(|python| packages.map(|name| python.join(name).join("onnxruntime/capi")));
    folders.find_map(|folder| entries(folder).find(is_library))
}
