//! `sluice-partition`: lists the objects under `--input`, groups them, and writes the plan.
//!
//! A shard of the plan is a tar, a Parquet file with images, or a group of image files. Shards are
//! sorted by path and divided into partitions in that order, so the same input gives the same plan.
//! The plan records each shard's size and entity tag or modification time. If one changes, only its
//! partition is processed again.

pub mod contents;
pub mod files;
mod groups;
pub mod kinds;
pub mod listing;
pub mod lists;
mod ranges;
pub mod summary;

use std::collections::BTreeMap;

use anyhow::Result;
use clap::{Args as ClapArgs, Parser};
use serde::{Deserialize, Serialize};
use sluice_harness::{Common, Context, OpenUnit, Program, Work};
use sluice_manifest::rows::{FileRow, PlanRow};
use sluice_manifest::{
    Counts, Error, FanOut, Fingerprint, Input, InputOf, Operation, Partition, Resources, Role,
    RunInfo, ShardPath, StepName, Unit, UnitKind, layout,
};
use sluice_run::{InputPlaces, data_or_none};
use sluice_store::{Location, Storage};

use crate::contents::{Contents, InputOptions};

/// List the images of a dataset and group them into partitions
///
/// Example: sluice-partition --input data/ --run runs/a --shards-per-partition 2
#[derive(Debug, Parser)]
#[command(name = "sluice-partition", version)]
pub struct Args {
    /// The arguments of every program.
    #[command(flatten)]
    pub common: Common,

    /// What to curate: shards, folders of images, Parquet files, lists of paths or URIs
    ///
    /// Names of folders and files, globs (quoted), or ranges such as train-{000..099}.tar. A table or
    /// text file given by name is a list.
    #[arg(long, env = "SLUICE_INPUT", value_name = "URI", required = true, num_args = 1..)]
    pub input: Vec<String>,

    /// Treat each --input as a literal name, without globs and ranges
    #[arg(long, env = "SLUICE_LITERAL", value_name = "true", num_args = 0..=1,
        require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub literal: bool,

    /// The column of the images in Parquet files (default: the only one with bytes)
    #[arg(long, env = "SLUICE_IMAGE_COLUMN", value_name = "COLUMN")]
    pub image_column: Option<String>,

    /// The column of the captions in tables (default: caption, text, prompt, ...)
    #[arg(long, env = "SLUICE_CAPTION_COLUMN", value_name = "COLUMN")]
    pub caption_column: Option<String>,

    /// The column of the paths or URIs in lists (default: url, uri, path, file_name, ...)
    #[arg(long, env = "SLUICE_URL_COLUMN", value_name = "COLUMN")]
    pub url_column: Option<String>,

    /// The size of a partition, in shards or bytes.
    #[command(flatten)]
    pub size: PartitionSize,
}

/// The size of a partition.
#[derive(Debug, Clone, Copy, ClapArgs)]
#[group(multiple = false)]
pub struct PartitionSize {
    /// Shards per partition; files count as shards of 128 MiB
    #[arg(long, env = "SLUICE_SHARDS_PER_PARTITION", value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u64).range(1..))]
    pub shards_per_partition: u64,

    /// Bytes per partition, instead of a number of shards; a larger shard is its own partition
    #[arg(long, env = "SLUICE_BYTES_PER_PARTITION", value_name = "BYTES",
        value_parser = clap::value_parser!(u64).range(1..))]
    pub bytes_per_partition: Option<u64>,
}

impl Program for Args {
    const NAME: &'static str = "sluice-partition";
    const ROLE: Role = Role::Source;
    const OPERATIONS: &'static [Operation] = &[Operation {
        subcommand: None,
        unit: UnitKind::Plan,
        resources: Resources::Light,
        after: &[],
        revision: 3,
    }];

    fn common(&self) -> &Common {
        &self.common
    }

    fn input(&self, storage: &Storage) -> Result<Option<InputPlaces>> {
        let contents = Contents::of(storage, &self.options())?;
        let run = Location::parse(&self.common.run)?;
        Ok(Some(self.places(&contents, &run)?))
    }

    fn run(&self, context: &Context) -> Result<()> {
        let units = vec![Unit::once(UnitKind::Plan)];
        context.each_unit(units, 1, |unit| plan(self, context, unit))
    }
}

