//! Makes a run whose steps before `dedup` are made up, from files of hashes and vectors, for the measurements of
//! `tests/bench/duplicates.py`.
//!
//! ```text
//! cargo run --release -p sluice-dedup --example made -- RUN PARTITIONS hashes=FILE [pdq=FILE] [vectors=FILE,DIMENSION]
//! ```
//!
//! `hashes` has a 64-bit perceptual hash for each image, `pdq` four words, `vectors` so many 32-bit floats; all
//! little-endian, one image after the other. Images have equal bytes where their 64-bit hashes are equal. All have
//! one size, so the order of the files is the rank. Writes the plan, `read/images` and `embed/embeddings`.

#![expect(clippy::disallowed_types, reason = "a benchmark reads local files")]

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use sluice_harness::{Common, Context, OpenUnit, ProcessResources, ProgramNode, Work};
use sluice_manifest::layout::{EMBEDDINGS, IMAGES, PLAN, RUN_INFO};
use sluice_manifest::rows::{
    self, DIMENSION_KEY, MODEL_KEY, MODEL_SHA256_KEY, PlanRow, SampleRow, Status,
};
use sluice_manifest::{
    Counts, ImageId, Operation, Partition, Resources, RunInfo, ShardPath, StepName, Unit, UnitKind,
};

/// Vectors of a row group.
const GROUP_ROWS: usize = 1024;

static PLAN_OPERATION: Operation = operation(UnitKind::Plan);
static PART_OPERATION: Operation = operation(UnitKind::Partition);

const fn operation(unit: UnitKind) -> Operation {
    Operation {
        subcommand: None,
        unit,
        resources: Resources::Light,
        after: &[],
        revision: 2,
    }
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [run, partitions, files @ ..] = &args[..] else {
        bail!("usage: made RUN PARTITIONS hashes=FILE [pdq=FILE] [vectors=FILE,DIMENSION]");
    };
    let made = Made::open(partitions.parse()?, files)?;
    let shared = ProcessResources::default();
    made.plan(&open(run, "partition", &PLAN_OPERATION, &shared)?)?;
    made.read(&open(run, "read", &PART_OPERATION, &shared)?)?;
    match &made.vectors {
        Some(vectors) => made.embed(&open(run, "embed", &PART_OPERATION, &shared)?, vectors),
        None => Ok(()),
    }
}

fn open(
    run: &str,
    step: &'static str,
    operation: &'static Operation,
    shared: &ProcessResources,
) -> Result<Context> {
    let node = ProgramNode {
        step: StepName::fixed(step),
        stage: step,
        operation,
        survivors_of: None,
    };
    let common = Common {
        run: run.to_owned(),
        jobs: Some(1),
        ..Common::default()
    };
    Ok(Context::new(&common, "made-up", node, shared)?)
}

/// A file of records of as many words of `BYTES` bytes each.
struct Records<const BYTES: usize> {
    file: File,
    words: usize,
}

impl<const BYTES: usize> Records<BYTES> {
    fn open(path: &str, words: usize) -> Result<Self> {
        let file = File::open(path).with_context(|| path.to_owned())?;
        Ok(Self { file, words })
    }

    fn len(&self) -> Result<usize> {
        Ok(self.file.metadata()?.len() as usize / (BYTES * self.words))
    }

    /// Returns the words of `count` records from `first` on.
    fn read(&self, first: usize, count: usize) -> Result<Vec<[u8; BYTES]>> {
        let size = BYTES * self.words;
        let mut bytes = vec![0; count * size];
        self.file.read_exact_at(&mut bytes, (first * size) as u64)?;
        Ok(bytes.as_chunks().0.to_vec())
    }
}

struct Made {
    partitions: usize,
    images: usize,
    hashes: Records<8>,
    pdq: Option<Records<8>>,
    vectors: Option<Records<4>>,
}

impl Made {
    fn open(partitions: usize, files: &[String]) -> Result<Self> {
        let (mut hashes, mut pdq, mut vectors) = (None, None, None);
        for file in files {
            match file.split_once('=') {
                Some(("hashes", path)) => hashes = Some(Records::open(path, 1)?),
                Some(("pdq", path)) => pdq = Some(Records::open(path, 4)?),
                Some(("vectors", path)) => {
                    let (path, dimension) =
                        path.split_once(',').context("vectors=FILE,DIMENSION")?;
                    vectors = Some(Records::open(path, dimension.parse()?)?);
                }
                _ => bail!("{file}: expected hashes=, pdq= or vectors="),
            }
        }
        let hashes = hashes.context("no hashes=FILE")?;
        Ok(Self {
            partitions,
            images: hashes.len()?,
            hashes,
            pdq,
            vectors,
        })
    }

    fn plan(&self, context: &Context) -> Result<()> {
        let info = RunInfo {
            layout: RunInfo::LAYOUT,
            input: "memory://none".into(),
            partitions: self.partitions as u32,
            shards: self.partitions as u64,
            ..RunInfo::default()
        };
        let mut object = context.run.writer(RUN_INFO)?;
        object.write_all(&serde_json::to_vec(&info)?)?;
        let mut writer = context.run.write_rows(PLAN, &[])?;
        for number in 0..self.partitions as u32 {
            writer.push(PlanRow {
                partition: Partition(number),
                shard: shard(number),
                ..PlanRow::default()
            })?;
        }
        let mut open_unit = begin(context, Unit::once(UnitKind::Plan), 1, &[])?;
        open_unit.publish(|| object.finish())?;
        open_unit.publish(|| writer.finish())?;
        Ok(open_unit.commit(Counts::default())?)
    }

