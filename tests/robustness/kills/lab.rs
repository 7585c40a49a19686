//! A location for runs, on local disk or on S3: the input, the command lines, and the results of an
//! undisturbed run.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sluice::pipeline::Pipeline;
use sluice_testkit::Shard;
use sluice_testkit::onnx::{distance_from, embedder, likeness_to};
use sluice_testkit::pictures::{noisy, png, waves};
use sluice_tests::servers::Site;
use sluice_tests::{Process, runtime};

const PIPELINE: &str = include_str!("kills.toml");
const SHARDS: u64 = 3;
/// A size for [`stale`](Node::stale) command lines. Some pictures are smaller.
const LARGE: &str = "40";
const LIMIT: Duration = Duration::from_secs(180);
/// The folder of temporary files that writers on local disk use.
pub(super) const TEMPORARY: &str = ".sluice-tmp/";

/// Objects by path, without durations.
pub(super) type Objects = BTreeMap<String, Vec<u8>>;

/// A process of a run.
pub(super) struct RunProcess {
    /// Its command line.
    pub command: Vec<String>,
    /// The same command line with another setting, which changes every step's outputs.
    pub stale: Vec<String>,
    /// Its undisturbed duration.
    pub takes: Duration,
}

/// A way to do a run, and its results.
pub(super) struct Way {
    /// Its processes, in order.
    pub nodes: Vec<RunProcess>,
    /// The expected objects.
    pub expected: Objects,
}

/// A location for runs.
pub(super) struct Lab {
    /// The programs under test.
    pub programs: Process,
    /// One process for each step.
    steps: OnceCell<Way>,
    /// One process for all steps.
    whole: OnceCell<Way>,
    tools: Process,
    /// The common URI of input, run and output.
    place: String,
    is_remote: bool,
    scratch: tempfile::TempDir,
}

impl Lab {
    /// Returns a location on S3 or on local disk, or `None` if a requirement is missing.
    pub(super) fn new(site: Option<&Site>) -> Option<Self> {
        runtime()?;
        let scratch = tempfile::tempdir().unwrap();
        let local = scratch.path().to_str().unwrap().to_owned();
        let step = env!("CARGO_BIN_EXE_sluice-tests-step");
        let process = |program: &str| {
            let process = Process::new(program, LIMIT).unwrap();
            match site {
                Some(site) => process.at(site),
                None => process,
            }
        };
        let programs = std::env::var("SLUICE_TESTS_PROGRAMS").unwrap_or(step.to_owned());
        let lab = Self {
            programs: process(&programs),
            tools: process(step),
            steps: OnceCell::new(),
            whole: OnceCell::new(),
            place: site.map_or(format!("{local}/place"), |site| {
                format!("{}/kills", site.bucket)
            }),
            is_remote: site.is_some(),
            scratch,
        };
        lab.fill();
        Some(lab)
    }

    /// Returns a way to do the run: one process for all steps, or one for each.
    pub(super) fn way(&self, whole: bool) -> &Way {
        if whole {
            self.whole
                .get_or_init(|| self.undisturbed(vec![self.whole_commands()]))
        } else {
            self.steps
                .get_or_init(|| self.undisturbed(self.step_commands()))
        }
    }

    /// Returns the number of nodes of a run, and whether it is on S3.
    pub(super) fn nodes(&self) -> (usize, bool) {
        (self.step_commands().len(), self.is_remote)
    }

    fn local(&self, name: &str) -> String {
        self.scratch.path().join(name).to_str().unwrap().to_owned()
    }

    fn at(&self, name: &str) -> String {
        format!("{}/{name}", self.place)
    }