impl Args {
    fn options(&self) -> InputOptions {
        InputOptions {
            patterns: self.input.clone(),
            literal: self.literal,
            image_column: self.image_column.clone(),
            caption_column: self.caption_column.clone(),
            url_column: self.url_column.clone(),
        }
    }

    /// Returns the locations of the input.
    ///
    /// # Errors
    ///
    /// Returns a usage error if the run would be written into the input.
    fn places(&self, contents: &Contents, run: &Location) -> Result<InputPlaces, Error> {
        let files = contents.files.iter().map(String::as_str);
        let input = InputPlaces::new(&contents.root, &contents.folders, files);
        input.refuse("--run", run)?;
        Ok(input)
    }
}

/// The settings that determine the plan.
#[derive(Debug, Serialize, Deserialize)]
pub struct Settings {
    /// The root of the input.
    pub input: String,
    /// The requested patterns.
    pub patterns: Vec<String>,
    /// The number of shards in a partition.
    pub shards_per_partition: u64,
    /// The number of bytes in a partition, instead of the number of shards.
    pub bytes_per_partition: Option<u64>,
}

fn plan(args: &Args, context: &Context, unit: Unit) -> Result<()> {
    let mut contents = Contents::of(&context.storage, &args.options())?;
    let run = context.run.location();
    let places = args.places(&contents, run)?;
    let before = before(context)?;
    let id = before.as_ref().map(|before| before.id.clone());
    let id = id.filter(|id| !id.is_empty());
    tracing::info!(input = %contents.root, "found {}", contents.found);
    contents.report_oddities();
    let root = contents.root.clone();
    let listed = contents.folders.iter().map(ToString::to_string).collect();
    lists::look_up(
        &context.storage,
        &context.storage.create(&root)?,
        &mut contents.samples,
    )?;
    let shards = contents.into_shards(args.size.bytes_per_partition);
    let (rows, files) = group(shards, args.size);
    let info = RunInfo {
        layout: RunInfo::LAYOUT,
        id: id.unwrap_or_else(|| places.id_of_run(run)),
        input: root.to_string(),
        patterns: args.input.clone(),
        listed,
        partitions: rows.last().map_or(0, |row| row.partition.0 + 1),
        shards: rows.len() as u64,
        bytes: rows.iter().map(|row| row.bytes).sum(),
    };
    if let Some(before) = before
        && before.input != info.input
    {
        refuse_other_input(context, &before, &info, &rows)?;
    }
    context.report_fan_out(FanOut::Partitions, info.partitions.into());
    let shards: Vec<Input> = rows.iter().map(Input::shard).collect();
    let work = Work {
        unit,
        units: 1,
        settings: Settings {
            input: info.input.clone(),
            patterns: info.patterns.clone(),
            shards_per_partition: args.size.shards_per_partition,
            bytes_per_partition: args.size.bytes_per_partition,
        },
        inputs: vec![all_shards(&shards)],
    };
    let Some(mut open_unit) = context.begin(work)? else {
        return Ok(());
    };
    let json = serde_json::to_vec_pretty(&info)?;
    let mut object = context.run.writer(layout::RUN_INFO)?;
    std::io::Write::write_all(&mut object, &json)?;
    open_unit.publish(|| object.finish())?;
    let mut writer = context.run.write_rows(layout::PLAN, &[])?;
    for row in rows {
        writer.push(row)?;
    }
    open_unit.publish(|| writer.finish())?;
    write_files(context, &mut open_unit, files)?;
    // Removes the outputs of later steps for partitions that the plan no longer has.
    context.remove_units("", |_, unit| {
        unit.kind == UnitKind::Partition && unit.index >= info.partitions
    })?;
    open_unit.sums.partitions = info.partitions.into();
    open_unit.sums.shards = info.shards;
    open_unit.sums.bytes = info.bytes;
    Ok(open_unit.commit(Counts::default())?)
}

