//! `write`: all members unchanged, in full shards, for any source.

use arrow::array::{Array, AsArray, FixedSizeListArray};
use arrow::datatypes::Float32Type;
use sluice_manifest::InputOf;
use sluice_manifest::rows::{CuratedRow, MODEL_KEY, OutputPlanRow, Row, SampleRow};
use sluice_shard::safe_member_name;
use sluice_store::vectors;

use crate::support::{
    DIMENSION, Members, Run, exit, picture, samples, samples_of, score, tar, vector, words,
};

/// Returns the kept samples of the source: the name in the output, and the members.
fn expected(run: &Run) -> Vec<(String, Members)> {
    let mut expected = Vec::new();
    let mut shards = std::collections::BTreeMap::new();
    for sample in run.samples() {
        let source = shards.entry(sample.shard.clone()).or_insert_with(|| {
            let bytes = run.store("in").get(sample.shard.as_str()).unwrap();
            samples_of(&inflated(&bytes)).into_iter()
        });
        let (key, members) = source.next().unwrap();
        assert_eq!(key, sample.key);
        if sample.reason.is_none() {
            let name = safe_member_name(sample.image_id.as_str(), "");
            expected.push((name.trim_end_matches('.').to_owned(), members));
        }
    }
    expected
}

fn inflated(bytes: &[u8]) -> Vec<u8> {
    use std::io::Read;
    let mut out = Vec::new();
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut decoder = flate2::read::MultiGzDecoder::new(bytes);
        decoder.read_to_end(&mut out).unwrap();
        return out;
    }
    zstd::decode_all(bytes).unwrap_or_else(|_| bytes.to_vec())
}

/// Returns the samples of all output shards, after checking that each shard's table agrees with its
/// tar.
fn curated(run: &Run) -> Vec<Vec<(String, Members)>> {
    let tars = run
        .output()
        .into_keys()
        .filter(|path| path.ends_with(".tar"));
    let shards = 0..tars.count() as u32;
    shards
        .map(|shard| {
            let samples = run.curated(shard);
            let keys: Vec<&String> = samples.iter().map(|(key, _)| key).collect();
            let table = table(run, shard);
            assert_eq!(keys, table.iter().map(|row| &row.key).collect::<Vec<_>>());
            samples
        })
        .collect()
}

