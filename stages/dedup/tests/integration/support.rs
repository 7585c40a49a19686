//! Runs in memory whose steps before `dedup` are made up.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Schema};
use sluice_dedup::Args;
use sluice_harness::{
    Common, Context, OpenUnit, ProcessResources, Program, ProgramNode, StepDone, Work, run_step,
};
use sluice_manifest::layout::{
    DUPLICATES, EMBEDDINGS, FILTERED, IMAGES, Manifest, PLAN, RUN_INFO, SCORES,
};
use sluice_manifest::rows::{
    self, DIMENSION_KEY, DuplicateRow, FilterRow, MODEL_KEY, MODEL_SHA256_KEY, PlanRow,
    SampleBrief, SampleRow, Status,
};
use sluice_manifest::{
    ABOUT_EPS, Counts, Histogram, ImageId, Operation, Partition, Reason, ReasonKind, Receipt,
    Resources, RunInfo, ScoreColumn, ScoreSummary, ShardPath, StepName, Unit, UnitKind, layout,
};

/// What all tests of this program share. Each test has a store in memory with a name of its own.
pub(super) fn shared() -> &'static ProcessResources {
    static SHARED: LazyLock<ProcessResources> = LazyLock::new(ProcessResources::default);
    &SHARED
}

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

/// A sample of a made-up run. The first letter of its id is its partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Made {
    pub id: &'static str,
    /// Equal content has one number.
    pub content: u8,
    pub phash: u64,
    pub pixels: u32,
    pub score: Option<f32>,
    /// The direction of its embedding, in degrees.
    pub degrees: Option<f32>,
    /// What `read` computes on request.
    pub hashes: Option<Hashes>,
}

/// The hashes that `read` computes on request. The MD5 follows from the content.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hashes {
    pub pdq: [u64; 4],
    pub transformed: [u64; 7],
}

/// A sample that is like no other with another `content`.
pub(super) fn made(id: &'static str, content: u8) -> Made {
    Made {
        id,
        content,
        // Any two numbers differ in many of the bits.
        phash: (u64::from(content) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        pixels: 100,
        score: None,
        degrees: Some(f32::from(content) * 30.0),
        hashes: None,
    }
}

/// A run with partitions `a`, `b`, …
pub(super) struct Run {
    uri: String,
    /// The hashes that `read` computed on request.
    hashes: &'static [&'static str],
    /// The samples of each partition.
    pub samples: Vec<Vec<Made>>,
}

impl Run {
    /// A run that was read, in a store of this name.
    pub(super) fn new(name: &str, samples: &[Made]) -> Self {
        let has_hashes = samples.iter().any(|sample| sample.hashes.is_some());
        let hashes: &[_] = if has_hashes {
            &["md5", "pdq", "transformed"]
        } else {
            &[]
        };
        Self::with_hashes(name, samples, hashes)
    }

