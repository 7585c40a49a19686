//! Unusual, damaged and hostile shards against their `expected.json`, through the whole DAG.
//!
//! The programs run as separate processes with a time limit and a memory limit: a crash, a hang or
//! a decompression bomb fails the test. The fixtures state the required outcome of each shard and
//! sample; [`MUSTS`] maps their sentences to checks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest, Sha256};
use sluice_manifest::rows::{
    CuratedRow, DecisionRow, MemberRow, SampleRow, ShardRow, ShardStatus, SkippedRow, Status,
};
use sluice_manifest::{Reason, ReasonKind, UnitKind};
use sluice_tests::{Finished, Process, Run, fixtures, models};

use crate::support::word;

const GIB: u64 = 1 << 30;

/// The results of `read` for the folder, and the expected results.
struct Hard {
    run: Run,
    shards: BTreeMap<String, ShardRow>,
    samples: Vec<SampleRow>,
    skipped: Vec<SkippedRow>,
    expected: BTreeMap<String, Value>,
}

impl Hard {
    fn open(folder: &Path, run: &str) -> Self {
        let run = Run::at(run).unwrap();
        let mut expected = BTreeMap::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                let text = std::fs::read_to_string(&path).unwrap();
                let value: Value = serde_json::from_str(&text).unwrap();
                expected.insert(value["shard"].as_str().unwrap().to_owned(), value);
            }
        }
        let shards: Vec<ShardRow> = run.rows("read/shards").unwrap();
        let shards = shards.into_iter().map(|row| (row.shard.to_string(), row));
        Self {
            shards: shards.collect(),
            samples: run.rows("read/images").unwrap(),
            skipped: run.rows("read/skipped").unwrap(),
            run,
            expected,
        }
    }

    fn samples(&self, shard: &str) -> impl Iterator<Item = &SampleRow> {
        self.samples
            .iter()
            .filter(move |row| row.shard.as_str() == shard)
    }

    fn keyed(&self, shard: &str, key: &str) -> Vec<&SampleRow> {
        self.samples(shard).filter(|row| row.key == key).collect()
    }

    fn is_skipped(&self, shard: &str, member: &str) -> bool {
        let mut rows = self.skipped.iter();
        rows.any(|row| row.shard.as_str() == shard && row.member == member)
    }

    /// Whether the shard was read to its end. Damage must be reported.
    fn is_whole(&self, shard: &str) -> bool {
        let row = &self.shards[shard];
        let damaged = row.status == ShardStatus::Damaged;
        assert!(!damaged || row.detail.is_some(), "{row:?}");
        !damaged
    }

    fn check_outcome(&self, shard: &str) {
        let whole = self.is_whole(shard);
        let samples = self.samples(shard).count() as u64;
        let row = &self.shards[shard];
        assert_eq!(samples, row.samples, "{shard}");
        match self.expected[shard]["shard_outcome"].as_str().unwrap() {
            "ok" => assert!(whole, "{row:?}"),
            "error" => assert!(!whole && samples == 0, "{row:?}"),
            "error-after-prefix" => assert!(!whole && samples > 0, "{row:?}"),
            // Sluice supports these. Only the bomb fails, at the limit on the decompressed size.
            "ok-if-supported" | "ok-if-supported-or-error" => {
                assert_eq!(whole, !shard.contains("bomb"), "{row:?}");
                assert_ne!(row.compression, "none", "{row:?}");
            }
            "ok-or-error" | "ok-or-error-after-prefix" => {}
            other => panic!("{shard}: unknown outcome {other}"),
        }
    }

    fn check_sample(&self, shard: &str, wanted: &Value) {
        // The `./` of `tar -C folder .` is not part of a key.
        let plain = |name: &'_ str| name.trim_start_matches("./").to_owned();
        let (key, context) = (plain(text(wanted, "key")), format!("{shard} {wanted}"));
        let members = list(wanted, "members").filter_map(Value::as_str);
        let members: Vec<String> = members.map(plain).collect();
        let rows = self.keyed(shard, &key);
        let listed = |name: &str| {
            let mut names = rows.iter().flat_map(|row| names(row));
            names.any(|listed| listed == name)
        };
        let ok = |row: &&&SampleRow| row.status == Status::Ok;
        match text(wanted, "expect") {
            "decode" | "decode-if-supported" => {
                for name in &members {
                    assert!(listed(name), "{name}: {context}");
                }
                match rows.iter().find(ok) {
                    Some(row) => check_size(row, wanted),
                    None => {
                        let row = rows.iter().find(|row| row.image_extension.is_some());
                        let reason = row.and_then(|row| kind(&row.reason));
                        let unsupported = Some(ReasonKind::UnsupportedFormat);
                        assert_eq!(reason, unsupported, "{context}");
                        assert_eq!(text(wanted, "expect"), "decode-if-supported", "{context}");
                    }
                }
            }
            "reject" => {
                let limit = wanted["limit"].as_str();
                let reason = limit.map(|_| ReasonKind::TooLarge);
                for row in &rows {
                    assert_eq!(row.status, Status::Rejected, "{context}");
                    assert!(reason.is_none() || kind(&row.reason) == reason, "{row:?}");
                }
                assert!(!rows.is_empty(), "{context}");
            }
            "skip" => {
                for name in &members {
                    assert!(
                        self.is_skipped(shard, name) && !listed(name),
                        "{name}: {context}"
                    );
                }
            }
            "no-image" => {
                assert_eq!(rows.len(), 1, "{context}");
                assert_eq!(
                    kind(&rows[0].reason),
                    Some(ReasonKind::NoImage),
                    "{context}"
                );
                assert!(members.iter().all(|name| listed(name)), "{context}");
            }
            // Both outcomes are valid. A decoded image must have the expected size, and a rejection
            // must be reported.
            "decode-or-reject" | "decode-or-skip" => {
                rows.iter()
                    .filter(ok)
                    .for_each(|row| check_size(row, wanted));
                for name in &members {
                    let damaged = !self.is_whole(shard);
                    let told = listed(name) || self.is_skipped(shard, name) || damaged;
                    assert!(told, "{name}: {context}");
                }
            }
            other => panic!("unknown expectation {other}: {context}"),
        }
    }

    /// Checks the invariants of every row.
    fn check_rows(&self) {
        let mut ids = BTreeSet::new();
        for row in &self.samples {
            assert!(ids.insert(&row.image_id), "{row:?}");
            match row.status {
                Status::Ok => {
                    let measured = [
                        row.dark,
                        row.light,
                        row.blurry,
                        row.low_information,
                        row.odd_aspect,
                        row.odd_size,
                    ];
                    for measure in measured {
                        let measure = measure.unwrap();
                        assert!((0.0..=1.0).contains(&measure), "{row:?}");
                    }
                    assert!(row.reason.is_none() && row.phash.is_some(), "{row:?}");
                    assert_eq!(row.sha256.as_ref().unwrap().len(), 64, "{row:?}");
                }
                Status::Rejected => {
                    assert!(row.reason.is_some() && row.detail.is_some(), "{row:?}");
                }
            }
        }
        for (shard, row) in &self.shards {
            let listed: usize = self.samples(shard).map(|row| row.members.len()).sum();
            let skipped = self
                .skipped
                .iter()
                .filter(|row| row.shard.as_str() == shard);
            let skipped = skipped.count() as u64;
            assert_eq!(skipped, row.skipped, "{row:?}");
            assert_eq!(
                listed as u64 + row.skipped + row.torn,
                row.members,
                "{row:?}"
            );
        }
    }

    /// Checks one of the sentences in the fixtures' `must`.
    fn check_must(&self, shard: &str, must: &str) {
        let (_, check) = MUSTS
            .iter()
            .find(|(words, _)| *words == must)
            .unwrap_or_else(|| panic!("{shard}: nothing checks that {must:?}"));
        check(self, shard);
    }

    fn sound(&self, shard: &str, key: &str) {
        let rows = self.keyed(shard, key);
        assert!(
            rows.iter().any(|row| row.status == Status::Ok),
            "{shard} {key}: {rows:?}"
        );
    }
}

