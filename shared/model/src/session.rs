//! ONNX Runtime: rows of numbers in, rows of numbers out.

use std::io::Read;
use std::path::PathBuf;
use std::sync::OnceLock;

use ort::environment::Environment;
use ort::ep::{ArbitrarilyConfigurableExecutionProvider, ExecutionProviderDispatch, OpenVINO};
use ort::session::Session as OrtSession;
use ort::value::TensorRef;
use sluice_manifest::{Error, Result};
use sluice_store::Store;

use crate::model::{files, onnx_file};
use crate::precision::Precision;
use crate::spec::Spec;

/// Outputs that hold the embedding, by the names that exporters give them, best first.
const EMBEDDING_OUTPUTS: [&str; 3] = ["image_embeds", "pooler_output", "embedding"];

static ENVIRONMENT: OnceLock<Result<Environment, String>> = OnceLock::new();

/// Returns the output that is read, out of those that a model has: the one of the spec, or a usual one,
/// or the first.
pub(crate) fn output_of<'a>(spec: &'a Spec, outputs: &[&'a str]) -> Option<&'a str> {
    let usual = EMBEDDING_OUTPUTS.into_iter();
    let mut usual = usual.filter(|name| outputs.contains(name));
    let stated = spec.output.as_deref();
    stated.or_else(|| usual.next()).or(outputs.first().copied())
}

/// A loaded model.
pub struct Session {
    session: OrtSession,
    name: String,
    input: String,
    output: String,
}

impl Session {
    pub(crate) fn load(
        folder: &Store,
        spec: &Spec,
        precision: Precision,
        threads: usize,
    ) -> Result<Self> {
        let onnx = onnx_file(precision);
        let uri = folder.uri(onnx);
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
                for file in files(folder, precision)?.split_off(1) {
                    let data = content(folder, &file)?;
                    builder = builder
                        .with_external_initializer_file_in_memory(&file, data.into())
                        .map_err(|e| broken(&e))?;
                }
                builder.commit_from_memory(&content(folder, onnx)?)
            }
        };
        let session = session.map_err(|e| broken(&e))?;
        let inputs: Vec<_> = session.inputs().iter().map(|input| input.name()).collect();
        let outputs: Vec<_> = session
            .outputs()
            .iter()
            .map(|output| output.name())
            .collect();
        let pick = |what: &str, wanted: Option<&str>, names: &[&str]| match wanted {
            Some(name) if !names.contains(&name) => Err(Error::usage(format!(
                "{uri}: no {what} {name:?}; there are {}",
                names.join(", ")
            ))),
            Some(name) => Ok(name.to_owned()),
            None => names
                .first()
                .map(|name| (*name).to_owned())
                .ok_or_else(|| Error::usage(format!("{uri}: the model has no {what}"))),
        };
        let input = pick("input", spec.input.as_deref(), &inputs)?;
        let output = pick("output", output_of(spec, &outputs), &outputs)?;
        Ok(Self {
            name: spec.name.clone(),
            input,
            output,
            session,
        })
    }

    /// Runs a batch: `shape` is `[rows, …]`, `values` its numbers. Gives `rows * width` numbers.
    pub fn run(&mut self, shape: &[usize], values: &[f32]) -> Result<Vec<f32>> {
        let failed = |e: ort::Error| Error::usage(format!("model {}: {e}", self.name));
        let shape: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
        let rows = shape.first().copied().unwrap_or(0);
        if rows == 0 {
            return Ok(Vec::new());
        }
        let tensor = TensorRef::from_array_view((shape, values)).map_err(failed)?;
        let outputs = self
            .session
            .run(ort::inputs![self.input.as_str() => tensor])
            .map_err(failed)?;
        let (shape, values) = outputs[self.output.as_str()]
            .try_extract_tensor::<f32>()
            .map_err(|e| Error::usage(format!("model {}: {e}", self.name)))?;
        if shape.len() != 2 || shape[0] != rows || shape[1] == 0 {
            return Err(Error::usage(format!(
                "model {}: output {:?} has shape {shape:?}, expected [{rows}, width]",
                self.name, self.output
            ))
            .hint("name the right output in model.toml"));
        }
        Ok(values.to_vec())
    }
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

/// `ORT_DYLIB_PATH`, or the library beside the program, or the one that the system's loader finds.
fn library() -> PathBuf {
    const NAME: &str = "libonnxruntime.so";
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH") {
        return path.into();
    }
    let program = std::env::current_exe().ok();
    let beside = program
        .as_ref()
        .and_then(|program| program.parent())
        .map(|folder| folder.join(NAME));
    beside
        .filter(|path| path.exists())
        .unwrap_or_else(|| NAME.into())
}