    /// As [`new`](Self::new), by a `read` that computed these hashes on request.
    pub(super) fn with_hashes(
        name: &str,
        samples: &[Made],
        hashes: &'static [&'static str],
    ) -> Self {
        let mut partitions: BTreeMap<&str, Vec<Made>> = BTreeMap::new();
        for sample in samples {
            partitions.entry(&sample.id[..1]).or_default().push(*sample);
        }
        let run = Self {
            uri: format!("memory://dedup-{name}/run"),
            hashes,
            samples: partitions.into_values().collect(),
        };
        run.plan();
        run.read();
        run
    }

    /// Returns the run's place.
    pub(super) fn uri(&self) -> &str {
        &self.uri
    }

    /// Opens the run as a step would.
    pub(super) fn open(&self, step: &str, survivors_of: Option<&str>) -> Context {
        let operation = match step {
            "partition" => &PLAN_OPERATION,
            _ => &PART_OPERATION,
        };
        let node = ProgramNode {
            step: StepName::new(step).unwrap(),
            stage: match step {
                "partition" => "partition",
                "read" => "read",
                // Whatever it makes, the tests also run the stage itself under that name.
                _ => "dedup",
            },
            operation,
            survivors_of: survivors_of.map(|step| StepName::new(step).unwrap()),
        };
        let common = Common {
            run: self.uri.clone(),
            partitions: None,
            task_index: None,
            task_count: None,
            jobs: Some(1),
            ..Common::default()
        };
        Context::new(&common, "made-up", node, shared()).unwrap()
    }

    /// Runs a subcommand. `words` begin with its name.
    pub(super) fn dedup(&self, words: &str) -> anyhow::Result<StepDone> {
        let words = ["sluice-dedup"].into_iter().chain(words.split(' '));
        let mut words: Vec<String> = words.map(str::to_owned).collect();
        words.extend(["--run".to_owned(), self.uri.clone()]);
        run_step::<Args>(&words, shared())
    }

    /// Runs all active subcommands of a step with these flags, each with those that it takes.
    pub(super) fn dedup_all(&self, flags: &str) {
        for operation in Args::OPERATIONS {
            let subcommand = operation.subcommand.unwrap();
            let words = of_subcommand(subcommand, flags);
            if active(&words) {
                self.dedup(&words).unwrap();
            }
        }
    }

    /// Returns the removed samples of a step, each with the one that stays, by id.
    pub(super) fn removed(&self, step: &str) -> Vec<(String, String)> {
        let rows = self.rows(step).into_iter();
        rows.map(|row| (row.image_id.to_string(), row.duplicate_of.to_string()))
            .collect()
    }

    /// Returns what a step removed, by id.
    pub(super) fn rows(&self, step: &str) -> Vec<DuplicateRow> {
        let context = self.open(step, None);
        let step = StepName::new(step).unwrap();
        let mut removed = Vec::new();
        for object in context.run.list(&format!("{step}/duplicates")).unwrap() {
            for row in context.run.rows::<DuplicateRow>(&object.path).unwrap() {
                removed.push(row.unwrap());
            }
        }
        removed.sort_by(|a, b| (&a.image_id, &a.duplicate_of).cmp(&(&b.image_id, &b.duplicate_of)));
        removed
    }

    /// Returns the samples that a step after this one sees.
    pub(super) fn survivors_of(&self, step: &str) -> Vec<String> {
        let context = self.open("later", Some(step));
        let step = StepName::new(step).unwrap();
        let survivors = context.survivors(Some(&step)).unwrap();
        let partitions = (0..self.samples.len() as u32).map(Partition);
        partitions
            .flat_map(|partition| survivors.samples::<SampleBrief>(partition).unwrap())
            .map(|sample| sample.unwrap().image_id.to_string())
            .collect()
    }

    /// Returns the receipt of a unit.
    pub(super) fn receipt(&self, step: &str, unit: Unit) -> Option<Receipt> {
        let context = self.open(step, None);
        context.receipt(context.step(), unit).unwrap()
    }

    /// Returns the kinds of a step's units that have outputs or receipts.
    pub(super) fn kinds(&self, step: &str) -> BTreeSet<UnitKind> {
        let objects = self.open(step, None).run.list(step).unwrap();
        let units = objects.iter().map(|object| {
            let name = object.path.rsplit('/').next().unwrap();
            let name = name.split('.').next().unwrap();
            name.parse::<Unit>().unwrap().kind
        });
        units.collect()
    }

    fn plan(&self) {
        let context = self.open("partition", None);
        let info = RunInfo {
            layout: RunInfo::LAYOUT,
            input: "memory://none".into(),
            patterns: Vec::new(),
            partitions: self.samples.len() as u32,
            shards: self.samples.len() as u64,
            ..RunInfo::default()
        };
        let json = serde_json::to_vec(&info).unwrap();
        let mut object = context.run.writer(RUN_INFO).unwrap();
        object.write_all(&json).unwrap();
        let mut writer = context.run.write_rows(PLAN, &[]).unwrap();
        for number in 0..self.samples.len() {
            let row = PlanRow {
                partition: Partition(number as u32),
                shard: ShardPath::new(format!("{number}.tar")),
                bytes: 0,
                etag: None,
                modified: None,
                ..PlanRow::default()
            };
            writer.push(row).unwrap();
        }
        let mut open_unit = begin(&context, Unit::once(UnitKind::Plan), 1, &[]).unwrap();
        open_unit.publish(|| object.finish()).unwrap();
        open_unit.publish(|| writer.finish()).unwrap();
        open_unit.commit(Counts::default()).unwrap();
    }

    /// Rejects the samples without a content (0).
    fn read(&self) {
        let context = self.open("read", None);
        self.each(&context, |open_unit, samples| {
            let mut writer = context
                .run
                .write_rows(&open_unit.path(&IMAGES), &[])
                .unwrap();
            let mut counts = Counts::default();
            for sample in samples {
                let row = read_row(sample);
                counts.add(context.step(), row.reason.as_ref());
                writer.push(row).unwrap();
            }
            open_unit.publish(|| writer.finish()).unwrap();
            counts
        });
    }

    /// Embeds what `seen` chooses, of samples that have a direction.
    pub(super) fn embed(&self, step: &str, seen: impl Fn(&Made) -> bool) {
        self.embed_by(step, "made-up", seen);
    }

    /// Embeds with a model of this name.
    pub(super) fn embed_by(&self, step: &str, model: &str, seen: impl Fn(&Made) -> bool) {
        let context = self.open(step, None);
        self.each(&context, |open_unit, samples| {
            let seen: Vec<&Made> = samples.iter().filter(|sample| seen(sample)).collect();
            let pairs = seen
                .iter()
                .filter_map(|sample| Some((sample.id, sample.degrees?)));
            let (ids, degrees): (Vec<&str>, Vec<f32>) = pairs.unzip();
            open_unit.sums.unscored = (seen.len() - ids.len()) as u64;
            let schema = rows::embeddings(2);
            let values = degrees.iter().flat_map(|degrees| {
                let (sin, cos) = degrees.to_radians().sin_cos();
                [cos, sin]
            });
            let DataType::FixedSizeList(item, length) = schema.field(1).data_type().clone() else {
                panic!("not a list of vectors");
            };
            let values = Arc::new(Float32Array::from_iter_values(values));
            let vectors = FixedSizeListArray::new(item, length, values, None);
            let metadata = [
                (MODEL_KEY, model.to_owned()),
                (MODEL_SHA256_KEY, "0".repeat(64)),
                (DIMENSION_KEY, "2".to_owned()),
            ];
            write(
                &context,
                open_unit,
                &EMBEDDINGS,
                rows::EMBEDDINGS,
                schema,
                &metadata,
                ids,
                vectors,
            );
            Counts::all_kept(seen.len() as u64)
        });
    }

    /// Makes the receipts of the step that embeds state a distance of duplicates.
    pub(super) fn state_eps(&self, step: &str, eps: &str) {
        let context = self.open(step, None);
        for number in 0..self.samples.len() as u32 {
            let unit = Unit::new(UnitKind::Partition, number);
            let mut receipt = context.required_receipt(context.step(), unit).unwrap();
            receipt.set_about(ABOUT_EPS, eps);
            let path = layout::receipt(context.step(), unit);
            context.run.put(&path, receipt.to_json().unwrap()).unwrap();
        }
    }

    /// Scores what `seen` chooses, of samples that have a score.
    pub(super) fn score(&self, step: &str, seen: impl Fn(&Made) -> bool) {
        let context = self.open(step, None);
        self.each(&context, |open_unit, samples| {
            let seen: Vec<&Made> = samples.iter().filter(|sample| seen(sample)).collect();
            let pairs = seen
                .iter()
                .filter_map(|sample| Some((sample.id, sample.score?)));
            let (ids, scores): (Vec<&str>, Vec<f32>) = pairs.unzip();
            let schema = rows::scores([ScoreColumn::ONLY]);
            let scores = Float32Array::from(scores);
            write(
                &context,
                open_unit,
                &SCORES,
                rows::SCORES,
                schema,
                &[],
                ids,
                scores,
            );
            open_unit.scores(vec![ScoreSummary {
                column: ScoreColumn::named(ScoreColumn::ONLY),
                histogram: Histogram::default(),
            }]);
            Counts::all_kept(seen.len() as u64)
        });
    }

    /// A filter that keeps what `keep` chooses, of all samples that were not rejected.
    pub(super) fn filter(&self, step: &str, keep: impl Fn(&Made) -> bool) {
        let context = self.open(step, None);
        self.each(&context, |open_unit, samples| {
            let mut writer = context
                .run
                .write_rows(&open_unit.path(&FILTERED), &[])
                .unwrap();
            let mut counts = Counts::default();
            for sample in samples.iter().filter(|sample| sample.content > 0) {
                let reason = (!keep(sample)).then(|| Reason::about(ReasonKind::Rule, "made-up"));
                counts.add(context.step(), reason.as_ref());
                let row = FilterRow {
                    image_id: ImageId::from_text(sample.id),
                    keep: reason.is_none(),
                    reason,
                    detail: None,
                };
                writer.push(row).unwrap();
            }
            open_unit.publish(|| writer.finish()).unwrap();
            open_unit.decides(&[UnitKind::Partition]);
            counts
        });
    }

    fn each(&self, context: &Context, work: impl Fn(&mut OpenUnit<'_>, &[Made]) -> Counts) {
        for (number, samples) in self.samples.iter().enumerate() {
            let unit = Unit::new(UnitKind::Partition, number as u32);
            let hashes = match context.step().as_str() {
                "read" => self.hashes,
                _ => &[],
            };
            let mut open_unit = begin(context, unit, self.samples.len(), hashes).unwrap();
            let counts = work(&mut open_unit, samples);
            open_unit.commit(counts).unwrap();
        }
    }
}

