//! Tables in a store in memory, in both formats.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use ::parquet::arrow::ArrowWriter;
use ::parquet::basic::Compression;
use ::parquet::file::metadata::ParquetMetaDataReader;
use ::parquet::file::properties::WriterProperties;
use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, Float32Array, Float64Array, Int8Array, Int64Array,
    RecordBatch, StringArray, UInt16Array,
};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use bytes::Bytes;
use flate2::write::GzEncoder;
use sluice_manifest::Class;
use sluice_store::{Location, Storage};

use super::*;

fn store(name: &str) -> Store {
    Storage::default()
        .create(&Location::parse(&format!("memory://import-{name}")).unwrap())
        .unwrap()
}

fn by(field: &str) -> ImportOptions {
    ImportOptions {
        by: field.parse().unwrap(),
        by_column: None,
        columns: Vec::new(),
    }
}

fn columns(mut options: ImportOptions, names: &[&str]) -> ImportOptions {
    options.columns = names.iter().map(|name| (*name).to_owned()).collect();
    options
}

/// Writes an object, and loads it.
fn load(
    name: &str,
    content: impl Into<Vec<u8>>,
    options: &ImportOptions,
) -> Result<ImportedScores> {
    let store = store("tables");
    static LOADED: AtomicUsize = AtomicUsize::new(0);
    let path = format!("{}/{name}", LOADED.fetch_add(1, Ordering::Relaxed));
    store.put(&path, content.into()).unwrap();
    let checked = ImportedScores::check(&store, &path, options);
    let loaded = ImportedScores::load(&store, &path, options);
    match (&checked, &loaded) {
        (Ok(names), Ok(scores)) => assert_eq!(names, scores.columns()),
        (Err(checked), Err(loaded)) => assert_eq!(checked.to_string(), loaded.to_string()),
        (Ok(_), Err(_)) => {}
        (Err(e), Ok(_)) => panic!("only the check fails: {e}"),
    }
    loaded
}

fn fail(name: &str, content: impl Into<Vec<u8>>, options: &ImportOptions) -> (Class, String) {
    let error = load(name, content, options).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("memory://import-tables/"), "{text}");
    (error.class(), text)
}

fn parquet(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    parquet_of(
        &RecordBatch::try_from_iter(columns).unwrap(),
        Compression::SNAPPY,
        1 << 20,
    )
}

fn parquet_of(batch: &RecordBatch, compression: Compression, group: usize) -> Vec<u8> {
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .set_max_row_group_row_count(Some(group));
    let mut file = Vec::new();
    let mut writer =
        ArrowWriter::try_new(&mut file, batch.schema(), Some(properties.build())).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    file
}

