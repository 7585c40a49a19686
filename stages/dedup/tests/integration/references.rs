//! Reference sets: indexes and lists of hashes, and what is removed because of one.

use sluice_dedup::Args;
use sluice_harness::{StepDone, check_step, run_step};
use sluice_manifest::rows::{CuratedRow, DuplicateRow, Method};
use sluice_manifest::{Class, ImageId, Reason, ReasonKind, ShardPath, StepName, Unit, UnitKind};
use sluice_run::{Embedder, StepOutputs, Upstream};
use sluice_store::{Location, Store};

use super::support::{Made, Run, made, shared};

/// The benchmark images, which no other sample is like by itself.
fn bench(name: &str) -> (Run, String) {
    let samples = [
        made("a/ten", 10),
        made("a/eleven", 11),
        made("b/twelve", 12),
    ];
    let run = Run::new(&format!("{name}-bench"), &samples);
    run.embed("embed", |_| true);
    let index = format!("memory://{name}-index/bench");
    run.dedup(&format!("index --output {index}")).unwrap();
    (run, index)
}

/// One image for each method that finds it in the benchmark, and one that none finds.
fn samples() -> Vec<Made> {
    vec![
        made("a/1", 10),
        Made {
            phash: made("", 11).phash ^ 0b11,
            ..made("a/2", 2)
        },
        Made {
            degrees: Some(1.0),
            ..made("b/3", 3)
        },
        made("b/4", 4),
    ]
}

fn run(name: &str, samples: &[Made]) -> Run {
    let run = Run::new(name, samples);
    run.embed("embed", |_| true);
    run
}

fn store(place: &str) -> Store {
    let place = Location::parse(place).unwrap();
    shared().storage.create(&place).unwrap()
}

/// Writes a list of hashes and returns its place.
pub(super) fn list(name: &str, file: &str, text: impl AsRef<[u8]>) -> String {
    let folder = format!("memory://{name}-lists");
    store(&folder).put(file, text.as_ref().to_vec()).unwrap();
    format!("{folder}/{file}")
}

pub(super) fn class(outcome: anyhow::Result<StepDone>) -> (Option<Class>, String) {
    let error = outcome.unwrap_err();
    (Class::of(error.as_ref()), format!("{error:#}"))
}

fn told(row: &DuplicateRow) -> (&str, &str, Method, f32) {
    let (id, of) = (row.image_id.as_str(), row.duplicate_of.as_str());
    (id, of, row.method, row.similarity)
}

#[test]
fn each_method_removes_what_an_index_has() {
    let (_, index) = bench("references-methods");
    let run = run("references-methods", &samples());
    for (step, flags) in [("one", ""), ("many", "--ranges=3 --groups=2 --clusters=2")] {
        run.dedup_all(&format!("--step={step} --against={index} {flags}"));
        let rows = run.rows(step);
        let cosine = 1.0_f32.to_radians().cos();
        let expected = [
            ("a/1", "a/ten", Method::Exact, 1.0),
            ("a/2", "a/eleven", Method::Perceptual, 1.0 - 2.0 / 64.0),
            ("b/3", "b/twelve", Method::Semantic, cosine),
        ];
        for (row, expected) in rows.iter().zip(expected) {
            let (id, of, method, similarity) = told(row);
            assert_eq!((id, of, method), (expected.0, expected.1, expected.2));
            assert!((similarity - expected.3).abs() < 1e-5, "{row:?}");
            assert_eq!(row.reference.as_ref(), Some(&index));
            assert_eq!(row.reason(), Reason::from(ReasonKind::InReference));
            assert!(row.detail().contains(&format!("of {of} in {index}")));
        }
        assert_eq!(rows.len(), expected.len());
        assert_eq!(run.survivors_of(step), ["b/4"]);
    }
    let dropped = run.receipt("one", Unit::once(UnitKind::Exact)).unwrap();
    assert_eq!(dropped.counts.dropped_total(), 1);
    assert_eq!((dropped.counts.input, dropped.counts.kept), (4, 3));
}