fn begin<'c>(
    context: &'c Context,
    unit: Unit,
    units: usize,
    hashes: &[&str],
) -> Option<OpenUnit<'c>> {
    let work = Work {
        unit,
        units,
        settings: serde_json::json!({ "hashes": hashes }),
        inputs: Vec::new(),
    };
    context.begin(work).unwrap()
}

#[expect(clippy::too_many_arguments, reason = "a manifest has that many parts")]
fn write<R>(
    context: &Context,
    open_unit: &mut OpenUnit<'_>,
    manifest: &Manifest<R>,
    name: &str,
    schema: Schema,
    metadata: &[(&str, String)],
    ids: Vec<&str>,
    values: impl arrow::array::Array + 'static,
) {
    let path = open_unit.path(manifest);
    let mut writer = context
        .run
        .write_table(&path, name, schema, metadata)
        .unwrap();
    let columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from(ids)), Arc::new(values)];
    let batch = RecordBatch::try_new(writer.schema().clone(), columns).unwrap();
    writer.write(&batch).unwrap();
    open_unit.publish(|| writer.finish()).unwrap();
}

/// Returns the digits of a PDQ hash.
pub(super) fn pdq_text(words: [u64; 4]) -> String {
    words
        .iter()
        .rev()
        .map(|word| format!("{word:016x}"))
        .collect()
}

