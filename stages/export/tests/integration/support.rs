//! Small runs: synthetic shards, the programs before the export, and manifests as the steps between
//! write them.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field};
use clap::Parser;
use serde::Serialize;
use sluice_harness::{Common, Context, OpenUnit, ProcessResources, Program, ProgramNode, Work};
use sluice_manifest::layout::{self, DUPLICATES, EMBEDDINGS, FILTERED, SCORES};
use sluice_manifest::rows::{
    self, DIMENSION_KEY, DuplicateRow, FilterRow, MODEL_KEY, MODEL_SHA256_KEY, Method, Row,
    SampleRow,
};
use sluice_manifest::{
    Counts, Error, Histogram, ImageId, Input, Operation, Output, Reason, ReasonKind, Receipt,
    Resources, ScoreColumn, ScoreSummary, StepName, Unit, UnitKind,
};
use sluice_shard::{Event, ShardLimits, ShardReader, ShardWriter};
use sluice_store::{Location, Store};

/// What all tests of this program share. Their memory stores have different names.
pub(crate) fn shared() -> &'static ProcessResources {
    static SHARED: LazyLock<ProcessResources> = LazyLock::new(ProcessResources::default);
    &SHARED
}

/// The members of a shard: name and bytes.
pub(crate) type Members = Vec<(String, Vec<u8>)>;

/// The number of values in the vectors of [`Run::embed`].
pub(crate) const DIMENSION: usize = 4;

/// A dataset, its run and its output, below one URI.
pub(crate) struct Run {
    pub base: String,
}

