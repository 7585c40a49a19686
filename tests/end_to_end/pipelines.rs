//! Pipelines as files: of any steps, in any order, and what is refused.

mod photographs;
mod refused;
mod rules;

use sluice_manifest::rows::{CuratedRow, Row};
use sluice_manifest::{Class, UnitKind};
use sluice_tests::{Run, failed, run, runtime, sluice};

use crate::gallery::Gallery;

/// A pipeline file of steps, each given by its lines.
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

/// What a pipeline of some steps does with the gallery.
struct Short {
    name: &'static str,
    steps: &'static [&'static str],
    kept: u64,
    /// Why samples are dropped.
    reasons: &'static [&'static str],
    /// The columns of the output that hold scores.
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
        // Some copies with much noise are found by their embeddings alone.
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
        let gallery = Gallery::new(&format!("memory://{name}"));
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
        let counts = run.counts("export", UnitKind::Part).unwrap();
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

/// The decisions of a step are followed back to everything that they were made from.
#[test]
fn stale_duplicates_are_not_exported() {
    let Some(_) = runtime() else { return };
    let gallery = Gallery::new("memory://stale");
    gallery.fill();
    let strict = "stage = 'filter'\nmin = { aesthetic = 4.8 }";
    let pipeline = file(&[READ, EMBED, AESTHETIC, strict, DEDUP, EXPORT]);
    let [uri, models, output] = ["run", "models", "output"].map(|path| gallery.at(path));
    gallery.curate_by(&pipeline, &["--models", &models]);
    gallery.verify();
    let written = Run::at(&output).unwrap();
    let before = written.hashes("").unwrap();

    // With a lower threshold more images are left than the exact and the perceptual duplicates were
    // sought among.
    run(&["sluice-filter", "--run", &uri, "--min", "aesthetic=3"]).unwrap();
    let dedup = |words: &[&str]| {
        let common = ["--run", &uri, "--survivors-of", "filter"];
        run(&[&["sluice-dedup"], words, &common].concat()).unwrap();
    };
    dedup(&["assign", "--rank-by", "aesthetic"]);
    dedup(&["match", "--eps", "0.1"]);
    let of_dedup = ["--run", &uri, "--survivors-of", "dedup"];
    run(&[&["sluice-export", "decide"], &of_dedup[..]].concat()).unwrap();
    let plan = ["sluice-export", "plan", "--output", &output];
    let (class, words) = failed(&[&plan, &of_dedup[..]].concat());
    assert_eq!(class, Class::Data, "{words}");
    for part in ["stale decisions", "filter", "dedup (exact)", "hint: run"] {
        assert!(words.contains(part), "{part}: {words}");
    }
    let (class, words) = failed(&["sluice-export", "write", "--run", &uri]);
    assert_eq!(class, Class::Data, "{words}");
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

    // The parts that were left out make it whole again.
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
    let gallery = Gallery::new("memory://layout-1");
    gallery.put("00000.tar", Gallery::shard(0).finish());
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
        assert!(is_told, "{words}");
        assert_eq!(before, run.hashes("").unwrap(), "{words}");
    }
    assert!(Run::at(&output).unwrap().hashes("").unwrap().is_empty());
}