#[test]
fn what_a_reference_set_has_removes_nothing_itself() {
    let (_, index) = bench("references-chain");
    let near = Made {
        phash: made("", 11).phash ^ 0b1111,
        pixels: 999,
        ..made("a/near", 2)
    };
    let run = run(
        "references-chain",
        &[
            made("a/copy", 10),
            made("b/copy", 10),
            near,
            Made {
                phash: near.phash ^ 0b1111_0000,
                ..made("b/next", 3)
            },
        ],
    );
    run.dedup_all(&format!("--methods=exact,perceptual --against={index}"));
    // `b/next` is like `a/near`, which is gone, and unlike all of the set.
    assert_eq!(run.survivors_of("dedup"), ["b/next"]);
    assert!(run.rows("dedup").iter().all(|row| row.reference.is_some()));
}

#[test]
fn without_a_reference_set_nothing_changes() {
    let run = run("references-none", &samples());
    run.dedup_all("");
    let receipt = run.receipt("dedup", Unit::once(UnitKind::Exact)).unwrap();
    assert!(receipt.settings.get("against").is_none());
    assert_eq!(run.survivors_of("dedup").len(), 4);
}

#[test]
fn lists_of_hashes_are_compared_by_what_they_hold() {
    let name = "references-lists";
    let run = run(name, &samples());
    let sha256 = format!("{:02X}", 10).repeat(32);
    let sums = format!("# known\n\n{sha256} *ten.jpg\n");
    let text = list(name, "known.txt", &sums);
    let phash = made("", 11).phash;
    let table = format!("name,phash,label\neleven,{phash:016x},\"cats, dogs\"\n");
    let table = list(name, "known.CSV", &table);
    let bare = list(name, "bare.csv", format!("{sha256},ten\n"));
    let against = format!("--methods=exact,perceptual --against={text},{table}");
    run.dedup_all(&against);
    let rows = run.rows("dedup");
    let sets: Vec<_> = rows
        .iter()
        .map(|row| row.reference.clone().unwrap())
        .collect();
    assert_eq!(sets, [text, table]);
    assert_eq!(told(&rows[0]), ("a/1", "ten.jpg", Method::Exact, 1.0));
    assert_eq!(rows[1].duplicate_of.as_str(), "eleven");
    assert_eq!(rows[1].label.as_deref(), Some("cats, dogs"));
    run.dedup(&format!(
        "exact --step bare --methods exact --against {bare}"
    ))
    .unwrap();
    assert_eq!(run.rows("bare")[0].duplicate_of.as_str(), "ten");
}

/// Lists as programs and people write them, of the SHA-256 of `a/1`.
#[test]
fn lists_are_read_in_the_forms_that_they_have() {
    let name = "references-forms";
    let run = run(name, &samples());
    let sha256 = "0a".repeat(32);
    let upper = sha256.to_uppercase();
    let (md5, pdq) = ("99".repeat(16), "0123456789abcdef".repeat(4));
    let forms = [
        ("bom.txt", format!("\u{feff}{sha256}  ten\n"), "ten"),
        (
            "bom.csv",
            format!("\u{feff}sha256,name\n{sha256},ten\n"),
            "ten",
        ),
        (
            "crlf.txt",
            format!("# known\r\n\r\n{sha256} ten\r\n"),
            "ten",
        ),
        (
            "crlf.csv",
            format!("name,sha256\r\nten,{sha256}\r\n"),
            "ten",
        ),
        ("upper.txt", upper.clone(), &upper),
        ("comma.txt", format!("{sha256},ten"), "ten"),
        ("escaped.sha256", format!("\\{sha256}  te\\nn\n"), "te\\nn"),
        ("bare.csv", format!("{sha256},ten,a label\n"), "ten"),
        (
            "several.csv",
            format!(
                "md5,pdq,name,SHA256\n{md5},,one,\n,,,\n,{pdq},two,\n{md5},{pdq},ten,{sha256}\n"
            ),
            "ten",
        ),
    ];
    for (number, (file, text, id)) in forms.iter().enumerate() {
        let set = list(name, file, text);
        let words = format!("exact --step form-{number} --methods exact --against {set}");
        run.dedup(&words).unwrap();
        let rows = run.rows(&format!("form-{number}"));
        let found: Vec<_> = rows.iter().map(told).collect();
        assert_eq!(found, [("a/1", *id, Method::Exact, 1.0)], "{file}");
    }
}

