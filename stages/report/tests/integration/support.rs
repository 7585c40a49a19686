//! A small run, step by step.

use serde_json::json;
use sluice_harness::{Common, Context, Plan, Shared, StepDone, Verdicts, Work, run_step};
use sluice_manifest::dag::{self, Step};
use sluice_manifest::rows::{DecisionRow, DuplicateRow, Method, SampleBrief, ScoreRow, Status};
use sluice_manifest::{Counts, Filter, ImageId, Reason, Unit, layout};
use sluice_shard::ShardWriter;
use sluice_store::{Location, Store};

pub const HOSTILE: &str = "<script>alert('&\"x')</script>";

pub struct Run {
    pub uri: String,
    context: Context,
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
    /// Partitioned and read: one sound shard, one that is torn.
    pub fn new(name: &str) -> Self {
        let input = format!("memory://{name}/in");
        let store = Store::create(&Location::parse(&input).unwrap()).unwrap();
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
        let uri = format!("memory://{name}/run");
        let common = Common {
            run: uri.clone(),
            partitions: None,
            task_index: None,
            task_count: None,
            jobs: Some(1),
            force: false,
            result: None,
        };
        let context = Context::new(&common, "made-up", &Shared::default()).unwrap();
        let run = Self { uri, context };
        run.step::<sluice_partition::Args>(&["sluice-partition", "--input", &input]);
        run
    }

    pub fn step<P: sluice_harness::Program>(&self, words: &[&str]) -> StepDone {
        let mut words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        words.extend(["--run".to_owned(), self.uri.clone()]);
        run_step::<P>(&words, &Shared::default()).unwrap()
    }

    pub fn read(&self) {
        self.step::<sluice_read::Args>(&["sluice-read"]);
    }

    /// The page.
    pub fn report(&self) -> String {
        self.step::<sluice_report::Args>(&["sluice-report"]);
        let page = self.context.run.get(layout::REPORT).unwrap();
        String::from_utf8(page.to_vec()).unwrap()
    }

    fn plan(&self) -> Plan {
        self.context.plan().unwrap()
    }

    /// Scores every sound image: the n-th gets n / 8, and those from 0.5 on pass.
    pub fn score(&self, step: &'static Step, setting: &str, refused: Reason) {
        for unit in self.plan().units() {
            let work = Work {
                step,
                version: 1,
                unit: &unit,
                units: self.plan().partitions.len(),
                settings: json!({ "model": { "name": "made-up", "licence": "none" }, setting: 0.5 }),
                basis: None,
                inputs: vec![self.context.input(&dag::READ, &unit).unwrap()],
            };
            let mut task = self.context.begin(work).unwrap().unwrap();
            let path = task.path("scores");
            let mut writer = self.context.run.write_rows(&path, &[]).unwrap();
            let mut counts = Counts::default();
            for (number, image_id) in self.sound(&unit).into_iter().enumerate() {
                let score = number as f32 / 8.0;
                let keep = score >= 0.5;
                counts.add((!keep).then_some(refused));
                let row = ScoreRow {
                    image_id,
                    score,
                    keep,
                };
                writer.push(row).unwrap();
            }
            task.wrote(writer.finish().unwrap());
            task.commit(counts).unwrap();
        }
    }

    fn sound(&self, unit: &Unit) -> Vec<ImageId> {
        let path = layout::manifest("read", "images", unit);
        let rows = self.context.run.rows::<SampleBrief>(&path).unwrap();
        let rows = rows.map(Result::unwrap);
        rows.filter(|row| row.status == Status::Ok)
            .map(|row| row.image_id)
            .collect()
    }

    /// The 6th and 7th image of the whole shard duplicate the 5th.
    pub fn deduplicate(&self) {
        let plan = self.plan();
        let whole = &plan.partitions[1];
        let ids = self.sound(&whole.partition.into());
        let unit = Unit::numbered("exact", 0);
        let work = Work {
            step: &dag::DEDUP_EXACT,
            version: 1,
            unit: &unit,
            units: 1,
            settings: json!({}),
            basis: None,
            inputs: Vec::new(),
        };
        let mut task = self.context.begin(work).unwrap().unwrap();
        let path = task.path("duplicates");
        let mut writer = self.context.run.write_rows(&path, &[]).unwrap();
        let mut counts = Counts::default();
        for id in &ids[5..7] {
            counts.add(Some(Reason::ExactDuplicate));
            let row = DuplicateRow {
                partition: whole.partition,
                image_id: id.clone(),
                duplicate_of: ids[4].clone(),
                similarity: 1.0,
                method: Method::Exact,
            };
            writer.push(row).unwrap();
        }
        task.wrote(writer.finish().unwrap());
        task.commit(counts).unwrap();
    }

    pub fn decide(&self) {
        let filters = [Filter::Aesthetic, Filter::Exact];
        let plan = self.plan();
        for planned in &plan.partitions {
            let unit = Unit::from(planned.partition);
            let work = Work {
                step: &dag::EXPORT_DECIDE,
                version: 1,
                unit: &unit,
                units: plan.partitions.len(),
                settings: json!({ "filters": filters }),
                basis: None,
                inputs: Vec::new(),
            };
            let mut task = self.context.begin(work).unwrap().unwrap();
            let path = task.path("decisions");
            let mut writer = self.context.run.write_rows(&path, &[]).unwrap();
            let mut counts = Counts::default();
            for verdict in Verdicts::open(&self.context, planned.partition, &filters).unwrap() {
                let verdict = verdict.unwrap();
                counts.add(verdict.dropped);
                let row = DecisionRow {
                    bytes: verdict.sample.bytes(),
                    image_id: verdict.sample.image_id,
                    keep: verdict.dropped.is_none(),
                    stage: verdict.dropped.map(|reason| reason.stage().to_owned()),
                    reason: verdict.dropped,
                    score: verdict.score,
                };
                writer.push(row).unwrap();
            }
            task.wrote(writer.finish().unwrap());
            task.commit(counts).unwrap();
        }
    }
}