fn table(run: &Run, shard: u32) -> Vec<CuratedRow> {
    let path = format!("shard-{shard:05}.parquet");
    let rows = run.store("out").rows(&path).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

fn small(name: &str) -> Run {
    let run = Run::new(name);
    run.shard("a.tar", &samples(0..10));
    run.shard("sub/b.tar", &samples(10..24));
    run.shard("sub/c.tar", &samples(24..60));
    run.read(2);
    run
}

#[test]
fn members_come_out_as_they_went_in() {
    let run = small("write-verbatim");
    run.export_all(None, &["--images-per-shard", "7"]);
    let shards = curated(&run);
    let sizes: Vec<usize> = shards.iter().map(Vec::len).collect();
    assert_eq!(sizes, [7, 7, 7, 7, 7, 7, 7, 3], "52 of 60 are pictures");
    assert_eq!(shards.concat(), expected(&run));
    for (row, sample) in table(&run, 0).iter().zip(run.samples()) {
        assert!(sample.reason.is_none() || row.image_id != sample.image_id);
    }
    let kept = run.samples().into_iter().filter(|s| s.reason.is_none());
    let rows: Vec<CuratedRow> = (0..8).flat_map(|shard| table(&run, shard)).collect();
    for (row, sample) in rows.iter().zip(kept) {
        assert_eq!(row.image_id, sample.image_id);
        assert_eq!(row.source_shard, sample.shard);
        assert_eq!(row.source_key, sample.key);
        assert_eq!(
            (&row.caption, &row.metadata),
            (&sample.caption, &sample.metadata)
        );
        assert_eq!((row.width, row.height), (sample.width, sample.height));
        assert_eq!((&row.sha256, row.phash), (&sample.sha256, sample.phash));
    }
}

#[test]
fn the_same_run_gives_the_same_bytes() {
    let run = small("write-again");
    run.export_all(None, &["--images-per-shard", "20"]);
    let first = run.output();
    // Shards with their tables, the index, the card, its description and the claim.
    assert_eq!(first.len(), 3 * 2 + 4);
    assert_eq!(run.export(&["write"]).unwrap(), (3, 3), "up to date");
    assert_eq!(run.export(&["index"]).unwrap(), (1, 1), "up to date");
    run.export(&["write", "--force"]).unwrap();
    run.export(&["index", "--force"]).unwrap();
    assert_eq!(run.output(), first);
    run.store("out").delete("shard-00001.tar").unwrap();
    assert_eq!(
        run.export(&["write"]).unwrap(),
        (3, 2),
        "the missing one alone"
    );
    assert_eq!(run.output(), first);
    let split = Run::new("write-split");
    split.shard("a.tar", &samples(0..10));
    split.shard("sub/b.tar", &samples(10..24));
    split.shard("sub/c.tar", &samples(24..60));
    split.read(1);
    split.decide(None).unwrap();
    split.plan(&["--images-per-shard", "20"]).unwrap();
    for task in ["1", "0"] {
        let share = ["write", "--task-count", "2", "--task-index", task];
        split.export(&share).unwrap();
    }
    split.export(&["index"]).unwrap();
    let mut other = split.output();
    for name in ["README.md", "croissant.json", ".sluice.json"] {
        assert_ne!(
            other[name], first[name],
            "{name} names its source or its run"
        );
        other.insert(name.into(), first[name].clone());
    }
    assert_eq!(other, first, "other partitions, other tasks");
}

#[test]
fn shards_are_cut_by_bytes() {
    let run = small("write-bytes");
    let limit = 3000;
    run.export_all(None, &["--bytes-per-shard", &limit.to_string()]);
    let shards = curated(&run);
    assert!(shards.len() > 3);
    assert_eq!(shards.concat(), expected(&run));
    let bytes = |members: &Members| members.iter().map(|(_, data)| data.len()).sum::<usize>();
    let all: Vec<usize> = shards
        .concat()
        .iter()
        .map(|(_, members)| bytes(members))
        .collect();
    let largest = *all.iter().max().unwrap();
    for (number, shard) in shards.iter().enumerate() {
        let sum: usize = shard.iter().map(|(_, members)| bytes(members)).sum();
        assert!(sum < limit + largest, "shard {number}: {sum}");
        assert!(
            sum > limit - largest || number + 1 == shards.len(),
            "shard {number}: {sum}"
        );
    }
}

#[test]
fn compressed_shards_give_the_same_members() {
    let run = Run::new("write-compressed");
    let input = run.store("in");
    run.shard("a.tar", &samples(0..20));
    let zstd = zstd::encode_all(tar(&samples(20..40)).as_slice(), 3).unwrap();
    input.put("b.tar.zst", zstd).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut gzip, &tar(&samples(40..60))).unwrap();
    input.put("c.tgz", gzip.finish().unwrap()).unwrap();
    run.read(3);
    run.export_all(None, &["--images-per-shard", "11"]);
    assert_eq!(curated(&run).concat(), expected(&run));
}

#[test]
fn a_torn_shard_gives_what_lies_before_the_tear() {
    let run = Run::new("write-torn");
    let whole = tar(&samples(0..20));
    run.store("in")
        .put("a.tar", whole[..whole.len() / 2].to_vec())
        .unwrap();
    let zstd = zstd::encode_all(whole.as_slice(), 3).unwrap();
    run.store("in")
        .put("b.tar.zst", zstd[..zstd.len() - 9].to_vec())
        .unwrap();
    run.read(1);
    run.export_all(None, &[]);
    let kept = run.samples().iter().filter(|s| s.reason.is_none()).count();
    let written: Vec<CuratedRow> = table(&run, 0);
    assert!(kept > 5 && written.len() == kept);
    for (key, members) in run.curated(0) {
        let number: u32 = key.rsplit('/').next().unwrap().parse().unwrap();
        assert_eq!(members[0].1, picture(number));
    }
}