#[test]
fn sets_that_cannot_be_read_are_refused_before_the_work() {
    let name = "references-refused";
    let run = run(name, &samples());
    let empty = format!("memory://{name}-index/empty");
    let (_, emptied) = bench(name);
    let about = store(&emptied).get("index.json").unwrap();
    let mut about: serde_json::Value = serde_json::from_slice(&about).unwrap();
    about["images"] = 0.into();
    let about = about.to_string();
    store(&empty).put("index.json", about).unwrap();
    let short = "0".repeat(31);
    for (set, words) in [
        (format!("memory://{name}-index/nothing"), "no such index"),
        (format!("memory://{name}-index/nothing.txt"), "no such list"),
        (empty, "holds no image"),
        (list(name, "empty.txt", "# none\n"), "holds no image"),
        (
            list(name, "head.csv", "\u{feff}sha256,name\r\n"),
            "holds no image",
        ),
        (
            list(name, "odd.txt", "ten.jpg\n"),
            "line 1: \"ten.jpg\" is not a hash",
        ),
        (list(name, "short.txt", format!("\n{short}\n")), "line 2"),
        (
            list(name, "short.csv", format!("md5\n{short}\n")),
            "is not an MD5",
        ),
        (
            list(name, "other.csv", format!("md5\n{short}0{short}0\n")),
            "is not an MD5",
        ),
        (
            list(
                name,
                "cell.csv",
                format!("name,md5\nten,{short}0\neleven,\n"),
            ),
            "line 3: the row has no hash",
        ),
        (
            list(name, "names.csv", "file,checksum\nten,0\n"),
            "line 1: \"file\" is not a hash",
        ),
        (
            list(name, "latin.csv", b"md5,name\n00,caf\xe9\n"),
            "line 2: not UTF-8",
        ),
        (
            list(name, "latin.txt", b"\n00 caf\xe9\n"),
            "line 2: not UTF-8",
        ),
    ] {
        let (class, message) = class(run.dedup(&format!("exact --against {set}")));
        assert_eq!(class, Some(Class::Data), "{message}");
        assert!(
            message.contains(words) && message.contains(&set),
            "{message}"
        );
    }
    assert!(run.receipt("dedup", Unit::once(UnitKind::Exact)).is_none());
}

/// A set of each kind, and the methods that can compare with it.
#[test]
fn sets_that_no_method_of_a_step_can_use_are_refused_or_named() {
    let name = "references-unusable";
    let run = run(name, &samples());
    let plain = Run::new(&format!("{name}-plain"), &[made("a/ten", 10)]);
    let index = format!("memory://{name}-index/plain");
    let done = plain.dedup(&format!("index --output {index}")).unwrap();
    assert_eq!(
        done.reported["index"]["methods"],
        serde_json::json!(["exact", "perceptual"])
    );
    let sha256 = list(name, "known.sha256", "0a".repeat(32));
    let md5 = list(name, "known.md5", "0a".repeat(16));
    let phash = list(name, "known.txt", "0123456789abcdef");
    let pdq = list(name, "known.pdq", "0123456789abcdef".repeat(4));
    run.dedup_all("--step=near --methods=semantic");
    for (subcommand, methods, set, why) in [
        ("match", "semantic", &index, "it has no embeddings"),
        ("match", "semantic", &sha256, "no embeddings"),
        ("exact", "exact", &md5, "read computes none"),
        ("exact", "exact", &pdq, "neither SHA-256 nor MD5"),
        ("exact", "exact", &phash, "neither SHA-256 nor MD5"),
        ("perceptual", "perceptual", &sha256, "no perceptual hashes"),
        ("perceptual", "perceptual", &pdq, "it has PDQ hashes"),
        ("pairs", "perceptual --ranges 2", &pdq, "it has PDQ hashes"),
    ] {
        let words = format!("{subcommand} --step near --methods {methods} --against {set}");
        let words = match subcommand {
            "match" => words,
            _ => words.replace("near", &format!("other-{subcommand}")),
        };
        let (class, message) = class(run.dedup(&words));
        assert_eq!(class, Some(Class::Usage), "{words}: {message}");
        assert!(message.contains(why) && message.contains(set), "{message}");
        let done = run.dedup(&format!("{words} --skip-unusable")).unwrap();
        let told = &done.reported["references"][0];
        assert_eq!(
            (&told["set"], &told["compared"]),
            (&set.as_str().into(), &false.into())
        );
        assert!(told["because"].as_str().unwrap().contains(why), "{told}");
    }
    // Another method of the step compares with it.
    let both = format!("--step=both --methods=perceptual,semantic --against={index}");
    run.dedup_all(&both);
    let done = run.dedup(&format!("match {both}")).unwrap();
    assert_eq!(done.reported["references"][0]["compared"], false);
}