fn gzipped(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn floats(values: &[Option<f64>]) -> ArrayRef {
    Arc::new(Float64Array::from(values.to_vec()))
}

const ROWS: &str = "url,label,clip,nsfw\nhttp://a,\"x, y\",0.25,1\nhttp://b,z,-3e-2,0\n";

#[test]
fn a_column_of_csv_counts_by_its_first_values() {
    let rows = |late: &str| {
        let rows = (0..3000).map(|row| match row {
            2500 => format!("k{row},,{late}\n"),
            _ => format!("k{row},,\n"),
        });
        format!("key,empty,late\n{}", rows.collect::<String>())
    };
    let scores = load("t.csv", rows("0.5"), &by("key")).unwrap();
    assert_eq!(scores.columns(), ["late"]);
    assert_eq!(scores.lookup("k2500"), Some(&[0.5][..]));
    let (class, text) = fail("t.csv", rows("yes"), &by("key"));
    assert_eq!(class, Class::Usage);
    assert!(
        text.contains("\"empty\" (empty), \"late\" (text)"),
        "{text}"
    );
}

#[test]
fn the_same_rows_come_from_every_format() {
    let table = vec![
        ("url", texts(&["http://a", "http://b"])),
        ("label", texts(&["x, y", "z"])),
        ("clip", floats(&[Some(0.25), Some(-0.03)])),
        (
            "nsfw",
            Arc::new(BooleanArray::from(vec![true, false])) as ArrayRef,
        ),
    ];
    let tables = [
        ("t.parquet", parquet(table)),
        ("t.csv", ROWS.as_bytes().to_vec()),
        (
            "T.CSV",
            format!("\u{feff}{}", ROWS.replace('\n', "\r\n")).into_bytes(),
        ),
        ("t.csv.gz", gzipped(ROWS)),
    ];
    for (name, content) in tables {
        let scores = load(name, content, &by("metadata.url")).unwrap();
        assert_eq!(scores.columns(), ["clip", "nsfw"], "{name}");
        assert_eq!(scores.lookup("http://a"), Some(&[0.25, 1.0][..]));
        assert_eq!(scores.lookup("http://b"), Some(&[-0.03, 0.0][..]));
        assert_eq!(scores.lookup("http://c"), None);
        let expected = ImportCounts {
            rows: 2,
            ..ImportCounts::default()
        };
        assert_eq!((scores.keys(), scores.counts()), (2, &expected), "{name}");
    }
}

#[test]
fn columns_are_chosen_and_ordered_by_name() {
    let mut options = columns(by("key"), &["nsfw", "clip"]);
    options.by_column = Some("label".to_owned());
    let scores = load("t.csv", ROWS, &options).unwrap();
    assert_eq!(scores.columns(), ["nsfw", "clip"]);
    assert_eq!(scores.lookup("x, y"), Some(&[1.0, 0.25][..]));
}

#[test]
fn numbers_of_every_type_are_scores() {
    let wide: ArrayRef = Arc::new(Int64Array::from(vec![-7, 1 << 40]));
    let decimal = Decimal128Array::from(vec![1250, -5]).with_precision_and_scale(10, 3);
    let half = cast(&floats(&[Some(0.5), Some(-2.0)]), &DataType::Float16);
    let table: Vec<(&str, ArrayRef)> = vec![
        ("key", texts(&["a", "b"])),
        ("i8", Arc::new(Int8Array::from(vec![-1, 1]))),
        ("u16", Arc::new(UInt16Array::from(vec![0, 65535]))),
        ("i64", wide),
        ("f16", half.unwrap()),
        ("f32", Arc::new(Float32Array::from(vec![0.1, 0.2]))),
        ("decimal", Arc::new(decimal.unwrap())),
    ];
    let scores = load("t.parquet", parquet(table), &by("key")).unwrap();
    assert_eq!(
        scores.columns(),
        ["i8", "u16", "i64", "f16", "f32", "decimal"]
    );
    let (a, b) = (scores.lookup("a").unwrap(), scores.lookup("b").unwrap());
    assert_eq!(a, [-1.0, 0.0, -7.0, 0.5, 0.1, 1.25]);
    assert_eq!(b, [1.0, 65535.0, 1_099_511_627_776.0, -2.0, 0.2, -0.005]);
}

#[test]
fn keys_are_text_of_any_kind_or_integers() {
    let text = texts(&["17", "18"]);
    let encoded = DataType::Dictionary(DataType::Int32.into(), DataType::Utf8.into());
    let kinds = [
        DataType::Utf8,
        DataType::LargeUtf8,
        DataType::Utf8View,
        encoded,
        DataType::Int64,
    ];
    for kind in kinds {
        let key = cast(&text, &kind).unwrap();
        let table = vec![("id", key), ("score", floats(&[Some(1.0), Some(2.0)]))];
        let scores = load("t.parquet", parquet(table), &by("metadata.id")).unwrap();
        assert_eq!(scores.lookup("18"), Some(&[2.0][..]), "{kind}");
        assert_eq!(scores.columns(), ["score"]);
    }
    let table = vec![
        ("id", floats(&[Some(1.0)])),
        ("score", floats(&[Some(1.0)])),
    ];
    let (class, error) = fail("t.parquet", parquet(table), &by("metadata.id"));
    assert_eq!(class, Class::Usage);
    let expected = "column \"id\" is Float64, expected text or integers to match metadata.id";
    assert!(error.contains(expected), "{error}");
}

#[test]
fn hashes_match_in_either_case() {
    let scores = load(
        "t.csv",
        "sha256,score\nAB12,1\nab12,1\ncd,2\n",
        &by("sha256"),
    )
    .unwrap();
    assert_eq!((scores.keys(), scores.counts().repeated_rows), (2, 1));
    assert_eq!(scores.lookup("ab12"), scores.lookup("AB12"));
    let scores = load("t.csv", "key,score\nAB,1\nab,2\n", &by("key")).unwrap();
    assert_ne!(scores.lookup("ab"), scores.lookup("AB"));
}

#[test]
fn missing_values_are_no_scores_and_counted() {
    let rows = "key,a,b\n1,,0.5\n2,NaN,inf\n3,n/a,-1e99\n4,true,2\n,7,7\n";
    let values = |rows: &[Option<f64>]| floats(rows);
    let table = vec![
        (
            "key",
            Arc::new(StringArray::from(vec![
                Some("1"),
                Some("2"),
                Some("3"),
                Some("4"),
                None,
            ])) as ArrayRef,
        ),
        (
            "a",
            values(&[None, Some(f64::NAN), None, Some(1.0), Some(7.0)]),
        ),
        (
            "b",
            values(&[
                Some(0.5),
                Some(f64::INFINITY),
                Some(-1e99),
                Some(2.0),
                Some(7.0),
            ]),
        ),
    ];
    for (name, content) in [
        ("t.csv", rows.as_bytes().to_vec()),
        ("t.parquet", parquet(table)),
    ] {
        let scores = load(name, content, &by("key")).unwrap();
        let counts = ImportCounts {
            rows: 5,
            rows_without_key: 1,
            rows_without_score: 2,
            missing_values: 5,
            ..ImportCounts::default()
        };
        assert_eq!((scores.keys(), scores.counts()), (4, &counts), "{name}");
        let row = scores.lookup("1").unwrap();
        assert!(row[0].is_nan() && row[1] == 0.5);
        assert!(
            scores
                .lookup("3")
                .unwrap()
                .iter()
                .all(|score| score.is_nan())
        );
        assert_eq!(scores.lookup("4"), Some(&[1.0, 2.0][..]));
    }
}

#[test]
fn repeated_rows_agree_or_give_no_score() {
    let rows = "key,a,b\nsame,1,\nsame,1.0,\nother,1,2\nother,1,3\nother,1,2\nhalf,1,\nhalf,1,2\nfine,0,-0.0\nfine,-0,0\n";
    let scores = load("t.csv", rows, &columns(by("key"), &["a", "b"])).unwrap();
    let counts = ImportCounts {
        rows: 9,
        repeated_rows: 2,
        conflicting_rows: 3,
        conflicting_keys: 2,
        missing_values: 3,
        ..ImportCounts::default()
    };
    assert_eq!(scores.counts(), &counts);
    assert_eq!(scores.conflicts(), ["other", "half"]);
    assert_eq!(
        scores.keys() + counts.repeated_rows + counts.conflicting_rows,
        counts.rows
    );
    assert_eq!(scores.lookup("same").unwrap()[0], 1.0);
    assert_eq!(scores.lookup("fine"), Some(&[0.0, 0.0][..]));
    for key in ["other", "half"] {
        let row = scores.lookup(key).unwrap();
        assert!(row.iter().all(|score| score.is_nan()), "{key}: {row:?}");
    }
}

#[test]
fn rows_of_a_conflict_stay_without_a_score_in_any_order() {
    let mut rows = ["k,1", "k,2", "k,1", "x,5"];
    for _ in 0..rows.len() {
        rows.rotate_left(1);
        let scores = load("t.csv", format!("key,a\n{}\n", rows.join("\n")), &by("key")).unwrap();
        assert!(scores.lookup("k").unwrap()[0].is_nan(), "{rows:?}");
        assert_eq!(scores.counts().conflicting_keys, 1);
    }
}

#[test]
fn keys_that_no_image_used_are_known() {
    let scores = load("t.csv", "key,a\n1,1\n2,2\n3,3\n", &by("key")).unwrap();
    assert_eq!(scores.unused_keys(), 3);
    scores.lookup("2");
    scores.lookup("2");
    scores.lookup("9");
    assert_eq!(scores.unused_keys(), 2);
}

#[test]
fn a_row_index_of_pandas_is_no_score() {
    let scores = load("t.csv", ",key,a\n0,x,1\n1,y,2\n", &by("key")).unwrap();
    assert_eq!(scores.columns(), ["a"]);
    let index: ArrayRef = Arc::new(Int64Array::from(vec![0]));
    let table = vec![
        ("key", texts(&["x"])),
        ("a", floats(&[Some(1.0)])),
        ("__index_level_0__", index),
    ];
    let scores = load("t.parquet", parquet(table), &by("key")).unwrap();
    assert_eq!(scores.columns(), ["a"]);
}

#[test]
fn csv_text_is_numeric_by_its_first_rows() {
    let mut rows = "key,late,mixed,never\n".to_owned();
    for row in 0..1200 {
        let late = if row < 1100 { "" } else { "1.5" };
        let mixed = if row == 3 { "0,5" } else { "0.5" };
        rows.push_str(&format!("{row},{late},\"{mixed}\",x\n"));
    }
    let scores = load("t.csv", &*rows, &by("key")).unwrap();
    assert_eq!(scores.columns(), ["late"], "mixed is text somewhere");
    let scores = load("t.csv", &*rows, &columns(by("key"), &["late", "mixed"])).unwrap();
    assert!(scores.lookup("3").unwrap()[1].is_nan());
    assert_eq!(scores.lookup("1150"), Some(&[1.5, 0.5][..]));
    let (class, error) = fail("t.csv", &*rows, &columns(by("key"), &["never"]));
    assert_eq!(class, Class::Usage);
    assert!(
        error.contains("column \"never\" is text, expected numbers"),
        "{error}"
    );
}

// Errors.

#[test]
fn objects_that_are_not_there_or_of_no_known_format_are_refused() {
    let store = store("formats");
    for (path, class, text) in [
        (
            "none.parquet",
            Class::Data,
            "memory://import-formats/none.parquet: no such object",
        ),
        ("none.csv.gz", Class::Data, "no such object"),
        (
            "scores.json",
            Class::Usage,
            "unknown format\n  hint: a table of scores is named",
        ),
        ("scores.gz", Class::Usage, "unknown format"),
    ] {
        for error in [
            ImportedScores::check(&store, path, &by("key")).unwrap_err(),
            ImportedScores::load(&store, path, &by("key")).unwrap_err(),
        ] {
            assert_eq!(error.class(), class);
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}

#[test]
fn objects_that_are_not_what_their_name_says_are_refused() {
    let good = parquet(vec![("key", texts(&["x"])), ("a", floats(&[Some(1.0)]))]);
    let broken = [
        Vec::new(),
        b"PAR1".to_vec(),
        ROWS.as_bytes().to_vec(),
        good[..good.len() - 1].to_vec(),
        good[good.len() / 2..].to_vec(),
    ];
    for content in broken {
        let (class, error) = fail("t.parquet", content, &by("key"));
        assert_eq!(class, Class::Data);
        assert!(
            error.contains("cannot read: not a usable Parquet file: "),
            "{error}"
        );
    }
    let (class, error) = fail("t.csv.gz", ROWS, &by("key"));
    assert_eq!(class, Class::Data);
    assert!(error.contains("cannot read: "), "{error}");
    let (_, error) = fail("t.csv", gzipped(ROWS), &by("key"));
    assert!(error.contains("header is not UTF-8 text"), "{error}");
    let many: String = (0..100_000)
        .map(|row| format!("{row},{}\n", row * 7 % 1000))
        .collect();
    let truncated = gzipped(&format!("key,a\n{many}"));
    let (class, _) = fail("t.csv.gz", &truncated[..truncated.len() - 20], &by("key"));
    assert_eq!(class, Class::Data);
}

#[test]
fn damaged_parquet_files_are_errors_and_no_panics() {
    let keys: Vec<String> = (0..3000)
        .map(|row| format!("key-{}", row * 7919 % 3001))
        .collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let values: Vec<_> = (0..3000).map(|row| Some(f64::from(row))).collect();
    let flags: ArrayRef = Arc::new(BooleanArray::from(vec![true; 3000]));
    let table = [("key", texts(&keys)), ("a", floats(&values)), ("b", flags)];
    let batch = RecordBatch::try_from_iter(table).unwrap();
    let good = parquet_of(&batch, Compression::UNCOMPRESSED, 1000);
    for position in (0..good.len()).step_by(good.len() / 400) {
        let mut damaged = good.clone();
        damaged[position] ^= 0x55;
        // Some damage only changes a key or a score.
        if let Err(error) = load("t.parquet", damaged, &by("key")) {
            assert_ne!(error.class(), Class::Bug, "{position}: {error}");
            assert_ne!(error.class(), Class::Transient, "{position}: {error}");
        }
    }
}

#[test]
fn missing_columns_are_named_with_those_that_are_there() {
    let (class, error) = fail("t.csv", ROWS, &by("image_id"));
    assert_eq!(class, Class::Usage);
    assert!(
        error.contains("no column \"image_id\"; the columns are \"url\", \"label\""),
        "{error}"
    );
    assert!(
        error.contains("hint: --by-column names the column that holds image_id"),
        "{error}"
    );
    let (_, error) = fail("t.csv", ROWS, &columns(by("metadata.url"), &["clap"]));
    assert!(
        error.contains("no column \"clap\"; the columns are "),
        "{error}"
    );
    let header: Vec<String> = (0..50).map(|number| format!("c{number}")).collect();
    let wide = format!("{0}\n{0}\n", header.join(","));
    let (_, error) = fail("t.csv", wide, &by("key"));
    assert!(error.contains("\"c19\", and 30 more"), "{error}");
}

#[test]
fn columns_that_do_not_fit_are_refused() {
    let options = by("metadata.url");
    let text = vec![("url", texts(&["x"])), ("label", texts(&["y"]))];
    let (class, error) = fail("t.parquet", parquet(text.clone()), &options);
    assert_eq!(class, Class::Usage);
    assert!(
        error.contains("no numeric column among \"url\" (Utf8), \"label\" (Utf8)"),
        "{error}"
    );
    let (_, error) = fail(
        "t.parquet",
        parquet(text),
        &columns(options.clone(), &["label"]),
    );
    assert!(
        error.contains("column \"label\" is Utf8, expected numbers"),
        "{error}"
    );
    let (_, error) = fail("t.csv", "url,a,a\nx,1,2\n", &options);
    assert!(error.contains("several columns are named \"a\""), "{error}");
    let (_, error) = fail("t.csv", "url,url,a\nx,1,2\n", &options);
    assert!(
        error.contains("several columns are named \"url\""),
        "{error}"
    );
    let (_, error) = fail("t.csv", ROWS, &columns(options.clone(), &["clip", "clip"]));
    assert!(error.contains("column \"clip\" is named twice"), "{error}");
    let (_, error) = fail("t.csv", "url,image_id\nx,1\n", &options);
    assert!(error.contains("\"image_id\" cannot be a score"), "{error}");
    // A repeated name that nobody asks for does not matter.
    load("t.csv", "url,note,note,a\nx,p,q,2\n", &options).unwrap();
}

#[test]
fn tables_without_rows_keys_or_scores_are_refused() {
    let empty = vec![("key", texts(&[])), ("a", floats(&[]))];
    for (name, content) in [
        ("t.parquet", parquet(empty)),
        ("t.csv", b"key,a\n".to_vec()),
    ] {
        let (class, error) = fail(name, content, &by("key"));
        assert_eq!(class, Class::Data);
        assert!(error.ends_with("has no rows"), "{error}");
    }
    let (_, error) = fail("t.csv", "", &by("key"));
    assert!(error.ends_with("is empty"), "{error}");
    let (_, error) = fail("t.csv", "key,a\n,1\n,2\n", &by("key"));
    assert!(
        error.contains("column \"key\" is empty in all 2 rows"),
        "{error}"
    );
    let (_, error) = fail("t.csv", "key,a\nx,\ny,\n", &columns(by("key"), &["a"]));
    assert!(error.contains("no usable number in 2 rows of a"), "{error}");
}

#[test]
fn ragged_rows_are_named_by_line() {
    let (class, error) = fail("t.csv", "key,a\n\"x\ny\",1\nz,2,3\n", &by("key"));
    assert_eq!(class, Class::Data);
    assert!(
        error.contains("line 4 has 3 fields, the header has 2"),
        "{error}"
    );
    assert!(
        error.contains("hint: a field that holds a comma"),
        "{error}"
    );
    let mut late = "key,a\n".to_owned();
    late.extend((0..5000).map(|row| format!("{row},1\n")));
    late.push_str("5000\n");
    let (_, error) = fail("t.csv", late, &by("key"));
    assert!(error.contains("line 5002 has 1 fields"), "{error}");
}

#[test]
fn a_quote_that_is_never_closed_does_not_fill_the_memory() {
    let mut rows = "key,a\n\"x,1\n".to_owned();
    rows.extend((0..3_000_000).map(|_| "yyyy,1\n"));
    let (class, error) = fail("t.csv", rows, &by("key"));
    assert_eq!(class, Class::Data);
    assert!(error.contains("is a quote never closed?"), "{error}");
}

// Large files, of which only a part is read.

#[test]
fn the_footer_and_the_chosen_columns_are_read_and_nothing_else() {
    let keys: Vec<String> = (0..9000).map(|row| row.to_string()).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let values: Vec<_> = (0..9000).map(|row| Some(f64::from(row))).collect();
    let table = [
        ("a", floats(&values)),
        ("key", texts(&keys)),
        ("b", floats(&values)),
    ];
    let batch = RecordBatch::try_from_iter(table).unwrap();
    let good = Bytes::from(parquet_of(&batch, Compression::SNAPPY, 1 << 20));
    let footer = ParquetMetaDataReader::new()
        .parse_and_finish(&good)
        .unwrap();
    let without = |columns: &[usize]| {
        let mut file = good.to_vec();
        for &column in columns {
            let (start, length) = footer.row_group(0).column(column).byte_range();
            file[start as usize..(start + length) as usize].fill(0xff);
        }
        file
    };
    let options = columns(by("key"), &["a"]);
    let scores = load("t.parquet", without(&[2]), &options).unwrap();
    assert_eq!(scores.lookup("8999"), Some(&[8999.0][..]));
    let store = store("footer");
    store.put("t.parquet", without(&[0, 1, 2])).unwrap();
    let names = ImportedScores::check(&store, "t.parquet", &by("key")).unwrap();
    assert_eq!(names, ["a", "b"]);
    let error = ImportedScores::load(&store, "t.parquet", &by("key")).unwrap_err();
    assert_eq!(error.class(), Class::Data);
}

#[test]
fn an_error_of_the_store_stays_what_it_is() {
    let store = store("gone");
    let table = vec![("key", texts(&["x"])), ("a", floats(&[Some(1.0)]))];
    for (path, content) in [("t.parquet", parquet(table)), ("t.csv", ROWS.into())] {
        store.put(path, content).unwrap();
        let table = ScoreTable::open(&store, path).unwrap();
        let options = match path {
            "t.csv" => by("metadata.url"),
            _ => by("key"),
        };
        let selection = Selection::new(&table, &options).unwrap();
        store.delete(path).unwrap();
        let error = table
            .read(&selection, &mut |_, _| Ok(()))
            .unwrap_err()
            .to_string();
        assert!(!error.contains("cannot read"), "{error}");
    }
}

#[test]
fn pages_of_many_row_groups_are_read_in_turn() {
    let keys: Vec<String> = (0..50_000).map(|row| format!("{row:0>60}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let values: Vec<_> = (0..50_000).map(|row| Some(f64::from(row))).collect();
    let table = [
        ("a", floats(&values)),
        ("key", texts(&keys)),
        ("b", floats(&values)),
    ];
    let batch = RecordBatch::try_from_iter(table).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let disk = Storage::default()
        .create(&Location::Local(folder.path().to_owned()))
        .unwrap();
    for compression in [
        Compression::UNCOMPRESSED,
        Compression::LZ4_RAW,
        Compression::GZIP(Default::default()),
    ] {
        for group in [7000, 1 << 20] {
            let file = parquet_of(&batch, compression, group);
            for store in [&disk, &store("groups")] {
                store.put("t.parquet", file.clone()).unwrap();
                let options = columns(by("key"), &["b", "a"]);
                let scores = ImportedScores::load(store, "t.parquet", &options).unwrap();
                assert_eq!(scores.keys(), 50_000);
                for row in [0, 6999, 7000, 49_999] {
                    let value = row as f32;
                    assert_eq!(scores.lookup(keys[row]), Some(&[value, value][..]));
                }
            }
        }
    }
}
