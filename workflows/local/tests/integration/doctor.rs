//! `doctor` on simulated machines with stub libraries: a driver with two GPUs, CUDA's libraries, a
//! provider that fails.

#![expect(
    clippy::disallowed_methods,
    reason = "a machine of stubs is on local disk"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use sluice_manifest::rows::EMBEDDINGS;
use sluice_store::vectors;
use sluice_testkit::onnx::embedder;
use sluice_testkit::pictures::{png, waves};
use sluice_testkit::{Need, Shard, onnxruntime_of};

use crate::support::store;

/// A driver with two GPUs of 16 and 80 GiB.
const DRIVER: &str = r#"
#include <string.h>
#include <stddef.h>
int cuInit(unsigned flags) { return 0; }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuDeviceGetCount(int *count) { *count = 2; return 0; }
int cuDeviceGet(int *device, int number) { *device = number; return 0; }
int cuDeviceGetName(char *name, int length, int device) { strncpy(name, device ? "Stub 80" : "Stub 16", length); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)(device ? 80 : 16) << 30; return 0; }
"#;
/// A driver that finds no device.
const REFUSING: &str = "int cuInit(unsigned flags) { return 100; } int cuDriverGetVersion; \
    int cuDeviceGetCount; int cuDeviceGet; int cuDeviceGetName; int cuDeviceTotalMem_v2;";
const NOTHING: &str = "int nothing;";
/// A library that refers to a symbol that nothing has.
const INCOMPLETE: &str = "extern int gone; int *pointer = &gone;";

const PROVIDER: &str = "site/onnxruntime/capi/libonnxruntime_providers_cuda.so";

/// A simulated machine.
struct StubMachine {
    folder: tempfile::TempDir,
    library: PathBuf,
}

impl StubMachine {
    /// Returns a machine with only a copy of ONNX Runtime's library and a model, or `None` without
    /// ONNX Runtime.
    fn new() -> Option<Self> {
        let hint = "`make test` sets ORT_DYLIB_PATH";
        let library = Need::Programs.found("ONNX Runtime", hint, || {
            let given = std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from);
            given.filter(|library| library.exists())
        })?;
        let folder = tempfile::tempdir().unwrap();
        let machine = Self {
            library: folder
                .path()
                .join("site/onnxruntime/capi/libonnxruntime.so.1"),
            folder,
        };
        for folder in [
            "site/onnxruntime/capi",
            "system",
            "site/nvidia/cu13/lib",
            "models/tiny",
        ] {
            std::fs::create_dir_all(machine.path(folder)).unwrap();
        }
        let linked = std::fs::hard_link(library.canonicalize().unwrap(), &machine.library);
        linked
            .or_else(|_| std::fs::copy(library, &machine.library).map(drop))
            .unwrap();
        let tiny = embedder("tiny");
        std::fs::write(machine.path("models/tiny/model.onnx"), tiny.onnx).unwrap();
        std::fs::write(machine.path("models/tiny/model.toml"), tiny.spec).unwrap();
        Some(machine)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// Builds a library that depends on others.
    fn library(&self, path: &str, source: &str, needs: &[&str]) {
        let path = self.path(path);
        let name = path.file_name().unwrap().to_str().unwrap();
        let mut cc = Command::new("cc");
        cc.args([
            "-shared",
            "-fPIC",
            "-x",
            "c",
            "-",
            "-Wl,--no-as-needed",
            "-o",
        ]);
        cc.arg(&path).arg(format!("-Wl,-soname,{name}"));
        cc.arg("-x")
            .arg("none")
            .args(needs.iter().map(|need| self.path(need)));
        let mut child = cc.stdin(std::process::Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), source.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{name}");
    }

    fn driver(&self, source: &str) {
        self.library("system/libcuda.so.1", source, &[]);
    }

    /// Adds a provider and its libraries, in the folders of NVIDIA's Python packages.
    fn provider(&self) {
        let cuda = [
            "site/nvidia/cu13/lib/libcublas.so.13",
            "site/nvidia/cu13/lib/libcudart.so.13",
        ];
        cuda.iter()
            .for_each(|path| self.library(path, NOTHING, &[]));
        self.library("site/nvidia/cu13/lib/libcudnn.so.9", NOTHING, &[]);
        self.library(PROVIDER, NOTHING, &cuda);
    }