#[test]
fn an_index_names_what_it_has_and_is_not_replaced_by_another() {
    let name = "references-other-index";
    let (bench, index) = bench(name);
    let again = |run: &Run, words: &str| run.dedup(&format!("index --output {index}{words}"));
    let done = again(&bench, "").unwrap();
    assert_eq!((done.units, done.up_to_date), (1, 1));
    let about = &done.reported["index"];
    assert_eq!(
        (&about["images"], &about["embeddings"]),
        (&3.into(), &3.into())
    );
    assert_eq!(about["hashes"], serde_json::json!(["sha256", "phash"]));
    assert!(about["bytes"].as_u64().unwrap() > 0 && about["uri"] == index);
    assert_eq!(again(&bench, " --force").unwrap().up_to_date, 0);
    let other = run(&format!("{name}-other"), &samples());
    let (found, message) = class(again(&other, ""));
    assert_eq!(found, Some(Class::Usage), "{message}");
    assert!(
        message.contains(bench.uri()) && message.contains(other.uri()),
        "{message}"
    );
    assert_eq!(
        again(&other, " --force").unwrap().reported["index"]["images"],
        4
    );
    // An index of nothing would remove nothing.
    other.filter("none", |_| false);
    let (found, message) = class(again(&other, " --survivors-of none"));
    assert_eq!(found, Some(Class::Data), "{message}");
    assert!(message.contains("no image to index"), "{message}");
    // The one that was there stays.
    assert_eq!(again(&other, "").unwrap().up_to_date, 1);
}

#[test]
fn embeddings_of_another_model_are_refused() {
    let (_, index) = bench("references-model");
    let other = run("references-other", &samples());
    other.embed_by("clip", "other-model", |_| true);
    other
        .dedup("fit --methods semantic --embeddings clip")
        .unwrap();
    other
        .dedup("assign --methods semantic --embeddings clip")
        .unwrap();
    let matched = format!("match --methods semantic --against {index}");
    let (found, message) = class(other.dedup(&matched));
    assert_eq!(found, Some(Class::Usage), "{message}");
    assert!(message.contains("other-model"), "{message}");
    // Before the run, from the names of the models alone.
    let check = |model: &str| {
        let mut upstream = Upstream::new(shared().storage.clone());
        let embedder = Embedder {
            model: model.to_owned(),
            dimension: None,
        };
        let gives = StepOutputs {
            embedder: Some(embedder),
            ..StepOutputs::default()
        };
        upstream.insert(StepName::fixed("embed"), gives);
        let words = format!("sluice-dedup {matched} --run memory://none");
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        check_step::<Args>(&words, &upstream)
    };
    check("made-up").unwrap();
    let refused = check("clip-vit-l14").unwrap_err();
    assert_eq!(Class::of(refused.as_ref()), Some(Class::Usage));
}

