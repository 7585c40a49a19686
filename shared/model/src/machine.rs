//! What this machine has for models: ONNX Runtime's providers, NVIDIA's driver and GPUs, and the
//! libraries that providers need.
//!
//! ONNX Runtime loads its providers at run time, from the folder of its own library. The loader finds
//! their libraries in the system; in `nvidia/*/lib` next to the Python package `onnxruntime`, where the
//! packages `nvidia-*` have them; or in the folders that `SLUICE_CUDA_PATH` names.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

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
const OLD_DRIVER: &str =
    "update NVIDIA's driver, or install an onnxruntime-gpu that was built for an older CUDA";
const RUNTIME: &str = "set ORT_DYLIB_PATH to the path of ONNX Runtime's library";
const LIBRARIES: &str = "install CUDA and cuDNN, or the Python packages nvidia-* beside onnxruntime-gpu, or set SLUICE_CUDA_PATH to the folders that hold them";
const TENSORRT: &str =
    "install TensorRT 10, or set SLUICE_CUDA_PATH to the folder that holds its libraries";
const OPENVINO: &str = "set ORT_DYLIB_PATH to the libonnxruntime.so of the Python package onnxruntime-openvino (capi/)";
const CUDNN: &str = "libcudnn.so.9";

/// What a machine has for models.
#[derive(Debug)]
pub struct Machine {
    /// ONNX Runtime's library.
    pub library: PathBuf,
    /// NVIDIA's driver.
    pub(crate) driver: Result<Driver, NoDriver>,
    /// Folders of CUDA's libraries, in addition to those of the system's loader.
    pub cuda: Vec<PathBuf>,
    /// The first GPU that can be used, after it was asked for.
    pub(crate) first_gpu: OnceLock<Option<Device>>,
    /// Whether the processor multiplies bytes into sums of 32 bits.
    pub(crate) has_vnni: bool,
    /// Whether the warning about weights of 8 bits was logged.
    is_warned: AtomicBool,
}

