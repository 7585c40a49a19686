//! Pipeline files with any steps in any order, and pipeline files that are refused.

mod photographs;
mod refused;
mod rules;

use arrow::datatypes::{DataType, Field, Schema};
use arrow::ipc::writer::StreamWriter;
use sluice_manifest::rows::{CuratedRow, Row};
use sluice_manifest::{Class, UnitKind};
use sluice_tests::{Run, failed, run, runtime, sluice};

use crate::gallery::TestGallery;
use crate::support::word;

/// Returns a pipeline file with these steps.
fn file(steps: &[&str]) -> String {
    let steps = steps.iter().map(|step| format!("[[steps]]\n{step}\n"));
    steps.collect::<Vec<_>>().join("\n")
}

const READ: &str = "stage = 'read'";
const EMBED: &str = "stage = 'embed'\nmodel = 'tiny-embedder'";
const AESTHETIC: &str = "stage = 'aesthetic'\nmodel = 'tiny-beauty'";
const NSFW: &str = "stage = 'nsfw'\nmodel = 'tiny-shame'";
const DEDUP: &str = "stage = 'dedup'\nrank-by = 'aesthetic'\neps = 0.1";
const EXPORT: &str = "stage = 'export'";

/// The results of a short pipeline on the gallery.
struct Short {
    name: &'static str,
    steps: &'static [&'static str],
    kept: u64,
    /// The reasons of dropped samples.
    reasons: &'static [&'static str],
    /// The score columns of the output.
    scores: &'static [&'static str],
}

const SHORT: [Short; 4] = [
    Short {
        name: "dedup-only",
        steps: &[
            READ,
            "stage = 'dedup'\nmethods = ['exact', 'perceptual']",
            EXPORT,
        ],
        // Some noisy copies are found only by their embeddings.
        kept: 20,
        reasons: &["dedup/exact-duplicate", "dedup/perceptual-duplicate"],
        scores: &[],
    },
    Short {
        name: "no-nsfw",
        steps: &[
            READ,
            EMBED,
            AESTHETIC,
            "stage = 'filter'\nscores = ['aesthetic']",
            DEDUP,
            EXPORT,
        ],
        kept: 12,
        reasons: &[
            "dedup/exact-duplicate",
            "dedup/perceptual-duplicate",
            "dedup/semantic-duplicate",
        ],
        scores: &["aesthetic"],
    },
    Short {
        name: "no-dedup",
        steps: &[
            READ,
            AESTHETIC,
            NSFW,
            "stage = 'filter'\nmin = { aesthetic = 3.0 }\nmax = { nsfw = '' }",
            EXPORT,
        ],
        kept: 48,
        reasons: &[],
        scores: &["aesthetic", "nsfw"],
    },
    Short {
        name: "read-and-export",
        steps: &[READ, EXPORT],
        kept: 48,
        reasons: &[],
        scores: &[],
    },
];

#[test]
fn pipelines_of_a_few_lines_run_and_verify() {
    let Some(_) = runtime() else { return };
    for short in SHORT {
        let name = short.name;
        let gallery = TestGallery::new(&format!("memory://{name}"));
        gallery.fill();
        let pipeline = file(short.steps);
        let models = gallery.at("models");
        let uses_models = pipeline.contains("model = ");
        let models = ["--models", &models];
        let options = if uses_models { &models[..] } else { &[] };
        gallery.curate_by(&pipeline, options);
        gallery.verify();
        assert!(gallery.curate_by(&pipeline, options).up_to_date, "{name}");

        let run = Run::at(gallery.at("run")).unwrap();
        let counts = run.counts("export", UnitKind::Partition).unwrap();
        let reasons: Vec<String> = counts.dropped.keys().map(ToString::to_string).collect();
        assert_eq!(reasons, short.reasons, "{name}");
        assert_eq!((counts.input, counts.kept), (48, short.kept), "{name}");
        let output = Run::at(gallery.at("output")).unwrap().store;
        let table = output.any_table("shard-00000.parquet").unwrap();
        let columns: Vec<String> = table
            .schema()
            .fields()
            .iter()
            .map(|field| field.name().clone())
            .collect();
        let fixed = CuratedRow::fields().len();
        assert_eq!(columns[fixed..], *short.scores, "{name}");
        for step in short.steps {
            let stage = step.split('\'').nth(1).unwrap();
            assert!(!run.receipts(stage).unwrap().is_empty(), "{name}: {stage}");
        }
    }
}

/// Consecutive pipelines on one run, and the steps that each one leaves over.
const FOLLOWING: &[(&[&str], &[&str])] = &[
    (&[READ, LARGE, EXACT, EXPORT], &[]),
    // A removed step, a renamed step, and another order.
    (&[READ, EXACT, EXPORT], &["large"]),
    (&[READ, TALL, EXACT, EXPORT], &["large"]),
    (&[READ, EXACT, TALL, EXPORT], &["large"]),
    // A rule that no sample passes; then the first pipeline again.
    (
        &[
            READ,
            "stage = 'filter'\nname = 'tall'\nrule = { none = 'false' }",
            EXPORT,
        ],
        &["exact", "large"],
    ),
    (&[READ, LARGE, EXACT, EXPORT], &["tall"]),
];