/// Returns the previous `run.json`, or `None` if no receipt lists it: it is then rewritten.
fn before(context: &Context) -> sluice_manifest::Result<Option<RunInfo>> {
    if let Some(json) = context.run.get_if_there(layout::RUN_INFO)? {
        RunInfo::check_layout(&json, &context.run.uri(layout::RUN_INFO))?;
    }
    data_or_none(context.run_info())
}

/// Returns an error if the input is at another location than the run's, unless it is the same
/// dataset: the same shards with the same sizes. Shards whose entity tag or time differs are read
/// again.
fn refuse_other_input(
    context: &Context,
    before: &RunInfo,
    info: &RunInfo,
    rows: &[PlanRow],
) -> Result<()> {
    let old = context.run.rows::<PlanRow>(layout::PLAN)?;
    let old = old.collect::<sluice_manifest::Result<Vec<_>>>()?;
    let same = |a: &PlanRow, b: &PlanRow| (&a.shard, a.bytes) == (&b.shard, b.bytes);
    if old.len() == rows.len() && old.iter().zip(rows).all(|(a, b)| same(a, b)) {
        let unchanged = old.iter().zip(rows);
        let unchanged = unchanged.filter(|(a, b)| Input::shard(a) == Input::shard(b));
        tracing::info!(
            from = before.input,
            to = info.input,
            "the input has moved; {} of {} shards are unchanged",
            unchanged.count(),
            rows.len()
        );
        return Ok(());
    }
    Err(Error::usage(format!(
        "--input {}: this run curates {}, with other shards",
        info.input, before.input
    ))
    .hint("choose another --run; a dataset that has moved must have the same names and sizes")
    .into())
}

/// Returns one input for all shards.
fn all_shards(shards: &[Input]) -> Input {
    let parts: Vec<String> = shards
        .iter()
        .flat_map(|shard| [shard.of.to_string(), shard.fingerprint.to_string()])
        .collect();
    Input {
        of: InputOf::Shards {
            count: shards.len() as u64,
        },
        fingerprint: Fingerprint::of(parts.iter().map(String::as_str)),
    }
}

/// Writes the lists of files, one for each partition that has files.
fn write_files(
    context: &Context,
    open_unit: &mut OpenUnit<'_>,
    files: Vec<(Partition, Vec<FileRow>)>,
) -> Result<()> {
    for (partition, rows) in files {
        let path = layout::FILES.path(&StepName::partition(), partition.into());
        let mut writer = context.run.write_rows(&path, &[])?;
        for row in rows {
            writer.push(row)?;
        }
        open_unit.publish(|| writer.finish())?;
    }
    Ok(())
}

/// Shards of the plan, with the files in those that consist of files.
type Shards = BTreeMap<ShardPath, (PlanRow, Vec<FileRow>)>;

/// Divides the sorted shards into partitions. Returns the plan, and the files of each partition.
fn group(all: Shards, size: PartitionSize) -> (Vec<PlanRow>, Vec<(Partition, Vec<FileRow>)>) {
    let mut rows: Vec<PlanRow> = Vec::with_capacity(all.len());
    let mut files: Vec<(Partition, Vec<FileRow>)> = Vec::new();
    let (mut partition, mut shards, mut bytes) = (0, 0, 0);
    for (row, listed) in all.into_values() {
        let full = match size.bytes_per_partition {
            Some(limit) => bytes + row.bytes > limit,
            None => shards >= size.shards_per_partition,
        };
        if shards > 0 && full {
            (partition, shards, bytes) = (partition + 1, 0, 0);
        }
        shards += 1;
        bytes += row.bytes;
        let partition = Partition(partition);
        match files.last_mut() {
            _ if listed.is_empty() => {}
            Some((last, files)) if *last == partition => files.extend(listed),
            _ => files.push((partition, listed)),
        }
        rows.push(PlanRow { partition, ..row });
    }
    (rows, files)
}
