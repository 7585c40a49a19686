//! What this machine has for models: ONNX Runtime's providers, NVIDIA's driver and GPUs, and the
//! libraries that providers need.
//!
//! ONNX Runtime loads its providers at run time, from the folder of its own library. The loader finds
//! their libraries in the system; in `nvidia/*/lib` next to the Python package `onnxruntime`, where the
//! packages `nvidia-*` have them; or in the folders that `SLUICE_CUDA_PATH` names.

use std::path::{Path, PathBuf};

use ort::ep::cuda::{CUDA_DYLIBS, CUDNN_DYLIBS};
use ort::util::preload_dylib;

use crate::device::{Device, parts_of};
use crate::driver::{self, Driver, Gpu, NoDriver};
use crate::library::{entries, library};
use crate::needed::needed;

/// A part that a device needs and this machine does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingPart {
    /// The part by its name, such as `libcudnn.so.9`.
    pub part: String,
    /// How to get it.
    pub hint: String,
}

impl MissingPart {
    fn new(part: impl Into<String>, hint: &str) -> Self {
        Self {
            part: part.into(),
            hint: hint.to_owned(),
        }
    }
}

const PROVIDER: &str = "install the Python package onnxruntime-gpu, and set ORT_DYLIB_PATH to its capi/libonnxruntime.so.*";
const DRIVER: &str = "install NVIDIA's driver; a container needs NVIDIA's runtime: --gpus all, or the resource nvidia.com/gpu";
const NUMBER: &str =
    "`sluice doctor` lists the GPUs that this process sees; CUDA_VISIBLE_DEVICES hides others";
const LIBRARIES: &str = "install CUDA and cuDNN, or the Python packages nvidia-* beside onnxruntime-gpu, or set SLUICE_CUDA_PATH to the folders that hold them";
const TENSORRT: &str =
    "install TensorRT 10, or set SLUICE_CUDA_PATH to the folder that holds its libraries";
const OPENVINO: &str = "set ORT_DYLIB_PATH to the libonnxruntime.so of the Python package onnxruntime-openvino (capi/)";
const CUDNN: &str = "libcudnn.so.9";

/// What a machine has for models.
#[derive(Debug, Clone)]
pub struct Machine {
    /// ONNX Runtime's library.
    pub library: PathBuf,
    /// NVIDIA's driver.
    pub(crate) driver: Result<Driver, NoDriver>,
    /// Folders of CUDA's libraries, in addition to those of the system's loader.
    pub cuda: Vec<PathBuf>,
}

impl Machine {
    /// Looks at this machine.
    pub fn this() -> Self {
        let library = library();
        Self {
            driver: driver::driver(),
            cuda: cuda_folders(&library),
            library,
        }
    }

    /// Returns NVIDIA's driver, where there is one that works.
    pub fn driver(&self) -> Option<&Driver> {
        self.driver.as_ref().ok()
    }

    /// Returns a GPU by its number.
    pub fn gpu(&self, number: u32) -> Option<&Gpu> {
        let mut gpus = self.driver()?.gpus.iter();
        gpus.find(|gpu| gpu.number == number)
    }

    /// Returns the first GPU, where there is one and all that it needs. Logs a warning where there is a
    /// GPU that cannot be used.
    pub(crate) fn first_gpu(&self) -> Option<Device> {
        let gpu = self.driver()?.gpus.first()?;
        let device = Device::Cuda(gpu.number);
        let missing = device.missing(self);
        let Some(first) = missing.first() else {
            return Some(device);
        };
        let missing = parts_of(&missing);
        tracing::warn!(
            gpu = gpu.name,
            "models run on the CPU, for {device} lacks {missing}; hint: {}",
            first.hint
        );
        None
    }

    pub(crate) fn missing_for_cuda(&self, number: u32) -> Vec<MissingPart> {
        let mut missing = self.missing_for_provider("cuda", PROVIDER, LIBRARIES);
        missing.extend(self.missing_driver(number));
        // The provider opens it with the first convolution.
        if missing.iter().all(|missing| missing.part != CUDNN) && !self.loads(CUDNN) {
            missing.push(MissingPart::new(CUDNN, LIBRARIES));
        }
        for optional in CUDA_DYLIBS.iter().chain(CUDNN_DYLIBS) {
            self.loads(optional);
        }
        missing
    }