const LARGE: &str = "stage = 'filter'\nname = 'large'\nrule = { wide = 'width >= 64' }";
const TALL: &str = "stage = 'filter'\nname = 'tall'\nrule = { tall = 'height >= 48' }";
const EXACT: &str = "stage = 'dedup'\nname = 'exact'\nmethods = ['exact']";

#[test]
fn a_run_is_what_its_pipeline_makes_it() {
    let gallery = TestGallery::new("memory://following");
    for number in 0..2 {
        gallery.put(
            &format!("{number:05}.tar"),
            TestGallery::shard(number).finish(),
        );
    }
    let uri = gallery.at("run");
    for (steps, left_over) in FOLLOWING {
        gallery.curate_by(&file(steps), &[]);
        let said = sluice(&["verify", "--run", &uri]).unwrap();
        assert_eq!(said.failed, None, "{steps:?}: {}", said.out);
        let line = "not part of the pipeline any more: ";
        let named = said.out.lines().find_map(|text| text.strip_prefix(line));
        let named = named.and_then(|text| text.split(';').next());
        let expected = (!left_over.is_empty()).then(|| left_over.join(", "));
        assert_eq!(named, expected.as_deref(), "{steps:?}: {}", said.out);
        let page = Run::at(&uri)
            .unwrap()
            .store
            .get("report/index.html")
            .unwrap();
        let page = std::str::from_utf8(&page).unwrap();
        let told = sluice(&["explain", "--run", &uri, "00000/0000"])
            .unwrap()
            .out;
        for step in *left_over {
            let cell = format!("<td>{step}</td>");
            let is_told = told
                .lines()
                .any(|text| text.trim_start().starts_with(&format!("{step} ")));
            assert!(!page.contains(&cell) && !is_told, "{step}: {told}");
        }
        // Left-over steps cause no work, and `--force` repeats everything.
        assert!(gallery.curate_by(&file(steps), &[]).up_to_date, "{steps:?}");
    }
    gallery.curate_by(&file(FOLLOWING[0].0), &["--force"]);
    gallery.verify();
}

/// Returns an Arrow stream with the score columns and no row: the output of a program that scores
/// nothing.
fn no_scores() -> Vec<u8> {
    let fields = [("image_id", DataType::Utf8), ("score", DataType::Float32)];
    let fields = fields.map(|(name, kind)| Field::new(name, kind, true));
    let mut writer = StreamWriter::try_new(Vec::new(), &Schema::new(fields.to_vec())).unwrap();
    writer.finish().unwrap();
    writer.into_inner().unwrap()
}

/// A program is started once before the work, and once per unit that has images for it.
#[test]
fn a_program_is_started_where_images_are_left() {
    let gallery = TestGallery::new("memory://started");
    for number in 0..2 {
        gallery.put(
            &format!("{number:05}.tar"),
            TestGallery::shard(number).finish(),
        );
    }
    let place = tempfile::tempdir().unwrap();
    let [answer, starts] = ["answer", "starts"].map(|name| place.path().join(name));
    std::fs::write(&answer, no_scores()).unwrap();
    let (answer, starts) = (word(&answer), word(&starts));
    let command = format!("echo $SLUICE_UNIT >> {starts}; cat >/dev/null; cat {answer}");
    let score = format!("stage = 'score'\ncommand = '{command}'");
    let pipeline = |rule: &str| {
        let filter = format!("stage = 'filter'\nrule = {{ some = '{rule}' }}");
        let partition = "stage = 'partition'\nshards-per-partition = 1";
        file(&[partition, READ, &filter, &score, EXPORT])
    };
    for (rule, units) in [
        ("image_id.startsWith(\"none\")", &["check"][..]),
        ("image_id.startsWith(\"00001\")", &["check", "part-00001"]),
        (
            "image_id.startsWith(\"0000\")",
            &["check", "part-00000", "part-00001"],
        ),
    ] {
        let _ = std::fs::remove_file(starts);
        let said = gallery.curate_by(&pipeline(rule), &[]);
        let started = std::fs::read_to_string(starts).unwrap();
        assert_eq!(started.lines().collect::<Vec<_>>(), units, "{rule}");
        let steps = said.result["steps"].as_array().unwrap();
        let score = steps.iter().find(|step| step["step"] == "score").unwrap();
        assert_eq!(
            (&score["computed"], &score["reused"]),
            (&0.into(), &0.into())
        );
        gallery.verify();
    }
}

