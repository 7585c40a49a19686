//! All forms of input: the same pictures give the same curated pictures, with the same captions.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, StructArray};
use arrow::datatypes::{DataType, Field, Fields};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use sluice_manifest::rows::{CuratedRow, PlanRow, SampleRow, ShardRow, ShardStatus};
use sluice_manifest::{Class, ReasonKind, layout};
use sluice_store::Store;

use crate::support::{again, curate_read, export, picture, shard, sluice, step, store};

/// A picture with its name and its caption.
struct InputPicture {
    name: &'static str,
    caption: Option<&'static str>,
    bytes: Vec<u8>,
}

/// Returns ten pictures: two are identical, one is similar to another, and one is not an image.
fn pictures() -> Vec<InputPicture> {
    let picture = |name, caption, bytes| InputPicture {
        name,
        caption,
        bytes,
    };
    vec![
        picture("cats/a", Some("a cat"), picture_of(1)),
        picture("cats/b", None, picture_of(2)),
        picture("cats/deep/Screenshot 2024.01.01", None, picture_of(3)),
        picture("cats/deep/Screenshot 2024.01.02", None, picture_of(4)),
        picture("dogs/a", Some("a dog"), picture_of(5)),
        picture("dogs/again", None, picture_of(5)),
        picture("dogs/near", None, crate::support::picture(1, 0)),
        picture("dogs/broken", None, b"<html>".to_vec()),
        picture("top", Some("caf\u{e9}"), picture_of(6)),
    ]
}

fn picture_of(seed: u32) -> Vec<u8> {
    picture(seed, 2)
}

fn put_tar(input: &Store) {
    let mut members: Vec<(String, Vec<u8>)> = Vec::new();
    for (number, picture) in pictures().into_iter().enumerate() {
        members.push((format!("{number}.png"), picture.bytes));
        let caption = picture.caption.map(|caption| caption.as_bytes().to_vec());
        members.extend(caption.map(|caption| (format!("{number}.txt"), caption)));
    }
    let members: Vec<(&str, &[u8])> = members
        .iter()
        .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
        .collect();
    input.put("a.tar", shard(&members)).unwrap();
}

fn put_images(input: &Store) {
    for picture in pictures() {
        let name = format!("{}.png", picture.name);
        input.put(&name, picture.bytes).unwrap();
    }
}

fn put_folder(input: &Store) {
    put_images(input);
    for picture in pictures() {
        if let Some(caption) = picture.caption {
            input
                .put(&format!("{}.txt", picture.name), caption)
                .unwrap();
        }
    }
    input.put("notes.md", "no image").unwrap();
    input.put("cats/.hidden.png", picture_of(9)).unwrap();
    input.put("lonely.txt", "no image has this name").unwrap();
}

fn put_metadata(input: &Store) {
    put_images(input);
    let lines = pictures().into_iter().filter_map(|picture| {
        let (name, text) = (picture.name, picture.caption?);
        let row = serde_json::json!({"file_name": format!("{name}.png"), "text": text});
        Some(format!("{row}\n"))
    });
    let lines: String = lines.collect();
    input.put("metadata.jsonl", lines).unwrap();
}

/// Returns the pictures in the format of Hugging Face, or as plain bytes.
fn table(nested: bool) -> Vec<u8> {
    let pictures = pictures();
    let bytes = pictures
        .iter()
        .map(|picture| Some(picture.bytes.as_slice()));
    let bytes: ArrayRef = Arc::new(BinaryArray::from_iter(bytes));
    let names = pictures
        .iter()
        .map(|picture| format!("{}.png", picture.name));
    let names: ArrayRef = Arc::new(StringArray::from_iter_values(names));
    let captions = pictures.iter().map(|picture| picture.caption);
    let captions: ArrayRef = Arc::new(StringArray::from_iter(captions));
    let count = pictures.len() as i64;
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..count));
    let image = if nested {
        let fields = Fields::from(vec![
            Field::new("bytes", DataType::Binary, true),
            Field::new("path", DataType::Utf8, true),
        ]);
        Arc::new(StructArray::new(fields, vec![bytes, names], None))
    } else {
        bytes
    };
    let columns = [("image", image), ("text", captions), ("n", numbers)];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(4))
        .set_compression(parquet::basic::Compression::SNAPPY)
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

