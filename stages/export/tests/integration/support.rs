//! Small runs: synthetic shards, the programs before the export, and scores as the stages write
//! them.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Arc;

use arrow::array::{FixedSizeListArray, Float32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field};
use clap::Parser;
use sluice_harness::{Common, Context, Program, Shared, Work};
use sluice_manifest::dag::{self, Step};
use sluice_manifest::rows::{
    DIMENSION_KEY, DuplicateRow, EMBEDDINGS, MODEL_KEY, MODEL_SHA256_KEY, Method, Row, SampleRow,
    ScoreRow, Status, embeddings,
};
use sluice_manifest::{Counts, Error, Input, Partition, Reason, Unit, layout};
use sluice_shard::{Event, Limits, ShardReader, ShardWriter};
use sluice_store::{Location, Store};

/// Members of a shard: name and bytes.
pub type Members = Vec<(String, Vec<u8>)>;

/// Values in the vectors of [`Run::embed`].
pub const DIMENSION: usize = 4;

/// A dataset, its run and its output, below one URI.
pub struct Run {
    pub base: String,
}

impl Run {
    /// In a memory of its own.
    pub fn new(name: &str) -> Self {
        Self {
            base: format!("memory://export-{name}"),
        }
    }

    pub fn store(&self, folder: &str) -> Store {
        let uri = format!("{}/{folder}", self.base);
        Store::create(&Location::parse(&uri).unwrap()).unwrap()
    }

    /// Puts a plain shard into the input.
    pub fn shard(&self, path: &str, members: &Members) {
        self.store("in").put(path, tar(members)).unwrap();
    }

    /// Runs a program with this run's `--run`; gives its units and how many were up to date.
    pub fn call<P: Program>(&self, arguments: &[&str]) -> anyhow::Result<(u64, u64)> {
        let run = format!("{}/run", self.base);
        let arguments = arguments.iter().map(|&argument| argument.to_owned());
        let mut line = vec![P::NAME.to_owned()];
        line.extend(arguments);
        line.extend(["--run".to_owned(), run]);
        let program = P::try_parse_from(line)?;
        let context = Context::new(program.common(), P::NAME, &Shared::default())?;
        program.run(&context)?;
        Ok(context.units())
    }

    /// Partitions and reads the input.
    pub fn read(&self, shards_per_partition: u32) {
        let input = format!("{}/in", self.base);
        let size = shards_per_partition.to_string();
        let arguments = ["--input", &input, "--shards-per-partition", &size];
        self.call::<sluice_partition::Args>(&arguments).unwrap();
        self.call::<sluice_read::Args>(&[]).unwrap();
    }

    /// Runs a step of the export.
    pub fn export(&self, arguments: &[&str]) -> anyhow::Result<(u64, u64)> {
        self.call::<sluice_export::Args>(arguments)
    }

    /// `plan` into this run's `out`.
    pub fn plan(&self, flags: &[&str]) -> anyhow::Result<(u64, u64)> {
        let output = format!("{}/out", self.base);
        let mut arguments = vec!["plan", "--output", &output];
        arguments.extend(flags);
        self.export(&arguments)
    }

    /// All four steps, with flags of `plan`.
    pub fn export_all(&self, filters: &str, flags: &[&str]) {
        self.export(&["decide", "--filters", filters]).unwrap();
        self.plan(flags).unwrap();
        self.export(&["write"]).unwrap();
        self.export(&["index"]).unwrap();
    }

    pub fn rows<R: Row>(&self, path: &str) -> Vec<R> {
        let rows = self.store("run").rows::<R>(path).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    }

    /// What `read` found, over all partitions.
    pub fn samples(&self) -> Vec<SampleRow> {
        let paths = self.store("run").list("read/images").unwrap();
        let rows = paths.iter().map(|object| self.rows(&object.path));
        rows.flatten().collect()
    }

    /// The objects of the output and their hashes.
    pub fn output(&self) -> BTreeMap<String, String> {
        let store = self.store("out");
        let objects = store.list("").unwrap().into_iter();
        let hashed = objects.map(|object| {
            let hash = blake3::hash(&store.get(&object.path).unwrap());
            (object.path, hash.to_hex().to_string())
        });
        hashed.collect()
    }