/// The inputs of a step's decisions are checked back to the first step.
#[test]
fn stale_duplicates_are_not_exported() {
    let Some(_) = runtime() else { return };
    let gallery = TestGallery::new("memory://stale");
    gallery.fill();
    let strict = "stage = 'filter'\nmin = { aesthetic = 4.8 }";
    let pipeline = file(&[READ, EMBED, AESTHETIC, strict, DEDUP, EXPORT]);
    let [uri, models, output] = ["run", "models", "output"].map(|path| gallery.at(path));
    gallery.curate_by(&pipeline, &["--models", &models]);
    gallery.verify();
    let written = Run::at(&output).unwrap();
    let before = written.hashes("").unwrap();

    // With a lower threshold, more images remain than were compared for exact and perceptual
    // duplicates.
    run(&["sluice-filter", "--run", &uri, "--min", "aesthetic=3"]).unwrap();
    let dedup = |words: &[&str]| {
        let common = ["--run", &uri, "--survivors-of", "filter"];
        run(&[&["sluice-dedup"], words, &common].concat()).unwrap();
    };
    dedup(&["assign", "--rank-by", "aesthetic"]);
    dedup(&["match", "--eps", "0.1"]);
    let of_dedup = ["--run", &uri, "--survivors-of", "dedup"];
    let plan = ["plan", "--output", &output];
    for (part, stale) in [(&["decide"][..], "dedup (exact)"), (&plan, "dedup (exact)")] {
        let (class, words) = failed(&[&["sluice-export"], part, &of_dedup].concat());
        assert_eq!(class, Class::Data, "{words}");
        for text in ["stale decisions", "filter", "hint: run", stale] {
            assert!(words.contains(text), "{text}: {words}");
        }
    }
    for part in ["write", "index"] {
        let (class, words) = failed(&["sluice-export", part, "--run", &uri]);
        assert_eq!(class, Class::Data, "{words}");
    }
    assert_eq!(
        before,
        written.hashes("").unwrap(),
        "the output is as it was"
    );

    let said = sluice(&["verify", "--run", &uri]).unwrap();
    assert_eq!(said.failed.unwrap().0, Class::Data);
    for unit in ["dedup exact-00000", "dedup perceptual-00000"] {
        let stale = said.out.lines().find(|line| line.contains(unit));
        let stale = stale.unwrap_or_else(|| panic!("{unit}: {}", said.out));
        assert!(
            stale.contains("filter") && stale.contains("has changed since"),
            "{stale}"
        );
    }

    // After the missing parts have run, the run is complete again.
    dedup(&["exact", "--rank-by", "aesthetic"]);
    dedup(&["perceptual", "--rank-by", "aesthetic"]);
    dedup(&["assign", "--rank-by", "aesthetic"]);
    dedup(&["match", "--eps", "0.1"]);
    for part in ["decide", "plan", "write", "index"] {
        let output = ["--output", &output];
        let output = if part == "plan" { &output[..] } else { &[] };
        run(&[&["sluice-export", part], &of_dedup[..], output].concat()).unwrap();
    }
    run(&["sluice-report", "--run", &uri]).unwrap();
    gallery.verify();
}

#[test]
fn runs_of_the_first_layout_are_refused_and_left_alone() {
    let gallery = TestGallery::new("memory://layout-1");
    gallery.put("00000.tar", TestGallery::shard(0).finish());
    let [input, uri, output] = ["input", "run", "output"].map(|path| gallery.at(path));
    let run = Run::at(&uri).unwrap();
    let info = format!(
        r#"{{"layout": 1, "input": "{input}", "patterns": ["{input}"], "partitions": 1, "shards": 1, "bytes": 1}}"#
    );
    run.store.put("run.json", info).unwrap();
    let manifest = "read/images/part-00000.parquet";
    run.store.put(manifest, "as version 1 wrote it").unwrap();
    let before = run.hashes("").unwrap();

    let pipeline = gallery.put_pipeline(&file(&[READ, EXPORT]));
    let curate = [
        "run",
        "--pipeline",
        &pipeline,
        "--output",
        &output,
        "--input",
        &input,
    ];
    let tools: [&[&str]; 3] = [&curate, &["verify"], &["explain", "00000/0001"]];
    let programs: [&[&str]; 6] = [
        &["sluice-partition", "--input", &input],
        &["sluice-read"],
        &["sluice-filter", "--rule", "large=width > 3"],
        &["sluice-dedup", "exact"],
        &["sluice-export", "decide"],
        &["sluice-report"],
    ];
    let place = ["--run", &uri];
    let of_tools = tools.into_iter().map(|line| {
        let said = sluice(&[line, &place].concat()).unwrap();
        let (class, words) = said
            .failed
            .unwrap_or_else(|| panic!("{line:?} did not fail"));
        (class, words + &said.out)
    });
    let of_programs = programs
        .into_iter()
        .map(|line| failed(&[line, &place].concat()));
    for (class, words) in of_tools.chain(of_programs) {
        assert_eq!(class, Class::Data, "{words}");
        let is_told = words.contains("layout 1") && words.contains("hint: an older version");
        assert!(is_told && !words.contains("--force"), "{words}");
        assert_eq!(before, run.hashes("").unwrap(), "{words}");
    }
    assert!(Run::at(&output).unwrap().hashes("").unwrap().is_empty());
}