/// Returns a table of pictures in four row groups of five. The picture pages of the third group are
/// damaged.
fn damaged_table() -> Vec<u8> {
    let pictures = (0..20).map(picture_of);
    let images: ArrayRef = Arc::new(BinaryArray::from_iter_values(pictures));
    let batch = RecordBatch::try_from_iter([("image", images)]).unwrap();
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(5))
        .set_dictionary_enabled(false)
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    let metadata = writer.finish().unwrap();
    let page = metadata.row_group(2).column(0).data_page_offset() as usize;
    let mut file = writer.inner().clone();
    file[page..page + 40].fill(0xff);
    file
}

/// Rows that cannot be decoded are dropped with a reason. The other row groups are kept.
#[test]
fn damage_in_a_table_costs_the_rows_of_its_row_group() {
    let input = store("memory://forms-damaged/in");
    input.put("a.parquet", damaged_table()).unwrap();
    let run = curated("forms-damaged", "--input memory://forms-damaged/in");
    let samples = samples(&run);
    let dropped = |row: &&SampleRow| row.reason.is_some();
    let lost: Vec<&str> = samples
        .iter()
        .filter(dropped)
        .map(|row| row.image_id.as_str())
        .collect();
    assert_eq!(samples.len(), 20);
    let expected: Vec<String> = (10..15).map(|row| format!("a/{row:09}")).collect();
    assert_eq!(lost, expected);
    let reasons = samples.iter().filter_map(|row| row.reason.clone());
    assert!(
        reasons
            .into_iter()
            .all(|reason| reason.kind == ReasonKind::ShardDamaged)
    );
    let shards = store(&run);
    let shards = shards
        .rows::<ShardRow>("read/shards/part-00000.parquet")
        .unwrap();
    let shard = shards.map(Result::unwrap).next().unwrap();
    assert_eq!((shard.samples, shard.status), (20, ShardStatus::Damaged));
    assert!(shard.detail.unwrap().contains("row 10"));
}

/// An unreadable table is a damaged shard. An unreadable table next to a shard loses only its
/// captions.
#[test]
fn broken_tables_do_not_end_the_run() {
    let input = store("memory://forms-broken/in");
    input.put("good.parquet", table(true)).unwrap();
    input.put("broken.parquet", "no table").unwrap();
    let tar = shard(&[("0.png", &picture_of(7))]);
    input.put("00000.tar", tar.clone()).unwrap();
    input.put("00000.parquet", "no table").unwrap();
    input.put("00000_stats.json", "{}").unwrap();
    let run = curated("forms-broken", "--input memory://forms-broken/in");
    assert_eq!(samples(&run).len(), pictures().len() + 1);
    let rows = store(&run);
    let parts = rows.list("read/shards").unwrap().into_iter();
    let shards = parts.flat_map(|part| rows.rows::<ShardRow>(&part.path).unwrap());
    let damaged: Vec<String> = shards
        .map(Result::unwrap)
        .filter(|row| row.status == ShardStatus::Damaged)
        .map(|row| row.shard.to_string())
        .collect();
    assert_eq!(damaged, ["00000.tar", "broken.parquet"]);
}

fn put_list(input: &Store) {
    put_images(input);
    let rows = pictures().into_iter().map(|picture| {
        let caption = picture.caption.unwrap_or_default();
        format!("{}.png,\"{caption}\"\n", picture.name)
    });
    let rows: String = rows.collect();
    let list = format!("path,caption\n{rows}nowhere.png,lost\n");
    input.put("list.csv", list).unwrap();
}