    /// Writes the models and the table to local disk, and the input to the location.
    fn fill(&self) {
        let put = |path: &str, bytes: &[u8]| {
            let path = self.scratch.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        };
        for (name, model) in [
            ("tiny-embedder", embedder("tiny-embedder")),
            ("tiny-beauty", distance_from("tiny-beauty", [255; 3], 3.0)),
            ("tiny-shame", likeness_to("tiny-shame", [255, 0, 0], -3.0)),
        ] {
            put(&format!("models/{name}/model.onnx"), &model.onnx);
            put(&format!("models/{name}/model.toml"), model.spec.as_bytes());
        }
        put("kills.toml", PIPELINE.as_bytes());
        put(
            "liked.csv",
            b"key,like\n0000,1\n0001,2\n0002,3\n0003,0\n0004,1\n0005,4\n0006,2\n",
        );
        for number in 0..SHARDS {
            put(&format!("input/{number:05}.tar"), &shard(number));
        }
        self.done(&["copy", &self.local("input"), &self.at("input")]);
    }

    /// Runs a tool that must succeed.
    fn done(&self, command: &[&str]) {
        let ended = self.tools.start(command).and_then(|running| running.end());
        let ended = ended.unwrap();
        assert!(ended.status.success(), "{command:?}: {}", ended.stderr);
    }