    /// The samples of an output shard: key, and extension and bytes of each member.
    pub fn curated(&self, shard: u32) -> Vec<(String, Members)> {
        let path = format!("{}.tar", layout::output_shard(shard));
        samples_of(&self.store("out").get(&path).unwrap())
    }

    /// Gives each sound sample a vector, as `sluice-embed` does.
    pub fn embed(&self) {
        self.per_partition(&dag::EMBED, |context, path, samples| {
            let metadata = [
                (MODEL_KEY, "tiny".to_owned()),
                (MODEL_SHA256_KEY, "00".to_owned()),
                (DIMENSION_KEY, DIMENSION.to_string()),
            ];
            let path = path("embeddings");
            let schema = embeddings(DIMENSION);
            let mut writer = context
                .run
                .write_table(&path, EMBEDDINGS, schema, &metadata)?;
            let ids = samples.iter().map(|row| row.image_id.as_str());
            let ids = StringArray::from_iter_values(ids);
            let values: Vec<f32> = samples.iter().flat_map(vector).collect();
            let item = Arc::new(Field::new("item", DataType::Float32, false));
            let values = Arc::new(Float32Array::from(values));
            let list = FixedSizeListArray::new(item, DIMENSION as i32, values, None);
            let columns: Vec<arrow::array::ArrayRef> = vec![Arc::new(ids), Arc::new(list)];
            let batch = RecordBatch::try_new(writer.schema().clone(), columns).unwrap();
            writer.write(&batch)?;
            writer.finish()
        });
    }

    /// Scores each sound sample, as the scoring stages do.
    pub fn score(&self, step: &'static Step, keep: impl Fn(&SampleRow) -> bool) {
        self.per_partition(step, |context, path, samples| {
            let mut writer = context.run.write_rows(&path("scores"), &[])?;
            for sample in samples {
                writer.push(ScoreRow {
                    image_id: sample.image_id.clone(),
                    score: score(sample),
                    keep: keep(sample),
                })?;
            }
            writer.finish()
        });
    }

    fn per_partition(
        &self,
        step: &'static Step,
        write: impl Fn(
            &Context,
            &dyn Fn(&str) -> String,
            &[SampleRow],
        ) -> sluice_manifest::Result<sluice_manifest::Output>,
    ) {
        let context = self.context();
        let plan = context.plan().unwrap();
        for unit in plan.units() {
            let mut samples = self.rows::<SampleRow>(&layout::manifest("read", "images", &unit));
            samples.retain(|sample| sample.status == Status::Ok);
            let inputs = vec![context.input(&dag::READ, &unit).unwrap()];
            let work = work(step, &unit, plan.partitions.len(), inputs);
            let Some(mut task) = context.begin(work).unwrap() else {
                continue;
            };
            let path = |kind: &str| layout::manifest(step.stage, kind, &unit);
            let output = write(&context, &path, &samples).unwrap();
            task.wrote(output);
            task.commit(Counts::default()).unwrap();
        }
    }

    /// Says that nothing is a duplicate, but for these exact ones.
    pub fn dedup(&self, exact: &[(Partition, &SampleRow)]) {
        let context = self.context();
        for (step, kind) in [
            (&dag::DEDUP_EXACT, "exact"),
            (&dag::DEDUP_PERCEPTUAL, "perceptual"),
            (&dag::DEDUP_MATCH, "group"),
        ] {
            let unit = Unit::numbered(kind, 0);
            let mut task = context
                .begin(work(step, &unit, 1, Vec::new()))
                .unwrap()
                .unwrap();
            let path = task.path("duplicates");
            let mut writer = context.run.write_rows(&path, &[]).unwrap();
            for (partition, sample) in exact.iter().filter(|_| kind == "exact") {
                let row = DuplicateRow {
                    partition: *partition,
                    image_id: sample.image_id.clone(),
                    duplicate_of: sample.image_id.clone(),
                    similarity: 1.0,
                    method: Method::Exact,
                };
                writer.push(row).unwrap();
            }
            task.wrote(writer.finish().unwrap());
            task.commit(Counts::default()).unwrap();
        }
    }