/// Curates `memory://NAME/in` with these flags of `partition`, verifies the run, and returns it.
fn curated(name: &str, flags: &str) -> String {
    let run = read_with(name, flags);
    curate_read(&run);
    let said = sluice(&["verify", "--run", &run]);
    assert!(said.outcome.is_ok(), "{name}: {}", said.out);
    run
}

fn read_with(name: &str, flags: &str) -> String {
    let run = format!("memory://{name}/run");
    again::<sluice_partition::Args>(&run, &format!("sluice-partition {flags}"));
    again::<sluice_read::Args>(&run, "sluice-read");
    run
}

/// Returns the hashes of the curated pictures, with their captions.
fn kept(run: &str) -> BTreeMap<String, Option<String>> {
    let output = store(&run.replace("/run", "/out"));
    let tables = output.list("").unwrap().into_iter();
    let tables = tables.filter(|object| object.path.ends_with(".parquet"));
    let mut kept = BTreeMap::new();
    for table in tables {
        for row in output.rows::<CuratedRow>(&table.path).unwrap() {
            let row = row.unwrap();
            kept.insert(row.sha256.unwrap(), row.caption);
        }
    }
    kept
}

/// Returns the names and contents of the members of all output shards.
pub(crate) fn members(run: &str) -> BTreeMap<String, Vec<u8>> {
    use std::io::Read;
    let output = store(&run.replace("/run", "/out"));
    let mut members = BTreeMap::new();
    for object in output.list("").unwrap() {
        if !object.path.ends_with(".tar") {
            continue;
        }
        let bytes = output.get(&object.path).unwrap();
        let mut archive = tar::Archive::new(bytes.as_ref());
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            members.insert(name, content);
        }
    }
    members
}

/// Returns the rows of `read/images`.
pub(crate) fn samples(run: &str) -> Vec<SampleRow> {
    let run = store(run);
    let parts = run.list("read/images").unwrap().into_iter();
    let rows = parts.flat_map(|part| run.rows::<SampleRow>(&part.path).unwrap());
    rows.map(Result::unwrap).collect()
}

#[test]
fn every_form_gives_the_same_curated_pictures() {
    let put = |name: &str, put: &dyn Fn(&Store)| {
        put(&store(&format!("memory://{name}/in")));
        name.to_owned()
    };
    let tar = put("forms-tar", &put_tar);
    let expected = kept(&curated(&tar, "--input memory://forms-tar/in"));
    assert_eq!(expected.len(), 6, "{expected:?}");
    assert_eq!(expected.values().flatten().count(), 3);
    let parquet =
        |nested: bool| move |input: &Store| input.put("a.parquet", table(nested)).unwrap();
    for (name, flags) in [
        (
            put("forms-folder", &put_folder),
            "--input memory://forms-folder/in",
        ),
        (
            put("forms-small", &put_folder),
            "--input memory://forms-small/in --bytes-per-partition 10000",
        ),
        (
            put("forms-glob", &put_folder),
            "--input memory://forms-glob/in/**/*.png",
        ),
        (
            put("forms-metadata", &put_metadata),
            "--input memory://forms-metadata/in",
        ),
        (
            put("forms-nested", &parquet(true)),
            "--input memory://forms-nested/in",
        ),
        (
            put("forms-binary", &parquet(false)),
            "--input memory://forms-binary/in --image-column image --caption-column text",
        ),
        (
            put("forms-list", &put_list),
            "--input memory://forms-list/in/list.csv",
        ),
    ] {
        let run = curated(&name, flags);
        assert_eq!(kept(&run), expected, "{name}");
    }
}

