//! Shards with images of every kind, a run over them, and the program in this process.

use std::sync::{Arc, LazyLock};

use anyhow::Result;
use arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use clap::Parser;
use serde::Serialize;
use sluice::Args;
use sluice_harness::{
    Common, Context, ProcessResources, Program, ProgramNode, Tool, ToolContext, Work, run_step,
};
use sluice_manifest::layout::{self, EMBEDDINGS};
use sluice_manifest::rows::{
    self, DIMENSION_KEY, MODEL_KEY, MODEL_SHA256_KEY, NameRow, embeddings,
};
use sluice_manifest::{Counts, StepName, Unit};
use sluice_shard::ShardWriter;
use sluice_store::{Location, Store};

/// Returns the context that all tests of this program share. Their stores in memory differ by name.
pub(crate) fn shared() -> &'static ProcessResources {
    static SHARED: LazyLock<ProcessResources> = LazyLock::new(ProcessResources::default);
    &SHARED
}

/// The dimension of an artificial embedding.
pub(crate) const DIMENSION: usize = 16;

pub(crate) fn store(uri: &str) -> Store {
    shared()
        .storage
        .create(&Location::parse(uri).unwrap())
        .unwrap()
}

/// Returns a picture of random blocks, different for each seed, and optionally a little brighter.
pub(crate) fn picture(seed: u32, brighter: u8) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let blocks: Vec<u8> = (0..64)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 24) as u8 / 2 + 40
        })
        .collect();
    let image = image::GrayImage::from_fn(256, 256, |x, y| {
        let block = blocks[(y / 32 * 8 + x / 32) as usize];
        image::Luma([block + brighter + ((x + y) % 8) as u8])
    });
    png(image)
}

fn png(image: image::GrayImage) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// Returns an uncompressed shard.
pub(crate) fn shard(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ShardWriter::new(Vec::new());
    for (name, bytes) in members {
        writer.append(name, bytes).unwrap();
    }
    writer.finish().unwrap()
}

