//! What importing a million scores costs: peak memory and CPU seconds, for Parquet and CSV.
//!
//! `import_cost parquet FOLDER` or `import_cost csv FOLDER` writes the table where there is none, then
//! starts itself again to load it, so that the figures are those of loading alone.
#![expect(clippy::print_stdout, reason = "an example prints its figures")]

use std::io::Write;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{Float64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use sluice_manifest::Result;
use sluice_score::import::{ImportOptions, ImportedScores, KeyField};
use sluice_store::{Location, Storage, Store};

const ROWS: usize = 1_000_000;

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let (format, folder) = (words[1].as_str(), words[2].as_str());
    let store = Storage::default()
        .create(&Location::parse(folder).expect("a folder"))
        .expect("a store");
    let path = format!("scores.{format}");
    if words.len() > 3 {
        return load(&store, &path);
    }
    if store.stat(&path).expect("a look").is_none() {
        match format {
            "parquet" => write_parquet(&store, &path),
            _ => write_csv(&store, &path),
        }
    }
    let itself = std::env::current_exe().expect("a program");
    let status = Command::new(itself).args([format, folder, "load"]).status();
    assert!(status.is_ok_and(|status| status.success()));
}

/// A key of 100 characters that does not compress.
fn key(row: usize) -> String {
    let hash = blake3::hash(&row.to_le_bytes()).to_hex();
    format!("https://images.example.org/{hash}.jpeg")
        .chars()
        .chain("x".repeat(4).chars())
        .collect()
}

/// One row group, as pandas writes it.
fn write_parquet(store: &Store, path: &str) {
    let keys: StringArray = (0..ROWS).map(|row| Some(key(row))).collect();
    let values = Float64Array::from_iter_values((0..ROWS).map(|row| row as f64 / 7.0));
    let batch = RecordBatch::try_from_iter([
        ("url", Arc::new(keys) as _),
        ("score", Arc::new(values) as _),
    ])
    .expect("a batch");
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_max_row_group_row_count(Some(ROWS));
    let object = store.writer(path).expect("an object");
    let mut writer =
        ArrowWriter::try_new(object, batch.schema(), Some(properties.build())).expect("a writer");
    writer.write(&batch).expect("rows");
    writer
        .into_inner()
        .expect("a footer")
        .finish()
        .expect("a file");
}

fn write_csv(store: &Store, path: &str) {
    let mut object = store.writer(path).expect("an object");
    writeln!(object, "url,score").expect("a header");
    for row in 0..ROWS {
        writeln!(object, "{},{}", key(row), row as f64 / 7.0).expect("a row");
    }
    object.finish().expect("a file");
}

fn load(store: &Store, path: &str) {
    let started = Instant::now();
    let options = ImportOptions {
        by: KeyField::Metadata("url".to_owned()),
        by_column: None,
        columns: Vec::new(),
    };
    let loaded: Result<_> = ImportedScores::load(store, path, &options);
    let scores = loaded.expect("a table");
    let seconds = started.elapsed().as_secs_f64();
    assert_eq!(scores.keys() as usize, ROWS);
    assert_eq!(scores.lookup(&key(7)), Some(&[1.0][..]));
    let bytes = store.stat(path).expect("a look").expect("a file").bytes;
    let (peak, cpu) = usage();
    println!(
        "{path}: {} MB, {ROWS} rows: peak {peak:.0} MB, {cpu:.2} s of CPU, {seconds:.2} s",
        bytes / 1_000_000
    );
}

/// Returns the process's peak memory in MB and its CPU seconds.
#[expect(unsafe_code, reason = "getrusage has no safe counterpart in std")]
fn usage() -> (f64, f64) {
    // SAFETY: getrusage fills the structure that it is given.
    let usage = unsafe {
        let mut usage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 * 1e-6;
    let peak = usage.ru_maxrss as f64 * 1024.0 / 1e6;
    (peak, seconds(usage.ru_utime) + seconds(usage.ru_stime))
}