impl Run {
    /// Creates a run in a memory store of its own.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            base: format!("memory://export-{name}"),
        }
    }

    pub(crate) fn store(&self, folder: &str) -> Store {
        let uri = format!("{}/{folder}", self.base);
        shared()
            .storage
            .create(&Location::parse(&uri).unwrap())
            .unwrap()
    }

    /// Writes an uncompressed shard into the input.
    pub(crate) fn shard(&self, path: &str, members: &Members) {
        self.store("in").put(path, tar(members)).unwrap();
    }

    /// Runs a program with this run's `--run`. Returns its units, and how many were up to date.
    pub(crate) fn call<P: Program>(&self, arguments: &[&str]) -> anyhow::Result<(u64, u64)> {
        let run = format!("{}/run", self.base);
        let arguments = arguments.iter().map(|&argument| argument.to_owned());
        let mut line = vec![P::NAME.to_owned()];
        line.extend(arguments);
        line.extend(["--run".to_owned(), run]);
        let program = P::try_parse_from(line)?;
        let node = program.node();
        let context = Context::new(program.common(), P::NAME, node, shared())?;
        program.run(&context)?;
        Ok(context.units())
    }

    /// Partitions and reads the input.
    pub(crate) fn read(&self, shards_per_partition: u32) {
        let input = format!("{}/in", self.base);
        let size = shards_per_partition.to_string();
        let arguments = ["--input", &input, "--shards-per-partition", &size];
        self.call::<sluice_partition::Args>(&arguments).unwrap();
        self.call::<sluice_read::Args>(&[]).unwrap();
    }

    /// Runs a subcommand of the export.
    pub(crate) fn export(&self, arguments: &[&str]) -> anyhow::Result<(u64, u64)> {
        self.call::<sluice_export::Args>(arguments)
    }

    /// Runs `plan` for this run's `out`.
    pub(crate) fn plan(&self, flags: &[&str]) -> anyhow::Result<(u64, u64)> {
        let output = format!("{}/out", self.base);
        let mut arguments = vec!["plan", "--output", &output];
        arguments.extend(flags);
        self.export(&arguments)
    }

    /// Runs `decide` on the survivors of a step, or on all samples.
    pub(crate) fn decide(&self, survivors_of: Option<&str>) -> anyhow::Result<(u64, u64)> {
        let flag = survivors_of.map(|step| format!("--survivors-of={step}"));
        let mut arguments = vec!["decide"];
        arguments.extend(flag.as_deref());
        self.export(&arguments)
    }

    /// Runs all four subcommands, with flags of `plan`.
    pub(crate) fn export_all(&self, survivors_of: Option<&str>, flags: &[&str]) {
        self.decide(survivors_of).unwrap();
        self.plan(flags).unwrap();
        self.export(&["write"]).unwrap();
        self.export(&["index"]).unwrap();
    }

    pub(crate) fn receipt(&self, path: &str) -> Receipt {
        serde_json::from_slice(&self.store("run").get(path).unwrap()).unwrap()
    }

    /// Lists a rewritten manifest in the receipt of a part.
    pub(crate) fn vouch(&self, step: &str, part: u32, output: Output) {
        let unit = Unit::new(UnitKind::Partition, part);
        let path = layout::receipt(&StepName::new(step).unwrap(), unit);
        let mut receipt = self.receipt(&path);
        receipt.outputs = vec![output];
        let json = receipt.to_json().unwrap();
        self.store("run").put(&path, json).unwrap();
    }

    pub(crate) fn rows<R: Row>(&self, path: &str) -> Vec<R> {
        let rows = self.store("run").rows::<R>(path).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    }

    /// Returns the samples that `read` found in all partitions.
    pub(crate) fn samples(&self) -> Vec<SampleRow> {
        let paths = self.store("run").list("read/images").unwrap();
        let rows = paths.iter().map(|object| self.rows(&object.path));
        rows.flatten().collect()
    }

    /// Returns the objects of the output and their hashes.
    pub(crate) fn output(&self) -> BTreeMap<String, String> {
        let store = self.store("out");
        let objects = store.list("").unwrap().into_iter();
        let hashed = objects.map(|object| {
            let hash = blake3::hash(&store.get(&object.path).unwrap());
            (object.path, hash.to_hex().to_string())
        });
        hashed.collect()
    }

    /// Returns the samples of an output shard: the key, and the extension and bytes of each member.
    pub(crate) fn curated(&self, shard: u32) -> Vec<(String, Members)> {
        let path = format!("{}.tar", Unit::new(UnitKind::Shard, shard));
        samples_of(&self.store("out").get(&path).unwrap())
    }

    /// Gives each usable sample a vector, as `sluice-embed` does.
    pub(crate) fn embed(&self, step: &str) {
        self.per_partition("embed", step, |context, open_unit, samples| {
            let metadata = [
                (MODEL_KEY, "tiny".to_owned()),
                (MODEL_SHA256_KEY, "00".to_owned()),
                (DIMENSION_KEY, DIMENSION.to_string()),
            ];
            let (path, schema) = (open_unit.path(&EMBEDDINGS), rows::embeddings(DIMENSION));
            let run = &context.run;
            let mut writer = run
                .write_table(&path, rows::EMBEDDINGS, schema, &metadata)
                .unwrap();
            let values: Vec<f32> = samples.iter().flat_map(vector).collect();
            let item = Arc::new(Field::new("item", DataType::Float32, false));
            let values = Arc::new(Float32Array::from(values));
            let list = FixedSizeListArray::new(item, DIMENSION as i32, values, None);
            let columns: Vec<ArrayRef> = vec![ids(samples), Arc::new(list)];
            let batch = RecordBatch::try_new(writer.schema().clone(), columns).unwrap();
            writer.write(&batch).unwrap();
            open_unit.publish(|| writer.finish()).unwrap();
        });
    }

    /// Scores each usable sample, as the scorers do. Every seventh has no score.
    pub(crate) fn score(&self, step: &str, outputs: &[&str]) {
        self.per_partition("score", step, |context, open_unit, samples| {
            let schema = rows::scores(outputs.iter().copied());
            let run = &context.run;
            let mut writer = run
                .write_table(&open_unit.path(&SCORES), rows::SCORES, schema, &[])
                .unwrap();
            let mut columns = vec![ids(samples)];
            columns.extend(outputs.iter().map(|output| -> ArrayRef {
                let scores = samples.iter().map(|sample| score(sample, step, output));
                Arc::new(scores.collect::<Float32Array>())
            }));
            let batch = RecordBatch::try_new(writer.schema().clone(), columns).unwrap();
            writer.write(&batch).unwrap();
            open_unit.publish(|| writer.finish()).unwrap();
            let summaries = outputs.iter().map(|output| ScoreSummary {
                column: ScoreColumn::named(output),
                histogram: Histogram::default(),
            });
            open_unit.scores(summaries.collect());
            open_unit.about("licence", "MIT");
        });
    }

    fn per_partition(
        &self,
        stage: &'static str,
        step: &str,
        write: impl Fn(&Context, &mut OpenUnit<'_>, &[SampleRow]),
    ) {
        let context = self.context(stage, &PARTITIONS, step, None);
        let plan = context.plan().unwrap();
        for partition in &plan.partitions {
            let survivors = context.survivors(None).unwrap();
            let samples = survivors.samples(partition.partition).unwrap();
            let samples: Vec<SampleRow> = samples.collect::<Result<_, _>>().unwrap();
            let work = Work {
                unit: partition.partition.into(),
                units: plan.partitions.len(),
                settings: Settings::new(0.0),
                inputs: survivors.inputs(partition.partition).unwrap(),
            };
            let Some(mut open_unit) = context.begin(work).unwrap() else {
                continue;
            };
            write(&context, &mut open_unit, &samples);
            open_unit.commit(Counts::default()).unwrap();
        }
    }

    /// Keeps the samples whose score is at least the threshold, as `sluice-filter` does.
    pub(crate) fn filter(
        &self,
        step: &str,
        survivors_of: Option<&str>,
        scorer: &str,
        threshold: f32,
    ) {
        self.filter_by(step, survivors_of, scorer, |_| threshold);
    }

    /// Like [`filter`](Self::filter), with a threshold for each unit.
    pub(crate) fn filter_by(
        &self,
        step: &str,
        survivors_of: Option<&str>,
        scorer: &str,
        threshold: impl Fn(Unit) -> f32,
    ) {
        let context = self.context("filter", &PARTITIONS, step, survivors_of);
        let survivors = context.survivors(name(survivors_of).as_ref()).unwrap();
        let plan = context.plan().unwrap();
        for partition in &plan.partitions {
            let unit = Unit::from(partition.partition);
            let threshold = threshold(unit);
            let mut inputs = survivors.inputs(partition.partition).unwrap();
            inputs.push(
                context
                    .input(&StepName::new(scorer).unwrap(), unit)
                    .unwrap(),
            );
            let work = Work {
                unit,
                units: plan.partitions.len(),
                settings: Settings::new(threshold),
                inputs,
            };
            let Some(mut open_unit) = context.begin(work).unwrap() else {
                continue;
            };
            let mut writer = context
                .run
                .write_rows(&open_unit.path(&FILTERED), &[])
                .unwrap();
            let mut counts = Counts::default();
            for sample in survivors.samples(partition.partition).unwrap() {
                let row = filtered(&sample.unwrap(), scorer, threshold);
                counts.add(context.step(), row.reason.as_ref());
                writer.push(row).unwrap();
            }
            open_unit.publish(|| writer.finish()).unwrap();
            open_unit.decides(&[UnitKind::Partition]);
            open_unit.commit(counts).unwrap();
        }
    }

    /// Drops these samples, as `sluice-dedup` does. Ranks by the scores of `scorer`.
    pub(crate) fn dedup(
        &self,
        step: &str,
        survivors_of: Option<&str>,
        scorer: &str,
        twins: &[&ImageId],
    ) {
        let context = self.context("dedup", &EXACT, step, survivors_of);
        let survivors = context.survivors(name(survivors_of).as_ref()).unwrap();
        let scorer = StepName::new(scorer).unwrap();
        let scores = context
            .combined_input(&scorer, UnitKind::Partition)
            .unwrap();
        let inputs: Vec<Input> = survivors.all_inputs().unwrap();
        let work = Work {
            unit: Unit::once(UnitKind::Exact),
            units: 1,
            settings: Settings::new(0.0),
            inputs: [inputs, vec![scores]].concat(),
        };
        let Some(mut open_unit) = context.begin(work).unwrap() else {
            return;
        };
        let mut writer = context
            .run
            .write_rows(&open_unit.path(&DUPLICATES), &[])
            .unwrap();
        for partition in &context.plan().unwrap().partitions {
            for sample in survivors.samples(partition.partition).unwrap() {
                let sample: SampleRow = sample.unwrap();
                if twins.contains(&&sample.image_id) {
                    let row = DuplicateRow {
                        partition: partition.partition,
                        duplicate_of: sample.image_id.clone(),
                        reference: None,
                        label: None,
                        image_id: sample.image_id,
                        similarity: 1.0,
                        method: Method::Exact,
                    };
                    writer.push(row).unwrap();
                }
            }
        }
        open_unit.publish(|| writer.finish()).unwrap();
        open_unit.decides(&[UnitKind::Exact]);
        open_unit.commit(Counts::default()).unwrap();
    }

    /// Returns the context of a step that a test replaces.
    fn context(
        &self,
        stage: &'static str,
        operation: &'static Operation,
        step: &str,
        survivors_of: Option<&str>,
    ) -> Context {
        #[derive(Parser)]
        struct Line {
            /// The arguments of every program.
            #[command(flatten)]
            common: Common,
        }
        let run = format!("{}/run", self.base);
        let line = Line::parse_from(["test", "--run", &run]);
        let node = ProgramNode {
            step: StepName::new(step).unwrap(),
            stage,
            operation,
            survivors_of: name(survivors_of),
        };
        Context::new(&line.common, "test", node, shared()).unwrap()
    }
}