/// Writes three shards. The names of the images state the expected outcome.
pub(crate) fn dataset(input: &Store) {
    let flat = png(image::GrayImage::from_pixel(256, 256, image::Luma([3])));
    let cut = &picture(9, 0)[..600];
    let first = picture(1, 0);
    let a = [
        ("keep-1.png", first.as_slice()),
        ("keep-1.txt", b"a caption".as_slice()),
        ("keep-1.json", br#"{"n": 1}"#),
        ("keep-2.png", &picture(2, 2)),
        ("html.jpg", b"<html>this is no image</html>"),
        ("cut.png", cut),
        ("flat.png", &flat),
        ("text-only.txt", b"no image"),
        ("noext", b"no sample"),
    ];
    let b = [
        ("exact.png", first.as_slice()),
        ("perceptual.png", &picture(2, 0)),
        ("keep-3.png", &picture(3, 0)),
        ("semantic.png", &picture(4, 0)),
        ("<b>&keep-4.png", &picture(5, 0)),
    ];
    let truncated = shard(&[("keep-5.png", &picture(6, 0)), ("torn.png", &picture(7, 0))]);
    input.put("a.tar", shard(&a)).unwrap();
    input.put("sub/b.tar", shard(&b)).unwrap();
    let truncated = truncated[..truncated.len() - 1500].to_vec();
    input.put("torn.tar", truncated).unwrap();
}

/// Returns the words of a command line.
pub(crate) fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

fn common(run: &str) -> Common {
    Common {
        run: run.to_owned(),
        jobs: Some(2),
        ..Common::default()
    }
}

/// Settings of the artificial encoder.
#[derive(Serialize)]
struct EncoderSettings {
    model: &'static str,
}

/// Embeds the survivors of `usable` without a model. Each image has its own vector, except that
/// `semantic` has the vector of `keep-3`.
pub(crate) fn embed(run: &str) -> Result<()> {
    embed_as(run, |id, number| {
        let axis = if id.ends_with("/keep-3") || id.ends_with("/semantic") {
            DIMENSION - 1
        } else {
            number
        };
        std::array::from_fn(|i| f32::from(u8::from(i == axis)))
    })
}

/// Embeds the survivors of `usable` without a model. `vector` returns an embedding of length 1 for
/// an image's name and number.
pub(crate) fn embed_as(run: &str, vector: impl Fn(&str, usize) -> [f32; DIMENSION]) -> Result<()> {
    let usable = StepName::fixed("usable");
    let node = ProgramNode {
        step: StepName::fixed("embed"),
        stage: "embed",
        operation: &<sluice_embed::Args as Program>::OPERATIONS[0],
        survivors_of: Some(usable.clone()),
    };
    let context = Context::new(&common(run), "made-up", node, shared())?;
    let plan = context.plan()?;
    let survivors = context.survivors(Some(&usable))?;
    let mut number = 0;
    for planned in &plan.partitions {
        let work = Work {
            unit: planned.partition.into(),
            units: plan.partitions.len(),
            settings: EncoderSettings { model: "made-up" },
            inputs: survivors.inputs(planned.partition)?,
        };
        let Some(mut task) = context.begin(work)? else {
            continue;
        };
        let (mut ids, mut values) = (Vec::new(), Vec::new());
        for row in survivors.samples::<NameRow>(planned.partition)? {
            let id = row?.image_id.to_string();
            values.extend(vector(&id, number));
            ids.push(id);
            number += 1;
        }
        let counts = Counts::all_kept(ids.len() as u64);
        let metadata = [
            (MODEL_KEY, "made-up".to_owned()),
            (MODEL_SHA256_KEY, "0".to_owned()),
            (DIMENSION_KEY, DIMENSION.to_string()),
        ];
        let schema = embeddings(DIMENSION);
        let path = task.path(&EMBEDDINGS);
        let mut writer = context
            .run
            .write_table(&path, rows::EMBEDDINGS, schema, &metadata)?;
        let schema = writer.schema().clone();
        let DataType::FixedSizeList(item, length) = schema.field(1).data_type().clone() else {
            panic!("no vectors");
        };
        let values = Arc::new(Float32Array::from(values));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(ids)),
            Arc::new(FixedSizeListArray::try_new(item, length, values, None)?),
        ];
        writer.write(&RecordBatch::try_new(schema, columns)?)?;
        task.publish(|| writer.finish())?;
        task.commit(counts)?;
    }
    Ok(())
}

/// Partitions and reads [`dataset`] in `memory://NAME/in`, and returns the run.
pub(crate) fn read(name: &str) -> String {
    dataset(&store(&format!("memory://{name}/in")));
    read_input(name)
}

/// Partitions and reads `memory://NAME/in`, and returns the run.
pub(crate) fn read_input(name: &str) -> String {
    let run = partition(name);
    again::<sluice_read::Args>(&run, "sluice-read");
    run
}

/// Partitions `memory://NAME/in`, and returns the run.
pub(crate) fn partition(name: &str) -> String {
    let (input, run) = (
        format!("memory://{name}/in"),
        format!("memory://{name}/run"),
    );
    let line = format!("sluice-partition --input {input}");
    again::<sluice_partition::Args>(&run, &line);
    run
}

/// Runs the early filter.
pub(crate) fn usable(run: &str) {
    let line = "sluice-filter --step usable --rule detailed=low_information>0.2";
    again::<sluice_filter::Args>(run, line);
}

/// Runs the filter of scores with these thresholds.
pub(crate) fn filter(run: &str, thresholds: &str) {
    let line = format!("sluice-filter --survivors-of usable {thresholds}");
    again::<sluice_filter::Args>(run, &line);
}

/// Finds all duplicates among the survivors of `filter`.
pub(crate) fn deduplicate(run: &str) {
    for part in ["exact", "perceptual", "fit", "assign", "match"] {
        let line = format!("sluice-dedup {part} --survivors-of filter");
        again::<sluice_dedup::Args>(run, &line);
    }
}

/// Exports the survivors of a step, or all sound images, to `memory://NAME/out`.
pub(crate) fn export(run: &str, survivors_of: Option<&str>) {
    let output = run.replace("/run", "/out");
    let decide = survivors_of.map(|step| format!("decide --survivors-of {step}"));
    for part in [
        decide.as_deref().unwrap_or("decide"),
        &format!("plan --output {output} --images-per-shard 2"),
        "write",
        "index",
    ] {
        again::<sluice_export::Args>(run, &format!("sluice-export {part}"));
    }
}

