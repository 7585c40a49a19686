//! A small run, step by step.

use std::sync::LazyLock;

use serde::Serialize;
use sluice_harness::{
    Common, Context, OpenUnit, ProcessResources, ProgramNode, StepDone, Work, run_step,
};
use sluice_manifest::layout::{self, DECISIONS, DUPLICATES, FILTERED, SCORES};
use sluice_manifest::rows::{
    self, DecisionRow, DuplicateRow, FilterRow, Method, NameRow, SampleBrief,
};
use sluice_manifest::{
    Counts, Histogram, ImageId, Input, Keep, Operation, Partition, Reason, ReasonKind, Resources,
    ScoreColumn, ScoreSummary, StepName, Unit, UnitKind,
};
use sluice_run::Plan;
use sluice_shard::ShardWriter;
use sluice_store::{Location, Store};

/// What all tests of this program share. Their memory stores have different names.
pub(crate) fn shared() -> &'static ProcessResources {
    static SHARED: LazyLock<ProcessResources> = LazyLock::new(ProcessResources::default);
    &SHARED
}

pub(crate) const HOSTILE: &str = "<script>alert('&\"x')</script>";

const fn operation(subcommand: Option<&'static str>, unit: UnitKind) -> Operation {
    Operation {
        subcommand,
        unit,
        resources: Resources::Light,
        after: &[],
        revision: 1,
    }
}

static PARTITIONS: Operation = operation(None, UnitKind::Partition);
static EXACT: Operation = operation(Some("exact"), UnitKind::Exact);
static DECIDE: Operation = operation(Some("decide"), UnitKind::Partition);

/// The settings of the scorer.
#[derive(Serialize)]
struct Scoring {
    model: Model,
}

#[derive(Serialize)]
struct Model {
    name: &'static str,
    sha256: &'static str,
}

/// The settings of the filter: one condition.
#[derive(Serialize)]
struct Filtering {
    min: Min,
}

#[derive(Serialize)]
struct Min {
    score: &'static str,
    threshold: f32,
}

#[derive(Serialize)]
struct Nothing {}

pub(crate) struct Run {
    pub uri: String,
}

