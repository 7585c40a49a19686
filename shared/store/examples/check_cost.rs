//! What it costs to compare a manifest with the hashes of its blocks, measured.
//!
//! ```text
//! cargo run --release --example check_cost
//! ```
//!
//! Reads two manifests from local disk, with and without the check: 20,000 embeddings of 768 values,
//! and one column of 200,000 rows of which the others are passed over. Prints the milliseconds of
//! the fastest of ten readings each, and the bytes of the hashes in a receipt.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use sluice_manifest::rows::{EMBEDDINGS, PlanRow, Row, embeddings};
use sluice_manifest::{Blocks, Error, Output, Partition, Result, ShardPath};
use sluice_store::{Checked, Location, Storage, Store, Table};

const DIMENSION: usize = 768;

fn write_embeddings(store: &Store) -> Result<Output> {
    let schema = embeddings(DIMENSION);
    let mut writer = store.write_table("embeddings", EMBEDDINGS, schema, &[])?;
    let schema = writer.schema().clone();
    let DataType::FixedSizeList(item, length) = schema.field(1).data_type().clone() else {
        return Err(Error::bug("no vectors"));
    };
    for group in 0..20_u32 {
        let ids = (0..1000).map(|row| format!("photos-{group:05}/{row:09}"));
        let values = (0..1000 * DIMENSION as u32).map(|i| (i * group) as f32);
        let values = Arc::new(Float32Array::from_iter_values(values));
        let vectors = FixedSizeListArray::new(item.clone(), length, values, None);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(ids)),
            Arc::new(vectors),
        ];
        let batch = RecordBatch::try_new(schema.clone(), columns);
        writer.write(&batch.map_err(|e| Error::bug(e.to_string()))?)?;
    }
    writer.finish()
}

fn write_rows(store: &Store) -> Result<Output> {
    let mut writer = store.write_rows::<PlanRow>("rows", &[])?;
    for number in 0..200_000_u32 {
        writer.push(PlanRow {
            partition: Partition(number / 1000),
            shard: ShardPath::new(format!("photos-{number:08}.tar")),
            bytes: u64::from(number.wrapping_mul(2_654_435_761)),
            etag: Some(format!("{:032x}", u128::from(number).pow(3))),
            modified: None,
            ..PlanRow::default()
        })?;
    }
    writer.finish()
}

fn fastest(open: impl Fn() -> Result<Table>) -> Result<f64> {
    let mut fastest = f64::MAX;
    for _ in 0..10 {
        let started = Instant::now();
        for batch in open()? {
            std::hint::black_box(batch?);
        }
        fastest = fastest.min(started.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(fastest)
}

#[expect(clippy::print_stdout, reason = "a program of its own")]
fn main() -> Result<()> {
    let folder = tempfile::tempdir().map_err(|e| Error::bug(e.to_string()))?;
    let location = Location::Local(folder.path().to_owned());
    let store = Storage::default().create(&location)?;
    let (vectors, rows) = (write_embeddings(&store)?, write_rows(&store)?);
    let both = ["image_id", "embedding"];
    for (output, schema, columns) in [
        (vectors, EMBEDDINGS, &both[..]),
        (rows, PlanRow::SCHEMA, &["partition"]),
    ] {
        let path = output.path.as_str();
        let hashes = 32 * output.bytes.div_ceil(Blocks::SIZE as u64);
        let unchecked = fastest(|| store.table(path, schema, columns))?;
        let checked = fastest(|| {
            let damaged = Arc::new(|what: &str| Error::data(what));
            let output = output.clone();
            store.checked_table(Checked { output, damaged }, schema, columns)
        })?;
        let bytes = output.bytes;
        println!(
            "{path}: {bytes} bytes, {unchecked:.2} ms, checked {checked:.2} ms, {hashes} bytes of hashes"
        );
    }
    Ok(())
}