type MustCheck = fn(&Hard, &str);

/// A check that `the_whole_folder` runs for every shard and process.
const EVERYWHERE: MustCheck = |_, _| {};

const MUSTS: &[(&str, MustCheck)] = &[
    ("no crash, no hang, no panic", EVERYWHERE),
    (
        "every sample ends up counted exactly once: kept, filtered or failed with a reason",
        EVERYWHERE,
    ),
    ("memory stays below 1 GiB above the start", EVERYWHERE),
    ("no 8 GiB allocation", EVERYWHERE),
    ("no huge allocation, no overflow", EVERYWHERE),
    ("no hang, no huge allocation", EVERYWHERE),
    ("nothing is written outside the output folder", EVERYWHERE),
    ("no file is made outside the output folder", EVERYWHERE),
    ("no two output files share a name by accident", EVERYWHERE),
    (
        "if names become file names they are made safe or refused",
        EVERYWHERE,
    ),
    ("'decode' samples decode", EVERYWHERE),
    (
        "'decode-if-supported' samples decode to the given size or are set aside with a reason",
        EVERYWHERE,
    ),
    ("no sample may disturb another one", EVERYWHERE),
    (
        "text that is passed through is passed through byte for byte, or the change is recorded",
        EVERYWHERE,
    ),
    ("'control' samples decode", |hard, shard| {
        hard.sound(shard, "control-first");
        hard.sound(shard, "control-last");
    }),
    (
        "a file is told by its content, not by its name",
        |hard, shard| {
            for (key, format) in [
                ("mislabel-png", "png"),
                ("mislabel-jpeg", "jpeg"),
                ("mislabel-webp", "webp"),
                ("mislabel-gif", "gif"),
            ] {
                let rows = hard.keyed(shard, key);
                assert_eq!(rows[0].format.as_deref(), Some(format), "{rows:?}");
            }
        },
    ),
    ("both samples are kept apart", |hard, _| {
        let rows: Vec<&SampleRow> = ["names-00000.tar", "names-00001.tar"]
            .iter()
            .flat_map(|shard| hard.keyed(shard, "cross-shard"))
            .collect();
        assert_eq!(rows.len(), 2, "{rows:?}");
        assert_ne!(rows[0].image_id, rows[1].image_id);
        assert_ne!(rows[0].sha256, rows[1].sha256);
    }),
    ("ok.jpg is kept", |hard, shard| hard.sound(shard, "ok")),
    (
        "read, or refused with a message that names the compression",
        |hard, shard| {
            let packing = if shard.ends_with("zst") {
                "zstd"
            } else {
                "gzip"
            };
            assert_eq!(hard.shards[shard].compression, packing);
            assert!(hard.is_whole(shard) && hard.samples(shard).count() == 4);
        },
    ),
    ("the sample fails, memory stays bounded", |hard, shard| {
        let mut rows = hard.samples(shard);
        assert!(rows.all(|row| row.status == Status::Rejected));
    }),
    (
        "no link is followed to a place outside the archive",
        |hard, shard| {
            for member in ["evilsym.jpg", "evilhard.jpg", "sym.jpg"] {
                assert!(hard.is_skipped(shard, member), "{member}");
            }
        },
    ),
    (
        "nothing is opened on this machine because a member names it",
        |hard, shard| {
            for member in ["fifo.jpg", "null.jpg", "disk.jpg", "evilsym.jpg"] {
                assert!(hard.is_skipped(shard, member), "{member}");
            }
        },
    ),
    (
        "links are skipped and counted, or a hard link gives the picture of its target",
        |hard, shard| {
            let links = hard
                .skipped
                .iter()
                .filter(|row| row.shard.as_str() == shard && row.reason.contains("link"));
            assert_eq!(links.count(), 3);
            let [original, link] = ["orig", "hard"].map(|key| hard.keyed(shard, key));
            assert_eq!(original[0].sha256, link[0].sha256);
        },
    ),
    (
        "samples 0000 and 0001 are kept or the shard fails as a whole, and the run says which",
        |hard, shard| {
            hard.sound(shard, "0000");
            hard.sound(shard, "0001");
            assert!(!hard.is_whole(shard));
        },
    ),
    ("0002 does not appear as a sound sample", |hard, shard| {
        let rows = hard.keyed(shard, "0002");
        assert_eq!(rows.len(), 1);
        assert_eq!(kind(&rows[0].reason), Some(ReasonKind::ShardDamaged));
    }),
    ("said in the run's report, no crash", |hard, shard| {
        assert!(!hard.is_whole(shard));
        let page = hard.run.store.get("report/index.html").unwrap();
        let page = String::from_utf8_lossy(&page);
        assert!(page.contains(shard), "the report names {shard}");
    }),
    ("every picture is kept", |hard, shard| {
        let mut rows = hard.samples(shard);
        assert!(rows.all(|row| row.status == Status::Ok));
    }),
];