fn read_row(sample: &Made) -> SampleRow {
    let is_rejected = sample.content == 0;
    SampleRow {
        image_id: ImageId::from_text(sample.id),
        shard: ShardPath::new("x.tar"),
        key: sample.id.to_owned(),
        members: Vec::new(),
        image_extension: None,
        format: None,
        width: Some(sample.pixels),
        height: Some(1),
        orientation: None,
        bytes: 0,
        sha256: Some(format!("{:02x}", sample.content).repeat(32)),
        phash: Some(sample.phash),
        phash_transformed: sample.hashes.map(|hashes| hashes.transformed.to_vec()),
        md5: sample
            .hashes
            .map(|_| format!("{:02x}", sample.content).repeat(16)),
        pdq: sample.hashes.map(|hashes| pdq_text(hashes.pdq)),
        dark: None,
        light: None,
        blurry: None,
        low_information: None,
        odd_aspect: None,
        odd_size: None,
        caption: None,
        metadata: None,
        status: if is_rejected {
            Status::Rejected
        } else {
            Status::Ok
        },
        reason: is_rejected.then(|| ReasonKind::Corrupt.into()),
        detail: None,
    }
}

/// A subcommand with those of the flags that it takes.
fn of_subcommand(subcommand: &str, flags: &str) -> String {
    use clap::CommandFactory;
    let command = Args::command();
    let command = command.find_subcommand(subcommand).unwrap();
    let takes = |flag: &&str| {
        let name = flag.trim_start_matches("--").split('=').next().unwrap();
        command
            .get_arguments()
            .any(|arg| arg.get_long() == Some(name))
    };
    let flags = flags.split_whitespace().filter(takes);
    [subcommand]
        .into_iter()
        .chain(flags)
        .collect::<Vec<_>>()
        .join(" ")
}

fn active(words: &str) -> bool {
    use clap::Parser;
    let words = format!("sluice-dedup {words} --run memory://none");
    Args::try_parse_from(words.split(' ')).unwrap().is_active()
}

/// Pairs of text, for comparison with [`Run::removed`].
pub(super) fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let pairs = pairs.iter();
    pairs
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
        .collect()
}

impl Run {
    /// Returns a manifest of duplicates as bytes.
    pub(super) fn duplicates(&self, step: &str, unit: Unit) -> Vec<u8> {
        let context = self.open(step, None);
        let path = DUPLICATES.path(context.step(), unit);
        context.run.get(&path).unwrap().to_vec()
    }
}
