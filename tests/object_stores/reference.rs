//! The results of the same run on local disk.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::{Value, json};
use sluice_manifest::rows::{OutputPlanRow, PlanRow};
use sluice_testkit::Shard;
use sluice_tests::{Process, Run, demo_input, models};

const MODELS: &[&str] = &["efficientnet-lite0", "opennsfw"];
/// Additional bytes of each sample, so that a shard takes several requests and a large output shard
/// a multipart upload.
const NOISE: usize = 48 << 10;

/// Images in an output shard that needs several parts of a multipart upload.
pub(crate) const LARGE_SHARDS: &str = "90";
/// Images in an output shard that fits into one part.
pub(crate) const SMALL_SHARDS: &str = "30";

/// Photographs, models, and the results of their run on local disk.
pub(crate) struct Reference {
    place: PathBuf,
    /// The folder of models.
    pub models: String,
    process: Process,
}

/// Returns a path as a word of a command line.
pub(crate) fn word(path: &Path) -> &str {
    path.to_str().expect("paths of tests are UTF-8")
}

/// Returns the words of `sluice run`.
pub(crate) fn curate<'a>(
    input: &'a str,
    run: &'a str,
    output: &'a str,
    models: &'a str,
    images_per_shard: &'a str,
) -> Vec<&'a str> {
    let places = [
        "sluice", "run", "--input", input, "--run", run, "--output", output,
    ];
    let models = [
        "--models",
        models,
        "--embedder",
        "efficientnet-lite0",
        "--nsfw",
        "opennsfw",
    ];
    let settings = [
        "--aesthetic",
        "technical-quality",
        "--eps",
        "0.15",
        "--shards-per-partition",
        "1",
    ];
    let last = ["--images-per-shard", images_per_shard];
    [&places[..], &models, &settings, &last].concat()
}