static PARTITIONS: Operation = operation(None, UnitKind::Partition);
static EXACT: Operation = operation(Some("exact"), UnitKind::Exact);

const fn operation(subcommand: Option<&'static str>, unit: UnitKind) -> Operation {
    Operation {
        subcommand,
        unit,
        resources: Resources::Light,
        after: &[],
        revision: 1,
    }
}

/// The settings of the steps that tests replace.
#[derive(Serialize)]
struct Settings {
    model: Model,
    threshold: f32,
}

#[derive(Serialize)]
struct Model {
    name: &'static str,
}

impl Settings {
    fn new(threshold: f32) -> Self {
        let model = Model { name: "tiny" };
        Self { model, threshold }
    }
}

fn name(step: Option<&str>) -> Option<StepName> {
    step.map(|step| StepName::new(step).unwrap())
}

fn ids(samples: &[SampleRow]) -> ArrayRef {
    let ids = samples.iter().map(|row| row.image_id.as_str());
    Arc::new(StringArray::from_iter_values(ids))
}

fn filtered(sample: &SampleRow, scorer: &str, threshold: f32) -> FilterRow {
    let score = score(sample, scorer, ScoreColumn::ONLY);
    let kind = match score {
        None => Some(ReasonKind::NotScored),
        Some(score) if score < threshold => Some(ReasonKind::BelowMin),
        Some(_) => None,
    };
    FilterRow {
        image_id: sample.image_id.clone(),
        keep: kind.is_none(),
        reason: kind.map(|kind| Reason::about(kind, scorer)),
        detail: kind.map(|_| format!("{scorer} {score:?}")),
    }
}