    fn command(&self, program: &Path, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(words)
            .env_clear()
            .env("HOME", self.folder.path())
            .env("AWS_SECRET_ACCESS_KEY", "verysecret")
            .env("SLUICE_MODELS", self.path("models"))
            .env("ORT_DYLIB_PATH", &self.library)
            .env("LD_LIBRARY_PATH", self.path("system"));
        command
    }

    fn run(&self, program: &Path, words: &[&str]) -> Output {
        self.command(program, words).output().unwrap()
    }

    fn doctor(&self) -> Value {
        let output = self.run(
            Path::new(env!("CARGO_BIN_EXE_sluice")),
            &["doctor", "--json"],
        );
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(!text.contains("verysecret"), "{text}");
        serde_json::from_str(&text).unwrap()
    }
}

/// Embeds one picture with the tiny model.
const PIPELINE: &str = r#"
[[steps]]
stage = "partition"
[[steps]]
stage = "read"
[[steps]]
stage = "embed"
model = "tiny"
[[steps]]
stage = "export"
"#;

impl StubMachine {
    /// Runs a pipeline on one picture. Returns the exit code and the result.
    fn embed(&self, device: &str) -> (Option<i32>, Value) {
        let (code, result, _) = self.embed_with_log(device);
        (code, result)
    }

    /// The same, with the log.
    fn embed_with_log(&self, device: &str) -> (Option<i32>, Value, String) {
        std::fs::create_dir_all(self.path("in")).unwrap();
        let picture = Shard::new().with("0.png", png(&waves(7, 24, 16)));
        std::fs::write(self.path("in/0.tar"), picture.finish()).unwrap();
        std::fs::write(self.path("pipeline.toml"), PIPELINE).unwrap();
        let at = |path: &str| self.path(path).to_str().unwrap().to_owned();
        let (pipeline, input, output) =
            (at("pipeline.toml"), at("in"), at(&format!("out-{device}")));
        let words = [
            "run",
            "--pipeline",
            &pipeline,
            "--input",
            &input,
            "--output",
            &output,
        ];
        let mut program = self.command(Path::new(env!("CARGO_BIN_EXE_sluice")), &words);
        let output = program.env("SLUICE_DEVICE", device).output().unwrap();
        let result = serde_json::from_slice(&output.stdout);
        (
            output.status.code(),
            result.unwrap_or_else(|e| panic!("{e}: {output:?}")),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }
}

/// Returns what `doctor` found out about a device.
fn device<'f>(found: &'f Value, device: &str) -> &'f Value {
    let mut devices = found["devices"].as_array().unwrap().iter();
    devices.find(|it| it["device"] == device).unwrap()
}

/// Returns the missing requirements of a device.
fn missing(found: &Value, name: &str) -> Vec<String> {
    serde_json::from_value(device(found, name)["missing"].clone()).unwrap()
}

#[test]
fn what_is_missing_for_a_gpu_is_named_piece_by_piece() {
    let Some(machine) = StubMachine::new() else {
        return;
    };
    let provider = "libonnxruntime_providers_cuda.so";
    let found = machine.doctor();
    let parts = missing(&found, "cuda:0");
    assert_eq!(parts[..2], [provider, "libcuda.so.1 (NVIDIA's driver)"]);
    assert_eq!(found["models"][0]["device"], "cpu");
    assert_eq!(found["credentials"][0]["found"][0], "AWS_SECRET_ACCESS_KEY");

    machine.driver(REFUSING);
    let parts = missing(&machine.doctor(), "cuda:0");
    assert!(parts[1].contains("cuInit fails with code 100"), "{parts:?}");

    machine.driver(DRIVER);
    let found = machine.doctor();
    assert_eq!(found["driver"]["gpus"][1]["name"], "Stub 80");
    assert_eq!(missing(&found, "cuda:1"), [provider, "libcudnn.so.9"]);
    assert_eq!(found["models"][0]["device"], "cpu");

    machine.provider();
    let found = machine.doctor();
    assert_eq!(missing(&found, "cuda:0"), [""; 0]);
    assert_eq!(
        (
            &found["models"][0]["device"],
            &found["models"][0]["batch_size"]
        ),
        (&"cuda:0".into(), &256.into())
    );

    machine.driver(&DRIVER.replace("13000", "12040"));
    let old = "an NVIDIA driver for CUDA 13 (this one runs CUDA up to 12.4)";
    assert_eq!(missing(&machine.doctor(), "cuda:0"), [old]);
    machine.driver(DRIVER);

    std::fs::write(machine.path(PROVIDER), "not a library").unwrap();
    let parts = missing(&machine.doctor(), "cuda:0");
    assert!(parts[0].contains("is not a library"), "{parts:?}");
    machine.provider();

    let cublas = "site/nvidia/cu13/lib/libcublas.so.13";
    machine.library(cublas, INCOMPLETE, &[]);
    let parts = missing(&machine.doctor(), "cuda:0");
    assert!(
        parts[0].starts_with("libcublas.so.13") && parts[0].contains("gone"),
        "{parts:?}"
    );
    std::fs::remove_file(machine.path(cublas)).unwrap();
    assert_eq!(missing(&machine.doctor(), "cuda:0"), ["libcublas.so.13"]);
}

