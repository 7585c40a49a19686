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
pub fn list(name: &str, file: &str, text: &str) -> String {
    let folder = format!("memory://{name}-lists");
    store(&folder).put(file, text.to_owned()).unwrap();
    format!("{folder}/{file}")
}

pub fn class(outcome: anyhow::Result<StepDone>) -> (Option<Class>, String) {
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
    let bare = list(name, "bare.csv", &format!("{sha256},ten\n"));
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

#[test]
fn sets_that_cannot_be_compared_with_are_refused_before_the_work() {
    let name = "references-refused";
    let run = run(name, &samples());
    let exact = |set: &str| class(run.dedup(&format!("exact --against {set}")));
    let empty = format!("memory://{name}-index/empty");
    run.filter("none", |_| false);
    run.dedup(&format!("index --output {empty} --survivors-of none"))
        .unwrap();
    for (set, words) in [
        (format!("memory://{name}-index/nothing"), "no such index"),
        (format!("memory://{name}-index/nothing.txt"), "no such list"),
        (empty.clone(), "holds no image"),
        (list(name, "empty.txt", "# none\n"), "holds no image"),
        (list(name, "odd.txt", "ten.jpg\n"), "line 1"),
        (
            list(name, "short.csv", &format!("md5\n{}\n", "0".repeat(31))),
            "is not a hash",
        ),
    ] {
        let (class, message) = exact(&set);
        assert_eq!(class, Some(Class::Data), "{message}");
        assert!(
            message.contains(words) && message.contains(&set),
            "{message}"
        );
    }
    assert!(run.receipt("dedup", Unit::once(UnitKind::Exact)).is_none());
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
