//! All forms of output: splits, Parquet files with images, captions of duplicates. Each is
//! verified.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sluice_manifest::rows::{CuratedRow, GroupRow};
use sluice_shard::{Event, ShardLimits, ShardReader};

use crate::support::{ProgramOutput, picture, shard, sluice, store};

const SHARDS: [&str; 2] = ["train", "val"];

/// Curates forty images, each with a brighter copy that has the same perceptual hash. The first
/// five also have an identical copy with another caption. Exact duplicates are removed.
fn curate(name: &str, flags: &str) -> String {
    let base = format!("memory://outputs-{name}");
    let mut members: Vec<(String, Vec<u8>)> = Vec::new();
    for number in 0..40 {
        let image = picture(number, 0);
        members.push((format!("{number:02}-near.png"), picture(number, 2)));
        members.push((format!("{number:02}.png"), image.clone()));
        members.push((
            format!("{number:02}.txt"),
            format!("caption {number}").into(),
        ));
        if number == 1 {
            members.push((format!("{number:02}.json"), b"{\"n\": 1.50}".to_vec()));
        }
        if number < 5 {
            members.push((format!("copy-{number:02}.png"), image));
            members.push((
                format!("copy-{number:02}.txt"),
                format!("copy {number}").into(),
            ));
        }
    }
    let members: Vec<(&str, &[u8])> = members
        .iter()
        .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
        .collect();
    store(&format!("{base}/in"))
        .put("a.tar", shard(&members))
        .unwrap();
    let steps = "[[steps]]\nstage = 'read'\n[[steps]]\nstage = 'dedup'\nmethods = ['exact']\n";
    let text = format!("{steps}[[steps]]\nstage = 'export'\nimages-per-shard = 7\n{flags}");
    store(&base).put("mine.toml", text).unwrap();
    let said = run(&base);
    assert!(said.outcome.is_ok(), "{:?}", said.outcome);
    let verified = sluice(&["verify", "--run", &format!("{base}/out.run")]);
    assert!(verified.outcome.is_ok(), "{}", verified.out);
    base
}

fn run(base: &str) -> ProgramOutput {
    let at = |name: &str| format!("{base}/{name}");
    let (pipeline, input, output) = (at("mine.toml"), at("in"), at("out"));
    let places = [
        "--pipeline",
        &pipeline,
        "--input",
        &input,
        "--output",
        &output,
    ];
    sluice(&[&["run"][..], &places].concat())
}

/// Returns the rows of an output's tables by folder.
fn rows(base: &str) -> BTreeMap<String, Vec<CuratedRow>> {
    let out = store(&format!("{base}/out"));
    let mut found: BTreeMap<String, Vec<CuratedRow>> = BTreeMap::new();
    for object in out.list("").unwrap() {
        if object.path.ends_with(".parquet") {
            let folder = object
                .path
                .rsplit_once('/')
                .map_or("", |(folder, _)| folder);
            let rows = out.rows::<CuratedRow>(&object.path).unwrap();
            let rows = rows.collect::<Result<Vec<_>, _>>().unwrap();
            found.entry(folder.to_owned()).or_default().extend(rows);
        }
    }
    found
}

/// The five images with a copy form groups of two, and the manifest has both.
#[test]
fn groups_of_duplicates_are_in_the_output() {
    let base = curate("groups", "");
    let all = rows(&base);
    let sizes = all[""].iter().map(|row| (row.group_size, row.group_id));
    let twins: Vec<u64> = sizes
        .clone()
        .filter(|(size, _)| *size == 2)
        .map(|(_, id)| id)
        .collect();
    assert_eq!((twins.len(), all[""].len()), (5, 80));
    assert_eq!(sizes.filter(|(size, _)| *size == 1).count(), 75);
    let groups = store(&format!("{base}/out.run"))
        .rows::<GroupRow>("export/groups/plan.parquet")
        .unwrap();
    let groups: Vec<GroupRow> = groups.collect::<Result<_, _>>().unwrap();
    assert_eq!(groups.len(), 10);
    for id in twins {
        let members = groups
            .iter()
            .filter(|row| row.group_id == id && row.group_size == 2);
        let keys: Vec<&str> = members.map(|row| row.image_id.as_str()).collect();
        assert!(
            matches!(keys[..], [one, copy] if copy.ends_with(&one[2..])),
            "{keys:?}"
        );
    }
}