#[test]
fn files_are_copied_with_their_names_captions_and_metadata() {
    let input = store("memory://forms-members/in");
    put_metadata(&input);
    input.put("cats/b.json", r#"{"own": true}"#).unwrap();
    input.put("cats/b.png.txt", "by its whole name").unwrap();
    let run = curated("forms-members", "--input memory://forms-members/in");
    let members = members(&run);
    assert_eq!(members["cats/a.png"], picture_of(1));
    assert_eq!(members["cats/a.txt"], b"a cat");
    let row: serde_json::Value = serde_json::from_slice(&members["cats/a.json"]).unwrap();
    assert_eq!(row["file_name"], "cats/a.png");
    assert_eq!(members["cats/b.json"], br#"{"own": true}"#);
    assert_eq!(members["cats/b.txt"], b"by its whole name");
    assert!(members.contains_key("cats/deep/Screenshot 2024%2E01%2E01.png"));
    let said = sluice(&["explain", "cats/a", "--run", &run]);
    assert!(
        said.outcome.is_ok() && said.out.contains("cats/a.png"),
        "{}",
        said.out
    );
}

#[test]
fn a_parquet_file_gives_every_scalar_column_as_metadata() {
    let input = store("memory://forms-columns/in");
    input.put("a.parquet", table(true)).unwrap();
    let run = read_with("forms-columns", "--input memory://forms-columns/in");
    let samples = samples(&run);
    assert_eq!(samples.len(), pictures().len());
    assert_eq!(samples[4].image_id.as_str(), "a/000000004");
    let metadata: serde_json::Value =
        serde_json::from_str(samples[4].metadata.as_deref().unwrap()).unwrap();
    let expected = serde_json::json!({"text": "a dog", "n": 4, "file_name": "dogs/a.png"});
    assert_eq!(metadata, expected);
}

#[test]
fn what_a_list_names_and_is_not_there_is_a_row() {
    let input = store("memory://forms-missing/in");
    put_list(&input);
    let list = "memory://forms-missing/in/cats/a.png\n\nhttps://example.com/a.jpg\nnone.png\n";
    input.put("urls.txt", list).unwrap();
    let run = read_with(
        "forms-missing",
        "--input memory://forms-missing/in/urls.txt",
    );
    let samples = samples(&run);
    let reasons = samples
        .iter()
        .map(|row| row.reason.as_ref().map(ToString::to_string));
    let missing = || Some("missing-object".to_owned());
    assert_eq!(reasons.collect::<Vec<_>>(), [None, missing(), missing()]);
    let details: Vec<&str> = samples
        .iter()
        .filter_map(|row| row.detail.as_deref())
        .collect();
    assert!(details[0].contains("no store for https"), "{details:?}");
    assert!(
        details[1].contains("none.png: no such object"),
        "{details:?}"
    );
}

#[test]
fn tables_of_img2dataset_are_metadata() {
    let input = store("memory://forms-img2dataset/in");
    put_tar(&input);
    input.put("a_stats.json", "{}").unwrap();
    let keys: ArrayRef = Arc::new(StringArray::from(vec!["0", "1"]));
    let urls: ArrayRef = Arc::new(StringArray::from(vec!["http://x/0", "http://x/1"]));
    let captions: ArrayRef = Arc::new(StringArray::from(vec!["other", "of the table"]));
    let columns = [("key", keys), ("url", urls), ("caption", captions)];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    input
        .put("a.parquet", writer.into_inner().unwrap())
        .unwrap();
    let run = curated("forms-img2dataset", "--input memory://forms-img2dataset/in");
    let samples = samples(&run);
    assert_eq!(samples.len(), pictures().len());
    assert_eq!(samples[0].caption.as_deref(), Some("a cat"));
    assert_eq!(samples[1].caption.as_deref(), Some("of the table"));
    assert!(
        samples[1]
            .metadata
            .as_deref()
            .unwrap()
            .contains("http://x/1")
    );
    assert_eq!(samples[2].metadata, None);
    assert!(
        members(&run)
            .values()
            .any(|content| content == b"of the table")
    );
}

#[test]
fn forms_are_mixed_in_one_input() {
    let input = store("memory://forms-mixed/in");
    put_folder(&input);
    input
        .put("more/a.tar", shard(&[("x.png", &picture_of(7))]))
        .unwrap();
    input.put("table.parquet", table(false)).unwrap();
    let run = curated("forms-mixed", "--input memory://forms-mixed/in");
    let ids: Vec<String> = samples(&run)
        .iter()
        .map(|row| row.image_id.to_string())
        .collect();
    for id in ["cats/a", "more/a/x", "table/000000000"] {
        assert!(ids.iter().any(|other| other == id), "{id}: {ids:?}");
    }
    assert_eq!(kept(&run).len(), 7);
}

#[test]
fn a_changed_file_does_its_group_again_and_no_other() {
    let input = store("memory://forms-changed/in");
    put_folder(&input);
    let flags = "--input memory://forms-changed/in --bytes-per-partition 10000";
    let run = read_with("forms-changed", flags);
    let place = store(&run);
    let parts = place.rows::<PlanRow>(layout::PLAN).unwrap().count();
    assert!(parts > 2, "{parts}");
    let receipts = || -> Vec<Vec<u8>> {
        let all = place.list("read/receipts").unwrap().into_iter();
        all.map(|object| place.get(&object.path).unwrap().to_vec())
            .collect()
    };
    let before = receipts();
    input.put("top.txt", "another caption").unwrap();
    read_with("forms-changed", flags);
    let after = receipts();
    let changed = before
        .iter()
        .zip(&after)
        .filter(|(before, after)| before != after);
    assert_eq!((before.len(), changed.count()), (after.len(), 1));
    input.put("top.png", "shorter").unwrap();
    let read = step::<sluice_read::Args>(&run, "sluice-read --force").unwrap_err();
    let (class, message) = sluice_harness::describe(&read);
    assert_eq!(class, Class::Data);
    assert!(message.contains("top.png"), "{message}");
}

#[test]
fn what_is_not_an_input_is_refused_with_its_reason() {
    let input = store("memory://forms-refused/in");
    input.put("docs/a.pdf", "x").unwrap();
    input.put("bad.csv", "a,b\n1,2\n").unwrap();
    input
        .put(
            "web.txt",
            "https://example.com/a.jpg\nhttp://example.com/b.jpg\n",
        )
        .unwrap();
    input
        .put("two/data.parquet", {
            let bytes: ArrayRef = Arc::new(BinaryArray::from_iter([Some(b"x".as_slice())]));
            let columns = [("a", bytes.clone()), ("b", bytes)];
            let batch = RecordBatch::try_from_iter(columns).unwrap();
            let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
            writer.write(&batch).unwrap();
            writer.into_inner().unwrap()
        })
        .unwrap();
    for (flags, words) in [
        ("docs", &["a.pdf"][..]),
        ("docs/a.pdf", &["file of another kind"]),
        ("none", &["no shards or images"]),
        ("bad.csv", &["no column of paths", "a, b", "--url-column"]),
        ("bad.csv --url-column c", &["no column of paths"]),
        ("web.txt", &["no store for https", "img2dataset"]),
        (
            "two",
            &["several columns hold bytes: a, b", "--image-column"],
        ),
        (
            "two --image-column c",
            &["--image-column c", "there are a, b"],
        ),
    ] {
        let line = format!("sluice-partition --input memory://forms-refused/in/{flags}");
        let error = step::<sluice_partition::Args>("memory://forms-refused/run", &line);
        let (_, message) = sluice_harness::describe(&error.unwrap_err());
        for word in words {
            assert!(message.contains(word), "{flags}: {message}");
        }
    }
}

#[test]
fn folders_on_disk_are_curated_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("in [1]").to_str().unwrap().to_owned();
    put_folder(&store(&path));
    let run = "memory://forms-disk/run";
    let words = ["sluice-partition", "--input", &path, "--run", run];
    let words = words.map(str::to_owned);
    sluice_harness::run_step::<sluice_partition::Args>(&words, crate::support::shared()).unwrap();
    again::<sluice_read::Args>(run, "sluice-read");
    export(run, None);
    let said = sluice(&["verify", "--run", run]);
    assert!(said.outcome.is_ok(), "{}", said.out);
    let kept = members(run);
    assert_eq!(kept["top.txt"], "caf\u{e9}".as_bytes());
    assert_eq!(kept["dogs/again.png"], kept["dogs/a.png"]);
}