    fn context(&self) -> Context {
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            common: Common,
        }
        let run = format!("{}/run", self.base);
        let line = Line::parse_from(["test", "--force", "--run", &run]);
        Context::new(&line.common, "test", &Shared::default()).unwrap()
    }
}

fn work<'a>(step: &'a Step, unit: &'a Unit, units: usize, inputs: Vec<Input>) -> Work<'a> {
    Work {
        step,
        version: 1,
        unit,
        units,
        settings: serde_json::json!({ "model": { "name": "tiny" }, "min_score": 0.25 }),
        basis: None,
        inputs,
    }
}

/// The score that [`Run::score`] gives.
pub fn score(sample: &SampleRow) -> f32 {
    f32::from(digest(sample)[0]) / 255.0
}

/// The vector that [`Run::embed`] gives.
pub fn vector(sample: &SampleRow) -> [f32; DIMENSION] {
    let digest = digest(sample);
    std::array::from_fn(|i| f32::from(digest[i]))
}

fn digest(sample: &SampleRow) -> Vec<u8> {
    hex::decode(sample.sha256.as_ref().unwrap()).unwrap()
}

/// A tar of these members.
pub fn tar(members: &Members) -> Vec<u8> {
    let mut writer = ShardWriter::new(Vec::new());
    for (name, bytes) in members {
        writer.append(name, bytes).unwrap();
    }
    writer.finish().unwrap()
}

/// A sound picture; another one for each seed.
pub fn picture(seed: u32) -> Vec<u8> {
    let (width, height) = (8 + seed % 5, 8);
    let pixels = image::RgbImage::from_fn(width, height, |x, y| {
        let hash = blake3::hash(&[seed.to_le_bytes(), (x * 100 + y).to_le_bytes()].concat());
        let bytes = hash.as_bytes();
        image::Rgb([bytes[0], bytes[1], bytes[2]])
    });
    let format = match seed % 3 {
        0 => image::ImageFormat::Bmp,
        1 => image::ImageFormat::WebP,
        _ => image::ImageFormat::Png,
    };
    let mut bytes = Cursor::new(Vec::new());
    pixels.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// Samples with keys `from..to`: a picture each; a caption, metadata, a further member, and a broken
/// picture now and then.
pub fn samples(numbers: std::ops::Range<u32>) -> Members {
    let mut members = Members::new();
    for number in numbers {
        let mut add = |extension: &str, bytes: Vec<u8>| {
            members.push((format!("{number:06}.{extension}"), bytes));
        };
        match number % 7 {
            5 => add("jpg", b"no picture".to_vec()),
            _ => add("png", picture(number)),
        }
        add("txt", format!("caption {number}").into_bytes());
        if number.is_multiple_of(2) {
            let json = format!("{{\"n\": {number}}}");
            add("json", json.into_bytes());
        }
        if number.is_multiple_of(4) {
            add("seg.mask.bin", vec![number as u8; number as usize * 13]);
        }
    }
    members
}

/// Key and members of each sample in a shard.
pub fn samples_of(shard: &[u8]) -> Vec<(String, Members)> {
    let mut samples = Vec::new();
    for event in ShardReader::new(shard, Limits::default()).unwrap() {
        let Event::Sample(sample) = event.unwrap() else {
            continue;
        };
        let members = sample.members.into_iter();
        let members = members.map(|member| (member.extension, member.data.unwrap()));
        samples.push((sample.key, members.collect()));
    }
    samples
}

/// What an error says, as a person reads it.
pub fn words(outcome: anyhow::Result<(u64, u64)>) -> String {
    let error = outcome.expect_err("an error");
    format!("{error:#}")
}

/// The exit code that an error ends a program with.
pub fn exit(outcome: anyhow::Result<(u64, u64)>) -> u8 {
    let error = outcome.expect_err("an error");
    let class = error.downcast_ref::<Error>().map(Error::class);
    class.expect("an error with a class").exit_status() as u8
}

/// Whether a reason is one of `read`'s.
pub fn of_read(reason: Reason) -> bool {
    reason.stage() == "read"
}