impl Reference {
    /// Returns the reference that all tests share; `None`, with a message, if a requirement is
    /// missing.
    pub(crate) fn get() -> Option<&'static Self> {
        // Each test without it reports that, not only the first.
        models(MODELS)?;
        demo_input()?;
        static REFERENCE: LazyLock<Option<Reference>> = LazyLock::new(Reference::make);
        REFERENCE.as_ref()
    }

    fn make() -> Option<Self> {
        let (models, source) = (models(MODELS)?, demo_input()?);
        let place = place_for_this_process();
        let input = place.join("photos");
        std::fs::create_dir_all(&input).unwrap();
        for (shard, of) in [("00000.tar", [0, 1]), ("00001.tar", [2, 3])] {
            let sources = of.map(|number| source.join(format!("photos-{number:05}.tar")));
            std::fs::write(input.join(shard), with_noise(&sources)).unwrap();
        }
        let limit = Duration::from_secs(120);
        let process = Process::new(env!("CARGO_BIN_EXE_sluice-tests-step"), limit).unwrap();
        let reference = Self {
            models: word(&models).to_owned(),
            process,
            place,
        };
        for images_per_shard in [LARGE_SHARDS, SMALL_SHARDS] {
            reference.curate(images_per_shard);
        }
        Some(reference)
    }

    fn curate(&self, images_per_shard: &str) {
        let (run, output) = self.made(images_per_shard);
        let first = self.made(LARGE_SHARDS).0;
        if run != first {
            // Only the export differs.
            let (from, to) = (word(&first), word(&run));
            assert_eq!(self.process.run(&["copy", from, to]).unwrap().code, 0);
        }
        let input = self.input();
        let [input, run, output] = [&input, &run, &output].map(|path| word(path));
        let command = curate(input, run, output, &self.models, images_per_shard);
        let finished = self.process.run(&command).unwrap();
        assert_eq!(finished.code, 0, "{}", finished.stderr);
    }

    /// Returns the folder of photographs.
    pub(crate) fn input(&self) -> PathBuf {
        self.place.join("photos")
    }

    /// Returns run and output with this number of images per output shard.
    pub(crate) fn made(&self, images_per_shard: &str) -> (PathBuf, PathBuf) {
        let of = |name: &str| self.place.join(format!("{name}-{images_per_shard}"));
        (of("run"), of("output"))
    }

    /// Compares a run and an output of this input with those on local disk, and returns the
    /// differences.
    ///
    /// All objects must be identical, except for times and locations:
    /// - `run.json`: `input`, `patterns`, `listed` and `id`
    /// - `pipeline.toml`: `input`, `output` and `models`
    /// - `partition/plan.parquet`: the columns `etag` and `modified`, which are each store's own
    /// - receipts: `seconds`, fingerprints (a shard's stamp goes into them), the settings `input`,
    ///   `patterns` and `output`, the locations of outputs outside the run, and the hashes and sizes of
    ///   the objects in this list
    /// - `export/plan/plan.parquet`: the fingerprint in its metadata
    /// - `report/index.html`: it contains locations and durations
    /// - the output's `README.md` and `croissant.json`: they name the input, of a local folder the
    ///   name alone
    /// - the output's `.sluice.json`: it names the run
    pub(crate) fn differences(
        &self,
        images_per_shard: &str,
        input: &str,
        run: &Path,
        output: &Path,
    ) -> Vec<String> {
        let (run_here, output_here) = self.made(images_per_shard);
        let mut wrong = Vec::new();
        let here = contents(&output_here);
        assert!(here.len() >= 4, "{:?}", here.keys());
        compare(
            &here,
            &contents(output),
            &mut wrong,
            |path, a, b| match path {
                "README.md" | "croissant.json" => {
                    let card = String::from_utf8_lossy(a);
                    card.replace("`photos`", &format!("`{input}`")).as_bytes() == b
                }
                ".sluice.json" => true,
                _ => a == b,
            },
        );
        let here = contents(&run_here);
        assert!(here.len() > 40, "{:?}", here.keys());
        compare(&here, &contents(run), &mut wrong, |path, a, b| match path {
            "run.json" => {
                let places = ["input", "patterns", "listed", "id"];
                settings(a, &places) == settings(b, &places)
            }
            "pipeline.toml" => without_places(a) == without_places(b),
            "partition/plan.parquet" => plan(&run_here) == plan(run),
            "export/plan/plan.parquet" => output_plan(&run_here) == output_plan(run),
            "report/index.html" => {
                a.starts_with(b"<!DOCTYPE html>") == b.starts_with(b"<!DOCTYPE html>")
            }
            path if path.contains("/receipts/") => receipt(a) == receipt(b),
            _ => a == b,
        });
        wrong
    }
}

/// Returns one shard with the members of several, and a member of noise in each sample.
fn with_noise(shards: &[PathBuf]) -> Vec<u8> {
    let mut joined = Shard::new();
    let mut last = String::new();
    for (number, shard) in shards.iter().enumerate() {
        let bytes = std::fs::read(shard).unwrap();
        for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = format!("{number}-{}", String::from_utf8_lossy(&entry.path_bytes()));
            let key = name.split('.').next().unwrap_or_default().to_owned();
            let mut data = Vec::new();
            entry.read_to_end(&mut data).unwrap();
            joined = joined.with(&name, data);
            if key != last {
                joined = joined.with(&format!("{key}.noise"), noise(&key));
                last = key;
            }
        }
    }
    joined.finish()
}

/// Returns bytes that depend on a key and cannot be compressed.
fn noise(key: &str) -> Vec<u8> {
    let mut noise = vec![0; NOISE];
    let mut bytes = blake3::Hasher::new().update(key.as_bytes()).finalize_xof();
    bytes.fill(&mut noise);
    noise
}

