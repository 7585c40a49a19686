//! `sluice doctor`: shows the machine's resources, and where each model would run.
//!
//! The command is read-only: it loads no model and accesses no store except the folder of models.
//! It reports which credentials are set, never their values.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use sluice_harness::{Hardware, ToolContext, is_set};
use sluice_manifest::numbers::bytes as shown_bytes;
use sluice_manifest::{Class, Error};
use sluice_model::{
    BatchSize, Device, Driver, Kind, Machine, Model, Precision, cached, library_version,
};
use sluice_store::{Location, Storage};

use crate::models::{Cache, precisions_of};
use crate::text::columns;

/// Show what this machine has for Sluice, and what would run where
///
/// Cores, memory, ONNX Runtime and its devices, which credentials are set (never their values), and
/// where each model of the folder of models would run.
///
/// Example: sluice doctor
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The folder of models.
    #[command(flatten)]
    pub cache: Cache,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// The resources of this machine.
#[derive(Debug, Serialize)]
struct MachineFindings {
    version: &'static str,
    hardware: Hardware,
    onnxruntime: Runtime,
    driver: Option<Driver>,
    devices: Vec<Usable>,
    credentials: Vec<Credentials>,
    /// The folder of models.
    models_folder: String,
    /// Why the folder of models cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    models_error: Option<String>,
    models: Vec<Placed>,
}

/// ONNX Runtime's library.
#[derive(Debug, Serialize)]
struct Runtime {
    library: PathBuf,
    version: Option<String>,
    error: Option<String>,
}

/// A device and its missing requirements.
#[derive(Debug, Serialize)]
struct Usable {
    device: Device,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<u64>,
    missing: Vec<String>,
    /// Why ONNX Runtime does not take the device although nothing is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// The credentials found for a store.
#[derive(Debug, Serialize)]
struct Credentials {
    store: &'static str,
    /// Variables that are set, and files that exist.
    found: Vec<String>,
}

/// Where a model would run, with `--device auto`.
#[derive(Debug, Serialize)]
struct Placed {
    model: String,
    kind: &'static str,
    precision: Precision,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<Device>,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_size: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// The locations of each store's credentials: environment variables, and files in the user's home
/// folder.
const CREDENTIALS: [(&str, &[&str], &[&str]); 4] = [
    (
        "s3",
        &[
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "AWS_PROFILE",
            "AWS_ROLE_ARN",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        ],
        &[".aws/credentials", ".aws/config"],
    ),
    (
        "gs",
        &["GOOGLE_APPLICATION_CREDENTIALS"],
        &[".config/gcloud/application_default_credentials.json"],
    ),
    (
        "az",
        &[
            "AZURE_STORAGE_CONNECTION_STRING",
            "AZURE_STORAGE_ACCOUNT_KEY",
            "AZURE_STORAGE_KEY",
            "AZURE_STORAGE_SAS_TOKEN",
            "AZURE_CLIENT_ID",
            "AZURE_CLIENT_SECRET",
            "AZURE_FEDERATED_TOKEN_FILE",
        ],
        &[".azure/msal_token_cache.json"],
    ),
    (
        "hf",
        &["HF_TOKEN", "HF_TOKEN_PATH"],
        &[".cache/huggingface/token"],
    ),
];

/// Prints the resources of this machine.
///
/// # Errors
/// Returns a usage error when `--models` names no location, and an error when the output cannot be
/// written.
pub fn doctor(args: &DoctorArgs, tool: &mut ToolContext<'_>) -> Result<()> {
    let cache = args.cache.location()?;
    let findings = findings(&tool.shared.storage, &cache);
    if args.json {
        writeln!(tool.out, "{}", serde_json::to_string(&findings)?)?
    } else {
        write!(tool.out, "{}", findings.text())?
    }
    Ok(())
}

fn findings(storage: &Storage, cache: &Location) -> MachineFindings {
    let machine = Machine::this();
    let (version, error) = match library_version() {
        Ok(version) => (Some(version), None),
        Err(e) => (None, Some(e.to_string())),
    };
    let (models, models_error) = match models(storage, cache) {
        Ok(models) => (models, None),
        Err(e) => (Vec::new(), Some(e.to_string())),
    };
    MachineFindings {
        version: env!("CARGO_PKG_VERSION"),
        hardware: Hardware::this(),
        devices: devices(machine),
        driver: machine.driver().cloned(),
        onnxruntime: Runtime {
            library: machine.library.clone(),
            version,
            error,
        },
        credentials: credentials(),
        models_folder: cache.to_string(),
        models_error,
        models,
    }
}

/// Returns the devices that `--device` accepts on this machine. GPU 0 is included even if there is
/// no GPU.
fn devices(machine: &Machine) -> Vec<Usable> {
    let count = machine.driver().map_or(0, |driver| driver.gpus.len());
    let numbers = 0..u32::try_from(count.max(1)).unwrap_or(1);
    let on_gpus = numbers.flat_map(|number| [Device::Cuda(number), Device::TensorRt(number)]);
    let devices = std::iter::once(Device::Cpu).chain(on_gpus);
    let devices = devices.chain([Device::OpenVino]);
    let usable = |device: Device| {
        let gpu = device.gpu().and_then(|number| machine.gpu(number));
        let missing = device.missing(machine);
        Usable {
            device,
            name: gpu.map(|gpu| gpu.name.clone()),
            memory: gpu.map(|gpu| gpu.memory),
            // Without ONNX Runtime's library that is what is wrong.
            refused: if missing.is_empty() {
                device.refusal().unwrap_or_default()
            } else {
                None
            },
            hint: missing.first().map(|missing| missing.hint.clone()),
            missing: missing.into_iter().map(|missing| missing.part).collect(),
        }
    };
    devices.map(usable).collect()
}

fn credentials() -> Vec<Credentials> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let found = |(store, variables, files): &(&'static str, &[&str], &[&str])| {
        let variables = variables.iter().filter(|variable| is_set(variable));
        let exists = |file: &&&str| home.as_ref().is_some_and(|home| home.join(file).exists());
        let files = files.iter().filter(exists).map(|file| format!("~/{file}"));
        Credentials {
            store,
            found: variables
                .map(|name| (*name).to_owned())
                .chain(files)
                .collect(),
        }
    };
    CREDENTIALS.iter().map(found).collect()
}

/// Returns where each model would run, in each precision that has a file. In bfloat16 `model.onnx` may
/// run, too.
fn models(storage: &Storage, cache: &Location) -> Result<Vec<Placed>, Error> {
    let mut models = Vec::new();
    for name in cached(storage, cache)? {
        let own = precisions_of(storage, &name, cache)?;
        for precision in Precision::ALL {
            let has_file = own.contains(&precision);
            if !has_file && precision != Precision::Bfloat16 {
                continue;
            }
            match Model::find(storage, &name, cache, precision) {
                Ok(model) if is_of(&model, precision) => models.extend(placed(&name, model)),
                Ok(_) => {}
                Err(e) if matches!(e.class(), Class::Transient | Class::Stopped) => return Err(e),
                Err(_) if !has_file => {}
                Err(e) => models.push(Placed {
                    model: name.clone(),
                    kind: "broken",
                    precision,
                    device: None,
                    batch_size: None,
                    error: Some(e.to_string()),
                }),
            }
        }
    }
    Ok(models)
}

/// Whether a model supports this precision. Heads and classifiers take no `--precision`.
fn is_of(model: &Model, precision: Precision) -> bool {
    precision == Precision::Float32 || model.spec.kind == Kind::Embedder
}

/// Returns where a model would run, or `None` if bfloat16 is not supported here.
fn placed(name: &str, model: Model) -> Option<Placed> {
    let (kind, precision) = (model.spec.kind.as_str(), model.precision);
    let chosen = model
        .place(Device::Auto, BatchSize::Auto)
        .map(|model| model.placement);
    let (placement, error) = match chosen {
        Ok(placement) => (Some(placement), None),
        Err(_) if precision == Precision::Bfloat16 => return None,
        Err(e) => (None, Some(e.to_string())),
    };
    Some(Placed {
        model: name.to_owned(),
        kind,
        precision,
        device: placement.as_ref().map(|it| it.device),
        batch_size: placement.map(|it| it.batch_size),
        error,
    })
}

impl MachineFindings {
    /// Returns the findings as text for people, one screen.
    fn text(&self) -> String {
        let mut rows = self.machine_rows();
        rows.extend(self.devices.iter().map(Usable::row));
        for Credentials { store, found } in &self.credentials {
            let found = if found.is_empty() {
                "none".to_owned()
            } else {
                found.join(", ")
            };
            rows.push(row(&format!("{store}:// credentials"), found));
        }
        let error = self
            .models_error
            .as_deref()
            .and_then(|it| it.lines().next());
        let folder = error.map_or(self.models_folder.clone(), str::to_owned);
        rows.push(row("models", folder));
        rows.extend(self.models.iter().map(Placed::row));
        columns(&rows, &[], "")
    }