fn kind(reason: &Option<Reason>) -> Option<ReasonKind> {
    reason.as_ref().map(|reason| reason.kind)
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap()
}

fn list<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value[name].as_array().into_iter().flatten()
}

/// Returns the names of a sample's members in its shard.
fn names(row: &SampleRow) -> impl Iterator<Item = String> {
    let name = |member: &MemberRow| format!("{}.{}", row.key, member.extension);
    row.members.iter().map(name)
}

/// Compares sizes. The manifest has the upright size; the fixtures have the stored size, and the
/// upright size if it differs.
fn check_size(row: &SampleRow, wanted: &Value) {
    let (Some(width), Some(height)) = (row.width, row.height) else {
        panic!("no size: {row:?}");
    };
    let stored = match row.orientation {
        Some(5..) => (height, width),
        _ => (width, height),
    };
    let size = |width: &str, height: &str| {
        let number = |name: &str| wanted[name].as_u64().map(|number| number as u32);
        number(width).zip(number(height))
    };
    let (want, upright) = (
        size("width", "height"),
        size("oriented_width", "oriented_height"),
    );
    assert!(want.is_none_or(|want| want == stored), "{wanted}: {row:?}");
    assert!(
        upright.is_none_or(|want| want == (width, height)),
        "{wanted}: {row:?}"
    );
}

