//! ONNX Runtime's library: where it is, and loading it once.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ort::environment::Environment;
use ort::util::preload_dylib;
use sluice_manifest::{Error, Result};

/// The library's name, without its version.
const NAME: &str = "libonnxruntime.so";

static ENVIRONMENT: OnceLock<Result<Environment, String>> = OnceLock::new();

/// Returns whether ONNX Runtime's library is found.
pub(crate) fn is_there() -> bool {
    environment().is_ok()
}

/// Loads ONNX Runtime's library, once.
pub(crate) fn environment() -> Result<&'static Environment> {
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

/// Returns the version of ONNX Runtime's library.
///
/// # Errors
/// Usage, when it does not load.
pub fn library_version() -> Result<String> {
    environment()?;
    let minor = ort::util::probe(library());
    Ok(minor.map_or("unknown".to_owned(), |minor| format!("1.{minor}")))
}

/// ONNX Runtime's Python packages carry a library that reports to its makers. Only this variable,
/// set before the library loads, prevents that completely.
#[expect(unsafe_code, reason = "changing the environment has no safe form")]
fn refuse_telemetry() {
    const VARIABLE: &str = "ORT_DISABLE_TELEMETRY";
    if std::env::var_os(VARIABLE).is_none() {
        // SAFETY: Rust code reads the environment under std's lock, and no C library of ours reads
        // it on another thread while the first model loads.
        unsafe { std::env::set_var(VARIABLE, "1") };
    }
}

/// Returns the path of ONNX Runtime's library. Where it is a link, its target: ONNX Runtime looks for
/// its providers in the folder that it was loaded from. A name without a folder is searched for by the
/// system's loader; if that does not find it, the name is returned.
pub(crate) fn library() -> PathBuf {
    let path = chosen();
    match path.parent() {
        Some(folder) if folder != Path::new("") => path.canonicalize().unwrap_or(path),
        _ => {
            refuse_telemetry();
            let is_loaded = preload_dylib(&path).is_ok();
            let loaded = is_loaded.then(loaded).flatten();
            loaded.unwrap_or(path)
        }
    }
}

/// Returns the path of ONNX Runtime's library that this process has loaded.
#[expect(
    clippy::disallowed_methods,
    reason = "the list of loaded libraries is a file of the kernel"
)]
fn loaded() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let mut paths = maps.lines().filter_map(|line| line.split_once('/'));
    let path = paths.find(|(_, path)| {
        let name = path.rsplit('/').next().unwrap_or_default();
        name.starts_with(NAME)
    });
    path.map(|(_, path)| PathBuf::from(format!("/{path}")))
}

/// `ORT_DYLIB_PATH`, or the library in the program's folder, or that of the Python package `onnxruntime`
/// where the program was installed with it, or the one that the system's loader finds.
fn chosen() -> PathBuf {
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

/// Returns the library of the package `onnxruntime` in a Python environment.
fn of_python(environment: &Path) -> Option<PathBuf> {
    let is_library = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(NAME)
    };
    let packages = ["site-packages", "dist-packages"];
    let pythons = entries(environment.join("lib"));
    let mut folders =
        pythons.flat_map(|python| packages.map(|name| python.join(name).join("onnxruntime/capi")));
    folders.find_map(|folder| entries(folder).find(is_library))
}

/// Returns the entries of a local folder, sorted; none where there is no folder.
#[expect(
    clippy::disallowed_methods,
    reason = "libraries that the system's loader opens are on local disk"
)]
pub(crate) fn entries(folder: PathBuf) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths.into_iter()
}