    fn settings(&self, least: &str) -> Vec<(String, String)> {
        let settings = [
            ("models", self.local("models")),
            ("table", self.local("liked.csv")),
            ("input", self.at("input")),
            ("output", self.at("output")),
            ("least", least.to_owned()),
        ];
        let settings = settings.into_iter();
        settings
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    /// Returns the command lines of all steps, each with its stale variant.
    fn step_commands(&self) -> Vec<[Vec<String>; 2]> {
        let pipeline = Pipeline::load(PIPELINE, "kills", "kills.toml").unwrap();
        let [values, stale] = ["1", LARGE].map(|least| {
            let given = self.settings(least).into_iter();
            let given: Vec<_> = given.map(|(name, value)| (name, vec![value])).collect();
            pipeline.values(&given).unwrap()
        });
        let run = self.at("run");
        let nodes = pipeline.nodes.iter();
        nodes
            .map(|node| [&values, &stale].map(|values| node.command(&run, values)))
            .collect()
    }

    /// Returns the command line of `sluice run`, with its stale variant.
    fn whole_commands(&self) -> [Vec<String>; 2] {
        ["1", LARGE].map(|least| {
            let mut words = ["sluice", "run"].map(str::to_owned).to_vec();
            words.push(format!("--pipeline={}", self.local("kills.toml")));
            words.push(format!("--run={}", self.at("run")));
            for (name, value) in self.settings(least) {
                match name.as_str() {
                    "input" | "output" | "models" => words.push(format!("--{name}={value}")),
                    _ => words.push(format!("--set={name}={value}")),
                }
            }
            words
        })
    }

    /// Runs all nodes, and records their durations and results.
    fn undisturbed(&self, commands: Vec<[Vec<String>; 2]>) -> Way {
        self.wipe().unwrap();
        let node = |[command, stale]: [Vec<String>; 2]| {
            let started = Instant::now();
            let ended = self
                .programs
                .start(&command)
                .and_then(|running| running.end());
            let ended = ended.unwrap();
            assert!(ended.status.success(), "{command:?}: {}", ended.stderr);
            RunProcess {
                command,
                stale,
                takes: started.elapsed(),
            }
        };
        let nodes = commands.into_iter().map(node).collect();
        let (expected, temporary) = self.objects().unwrap();
        assert!(expected.len() > 50, "{:?}", expected.keys());
        assert_eq!(temporary, 0);
        Way { nodes, expected }
    }

    /// Removes run and output.
    pub(super) fn wipe(&self) -> Result<()> {
        if self.is_remote {
            self.done(&["wipe", &self.at("run")]);
            self.done(&["wipe", &self.at("output")]);
            return Ok(());
        }
        for name in ["run", "output"] {
            let folder = self.at(name);
            if Path::new(&folder).exists() {
                std::fs::remove_dir_all(&folder).context(folder)?;
            }
        }
        Ok(())
    }

    /// Returns all objects of run and output, and the number of temporary files.
    pub(super) fn objects(&self) -> Result<(Objects, usize)> {
        let mut files = BTreeMap::new();
        for name in ["run", "output"] {
            let fetched = self.fetched(name)?;
            collect(&fetched, name, &mut files)?;
        }
        let all = files.len();
        files.retain(|path, _| !path.contains(TEMPORARY));
        let temporary = all - files.len();
        for (path, bytes) in &mut files {
            *bytes = without_time(path, std::mem::take(bytes)).with_context(|| path.clone())?;
        }
        Ok((files, temporary))
    }

    /// Copies a folder of the location to local disk.
    fn fetched(&self, name: &str) -> Result<PathBuf> {
        if !self.is_remote {
            return Ok(self.at(name).into());
        }
        let folder = self.scratch.path().join("fetched").join(name);
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        self.done(&["copy", &self.at(name), folder.to_str().unwrap()]);
        Ok(folder)
    }

    /// Runs `sluice verify`, which must pass.
    pub(super) fn verify(&self) -> Result<()> {
        let command = ["sluice", "verify", "--run", &self.at("run")];
        let ended = self.programs.start(&command)?.end()?;
        ensure!(
            ended.status.success(),
            "verify: {}: {}",
            ended.status,
            ended.stderr
        );
        Ok(())
    }

    /// Copies run and output to a folder, if they exist.
    pub(super) fn save(&self, folder: &Path) {
        for name in ["run", "output"] {
            let saved = folder.join(name);
            let copy = ["copy", &self.at(name), saved.to_str().unwrap()];
            // A run that failed early has no output.
            let _ = self.tools.start(&copy).and_then(|running| running.end());
        }
    }
}

/// Returns seven pictures with captions: one is small, one is a copy, one is similar to another.
fn shard(number: u64) -> Vec<u8> {
    let of = |seed: u64| waves(10 * number + seed, 48, 44);
    let next = 10 * ((number + 1) % SHARDS);
    let pictures = [
        of(0),
        of(1),
        waves(10 * number + 2, 32, 32),
        of(3),
        of(4),
        waves(next, 48, 44),
        noisy(waves(next + 1, 48, 44), 7, 2),
    ];
    let shard = pictures
        .iter()
        .enumerate()
        .fold(Shard::new(), |shard, (key, picture)| {
            shard.with(&format!("{key:04}.png"), png(picture)).with(
                &format!("{key:04}.txt"),
                format!("picture {key} of {number}"),
            )
        });
    shard.finish()
}

fn collect(folder: &Path, name: &str, files: &mut Objects) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Ok(());
    };
    for entry in entries {
        let path = entry?.path();
        let name = format!("{name}/{}", path.file_name().unwrap().to_string_lossy());
        if path.is_dir() {
            collect(&path, &name, files)?
        } else {
            files.insert(name, std::fs::read(&path)?);
        }
    }
    Ok(())
}

/// Returns an object's bytes without the parts that depend on earlier processes: `seconds`,
/// `times`, `reused` and the seal in receipts, and the report.
fn without_time(path: &str, bytes: Vec<u8>) -> Result<Vec<u8>> {
    if path == "run/report/index.html" {
        let is_whole = bytes.trim_ascii_end().ends_with(b"</html>");
        ensure!(is_whole, "not a whole page");
        return Ok(Vec::new());
    }
    if !path.contains("/receipts/") {
        return Ok(bytes);
    }
    let mut receipt: Value = serde_json::from_slice(&bytes)?;
    receipt["seconds"].take();
    receipt["times"].take();
    receipt["seal"].take();
    // Reused rows were computed by an earlier process, which was disturbed.
    if let Some(sums) = receipt["sums"].as_object_mut() {
        sums.remove("reused");
    }
    if receipt["stage"] == "report" {
        receipt["outputs"].take();
    }
    Ok(serde_json::to_vec(&receipt)?)
}