/// Returns every file below a folder with its size.
fn files(folder: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path())
            } else {
                found.insert(entry.path(), entry.metadata().unwrap().len());
            }
        }
    }
    found
}

/// Returns the members of the curated shards by shard and name, read by the `tar` crate.
fn output_members(output: &Path) -> BTreeMap<(PathBuf, String), Vec<u8>> {
    let mut members = BTreeMap::new();
    for shard in files(output).into_keys() {
        if shard.extension().is_none_or(|extension| extension != "tar") {
            continue;
        }
        let mut tar = tar::Archive::new(std::fs::File::open(&shard).unwrap());
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            assert!(entry.header().entry_type().is_file());
            let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
            let twin = members.insert((shard.clone(), name.clone()), bytes);
            assert!(twin.is_none(), "{shard:?}: {name} twice");
        }
    }
    members
}

/// Checks that the names of members are valid file names, that each key occurs once in the output,
/// and that every member has the bytes of its source.
fn check_output(hard: &Hard, output: &Path) {
    let members = output_members(output);
    let mut keys: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut folded = BTreeSet::new();
    for (shard, name) in members.keys() {
        assert!(!name.starts_with('/') && !name.contains('\\'), "{name:?}");
        assert!(!name.chars().any(char::is_control), "{name:?}");
        assert!(
            !name.split('/').any(|part| ["", ".", ".."].contains(&part)),
            "{name:?}"
        );
        assert!(folded.insert((shard, name)), "{name:?}");
        let base = name.rfind('/').map_or(0, |slash| slash + 1);
        let key = &name[..base + name[base..].find('.').unwrap()];
        let first = keys.entry(key.to_owned()).or_insert_with(|| shard.clone());
        assert_eq!(first, shard, "{key} is in two shards");
    }
    let output = Run::at(word(output)).unwrap();
    let rows: Vec<CuratedRow> = output
        .store
        .list("")
        .unwrap()
        .iter()
        .filter(|object| object.path.ends_with(".parquet"))
        .flat_map(|object| output.store.rows(&object.path).unwrap())
        .map(Result::unwrap)
        .collect();
    let of_rows: BTreeSet<&str> = rows.iter().map(|row| row.key.as_str()).collect();
    assert_eq!(of_rows.len(), rows.len(), "each key once");
    assert_eq!(of_rows, keys.keys().map(String::as_str).collect());

    // The fixtures have the hashes of some members.
    let by_name: BTreeMap<&str, &Vec<u8>> = members
        .iter()
        .map(|((_, name), bytes)| (name.as_str(), bytes))
        .collect();
    let mut compared = 0;
    for row in &rows {
        let sample = hard
            .samples
            .iter()
            .find(|sample| sample.image_id == row.image_id);
        for (name, member) in names(sample.unwrap()).zip(&sample.unwrap().members) {
            let copied = by_name[format!("{}.{}", row.key, member.extension).as_str()];
            let expected = &hard.expected[row.source_shard.as_str()];
            let hashes: Vec<&str> = list(expected, "members_in_order")
                .filter(|listed| listed["name"] == name)
                .map(|listed| text(listed, "sha256"))
                .collect();
            let hash = hex::encode(Sha256::digest(copied));
            assert!(
                hashes.is_empty() || hashes.contains(&hash.as_str()),
                "{name}"
            );
            compared += usize::from(!hashes.is_empty());
        }
    }
    eprintln!(
        "{} output members, {compared} compared with their source",
        members.len()
    );
    assert!(compared * 10 > members.len() * 9);
}