/// Returns a folder that no other process uses. Statics are never dropped, so the next process
/// removes the folder.
fn place_for_this_process() -> PathBuf {
    let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("object-stores");
    std::fs::create_dir_all(&all).unwrap();
    for entry in std::fs::read_dir(&all).unwrap() {
        let entry = entry.unwrap();
        if !Path::new("/proc").join(entry.file_name()).exists() {
            // Another process may be removing it too.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    all.join(std::process::id().to_string())
}

/// Returns all files below a folder, by their paths in it.
pub(crate) fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let run = Run::at(word(folder)).unwrap();
    let objects = run.store.list("").unwrap().into_iter();
    let read = |path: String| {
        let bytes = std::fs::read(folder.join(&path)).unwrap();
        (path, bytes)
    };
    objects.map(|object| read(object.path)).collect()
}

fn compare(
    here: &BTreeMap<String, Vec<u8>>,
    there: &BTreeMap<String, Vec<u8>>,
    wrong: &mut Vec<String>,
    same: impl Fn(&str, &[u8], &[u8]) -> bool,
) {
    for (path, bytes) in here {
        match there.get(path) {
            None => wrong.push(format!("{path}: missing")),
            Some(other) if !same(path, bytes, other) => {
                wrong.push(format!("{path}: differs: {}", shown(bytes, other)));
            }
            Some(_) => {}
        }
    }
    let more = there.keys().filter(|path| !here.contains_key(*path));
    wrong.extend(more.map(|path| format!("{path}: not there on local disk")));
}

/// Returns the first lines of two texts that differ.
fn shown(here: &[u8], there: &[u8]) -> String {
    let [here, there] = [here, there].map(|bytes| std::str::from_utf8(bytes).unwrap_or("(binary)"));
    let lines = here.lines().zip(there.lines());
    let differ = lines.filter(|(a, b)| a != b).take(5);
    let differ: Vec<_> = differ.map(|(a, b)| format!("\n  {a}\n  {b}")).collect();
    differ.join("")
}

/// Returns the lines of a pipeline file without locations.
fn without_places(toml: &[u8]) -> Vec<&str> {
    let text = std::str::from_utf8(toml).unwrap();
    let is_place = |line: &&str| {
        let keys = ["input ", "output ", "models "];
        keys.iter().any(|key| line.starts_with(key))
    };
    text.lines().filter(|line| !is_place(line)).collect()
}

/// Returns a JSON object without these fields.
fn settings(json: &[u8], without: &[&str]) -> Value {
    let mut value: Value = serde_json::from_slice(json).unwrap();
    let fields = value.as_object_mut().unwrap();
    for name in without {
        fields.remove(*name).unwrap_or_else(|| panic!("no {name}"));
    }
    value
}

fn receipt(json: &[u8]) -> Value {
    let mut receipt = settings(json, &["seconds", "times", "fingerprint", "seal"]);
    let settings = receipt["settings"].as_object_mut().unwrap();
    for name in ["input", "patterns", "output", "survivors"] {
        settings.remove(name);
    }
    for input in receipt["inputs"].as_array_mut().unwrap() {
        input["fingerprint"].take();
    }
    for output in receipt["outputs"].as_array_mut().unwrap() {
        let path = output["path"].as_str().unwrap().to_owned();
        let name = path.rsplit('/').next().unwrap().to_owned();
        if path.starts_with('/') || path.contains("://") {
            output["path"] = json!(name);
        }
        let named = [
            "run.json",
            "plan.parquet",
            "index.html",
            "README.md",
            "croissant.json",
        ];
        if named.contains(&name.as_str()) {
            output["bytes"].take();
            output["blake3"].take();
            output["blocks"].take();
        }
    }
    receipt
}

fn plan(run: &Path) -> Vec<PlanRow> {
    let run = Run::at(word(run)).unwrap();
    let rows = run.store.rows::<PlanRow>("partition/plan.parquet").unwrap();
    let rows = rows.map(|row| PlanRow {
        etag: None,
        modified: None,
        ..row.unwrap()
    });
    rows.collect()
}

fn output_plan(run: &Path) -> Vec<OutputPlanRow> {
    let run = Run::at(word(run)).unwrap();
    let rows = run.store.rows("export/plan/plan.parquet").unwrap();
    rows.map(Result::unwrap).collect()
}