#[test]
fn no_copies_cross_a_split() {
    let split = "split = { train = 0.7, val = 0.3 }\n";
    for (name, format) in [("split", ""), ("split-parquet", "format = 'parquet'\n")] {
        let base = curate(name, &format!("{split}{format}"));
        let rows = rows(&base);
        let folders: Vec<&str> = rows.keys().map(String::as_str).collect();
        assert_eq!(folders, SHARDS);
        assert_eq!(rows.values().map(Vec::len).sum::<usize>(), 80);
        let split_of = |key: &str| {
            let mut splits = rows.iter();
            splits
                .find(|(_, rows)| rows.iter().any(|row| row.source_key == key))
                .unwrap()
                .0
        };
        for number in 0..40 {
            let near = format!("{number:02}-near");
            assert_eq!(split_of(&near[..2]), split_of(&near));
        }
        let train = &rows["train"][0];
        let said = sluice(&[
            "explain",
            "--run",
            &format!("{base}/out.run"),
            train.image_id.as_str(),
        ]);
        assert!(said.out.contains("/out/train/shard-00000."), "{}", said.out);
    }
}

#[test]
fn a_split_replaces_what_was_there_without() {
    let base = curate("resplit", "");
    let shards = |base: &str| {
        let objects = store(&format!("{base}/out")).list("").unwrap().into_iter();
        let paths = objects.map(|object| object.path);
        let named = |path: &String| path.contains("shard-") || path.contains("index");
        paths.filter(named).collect::<Vec<_>>()
    };
    assert!(shards(&base).contains(&"index.json".to_owned()));
    curate("resplit", "split = { train = 0.7, val = 0.3 }\n");
    let split = shards(&base);
    assert!(
        split
            .iter()
            .all(|path| path.contains("train") || path.contains("val")),
        "{split:?}"
    );
    curate("resplit", "");
    assert!(shards(&base).iter().all(|path| !path.contains('/')));
}

#[test]
fn captions_of_duplicates_become_metadata() {
    for (name, format) in [
        ("captions", ""),
        ("captions-parquet", "format = 'parquet'\n"),
    ] {
        let base = curate(name, &format!("keep-captions = 'all'\n{format}"));
        let rows = rows(&base).remove("").unwrap();
        let metadata = |key: &str| {
            let row = rows.iter().find(|row| row.source_key == key).unwrap();
            row.metadata.clone()
        };
        let list = |number: u32| json!([format!("copy {number}")]);
        assert_eq!(
            metadata("01").unwrap(),
            "{\"n\": 1.50, \"duplicate_captions\": [\"copy 1\"]}"
        );
        let second: Value = serde_json::from_str(&metadata("02").unwrap()).unwrap();
        assert_eq!(second, json!({ "duplicate_captions": list(2) }));
        assert_eq!(metadata("07"), None);
    }
    let tar = store("memory://outputs-captions/out")
        .get("shard-00000.tar")
        .unwrap();
    let mut jsons = 0;
    for event in ShardReader::new(&tar[..], ShardLimits::default()).unwrap() {
        if let Event::Sample(sample) = event.unwrap() {
            jsons += sample
                .members
                .iter()
                .filter(|m| m.extension == "json")
                .count();
        }
    }
    assert_eq!(
        jsons, 3,
        "the first three of seven samples with images that were twice there"
    );
}

#[test]
fn images_are_written_anew_on_request() {
    for (name, format) in [("recode", ""), ("recode-parquet", "format = 'parquet'\n")] {
        let base = curate(
            name,
            &format!("resize = '64:crop'\nencode = 'webp'\n{format}"),
        );
        let quick = sluice(&["verify", "--quick", "--run", &format!("{base}/out.run")]);
        assert!(quick.outcome.is_ok(), "{}", quick.out);
        let rows = rows(&base).remove("").unwrap();
        assert_eq!(rows.len(), 80);
        for row in &rows {
            assert_eq!((row.width, row.height), (Some(64), Some(64)));
            assert_eq!(row.format.as_deref(), Some("webp"));
        }
        let id = rows[1].image_id.as_str();
        let said = sluice(&["explain", "--run", &format!("{base}/out.run"), id]);
        assert!(said.out.contains("00.webp"), "{}", said.out);
    }
    let place = store("memory://outputs-recode/out");
    let tar = place.get("shard-00000.tar").unwrap().to_vec();
    let mut damaged = tar.clone();
    damaged[600] ^= 1;
    place.put("shard-00000.tar", damaged).unwrap();
    for more in [&[] as &[&str], &["--quick"]] {
        let line = ["verify", "--run", "memory://outputs-recode/out.run"];
        assert!(sluice(&[&line[..], more].concat()).outcome.is_err());
    }
}

#[test]
fn images_that_have_the_size_stay_as_they_are() {
    let base = curate("fits", "resize = '256'\nencode = 'png'\n");
    let rows = rows(&base).remove("").unwrap();
    let row = rows.iter().find(|row| row.source_key == "03").unwrap();
    assert_eq!(row.bytes, picture(3, 0).len() as u64);
}