#[test]
fn the_whole_folder() {
    let Some(fixtures) = fixtures() else { return };
    let Some(models) = models(&["efficientnet-lite0", "opennsfw"]) else {
        return;
    };
    let folder = fixtures.join("hard");
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| word(&place.path().join(name)).to_owned();
    let (run, output, all) = (at("run"), at("output"), at("all"));
    let process = Process::new(
        env!("CARGO_BIN_EXE_sluice-tests-step"),
        Duration::from_secs(240),
    );
    let process = process.unwrap().with("TMPDIR", word(place.path()));
    let start = process.run(&["sluice-read", "--help"]).unwrap().peak;
    let ends = |command: &[&str]| -> Finished {
        let finished = process.run(command).unwrap();
        assert_eq!(finished.code, 0, "{command:?}: {}", finished.stderr);
        assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
        let (peak, took) = (finished.peak / 1_000_000, finished.took);
        eprintln!("{}: {took:.1?}, at most {peak} MB", command[0]);
        assert!(finished.peak < start + GIB, "{command:?}: {peak} MB");
        finished
    };
    let outside = || {
        let mut files = files(place.path());
        files.retain(|path, _| {
            let ours = [&run, &output, &all];
            !ours.iter().any(|folder| path.starts_with(folder))
        });
        files
    };

    ends(&["sluice-partition", "--run", &run, "--input", word(&folder)]);
    ends(&["sluice-read", "--run", &run]);
    let models = word(&models);
    ends(&[
        "sluice",
        "run",
        "--input",
        word(&folder),
        "--run",
        &run,
        "--output",
        &output,
        "--models",
        models,
        "--embedder",
        "efficientnet-lite0",
        "--aesthetic",
        "technical-quality",
        "--nsfw",
        "opennsfw",
        "--images-per-shard",
        "7",
    ]);
    ends(&["sluice", "verify", "--run", &run]);

    let hard = Hard::open(&folder, &run);
    assert!(
        hard.shards.keys().eq(hard.expected.keys()),
        "every shard is there"
    );
    hard.check_rows();
    let mut checked = (0, 0);
    for (shard, expected) in &hard.expected {
        hard.check_outcome(shard);
        for wanted in list(expected, "samples") {
            hard.check_sample(shard, wanted);
            checked.0 += 1;
        }
        for must in list(expected, "must").filter_map(Value::as_str) {
            hard.check_must(shard, must);
            checked.1 += 1;
        }
    }
    let (shards, samples) = (hard.shards.len(), hard.samples.len());
    eprintln!(
        "{shards} shards, {samples} samples: {} expectations and {} musts met",
        checked.0, checked.1
    );

    // Every sample has one decision. Unusable samples are dropped for the reason from `read`.
    let decisions: Vec<DecisionRow> = hard.run.rows("export/decisions").unwrap();
    let pairs = decisions.iter().zip(&hard.samples);
    assert_eq!(decisions.len(), hard.samples.len());
    for (decision, sample) in pairs {
        assert_eq!(decision.image_id, sample.image_id);
        assert!(sample.reason.is_none() || decision.reason == sample.reason);
    }
    check_output(&hard, Path::new(&output));

    // Exports all readable samples at once, so that every unusual name reaches the output.
    ends(&["sluice-export", "decide", "--run", &run]);
    ends(&[
        "sluice-export",
        "plan",
        "--run",
        &run,
        "--output",
        &all,
        "--images-per-shard",
        "50",
    ]);
    ends(&["sluice-export", "write", "--run", &run]);
    ends(&["sluice-export", "index", "--run", &run]);
    ends(&["sluice-report", "--run", &run]);
    ends(&["sluice", "verify", "--run", &run]);
    check_output(&hard, Path::new(&all));
    let sound = hard
        .samples
        .iter()
        .filter(|row| row.status == Status::Ok)
        .count();
    let written = hard.run.counts("export", UnitKind::Shard).unwrap();
    assert_eq!(written.kept, sound as u64);

    let left = outside();
    assert!(left.is_empty(), "outside of run and output: {left:?}");
    assert!(!Path::new("/tmp/sluice-evil-abs.jpg").exists());
}