#[test]
fn hostile_keys_become_safe_names() {
    let run = Run::new("write-hostile");
    let keys = [
        "../../evil",
        "/abs",
        "new\nline",
        "v1.2/x",
        "C:\\x",
        "__meta/1",
        "a//b",
        "café 猫",
        "same",
        "other",
        "same",
        "a%2Fb",
        "same#1",
    ];
    let mut members = Members::new();
    for (number, key) in keys.into_iter().enumerate() {
        members.push((format!("{key}.PNG"), picture(number as u32)));
        members.push((format!("{key}.txt"), key.as_bytes().to_vec()));
    }
    run.shard("a.tar", &members);
    run.shard(&format!("{}x.tar", "long/".repeat(60)), &samples(0..3));
    run.read(1);
    run.export_all(None, &["--images-per-shard", "100"]);
    let samples = run.curated(0);
    assert_eq!(samples.len(), keys.len() + 3);
    assert_eq!(samples, expected(&run));
    for ((key, members), source) in samples.iter().zip(keys) {
        assert!(
            key.split('/').all(|part| !matches!(part, "" | "." | "..")),
            "{key:?}"
        );
        assert_eq!(members[0].0, "PNG", "extensions stay as they are");
        assert_eq!(members[1].1, source.as_bytes());
    }
    let names: Vec<&str> = samples.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(names[0], "a/%2E%2E/%2E%2E/evil");
    assert_eq!(
        (names[8], names[10], names[12]),
        ("a/same", "a/same#1", "a/same#1#1")
    );
}

#[test]
fn scores_and_embeddings_follow_their_samples() {
    // More than a row group, so that reading starts in the middle of the manifests.
    let run = Run::new("write-joined");
    run.shard("a.tar", &samples(0..1300));
    run.shard("b.tar", &samples(1300..1500));
    run.read(1);
    run.embed("dino");
    run.score("aesthetic", &["score"]);
    run.score("content-tags", &["cat", "dog"]);
    run.filter("filter", None, "aesthetic", 0.25);
    let read = run.samples();
    let stays = |s: &&SampleRow| {
        s.reason.is_none() && score(s, "aesthetic", "score").is_some_and(|score| score >= 0.25)
    };
    let twin = &read.iter().filter(stays).nth(300).unwrap().image_id;
    run.dedup("dedup", Some("filter"), "aesthetic", &[twin]);
    run.export_all(
        Some("dedup"),
        &[
            "--images-per-shard",
            "250",
            "--scores=content-tags,aesthetic",
            "--embeddings=dino",
        ],
    );
    let kept = read.iter().filter(stays).filter(|s| s.image_id != *twin);
    let kept: Vec<&SampleRow> = kept.collect();
    let mut left = kept.iter();
    for shard in 0..kept.len().div_ceil(250) as u32 {
        let path = format!("shard-{shard:05}.parquet");
        let scores = ["content_tags_cat", "content_tags_dog", "aesthetic"];
        let columns = [&["image_id", "embedding"], &scores[..]].concat();
        let store = run.store("out");
        let mut table = store.table(&path, CuratedRow::SCHEMA, &columns).unwrap();
        assert_eq!(table.metadata(MODEL_KEY), Some("tiny"));
        let fields = table.schema().fields();
        let names = fields
            .iter()
            .skip_while(|field| field.name() != "group_size");
        let names: Vec<&String> = names.skip(1).map(|field| field.name()).collect();
        assert_eq!(names, [&scores[..], &["embedding"]].concat());
        let batch = table.next().unwrap().unwrap();
        let values = vectors(&batch, "embedding").unwrap();
        let ids = batch.column_by_name("image_id").unwrap().as_string::<i32>();
        let score_of = |name: &str, row: usize| {
            let scores = batch.column_by_name(name).unwrap();
            let scores = scores.as_primitive::<Float32Type>();
            scores.is_valid(row).then(|| scores.value(row))
        };
        for row in 0..batch.num_rows() {
            let sample = left.next().unwrap();
            assert_eq!(ids.value(row), sample.image_id.as_str());
            for (column, step, output) in [
                (scores[0], "content-tags", "cat"),
                (scores[1], "content-tags", "dog"),
                (scores[2], "aesthetic", "score"),
            ] {
                assert_eq!(score_of(column, row), score(sample, step, output));
            }
            let at = row * DIMENSION;
            assert_eq!(values[at..at + DIMENSION], vector(sample));
        }
    }
    assert!(left.next().is_none());
}