#[test]
fn a_library_that_is_named_without_its_folder_is_found_with_it() {
    let Some(mut machine) = StubMachine::new() else {
        return;
    };
    machine.driver(DRIVER);
    machine.provider();
    let (library, folder) = (machine.library.clone(), machine.path("system"));
    std::fs::hard_link(&library, folder.join("libonnxruntime.so.1")).unwrap();
    machine.library = "libonnxruntime.so.1".into();
    let found = machine.doctor();
    let expected = folder.canonicalize().unwrap().join("libonnxruntime.so.1");
    assert_eq!(found["onnxruntime"]["library"], expected.to_str().unwrap());
    // No provider is in that folder.
    assert_eq!(
        missing(&found, "cuda:0")[0],
        "libonnxruntime_providers_cuda.so"
    );
    machine.library = "libonnxruntime.so.gone".into();
    let parts = missing(&machine.doctor(), "openvino");
    assert_eq!(parts, ["libonnxruntime.so.gone"]);
}

#[test]
fn what_keeps_auto_from_a_gpu_is_logged_once_in_a_run() {
    let Some(machine) = StubMachine::new() else {
        return;
    };
    for (driver, words) in [
        (REFUSING, "cuInit fails with code 100"),
        (DRIVER, "libonnxruntime_providers_cuda.so"),
    ] {
        machine.driver(driver);
        let (code, result, log) = machine.embed_with_log("auto");
        assert_eq!(code, Some(0), "{result}");
        let said = log.lines().filter(|line| line.contains(words)).count();
        assert_eq!(said, 1, "{words}: {log}");
        std::fs::remove_dir_all(machine.path("out-auto")).unwrap();
        std::fs::remove_dir_all(machine.path("out-auto.run")).unwrap();
    }
}

#[test]
fn a_folder_of_models_that_cannot_be_read_is_named() {
    let Some(machine) = StubMachine::new() else {
        return;
    };
    std::fs::remove_dir_all(machine.path("models")).unwrap();
    // Like a folder without permission, and also for root: a link that ends nowhere.
    std::os::unix::fs::symlink("models", machine.path("models")).unwrap();
    let found = machine.doctor();
    let error = found["models_error"].as_str().unwrap();
    assert!(
        error.contains(machine.path("models").to_str().unwrap()),
        "{error}"
    );
    assert!(missing(&found, "cpu").is_empty());
}

#[test]
fn a_file_of_a_precision_that_is_cut_is_named() {
    let Some(machine) = StubMachine::new() else {
        return;
    };
    std::fs::write(machine.path("models/tiny/model.float16.onnx"), "cut").unwrap();
    let found = machine.doctor();
    let models = found["models"].as_array().unwrap();
    assert_eq!((models.len(), &models[0]["device"]), (2, &"cpu".into()));
    let error = models[1]["error"].as_str().unwrap();
    assert!(
        error.contains("tiny/model.float16.onnx") && error.contains("makes it again"),
        "{error}"
    );
    let sluice = Path::new(env!("CARGO_BIN_EXE_sluice"));
    let listed = machine.run(sluice, &["models", "list"]);
    assert!(
        String::from_utf8_lossy(&listed.stderr).contains("model.float16.onnx"),
        "{listed:?}"
    );
    let checked = machine.run(sluice, &["models", "check"]);
    assert_eq!(checked.status.code(), Some(3), "{checked:?}");
}