    pub(crate) fn missing_for_tensorrt(&self, number: u32) -> Vec<MissingPart> {
        // TensorRT's libraries need CUDA's, which are loaded first.
        let cuda = self.missing_for_cuda(number);
        let mut missing = self.missing_for_provider("tensorrt", PROVIDER, TENSORRT);
        missing.extend(cuda);
        let mut seen = std::collections::BTreeSet::new();
        missing.retain(|missing| seen.insert(missing.part.clone()));
        missing
    }

    pub(crate) fn missing_for_openvino(&self) -> Vec<MissingPart> {
        self.missing_for_provider("openvino", OPENVINO, OPENVINO)
    }

    fn missing_driver(&self, number: u32) -> Option<MissingPart> {
        let driver = match &self.driver {
            Ok(driver) => driver,
            Err(NoDriver::Missing) => {
                let part = format!("{} (NVIDIA's driver)", driver::LIBRARY);
                return Some(MissingPart::new(part, DRIVER));
            }
            Err(NoDriver::Refused(call, code)) => {
                let part = format!("a working NVIDIA driver ({call} fails with code {code})");
                return Some(MissingPart::new(part, DRIVER));
            }
        };
        let seen: Vec<String> = driver
            .gpus
            .iter()
            .map(|gpu| format!("cuda:{}", gpu.number))
            .collect();
        let seen = if seen.is_empty() {
            "none".to_owned()
        } else {
            seen.join(", ")
        };
        let is_there = driver.gpus.iter().any(|gpu| gpu.number == number);
        let part = format!("GPU {number} (this process sees {seen})");
        (!is_there).then(|| MissingPart::new(part, NUMBER))
    }

    /// Returns what is missing of a provider: its library, and the libraries that it needs. They are
    /// loaded here, so that the system's loader finds them loaded when it loads the provider.
    fn missing_for_provider(
        &self,
        name: &str,
        get_it: &str,
        get_libraries: &str,
    ) -> Vec<MissingPart> {
        let file = format!("libonnxruntime_providers_{name}.so");
        let folder = self
            .library
            .parent()
            .filter(|folder| *folder != Path::new(""));
        let Some(folder) = folder else {
            // The system's loader finds both, or reports what is missing.
            return Vec::new();
        };
        let provider = folder.join(&file);
        let Some(needed) = needed(&provider) else {
            return vec![MissingPart::new(file, get_it)];
        };
        // Of the driver more is known.
        let needed = needed.iter().filter(|name| *name != driver::LIBRARY);
        let missing = needed.filter(|name| !self.loads(name));
        missing
            .map(|name| MissingPart::new(name, get_libraries))
            .collect()
    }

    /// Loads a library for good, from the folders or as the system's loader finds it.
    fn loads(&self, name: &str) -> bool {
        let mut paths = self.cuda.iter().map(|folder| folder.join(name));
        paths.any(|path| path.exists() && preload_dylib(path).is_ok())
            || preload_dylib(name).is_ok()
    }
}

/// Returns the folders of `SLUICE_CUDA_PATH`, those of the packages `nvidia-*` and `tensorrt_libs` next to
/// the package `onnxruntime`, and the library's own.
fn cuda_folders(library: &Path) -> Vec<PathBuf> {
    let named = std::env::var_os("SLUICE_CUDA_PATH").unwrap_or_default();
    let named = std::env::split_paths(&named).filter(|path| !path.as_os_str().is_empty());
    let mut folders: Vec<PathBuf> = named
        .flat_map(|path| [path.join("lib64"), path.join("lib"), path])
        .collect();
    // site-packages/onnxruntime/capi/libonnxruntime.so
    if let Some(packages) = library.ancestors().nth(3) {
        let nvidia = entries(packages.join("nvidia"));
        folders.extend(nvidia.map(|package| package.join("lib")));
        folders.push(packages.join("tensorrt_libs"));
    }
    folders.extend(library.parent().map(Path::to_owned));
    folders.retain(|folder| folder.is_dir());
    folders
}