#[test]
fn samples_that_a_step_did_not_see_have_no_score() {
    let run = small("write-unscored");
    run.score("aesthetic", &["score"]);
    // As if the scorer had processed the survivors of a filter: only every second row exists.
    let store = run.store("run");
    let columns = ["image_id", "score"];
    for part in 0..2 {
        let path = format!("aesthetic/scores/part-0000{part}.parquet");
        let mut table = store.table(&path, "scores", &columns).unwrap();
        let batch = table.next().unwrap().unwrap();
        let schema = sluice_manifest::rows::scores(["score"]);
        let mut writer = store.write_table(&path, "scores", schema, &[]).unwrap();
        for row in (0..batch.num_rows()).step_by(2) {
            writer.write(&batch.slice(row, 1)).unwrap();
        }
        run.vouch("aesthetic", part, writer.finish().unwrap());
    }
    run.decide(None).unwrap();
    run.plan(&["--scores=aesthetic"]).unwrap();
    run.export(&["write"]).unwrap();
    let mut out = run
        .store("out")
        .table("shard-00000.parquet", "curated", &["aesthetic"])
        .unwrap();
    let batch = out.next().unwrap().unwrap();
    let scores = batch.column_by_name("aesthetic").unwrap();
    let scores = scores.as_primitive::<Float32Type>();
    let mut number = 0;
    let mut part = String::new();
    let kept = run.samples().into_iter().filter(|s| s.reason.is_none());
    for (row, sample) in kept.enumerate() {
        let here = if sample.shard.as_str() == "sub/c.tar" {
            "1"
        } else {
            "0"
        };
        if part != here {
            (number, part) = (0, here.to_owned());
        }
        let expected = match number % 2 {
            0 => score(&sample, "aesthetic", "score"),
            _ => None,
        };
        let found = scores.is_valid(row).then(|| scores.value(row));
        assert_eq!(found, expected, "{}", sample.image_id);
        number += 1;
    }
}

#[test]
fn a_sample_without_embedding_has_none() {
    let run = small("write-unembedded");
    run.embed("embed");
    // A vector is missing if the model returned one that is not finite: here for half of a
    // partition.
    let path = "embed/embeddings/part-00001.parquet";
    let store = run.store("run");
    let schema = sluice_manifest::rows::embeddings(DIMENSION);
    let mut table = store
        .table(
            path,
            sluice_manifest::rows::EMBEDDINGS,
            &["image_id", "embedding"],
        )
        .unwrap();
    let batch = table.next().unwrap().unwrap();
    let half = batch.num_rows() / 2;
    let metadata = ["sluice.model", "sluice.model.sha256"].map(|key| (key, "tiny".to_owned()));
    for part in 0..2 {
        let path = format!("embed/embeddings/part-0000{part}.parquet");
        let mut writer = store
            .write_table(
                &path,
                sluice_manifest::rows::EMBEDDINGS,
                schema.clone(),
                &metadata,
            )
            .unwrap();
        if part == 1 {
            writer
                .write(&batch.slice(half, batch.num_rows() - half))
                .unwrap();
        }
        run.vouch("embed", part, writer.finish().unwrap());
    }
    run.export_all(None, &["--embeddings"]);
    let columns = ["image_id", "embedding"];
    let mut out = run
        .store("out")
        .table("shard-00000.parquet", "curated", &columns)
        .unwrap();
    let out = out.next().unwrap().unwrap();
    let list = out.column_by_name("embedding").unwrap();
    let list = list.as_any().downcast_ref::<FixedSizeListArray>().unwrap();
    let (rows, present) = (out.num_rows(), batch.num_rows() - half);
    assert_eq!(list.null_count(), rows - present);
    assert!(list.is_valid(rows - 1) && list.is_null(rows - present - 1));
}

#[test]
fn a_changed_source_is_noticed() {
    let run = small("write-changed");
    run.decide(None).unwrap();
    run.plan(&[]).unwrap();
    let input = run.store("in");
    let before = input.get("a.tar").unwrap();
    let mut longer = before.to_vec();
    longer.extend([0; 512]);
    input.put("a.tar", longer).unwrap();
    let text = words(run.export(&["write"]));
    assert!(text.contains("in/a.tar: changed or gone"), "{text}");
    assert_eq!(exit(run.export(&["write"])), 3);
    // The same size with other bytes: if the store has no modification time, the hash detects it.
    let mut flipped = before.to_vec();
    let image = run.samples()[0].members[0].offset as usize;
    flipped[image + 20] ^= 1;
    input.put("a.tar", flipped).unwrap();
    assert_eq!(exit(run.export(&["write"])), 3);
    let output: Vec<String> = run.output().into_keys().collect();
    assert_eq!(output, [".sluice.json"], "no half-written shard appears");
}

