//! Single objects of a run: the Parquet of every row type, the tables of scores and vectors,
//! receipts, and `run.json`.

use sluice_manifest::rows::{
    ASSIGNMENTS, CENTROIDS, CuratedRow, DecisionRow, DuplicateRow, EMBEDDINGS, FilterRow,
    MeasuredRow, NameRow, OutputPlanRow, PictureRow, PlanRow, Row, SCORES, SampleBrief, SampleRow,
    ShardRow, SkippedRow,
};
use sluice_manifest::{Receipt, Result, RunInfo};
use sluice_store::{Table, vectors};

use super::{choice, refused_well, sealed};
use crate::Run;

const OBJECT: &str = "object";

type Reader = fn(&Run) -> Result<()>;

const READERS: &[Reader] = &[
    rows::<PlanRow>,
    rows::<SampleRow>,
    rows::<ShardRow>,
    rows::<SkippedRow>,
    rows::<FilterRow>,
    rows::<DuplicateRow>,
    rows::<DecisionRow>,
    rows::<OutputPlanRow>,
    rows::<CuratedRow>,
    rows::<SampleBrief>,
    rows::<PictureRow>,
    rows::<NameRow>,
    rows::<MeasuredRow>,
    |run| table(run.store.table(OBJECT, SCORES, &["image_id", "score"])?),
    |run| {
        table(
            run.store
                .table(OBJECT, EMBEDDINGS, &["image_id", "embedding"])?,
        )
    },
    |run| table(run.store.table(OBJECT, CENTROIDS, &["centroid"])?),
    |run| {
        table(
            run.store
                .table(OBJECT, ASSIGNMENTS, &["image_id", "cluster", "embedding"])?,
        )
    },
    |run| table(run.store.any_table(OBJECT)?),
    receipt,
    run_info,
];

pub(super) fn run(data: &[u8]) {
    let (choice, data) = choice(data);
    let run = Run::at("memory://fuzz-manifest").expect("memory can be opened");
    run.store
        .put(OBJECT, data.to_vec())
        .expect("memory can be written");
    if let Err(e) = READERS[choice % READERS.len()](&run) {
        refused_well(&e);
    }
}

fn rows<R: Row>(run: &Run) -> Result<()> {
    run.store
        .rows::<R>(OBJECT)?
        .try_for_each(|row| row.map(drop))
}

fn table(table: Table) -> Result<()> {
    for batch in table {
        let batch = batch?;
        for column in ["embedding", "centroid"] {
            if batch.column_by_name(column).is_some() {
                vectors(&batch, column)?;
            }
        }
    }
    Ok(())
}

/// A valid receipt can be written and read again.
fn receipt(run: &Run) -> Result<()> {
    let json = run.store.get(OBJECT)?;
    let Ok(value) = serde_json::from_slice(&json) else {
        return Receipt::parse(&json, OBJECT).map(drop);
    };
    let receipt = Receipt::parse(&sealed(value), OBJECT)?;
    let again = receipt.to_json().expect("a receipt can be written");
    let again = Receipt::parse(&again, OBJECT).expect("a receipt can be read");
    assert_eq!(again, receipt);
    Ok(())
}

fn run_info(run: &Run) -> Result<()> {
    RunInfo::parse(&run.store.get(OBJECT)?, OBJECT).map(drop)
}