#[test]
fn a_provider_that_does_not_load_is_no_reason_to_take_the_cpu() {
    let Some(machine) = StubMachine::new() else {
        return;
    };
    machine.driver(DRIVER);
    machine.provider();
    let embed = |device: &str| {
        let links = machine.path("sluice-embed");
        let _ = std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_sluice"), &links);
        let output = machine.run(
            &links,
            &[
                "--run",
                "memory://r/r",
                "--model",
                "tiny",
                "--device",
                device,
            ],
        );
        let said = String::from_utf8(output.stdout).unwrap();
        let result: Value = serde_json::from_str(&said).unwrap();
        (
            output.status.code(),
            result["error"]["message"].as_str().unwrap().to_owned(),
        )
    };
    let (code, said) = embed("cuda:2");
    assert!(
        said.contains("GPU 2 (this process sees cuda:0, cuda:1)"),
        "{said}"
    );
    assert_eq!(code, Some(2));
    let (code, said) = embed("openvino");
    assert!(
        said.contains("libonnxruntime_providers_openvino.so") && said.contains("hint"),
        "{said}"
    );
    assert_eq!(code, Some(2));
}

#[test]
fn people_see_one_screen() {
    let Some(machine) = StubMachine::new() else {
        return;
    };
    let output = machine.run(Path::new(env!("CARGO_BIN_EXE_sluice")), &["doctor"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().count() <= 24, "{text}");
    for part in [
        "cores",
        "ONNX Runtime",
        "--device cuda:0",
        "s3:// credentials",
        "tiny",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

/// With the published library, on a machine without a GPU.
#[test]
fn the_real_package_for_gpus_names_what_it_lacks_and_runs_on_the_cpu() {
    let (Some(mut machine), Some(library)) = (StubMachine::new(), onnxruntime_of("gpu")) else {
        return;
    };
    machine.library = library;
    let found = machine.doctor();
    if !found["driver"].is_null() {
        return;
    }
    let expected = [
        "libcublasLt.so.13",
        "libcublas.so.13",
        "libcurand.so.10",
        "libcudart.so.13",
        "libcuda.so.1 (NVIDIA's driver)",
        "libcudnn.so.9",
    ];
    assert_eq!(missing(&found, "cuda:0"), expected);
    let (code, result) = machine.embed("auto");
    assert_eq!(code, Some(0), "{result}");
    let (code, result) = machine.embed("cuda");
    let said = result["error"]["message"].as_str().unwrap();
    assert!(
        said.contains("libcublasLt.so.13") && said.contains("driver"),
        "{said}"
    );
    assert_eq!(code, Some(2));

    // All files exist, but the provider does not load. The CPU must not be used instead.
    machine.driver(DRIVER);
    for name in &expected[..4] {
        machine.library(&format!("system/{name}"), NOTHING, &[]);
    }
    machine.library("system/libcudnn.so.9", NOTHING, &[]);
    let found = machine.doctor();
    assert_eq!(missing(&found, "cuda:0"), [""; 0]);
    let refused = device(&found, "cuda:0")["refused"].as_str().unwrap();
    assert!(
        refused.contains("libonnxruntime_providers_cuda.so"),
        "{refused}"
    );
    let (code, result) = machine.embed("cuda");
    let said = result["error"]["message"].as_str().unwrap();
    assert!(said.contains("ONNX Runtime does not take it"), "{said}");
    assert_eq!(code, Some(2));
}

/// A second provider, through the same code.
#[test]
fn openvino_embeds_as_the_cpu_does() {
    let (Some(mut machine), Some(library)) = (StubMachine::new(), onnxruntime_of("openvino"))
    else {
        return;
    };
    machine.library = library;
    let found = machine.doctor();
    assert_eq!(missing(&found, "openvino"), [""; 0]);
    assert!(device(&found, "openvino")["refused"].is_null(), "{found}");
    let device = |asked: &str| {
        let (code, result) = machine.embed(asked);
        assert_eq!(code, Some(0), "{result}");
        let mut steps = result["steps"].as_array().unwrap().iter();
        let step = steps.find(|step| step["step"] == "embed").unwrap();
        step["device"]["device"].as_str().unwrap().to_owned()
    };
    assert_eq!(device("cpu"), "cpu");
    assert_eq!(device("openvino"), "openvino");
    let vector = |device: &str| {
        let run = store(machine.path(&format!("out-{device}.run")).to_str().unwrap());
        let path = "embed/embeddings/part-00000.parquet";
        let mut table = run.table(path, EMBEDDINGS, &["embedding"]).unwrap();
        let batch = table.next().unwrap().unwrap();
        vectors(&batch, "embedding").unwrap().to_vec()
    };
    let products = vector("cpu").into_iter().zip(vector("openvino"));
    let cosine: f32 = products.map(|(a, b)| a * b).sum();
    assert!((cosine - 1.0).abs() < 1e-5, "{cosine}");
    let (code, result) = machine.embed("cuda");
    assert_eq!(code, Some(2), "{result}");
}