#[test]
fn what_was_done_again_after_the_plan_is_noticed() {
    let run = small("write-stale");
    run.score("aesthetic", &["score"]);
    run.filter("filter", None, "aesthetic", 0.2);
    run.decide(None).unwrap();
    run.plan(&["--scores=aesthetic"]).unwrap();
    run.decide(Some("filter")).unwrap();
    let text = words(run.export(&["write"]));
    assert!(text.contains("sluice-export plan"), "{text}");
    run.plan(&[]).unwrap();
    // As after a run with another model.
    let store = run.store("run");
    let path = "aesthetic/receipts/part-00000.json";
    let before = store.get(path).unwrap();
    let mut other = run.receipt(path);
    other.settings = "another model".into();
    other.fingerprint = other.computed_fingerprint();
    store.put(path, other.to_json().unwrap()).unwrap();
    let text = words(run.export(&["write"]));
    assert!(
        text.contains("aesthetic part-00000 was done again"),
        "{text}"
    );
    assert_eq!(exit(run.export(&["write"])), 3);
    store.put(path, before).unwrap();
    run.export(&["write"]).unwrap();
    run.export(&["index"]).unwrap();
    // A filter that was run again by hand, after everything.
    run.filter("filter", None, "aesthetic", 0.3);
    for (part, stale) in [
        ("write", "filter/part-00000 was done again"),
        ("index", "filter/part-00000"),
    ] {
        let text = words(run.export(&[part]));
        assert!(text.contains(stale) && text.contains("decide"), "{text}");
        assert_eq!(exit(run.export(&[part])), 3, "{part}");
    }
    run.filter("filter", None, "aesthetic", 0.2);
    run.shard("a.tar", &samples(0..11));
    run.read(2);
    let text = words(run.export(&["write"]));
    assert!(text.contains("read/part-00000 was done again"), "{text}");
    assert!(text.contains("sluice-export decide"), "{text}");
    assert_eq!(exit(run.export(&["write"])), 3);
}

#[test]
fn a_shard_reads_its_partitions_alone() {
    let run = small("write-rows");
    run.score("aesthetic", &["score"]);
    run.export_all(None, &["--images-per-shard", "26", "--scores=aesthetic"]);
    let rows: Vec<OutputPlanRow> = run.rows("export/plan/plan.parquet");
    assert_eq!(rows.len(), 3, "{rows:?}");
    let receipt = run.receipt("export/receipts/shard-00001.json");
    let inputs = receipt.inputs.iter().map(|input| match &input.of {
        InputOf::Unit { step, unit } => format!("{step}/{unit}"),
        other => panic!("{other}"),
    });
    assert_eq!(
        inputs.collect::<Vec<_>>(),
        [
            "export/plan",
            "export/part-00001",
            "read/part-00001",
            "aesthetic/part-00001"
        ]
    );
    assert_eq!((receipt.counts.input, receipt.counts.kept), (26, 26));
}

#[test]
fn parquet_files_hold_the_images() {
    let run = small("write-parquet");
    run.export_all(None, &["--images-per-shard", "20", "--format", "parquet"]);
    let kept = run.samples().into_iter().filter(|s| s.reason.is_none());
    let mut kept = kept.zip(expected(&run));
    for shard in 0..3 {
        let path = format!("shard-{shard:05}.parquet");
        let table = run
            .store("out")
            .table(&path, CuratedRow::SCHEMA, &["image", "key"]);
        let table = table.unwrap();
        let features = table.metadata("huggingface").unwrap();
        assert!(features.contains(r#""image": {"_type": "Image"}"#));
        for batch in table {
            let batch = batch.unwrap();
            let images = batch.column_by_name("image").unwrap().as_struct();
            let bytes = images.column_by_name("bytes").unwrap().as_binary::<i32>();
            let paths = images.column_by_name("path").unwrap().as_string::<i32>();
            for row in 0..batch.num_rows() {
                let (sample, (key, members)) = kept.next().unwrap();
                let extension = sample.image_extension.unwrap();
                let (_, image) = members.iter().find(|(e, _)| *e == extension).unwrap();
                assert_eq!(bytes.value(row), image);
                assert_eq!(paths.value(row), format!("{key}.{extension}"));
            }
        }
    }
    assert!(kept.next().is_none());
}