impl Machine {
    /// Returns this machine. It is looked at once in a process, and what is wrong with it is logged once.
    pub fn this() -> &'static Self {
        static THIS: OnceLock<Machine> = OnceLock::new();
        THIS.get_or_init(|| {
            let library = library();
            let cuda = cuda_folders(&library);
            Self::new(library, driver::driver(), cuda)
        })
    }

    pub(crate) fn new(
        library: PathBuf,
        driver: Result<Driver, NoDriver>,
        cuda: Vec<PathBuf>,
    ) -> Self {
        Self {
            library,
            driver,
            cuda,
            first_gpu: OnceLock::new(),
            has_vnni: has_vnni(),
            is_warned: AtomicBool::new(false),
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
    /// GPU or a driver that cannot be used.
    pub(crate) fn first_gpu(&self) -> Option<Device> {
        *self.first_gpu.get_or_init(|| self.find_gpu())
    }

    fn find_gpu(&self) -> Option<Device> {
        let (gpu, missing) = match &self.driver {
            Err(NoDriver::Missing) => return None,
            Err(NoDriver::Refused(..)) => (None, self.missing_driver(0, None)),
            Ok(driver) => {
                let gpu = driver.gpus.first()?;
                let device = Device::Cuda(gpu.number);
                let missing = device.missing(self);
                if missing.is_empty() {
                    return Some(device);
                }
                (Some(gpu), missing)
            }
        };
        let device = Device::Cuda(gpu.map_or(0, |gpu| gpu.number));
        let hint = missing.first().map_or("", |first| &first.hint);
        tracing::warn!(
            gpu = gpu.map(|gpu| gpu.name.as_str()),
            "models run on the CPU, for {device} lacks {}; hint: {hint}",
            parts_of(&missing)
        );
        None
    }

    /// Logs, once, that a model with weights of 8 bits loses accuracy here.
    pub(crate) fn warn_of_saturation(&self, model: &str) {
        if self.is_warned.swap(true, Ordering::Relaxed) {
            return;
        }
        tracing::warn!(
            model,
            "this processor has no VNNI: sums of products with weights of 8 bits saturate, so the outputs differ \
            from those of other machines; hint: `sluice models quantize` makes weights of 7 bits, which are exact here"
        );
    }

    pub(crate) fn missing_for_cuda(&self, number: u32) -> Vec<MissingPart> {
        let (needed, mut missing) = self.missing_for_provider("cuda", PROVIDER, LIBRARIES);
        missing.extend(self.missing_driver(number, cuda_of(&needed)));
        // The provider opens it with the first convolution.
        if !needed.iter().any(|name| name == CUDNN) {
            missing.extend(self.not_loaded(CUDNN, LIBRARIES));
        }
        for optional in CUDA_DYLIBS.iter().chain(CUDNN_DYLIBS) {
            self.not_loaded(optional, LIBRARIES);
        }
        missing
    }

    pub(crate) fn missing_for_tensorrt(&self, number: u32) -> Vec<MissingPart> {
        // TensorRT's libraries need CUDA's, which are loaded first.
        let cuda = self.missing_for_cuda(number);
        let (_, mut missing) = self.missing_for_provider("tensorrt", PROVIDER, TENSORRT);
        missing.extend(cuda);
        let mut seen = std::collections::BTreeSet::new();
        missing.retain(|missing| seen.insert(missing.part.clone()));
        missing
    }

    pub(crate) fn missing_for_openvino(&self) -> Vec<MissingPart> {
        self.missing_for_provider("openvino", OPENVINO, OPENVINO).1
    }

    /// Returns what is missing of the driver for a GPU, and for the major version of CUDA that a provider
    /// was built for.
    fn missing_driver(&self, number: u32, cuda: Option<u32>) -> Vec<MissingPart> {
        let driver = match &self.driver {
            Ok(driver) => driver,
            Err(NoDriver::Missing) => {
                let part = format!("{} (NVIDIA's driver)", driver::LIBRARY);
                return vec![MissingPart::new(part, DRIVER)];
            }
            Err(NoDriver::Refused(call, code)) => {
                let part = format!("a working NVIDIA driver ({call} fails with code {code})");
                return vec![MissingPart::new(part, DRIVER)];
            }
        };
        let mut missing = Vec::new();
        if let (Some(needed), Some(runs)) = (cuda, driver.cuda_major())
            && runs < needed
        {
            let runs = &driver.cuda;
            let part =
                format!("an NVIDIA driver for CUDA {needed} (this one runs CUDA up to {runs})");
            missing.push(MissingPart::new(part, OLD_DRIVER));
        }
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
        missing.extend((!is_there).then(|| MissingPart::new(part, NUMBER)));
        missing
    }

    /// Returns the libraries that a provider needs, and what is missing: its own library, and those. They
    /// are loaded here, so that the system's loader finds them loaded when it loads the provider.
    fn missing_for_provider(
        &self,
        name: &str,
        get_it: &str,
        get_libraries: &str,
    ) -> (Vec<String>, Vec<MissingPart>) {
        let file = format!("libonnxruntime_providers_{name}.so");
        let folder = self.library.parent();
        let Some(folder) = folder.filter(|folder| *folder != Path::new("")) else {
            let library = self.library.display();
            return (
                Vec::new(),
                vec![MissingPart::new(library.to_string(), RUNTIME)],
            );
        };
        let provider = folder.join(&file);
        let Some(needed) = needed(&provider) else {
            let part = if provider.exists() {
                format!("{file} (the file there is not a library)")
            } else {
                file
            };
            return (Vec::new(), vec![MissingPart::new(part, get_it)]);
        };
        // Of the driver more is known.
        let libraries = needed.iter().filter(|name| *name != driver::LIBRARY);
        let missing = libraries.filter_map(|name| self.not_loaded(name, get_libraries));
        let missing = missing.collect();
        (needed, missing)
    }

    /// Loads a library for good, from the folders or as the system's loader finds it. Returns the part
    /// that is missing if it does not load, with the loader's reason if the file exists.
    fn not_loaded(&self, name: &str, hint: &str) -> Option<MissingPart> {
        let mut found = None;
        let paths = self.cuda.iter().map(|folder| folder.join(name));
        for path in paths.filter(|path| path.exists()) {
            match preload_dylib(path) {
                Ok(()) => return None,
                Err(e) => found = Some(reason(&e)),
            }
        }
        let e = reason(&preload_dylib(name).err()?);
        // The loader begins with the file that it did not find.
        let is_absent = e.starts_with(name) && e.contains("No such file");
        let part = match found.or((!is_absent).then_some(e)) {
            Some(reason) => format!("{name} that loads ({reason})"),
            None => name.to_owned(),
        };
        Some(MissingPart::new(part, hint))
    }
}

/// Returns the loader's own words.
fn reason(e: &libloading::Error) -> String {
    let source = std::error::Error::source(e);
    source.map_or_else(|| e.to_string(), ToString::to_string)
}

/// Returns the major version of CUDA that a library was built for, by the libraries that it needs.
fn cuda_of(needed: &[String]) -> Option<u32> {
    let version = |name: &String| name.strip_prefix("libcudart.so.")?.parse().ok();
    needed.iter().find_map(version)
}

/// Whether the processor multiplies bytes into sums of 32 bits.
fn has_vnni() -> bool {
    #[cfg(target_arch = "x86_64")]
    let has_vnni = is_x86_feature_detected!("avx512vnni") || is_x86_feature_detected!("avxvnni");
    // Others have no such instructions of 16 bits.
    #[cfg(not(target_arch = "x86_64"))]
    let has_vnni = true;
    has_vnni
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