/// Returns the score that [`Run::score`] assigns, a different one for each step and output.
pub(crate) fn score(sample: &SampleRow, step: &str, output: &str) -> Option<f32> {
    let digest = digest(sample);
    let name = step.bytes().chain(output.bytes());
    let at = name.map(usize::from).sum::<usize>() % digest.len();
    (!digest[at].is_multiple_of(7)).then(|| f32::from(digest[at]) / 255.0)
}

/// Returns the vector that [`Run::embed`] assigns.
pub(crate) fn vector(sample: &SampleRow) -> [f32; DIMENSION] {
    let digest = digest(sample);
    std::array::from_fn(|i| f32::from(digest[i]))
}

fn digest(sample: &SampleRow) -> Vec<u8> {
    hex::decode(sample.sha256.as_ref().unwrap()).unwrap()
}

/// Returns a tar of these members.
pub(crate) fn tar(members: &Members) -> Vec<u8> {
    let mut writer = ShardWriter::new(Vec::new());
    for (name, bytes) in members {
        writer.append(name, bytes).unwrap();
    }
    writer.finish().unwrap()
}

/// Returns a valid image, a different one for each seed.
pub(crate) fn picture(seed: u32) -> Vec<u8> {
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

/// Returns samples with keys `from..to`: an image each; some with a caption, metadata, a further
/// member or a damaged image.
pub(crate) fn samples(numbers: std::ops::Range<u32>) -> Members {
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

/// Returns the key and members of each sample in a shard.
pub(crate) fn samples_of(shard: &[u8]) -> Vec<(String, Members)> {
    let mut samples = Vec::new();
    for event in ShardReader::new(shard, ShardLimits::default()).unwrap() {
        let Event::Sample(sample) = event.unwrap() else {
            continue;
        };
        let members = sample.members.into_iter();
        let members = members.map(|member| (member.extension, member.data.unwrap()));
        samples.push((sample.key, members.collect()));
    }
    samples
}

/// Returns the text of an error, as a person reads it.
pub(crate) fn words(outcome: anyhow::Result<(u64, u64)>) -> String {
    let error = outcome.expect_err("an error");
    format!("{error:#}")
}

/// Returns the exit code that an error ends a program with.
pub(crate) fn exit(outcome: anyhow::Result<(u64, u64)>) -> u8 {
    let error = outcome.expect_err("an error");
    let class = error.downcast_ref::<Error>().map(Error::class);
    class.expect("an error with a class").exit_status() as u8
}
