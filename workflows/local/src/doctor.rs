//! `sluice doctor`: what this machine has, and what would run where.
//!
//! It looks and changes nothing: no model is loaded, no store is asked for anything but the folder of
//! models. Of credentials it says which are set, never what they are.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use sluice_harness::{Desk, Hardware, is_set};
use sluice_manifest::numbers::bytes as shown_bytes;
use sluice_manifest::{Class, Error};
use sluice_model::{
    BatchSize, Device, Driver, Kind, Machine, Model, Precision, cached, library_version,
};
use sluice_store::{Location, Storage};

use crate::models::Cache;
use crate::text::columns;

/// Show what this machine has for Sluice, and what would run where
///
/// Cores, memory, ONNX Runtime and its devices, which credentials are set (never their values), and
/// where each model of the folder of models would run.
///
/// Example: sluice doctor
#[derive(Debug, Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    pub cache: Cache,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// What this machine has.
#[derive(Debug, Serialize)]
struct Findings {
    version: &'static str,
    hardware: Hardware,
    onnxruntime: Runtime,
    driver: Option<Driver>,
    devices: Vec<Usable>,
    credentials: Vec<Credentials>,
    /// The folder of models.
    models_folder: String,
    models: Vec<Placed>,
}

/// ONNX Runtime's library.
#[derive(Debug, Serialize)]
struct Runtime {
    library: PathBuf,
    version: Option<String>,
    error: Option<String>,
}

/// A device, and what is missing for it.
#[derive(Debug, Serialize)]
struct Usable {
    device: Device,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<u64>,
    missing: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// The credentials of a store that are there.
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

/// Where each store's credentials may be: variables, and files in the user's folder.
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

/// Shows what this machine has.
///
/// # Errors
/// Of storage, when the folder of models cannot be listed.
pub fn doctor(args: &DoctorArgs, desk: &mut Desk<'_>) -> Result<()> {
    let cache = args.cache.location()?;
    let findings = findings(&desk.shared.storage, &cache)?;
    match args.json {
        true => writeln!(desk.out, "{}", serde_json::to_string(&findings)?)?,
        false => write!(desk.out, "{}", findings.text())?,
    }
    Ok(())
}

fn findings(storage: &Storage, cache: &Location) -> Result<Findings, Error> {
    let machine = Machine::this();
    let (version, error) = match library_version() {
        Ok(version) => (Some(version), None),
        Err(e) => (None, Some(e.to_string())),
    };
    Ok(Findings {
        version: env!("CARGO_PKG_VERSION"),
        hardware: Hardware::this(),
        devices: devices(&machine),
        driver: machine.driver().cloned(),
        onnxruntime: Runtime {
            library: machine.library,
            version,
            error,
        },
        credentials: credentials(),
        models_folder: cache.to_string(),
        models: models(storage, cache)?,
    })
}

/// Returns the devices that `--device` could name here; GPU 0 also where there is none.
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

/// Returns where each model would run, in each precision that there is a file of.
fn models(storage: &Storage, cache: &Location) -> Result<Vec<Placed>, Error> {
    let mut models = Vec::new();
    for name in cached(storage, cache)? {
        for precision in Precision::ALL {
            match Model::find(storage, &name, cache, precision) {
                Ok(model) if is_of(&model, precision) => models.extend(placed(&name, model)),
                Ok(_) => {}
                Err(e) if matches!(e.class(), Class::Transient | Class::Stopped) => return Err(e),
                // Of most models there is no file of the other precisions.
                Err(_) if precision != Precision::Float32 => {}
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

/// Whether a model is for this precision: heads and classifiers take no `--precision`.
fn is_of(model: &Model, precision: Precision) -> bool {
    precision == Precision::Float32 || model.spec.kind == Kind::Embedder
}

/// Returns where a model would run. None: it could be run in bfloat16 elsewhere, as every model.
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

impl Findings {
    /// Returns what people see: one screen.
    fn text(&self) -> String {
        let mut rows = self.machine_rows();
        rows.extend(self.devices.iter().map(Usable::row));
        for Credentials { store, found } in &self.credentials {
            let found = match found.is_empty() {
                true => "none".to_owned(),
                false => found.join(", "),
            };
            rows.push(row(&format!("{store}:// credentials"), found));
        }
        rows.push(row("models", self.models_folder.clone()));
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
        let about = match about.is_empty() {
            true => String::new(),
            false => format!(" ({})", about.join(", ")),
        };
        let state = match self.missing.is_empty() {
            true => format!("usable{about}"),
            false => format!("missing {}{about}", self.missing.join(", ")),
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