#[test]
fn a_changed_set_makes_the_work_run_again() {
    let (bench, index) = bench("references-again");
    let run = run("references-again", &samples());
    let exact = || {
        let words = format!("exact --methods exact --against {index}");
        run.dedup(&words).unwrap().up_to_date
    };
    assert_eq!((exact(), exact()), (0, 1));
    bench.filter("some", |sample| sample.id == "a/eleven");
    let again = format!("index --output {index} --survivors-of some");
    bench.dedup(&again).unwrap();
    assert_eq!(exact(), 0);
    assert!(run.rows("dedup").is_empty());
    // The same again is not written again.
    let parts = || {
        let objects = store(&index).list("").unwrap();
        objects
            .into_iter()
            .map(|object| (object.path, object.modified))
            .collect::<Vec<_>>()
    };
    let before = parts();
    bench.dedup(&again).unwrap();
    assert_eq!(parts(), before);
}

#[test]
fn an_index_takes_a_folder_of_its_own() {
    let (bench, _) = bench("references-folder");
    let folder = "memory://references-folder/other";
    store(folder).put("notes.txt", "mine").unwrap();
    let (class, message) = class(bench.dedup(&format!("index --output {folder}")));
    assert_eq!(class, Some(Class::Usage), "{message}");
    assert!(store(folder).stat("notes.txt").unwrap().is_some());
}

#[test]
fn a_damaged_index_is_noticed() {
    let (_, index) = bench("references-damaged");
    let run = run("references-damaged", &samples());
    let part = "hashes-00000.parquet";
    let mut bytes = store(&index).get(part).unwrap().to_vec();
    let middle = bytes.len() / 3;
    bytes[middle] ^= 1;
    store(&index).put(part, bytes).unwrap();
    let (class, message) = class(run.dedup(&format!("exact --against {index}")));
    assert_eq!(class, Some(Class::Data), "{message}");
    assert!(message.contains("damaged"), "{message}");
}

#[test]
fn a_curated_dataset_becomes_an_index() {
    let dataset = "memory://references-dataset/out";
    let mut writer = store(dataset)
        .write_rows::<CuratedRow>("shard-00000.parquet", &[])
        .unwrap();
    let sample = made("", 10);
    let row = CuratedRow {
        image_id: ImageId::from_text("old/ten"),
        key: "0".into(),
        source_shard: ShardPath::new("old.tar"),
        source_key: "ten".into(),
        caption: None,
        metadata: Some(r#"{"class": 7}"#.into()),
        format: None,
        width: None,
        height: None,
        bytes: 0,
        sha256: Some(format!("{:02x}", sample.content).repeat(32)),
        phash: Some(sample.phash),
        group_id: 0,
        group_size: 1,
    };
    writer.push(row).unwrap();
    writer.finish().unwrap();
    let index = "memory://references-dataset/index";
    let words = [
        "sluice-dedup",
        "index",
        "--input",
        dataset,
        "--output",
        index,
    ];
    let words = words.into_iter().chain(["--labels", "class"]);
    let words: Vec<String> = words.map(str::to_owned).collect();
    run_step::<Args>(&words, shared()).unwrap();
    let run = run("references-dataset", &samples());
    run.dedup(&format!("exact --methods exact --against {index}"))
        .unwrap();
    let rows = run.rows("dedup");
    assert_eq!(told(&rows[0]), ("a/1", "old/ten", Method::Exact, 1.0));
    assert_eq!(rows[0].label.as_deref(), Some("7"));
    assert_eq!(rows.len(), 1);
}

#[test]
fn pairs_of_a_set_before_its_change_are_refused() {
    let (bench, index) = bench("references-pairs");
    let run = run("references-pairs", &samples());
    let flags = format!("--step=near --methods=perceptual --ranges=4 --against={index}");
    run.dedup_all(&flags);
    bench.filter("some", |sample| sample.id == "a/eleven");
    let again = format!("index --output {index} --survivors-of some");
    bench.dedup(&again).unwrap();
    let (found, text) = class(run.dedup(&format!("perceptual {flags}")));
    assert_eq!(found, Some(Class::Data), "{text}");
    assert!(text.contains("a reference set have changed"), "{text}");
    run.dedup_all(&flags);
}