    fn machine_rows(&self) -> Vec<Vec<String>> {
        let hardware = &self.hardware;
        let (cores, granted_cores) = (hardware.cores, hardware.granted_cores);
        let memory = |bytes: Option<u64>| bytes.map_or("unknown".to_owned(), shown_bytes);
        let granted = memory(hardware.granted_memory);
        let runtime = match (&self.onnxruntime.version, &self.onnxruntime.error) {
            (Some(version), _) => format!("{version}, {}", self.onnxruntime.library.display()),
            (None, error) => error.clone().unwrap_or_default(),
        };
        let driver = self.driver.as_ref();
        vec![
            row("sluice", self.version.to_owned()),
            row("cores", format!("{granted_cores} of {cores}")),
            row(
                "memory",
                format!("{granted} of {}", memory(hardware.memory)),
            ),
            row("ONNX Runtime", runtime),
            row(
                "NVIDIA driver",
                driver.map_or("none".to_owned(), |it| {
                    format!("for CUDA up to {}", it.cuda)
                }),
            ),
        ]
    }
}

impl Usable {
    fn row(&self) -> Vec<String> {
        let name = self.name.iter().cloned();
        let memory = self.memory.map(shown_bytes);
        let about: Vec<String> = name.chain(memory).collect();
        let about = if about.is_empty() {
            String::new()
        } else {
            format!(" ({})", about.join(", "))
        };
        let state = match (&self.refused, self.missing.as_slice()) {
            (Some(refused), _) => {
                let reason = refused.lines().next().unwrap_or_default();
                format!("refused by ONNX Runtime: {reason}")
            }
            (None, []) => format!("usable{about}"),
            (None, missing) => format!("missing {}{about}", missing.join(", ")),
        };
        row(&format!("--device {}", self.device), state)
    }
}

impl Placed {
    fn row(&self) -> Vec<String> {
        let place = match (&self.device, self.batch_size, &self.error) {
            (Some(device), Some(batch), _) if self.kind != Kind::Head.as_str() => {
                format!("{device}, {batch} images at once")
            }
            (Some(device), ..) => device.to_string(),
            (None, _, error) => {
                let error = error.as_deref().unwrap_or_default();
                error.lines().next().unwrap_or_default().to_owned()
            }
        };
        row(
            &format!("  {}", self.model),
            format!("{}, {}: {place}", self.kind, self.precision),
        )
    }
}

fn row(name: &str, text: String) -> Vec<String> {
    vec![name.to_owned(), text]
}