    fn read(&self, context: &Context) -> Result<()> {
        self.each(context, |open_unit, partition, first, count| {
            let hashes = self.hashes.read(first, count)?;
            let pdq = self.pdq.as_ref().map(|pdq| pdq.read(first, count));
            let pdq = pdq.transpose()?;
            let mut writer = context.run.write_rows(&open_unit.path(&IMAGES), &[])?;
            for (row, hash) in hashes.into_iter().enumerate() {
                let pdq = pdq.as_ref().map(|pdq| &pdq[4 * row..][..4]);
                writer.push(sample(partition, row, u64::from_le_bytes(hash), pdq))?;
            }
            Ok(open_unit.publish(|| writer.finish())?)
        })
    }

    fn embed(&self, context: &Context, vectors: &Records<4>) -> Result<()> {
        let schema = rows::embeddings(vectors.words);
        let DataType::FixedSizeList(item, length) = schema.field(1).data_type().clone() else {
            bail!("not a list of vectors");
        };
        let metadata = [
            (MODEL_KEY, "made-up".to_owned()),
            (MODEL_SHA256_KEY, "0".repeat(64)),
            (DIMENSION_KEY, vectors.words.to_string()),
        ];
        self.each(context, |open_unit, partition, first, count| {
            let path = open_unit.path(&EMBEDDINGS);
            let schema = schema.clone();
            let mut writer = context
                .run
                .write_table(&path, rows::EMBEDDINGS, schema, &metadata)?;
            for start in (0..count).step_by(GROUP_ROWS) {
                let rows = GROUP_ROWS.min(count - start);
                let values = vectors.read(first + start, rows)?;
                let values = values.into_iter().map(f32::from_le_bytes);
                let values = Arc::new(Float32Array::from_iter_values(values));
                let ids = (start..start + rows).map(|row| image_id(partition, row));
                let columns: Vec<ArrayRef> = vec![
                    Arc::new(StringArray::from_iter_values(ids)),
                    Arc::new(FixedSizeListArray::try_new(
                        item.clone(),
                        length,
                        values,
                        None,
                    )?),
                ];
                writer.write(&RecordBatch::try_new(writer.schema().clone(), columns)?)?;
            }
            Ok(open_unit.publish(|| writer.finish())?)
        })
    }

    /// Returns the hashes that the step computed on request.
    fn computed(&self, context: &Context) -> Vec<&'static str> {
        let is_read = *context.step() == StepName::read();
        self.pdq.iter().filter(|_| is_read).map(|_| "pdq").collect()
    }

    /// Calls `work` with each partition, its first image and the number of its images.
    fn each(
        &self,
        context: &Context,
        work: impl Fn(&mut OpenUnit<'_>, u32, usize, usize) -> Result<()>,
    ) -> Result<()> {
        let bound = |number: usize| self.images * number / self.partitions;
        for number in 0..self.partitions {
            let (first, next) = (bound(number), bound(number + 1));
            let unit = Unit::new(UnitKind::Partition, number as u32);
            let mut open_unit = begin(context, unit, self.partitions, &self.computed(context))?;
            work(&mut open_unit, number as u32, first, next - first)?;
            open_unit.commit(Counts::all_kept((next - first) as u64))?;
        }
        Ok(())
    }
}

fn begin<'c>(
    context: &'c Context,
    unit: Unit,
    units: usize,
    hashes: &[&str],
) -> Result<OpenUnit<'c>> {
    let work = Work {
        unit,
        units,
        settings: serde_json::json!({ "hashes": hashes }),
        inputs: Vec::new(),
    };
    context.begin(work)?.context("the run is made already")
}

fn shard(partition: u32) -> ShardPath {
    ShardPath::new(format!("{partition:05}.tar"))
}

fn image_id(partition: u32, row: usize) -> String {
    format!("{partition:05}/{row:07}")
}

fn sample(partition: u32, row: usize, hash: u64, pdq: Option<&[[u8; 8]]>) -> SampleRow {
    let pdq = pdq.map(|words| {
        let words = words.iter().rev().map(|word| u64::from_le_bytes(*word));
        words.map(|word| format!("{word:016x}")).collect()
    });
    SampleRow {
        image_id: ImageId::from_text(image_id(partition, row)),
        shard: shard(partition),
        key: format!("{row:07}"),
        members: Vec::new(),
        image_extension: None,
        format: None,
        width: Some(100),
        height: Some(100),
        orientation: None,
        bytes: 0,
        sha256: Some(format!("{hash:016x}").repeat(4)),
        phash: Some(hash),
        phash_transformed: None,
        md5: None,
        pdq,
        dark: None,
        light: None,
        blurry: None,
        low_information: None,
        odd_aspect: None,
        odd_size: None,
        caption: None,
        metadata: None,
        status: Status::Ok,
        reason: None,
        detail: None,
    }
}