fn png(seed: u8) -> Vec<u8> {
    let image = image::GrayImage::from_fn(64, 64, |x, y| {
        image::Luma([(x * 3 + y * u32::from(seed)) as u8])
    });
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

impl Run {
    /// Creates a partitioned run with one valid shard and one truncated shard.
    pub(crate) fn new(name: &str) -> Self {
        let input = format!("memory://{name}/in");
        let store = shared()
            .storage
            .create(&Location::parse(&input).unwrap())
            .unwrap();
        let mut writer = ShardWriter::new(Vec::new());
        for number in 0..8 {
            let name = format!("{number:04}.png");
            writer.append(name, &png(number)).unwrap();
        }
        let hostile = format!("{HOSTILE}.jpg");
        writer.append(hostile, b"no image").unwrap();
        let whole = writer.finish().unwrap();
        store.put("torn.tar", whole[..3000].to_vec()).unwrap();
        store.put("whole.tar", whole).unwrap();
        let run = Self {
            uri: format!("memory://{name}/run"),
        };
        run.step::<sluice_partition::Args>(&["sluice-partition", "--input", &input]);
        run
    }

    pub(crate) fn step<P: sluice_harness::Program>(&self, words: &[&str]) -> StepDone {
        let mut words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        words.extend(["--run".to_owned(), self.uri.clone()]);
        run_step::<P>(&words, shared()).unwrap()
    }

    pub(crate) fn read(&self) {
        self.step::<sluice_read::Args>(&["sluice-read"]);
    }

    /// Creates the page and returns it.
    pub(crate) fn report(&self) -> String {
        self.step::<sluice_report::Args>(&["sluice-report"]);
        self.page()
    }

    /// Returns the page.
    pub(crate) fn page(&self) -> String {
        let page = self.store().get(layout::REPORT).unwrap();
        String::from_utf8(page.to_vec()).unwrap()
    }

    /// Returns the input.
    pub(crate) fn input(&self) -> Store {
        let input = self.uri.replace("/run", "/in");
        shared()
            .storage
            .open(&Location::parse(&input).unwrap())
            .unwrap()
    }

    pub(crate) fn store(&self) -> Store {
        shared()
            .storage
            .open(&Location::parse(&self.uri).unwrap())
            .unwrap()
    }

    pub(crate) fn forget(&self, step: &str, unit: Unit) {
        let path = layout::receipt(&StepName::new(step).unwrap(), unit);
        self.store().delete(&path).unwrap();
    }

    fn context(
        &self,
        step: &str,
        stage: &'static str,
        operation: &'static Operation,
        survivors_of: Option<&str>,
    ) -> Context {
        let common = Common {
            run: self.uri.clone(),
            partitions: None,
            task_index: None,
            task_count: None,
            jobs: Some(1),
            ..Common::default()
        };
        let node = ProgramNode {
            step: StepName::new(step).unwrap(),
            stage,
            operation,
            survivors_of: survivors_of.map(|step| StepName::new(step).unwrap()),
        };
        Context::new(&common, "made-up", node, shared()).unwrap()
    }

    /// Scores every usable image in two outputs: the n-th of its partition gets n / 8 and 1 - n /
    /// 8.
    pub(crate) fn score(&self, step: &str) {
        self.score_as(step, "score");
    }

    /// Like [`score`](Self::score), for another stage.
    pub(crate) fn score_as(&self, step: &str, stage: &'static str) {
        let context = self.context(step, stage, &PARTITIONS, None);
        let names = ["beauty", "ugliness"];
        for (unit, partition) in units(&context.plan().unwrap()) {
            let settings = Scoring {
                model: Model {
                    name: "made-up",
                    sha256: "00",
                },
            };
            let inputs = context.survivors(None).unwrap().inputs(partition).unwrap();
            let mut open_unit = begin(&context, unit, settings, inputs);
            open_unit.about("licence", "Made-Up-1.0");
            let ids = survivors(&context, None, partition);
            let values: Vec<f32> = (0..ids.len()).map(|n| n as f32 / 8.0).collect();
            let columns = [values.clone(), values.iter().map(|v| 1.0 - v).collect()];
            let path = open_unit.path(&SCORES);
            write_scores(&context, &mut open_unit, &path, &ids, names, &columns);
            let summaries = names.iter().zip(&columns).map(|(name, values)| {
                let mut histogram = Histogram::default();
                values.iter().for_each(|value| histogram.add(*value));
                let keep = match *name {
                    "beauty" => Keep::Below,
                    _ => Keep::AtLeast,
                };
                let keep = if stage == "nsfw" { keep } else { Keep::AtLeast };
                ScoreSummary {
                    column: ScoreColumn {
                        keep,
                        ..ScoreColumn::named(name)
                    },
                    histogram,
                }
            });
            open_unit.scores(summaries.collect());
            open_unit
                .commit(Counts::all_kept(ids.len() as u64))
                .unwrap();
        }
    }

    /// Keeps images with a beauty of at least 0.5, as assigned by [`score`](Self::score).
    pub(crate) fn filter(&self, step: &str) {
        let context = self.context(step, "filter", &PARTITIONS, None);
        let below = Reason::about(ReasonKind::BelowMin, "made.beauty");
        for (unit, partition) in units(&context.plan().unwrap()) {
            let settings = Filtering {
                min: Min {
                    score: "made.beauty",
                    threshold: 0.5,
                },
            };
            let inputs = context.survivors(None).unwrap().inputs(partition).unwrap();
            let mut open_unit = begin(&context, unit, settings, inputs);
            let mut writer = context
                .run
                .write_rows(&open_unit.path(&FILTERED), &[])
                .unwrap();
            let mut counts = Counts::default();
            for (number, image_id) in survivors(&context, None, partition).into_iter().enumerate() {
                let reason = (number < 4).then(|| below.clone());
                counts.add(context.step(), reason.as_ref());
                let row = FilterRow {
                    image_id,
                    keep: reason.is_none(),
                    detail: reason.as_ref().map(|_| format!("{}", number as f32 / 8.0)),
                    reason,
                };
                writer.push(row).unwrap();
            }
            open_unit.publish(|| writer.finish()).unwrap();
            open_unit.decides(&[UnitKind::Partition]);
            open_unit.commit(counts).unwrap();
        }
    }

    /// Marks the 2nd and 3rd survivor of the valid shard as duplicates of the 1st.
    pub(crate) fn deduplicate(&self, step: &str, survivors_of: &str) {
        let context = self.context(step, "dedup", &EXACT, Some(survivors_of));
        let of = StepName::new(survivors_of).unwrap();
        let partition = Partition(1);
        let ids = survivors(&context, Some(&of), partition);
        let inputs = context.survivors(Some(&of)).unwrap().all_inputs().unwrap();
        let unit = Unit::new(UnitKind::Exact, 0);
        let mut open_unit = begin(&context, unit, Nothing {}, inputs);
        let mut writer = context
            .run
            .write_rows(&open_unit.path(&DUPLICATES), &[])
            .unwrap();
        let mut counts = Counts::default();
        for id in &ids[1..3] {
            counts.add(context.step(), Some(&ReasonKind::ExactDuplicate.into()));
            let row = DuplicateRow {
                partition,
                image_id: id.clone(),
                duplicate_of: ids[0].clone(),
                reference: None,
                label: None,
                similarity: 1.0,
                method: Method::Exact,
            };
            writer.push(row).unwrap();
        }
        open_unit.publish(|| writer.finish()).unwrap();
        open_unit.decides(&[UnitKind::Exact]);
        open_unit.commit(counts).unwrap();
    }

    pub(crate) fn decide(&self, survivors_of: Option<&str>) {
        let context = self.context("export", "export", &DECIDE, survivors_of);
        let of = survivors_of.map(|step| StepName::new(step).unwrap());
        let survivors = context.survivors(of.as_ref()).unwrap();
        for (unit, partition) in units(&context.plan().unwrap()) {
            let inputs = survivors.inputs(partition).unwrap();
            let mut open_unit = begin(&context, unit, Nothing {}, inputs);
            let mut writer = context
                .run
                .write_rows(&open_unit.path(&DECISIONS), &[])
                .unwrap();
            let mut counts = Counts::default();
            for verdict in survivors.verdicts::<SampleBrief>(partition).unwrap() {
                let verdict = verdict.unwrap();
                let (step, reason) = match verdict.dropped {
                    Some(dropped) => (Some(dropped.step), Some(dropped.reason)),
                    None => (None, None),
                };
                counts.add(step.as_ref().unwrap_or(context.step()), reason.as_ref());
                let row = DecisionRow {
                    bytes: verdict.sample.bytes(),
                    group: 0,
                    image_id: verdict.sample.image_id,
                    keep: reason.is_none(),
                    step,
                    reason,
                    detail: verdict.detail,
                };
                writer.push(row).unwrap();
            }
            open_unit.publish(|| writer.finish()).unwrap();
            open_unit.commit(counts).unwrap();
        }
    }
}

fn units(plan: &Plan) -> Vec<(Unit, Partition)> {
    let planned = plan.partitions.iter();
    planned.map(|p| (p.partition.into(), p.partition)).collect()
}

fn begin<S: Serialize>(
    context: &Context,
    unit: Unit,
    settings: S,
    inputs: Vec<Input>,
) -> OpenUnit<'_> {
    let units = match unit.kind {
        UnitKind::Partition => context.plan().unwrap().partitions.len(),
        _ => 1,
    };
    let work = Work {
        unit,
        units,
        settings,
        inputs,
    };
    context.begin(work).unwrap().unwrap()
}

fn survivors(context: &Context, of: Option<&StepName>, partition: Partition) -> Vec<ImageId> {
    let survivors = context.survivors(of).unwrap();
    let samples = survivors.samples::<NameRow>(partition).unwrap();
    samples.map(|sample| sample.unwrap().image_id).collect()
}

fn write_scores(
    context: &Context,
    open_unit: &mut OpenUnit<'_>,
    path: &str,
    ids: &[ImageId],
    names: [&str; 2],
    columns: &[Vec<f32>; 2],
) {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float32Array, RecordBatch, StringArray};
    let schema = rows::scores(names);
    let mut writer = context
        .run
        .write_table(path, rows::SCORES, schema, &[])
        .unwrap();
    let ids: Vec<&str> = ids.iter().map(ImageId::as_str).collect();
    let mut arrays: Vec<ArrayRef> = vec![Arc::new(StringArray::from(ids))];
    for values in columns {
        arrays.push(Arc::new(Float32Array::from(values.clone())));
    }
    let batch = RecordBatch::try_new(writer.schema().clone(), arrays).unwrap();
    writer.write(&batch).unwrap();
    open_unit.publish(|| writer.finish()).unwrap();
}
