//! Locations of large files: the variables that `make test` sets, or else the folders in the
//! workspace that `make models` fills.
//!
//! Each function returns `None` if something is missing, and the calling test counts as skipped
//! ([`Need`]).

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use sluice_testkit::{Need, place};
pub use sluice_testkit::{fixtures, python};

/// The file name of ONNX Runtime's library.
const LIBRARY: &str = "libonnxruntime.so";

/// Returns ONNX Runtime's library, and makes it available to this process.
pub fn runtime() -> Option<PathBuf> {
    static IS_BESIDE: LazyLock<bool> = LazyLock::new(|| link_beside().is_some());
    let library = place(
        Need::Programs,
        "ONNX Runtime",
        "ORT_DYLIB_PATH",
        &format!(".cache/onnxruntime/{LIBRARY}"),
        "make tools",
    )?;
    let is_found = std::env::var_os("ORT_DYLIB_PATH").is_some() || *IS_BESIDE;
    let what = "ONNX Runtime beside the test program";
    Need::Programs.found(what, "set ORT_DYLIB_PATH", || is_found.then_some(library))
}

/// Returns ONNX Runtime's library for the processes of tests, if it is installed.
pub(crate) fn library() -> Option<PathBuf> {
    let in_cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/onnxruntime");
    let given = std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from);
    let library = given.unwrap_or_else(|| in_cache.join(LIBRARY));
    library.exists().then_some(library)
}

/// Links the library into this program's folder, where ONNX Runtime's loader finds it. A process
/// cannot safely set its own variables.
fn link_beside() -> Option<()> {
    let library = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../.cache/onnxruntime")
        .join(LIBRARY);
    let program = std::env::current_exe().ok()?;
    let beside = program.parent()?.join(LIBRARY);
    if !beside.exists() {
        let target = std::path::absolute(&library).ok()?;
        // Another test program may have created it.
        let _ = std::os::unix::fs::symlink(target, &beside);
    }
    beside.exists().then_some(())
}

/// Returns the folder of models that `make models` fills, if it has all of `names` and ONNX Runtime
/// is installed.
pub fn models(names: &[&str]) -> Option<PathBuf> {
    runtime()?;
    let folder = place(
        Need::Models,
        "models",
        "SLUICE_MODELS",
        ".cache/models",
        "make models",
    )?;
    let missing = names
        .iter()
        .find(|name| !folder.join(name).join("model.onnx").exists());
    let what = format!("model {}", missing.unwrap_or(&""));
    Need::Models.found(&what, "make models, or set SLUICE_MODELS", || {
        missing.is_none().then_some(folder)
    })
}

/// Returns the folder with the ONNX files of the fixtures, if ONNX Runtime is installed.
pub fn shared_models() -> Option<PathBuf> {
    runtime()?;
    let folder = fixtures()?.parent()?.join("models");
    let what = "models for tests beside the fixtures";
    Need::Fixtures.found(what, "set SLUICE_SHARED", || {
        folder.is_dir().then_some(folder)
    })
}

/// Copies a file of [`shared_models`] to `<folder>/<name>/model.onnx`, and returns that folder.
///
/// # Errors
/// When the file cannot be copied.
pub fn model(folder: &Path, name: &str, file: &Path) -> std::io::Result<PathBuf> {
    let made = folder.join(name);
    std::fs::create_dir_all(&made)?;
    std::fs::copy(file, made.join("model.onnx"))?;
    Ok(made)
}

/// Returns the folder of the demo's shards.
pub fn demo_input() -> Option<PathBuf> {
    place(
        Need::Demo,
        "demo shards",
        "SLUICE_DEMO_INPUT",
        "demo/input",
        "make demo-data",
    )
}

/// Returns a server that `tests/servers/install.sh` installs.
pub(crate) fn server(name: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = std::env::var_os("SLUICE_SERVERS")
        .map_or_else(|| root.join(".cache/servers/bin"), PathBuf::from);
    let program = folder.join(name);
    Need::Servers.found(name, "make servers, or set SLUICE_SERVERS", || {
        program
            .exists()
            .then(|| std::path::absolute(&program).ok())?
    })
}