/// Curates `memory://NAME/in` into `memory://NAME/out`, with all steps.
pub(crate) fn curate(name: &str) -> String {
    let run = read(name);
    curate_read(&run);
    run
}

/// Runs the steps after `read`. The output of a run is its `out`.
pub(crate) fn curate_read(run: &str) {
    usable(run);
    embed(run).unwrap();
    let model = "--survivors-of usable --model technical-quality";
    again::<sluice_aesthetic::Args>(run, &format!("sluice-aesthetic {model}"));
    again::<sluice_nsfw::Args>(run, &format!("sluice-nsfw {model}"));
    filter(run, "--min aesthetic=0.2 --max nsfw=1");
    deduplicate(run);
    export(run, Some("dedup"));
    again::<sluice_report::Args>(run, "sluice-report");
}

/// Like [`curate`], but the filter uses two scores that differ between images: `made.beauty` must
/// be at least 0.3, `made.danger` below 0.7.
pub(crate) fn judged(name: &str) -> String {
    let run = curate(name);
    let ids = [
        "a/keep-1",
        "a/keep-2",
        "sub/b/exact",
        "sub/b/perceptual",
        "sub/b/keep-3",
        "sub/b/semantic",
        "sub/b/<b>&keep-4",
        "torn/keep-5",
    ];
    let mut table = "image_id,beauty,danger\n".to_owned();
    for (number, id) in ids.iter().enumerate() {
        let (beauty, danger) = (number as f32 / 8.0, (number * 5 % 8) as f32 / 8.0);
        table.push_str(&format!("{id},{beauty},{danger}\n"));
    }
    score(&run, table);
    filter(&run, "--min made.beauty=0.3 --max made.danger=0.7");
    deduplicate(&run);
    again::<sluice_export::Args>(&run, "sluice-export decide --survivors-of dedup");
    run
}

/// Imports scores of the survivors of `usable` from a table, as `made.<column>`.
pub(crate) fn score(run: &str, table: String) {
    let folder = run.replace("/run", "/tables");
    store(&folder).put("made.csv", table).unwrap();
    let line = "sluice-score --survivors-of usable --step made --import";
    again::<sluice_score::Args>(run, &format!("{line} {folder}/made.csv"));
}

/// Runs one more step.
pub(crate) fn again<P: Program>(run: &str, line: &str) {
    step::<P>(run, line).unwrap();
}

/// Runs one more step, which may fail.
pub(crate) fn step<P: Program>(run: &str, line: &str) -> Result<()> {
    let line = words(&format!("{line} --run {run} --jobs 2"));
    run_step::<P>(&line, shared()).map(drop)
}

/// The output of the program.
pub(crate) struct ProgramOutput {
    pub out: String,
    pub err: String,
    pub result: Option<serde_json::Value>,
    pub outcome: Result<()>,
}

/// Runs `sluice` in this process.
pub(crate) fn sluice(arguments: &[&str]) -> ProgramOutput {
    let line = std::iter::once(&"sluice").chain(arguments);
    let args = Args::try_parse_from(line).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut tool = ToolContext {
        shared: shared().clone(),
        out: &mut out,
        err: &mut err,
        result: None,
        up_to_date: false,
    };
    let outcome = args.run(&mut tool);
    let result = tool.result.take();
    ProgramOutput {
        out: String::from_utf8(out).unwrap(),
        err: String::from_utf8(err).unwrap(),
        result,
        outcome,
    }
}

/// Returns the class and the message of a failure.
pub(crate) fn failure(said: &ProgramOutput) -> (sluice_manifest::Class, String) {
    sluice_harness::describe(said.outcome.as_ref().unwrap_err())
}

/// Deletes a unit's receipt.
pub(crate) fn forget(run: &str, step: &'static str, unit: Unit) {
    let path = layout::receipt(&StepName::fixed(step), unit);
    store(run).delete(&path).unwrap();
}
