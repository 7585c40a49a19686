//! `sluice-read`: indexes each sample of the shards, validates and measures its image.
//!
//! Each shard is streamed once. Samples are passed in batches to the decoding threads while the
//! next batch is read, and are written in shard order. A bad image is a row with a reason. A
//! truncated shard yields the samples before the truncation. Every member of a shard is part of a
//! sample's row or listed in `read/skipped`.

pub mod batches;
pub mod examine;

use std::fmt;

use anyhow::Result;
use clap::Parser;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sluice_harness::{Common, Context, OpenUnit, Program, Work};
use sluice_manifest::layout::{IMAGES, SHARDS, SKIPPED};
use sluice_manifest::rows::{PlanRow, SampleRow, ShardRow, ShardStatus, SkippedRow};
use sluice_manifest::{Counts, Error, Input, Operation, Resources, Role, Unit, UnitKind};
use sluice_run::{Plan, StepOutputs, Upstream};
use sluice_shard::{DamageKind, Event};
use sluice_source::{EachImage, InputReader};
use sluice_store::RowWriter;

use crate::batches::{EventBatch, EventBatches};
use crate::examine::{examine, has_unjudged};

/// Index the samples of the shards, validate and measure their images
///
/// Example: sluice-read --run runs/a --max-bad-fraction 0.01
#[derive(Debug, Parser)]
#[command(name = "sluice-read", version)]
pub struct Args {
    /// The arguments of every program.
    #[command(flatten)]
    pub common: Common,

    /// Fail (exit 3) when more than this share of all samples, or of all shards, cannot be used
    #[arg(
        long,
        env = "SLUICE_MAX_BAD_FRACTION",
        value_name = "0..1",
        value_parser = fraction,
        default_value_t = 1.0
    )]
    pub max_bad_fraction: f64,

    /// The settings that can change the rows.
    #[command(flatten)]
    pub settings: Settings,
}

impl Program for Args {
    const NAME: &'static str = "sluice-read";
    const ROLE: Role = Role::Source;
    const OPERATIONS: &'static [Operation] = &[Operation {
        subcommand: None,
        unit: UnitKind::Partition,
        resources: Resources::Cpu,
        after: &[],
        revision: 4,
    }];

    fn common(&self) -> &Common {
        &self.common
    }

    fn check(&self, _upstream: &Upstream) -> Result<StepOutputs> {
        let hashes = self.settings.hashes.iter().map(ExtraHash::to_string);
        Ok(StepOutputs {
            hashes: Some(hashes.collect()),
            ..StepOutputs::default()
        })
    }

    fn run(&self, context: &Context) -> Result<()> {
        let plan = context.plan()?;
        let input = InputReader::new(&context.run, &plan.input()?, &context.storage);
        let settings = serde_json::to_value(&self.settings)?;
        let input = input.split(EachImage::of_settings(&settings));
        context.each_unit(plan.units(), 1, |unit| {
            read_partition(context, &self.settings, &plan, &input, unit)
        })?;
        let share = context.share(plan.units())?;
        if share.len() == plan.partitions.len() && context.counts().kept == 0 {
            return Err(context.unreadable_input(&plan).into());
        }
        let partitions = share.iter().map(|&unit| plan.partition(unit));
        let partitions = partitions.collect::<Result<Vec<_>, Error>>()?;
        let shards = partitions
            .iter()
            .map(|partition| partition.shards.len() as u64);
        BadShare::in_samples(&context.counts()).check(self.max_bad_fraction)?;
        BadShare::in_shards(context.damaged_shards(), shards.sum()).check(self.max_bad_fraction)
    }
}

/// Parses a number from 0 to 1.
fn fraction(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.parse().ok();
    let inside = number.filter(|number| (0.0..=1.0).contains(number));
    inside.ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

/// How the images of a sample with several are handled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum WhichImages {
    /// The first one; the others are exported unseen
    #[default]
    First,
    /// The first one; a sample is dropped when another one cannot be decoded
    All,
    /// Each one, as a sample of its own: a.0 and a.1 for a.0.jpg and a.1.jpg
    Each,
}

impl WhichImages {
    fn is_first(&self) -> bool {
        *self == Self::First
    }
}

/// A hash that is computed on request, in addition to SHA-256 and the 64-bit perceptual hash.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum ExtraHash {
    /// MD5 of the image member's bytes
    Md5,
    /// ThreatExchange's 256-bit perceptual hash
    Pdq,
    /// The 64-bit perceptual hashes of the mirrored and rotated image
    Transformed,
}

impl fmt::Display for ExtraHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Md5 => "md5",
            Self::Pdq => "pdq",
            Self::Transformed => "transformed",
        })
    }
}

/// The settings that can change what `read` writes. Defaults are omitted when serialised.
#[derive(Debug, Clone, Default, clap::Args, Serialize, Deserialize)]
pub struct Settings {
    /// How to treat further images of a sample that has several (a.0.jpg, a.1.jpg)
    #[arg(
        long,
        env = "SLUICE_IMAGES",
        value_name = "WHICH",
        value_enum,
        default_value_t
    )]
    #[serde(default, skip_serializing_if = "WhichImages::is_first")]
    pub images: WhichImages,

    /// The member that is the caption, by its extension, such as caption.txt
    ///
    /// Default: txt, else caption.
    #[arg(long, env = "SLUICE_CAPTION_MEMBER", value_name = "EXTENSION")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption_member: Option<String>,

    /// Further hashes to compute, for lists of known images (SHA-256 is always computed)
    #[arg(
        long,
        env = "SLUICE_HASHES",
        value_name = "HASH",
        value_enum,
        value_delimiter = ','
    )]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hashes: Vec<ExtraHash>,
}

/// Reads the shards of one partition.
fn read_partition(
    context: &Context,
    settings: &Settings,
    plan: &Plan,
    input: &InputReader,
    unit: Unit,
) -> Result<()> {
    let shards = &plan.partition(unit)?.shards;
    let work = Work {
        unit,
        units: plan.partitions.len(),
        settings: settings.clone(),
        inputs: shards.iter().map(Input::shard).collect(),
    };
    let Some(mut open_unit) = context.begin(work)? else {
        return Ok(());
    };
    let mut outputs = Outputs {
        images: context.run.write_rows(&open_unit.path(&IMAGES), &[])?,
        shards: context.run.write_rows(&open_unit.path(&SHARDS), &[])?,
        skipped: context.run.write_rows(&open_unit.path(&SKIPPED), &[])?,
        counts: Counts::default(),
        members: 0,
        several: 0,
    };
    let mut damaged = 0;
    for shard in shards {
        let row = read_shard(context, settings, input, shard, &open_unit, &mut outputs)?;
        damaged += u64::from(row.status == ShardStatus::Damaged);
        outputs.members += row.members;
        outputs.shards.push(row)?;
    }
    outputs.report_several(unit);
    open_unit.publish(|| outputs.images.finish())?;
    open_unit.publish(|| outputs.shards.finish())?;
    open_unit.publish(|| outputs.skipped.finish())?;
    open_unit.sums.members = outputs.members;
    open_unit.sums.damaged_shards = damaged;
    Ok(open_unit.commit(outputs.counts)?)
}

/// The outputs for a partition.
struct Outputs {
    images: RowWriter<SampleRow>,
    shards: RowWriter<ShardRow>,
    skipped: RowWriter<SkippedRow>,
    counts: Counts,
    members: u64,
    /// The number of samples with several images, of which only one was judged.
    several: u64,
}

impl Outputs {
    /// Logs a warning about images that were not judged.
    fn report_several(&self, unit: Unit) {
        if self.several > 0 {
            tracing::warn!(
                "{unit}: {} samples have several images, of which only the first is judged; \
                 --images all checks them too, --images each makes them samples of their own. A key ends \
                 at the first dot: if they have nothing to do with each other, give them names without \
                 further dots",
                self.several
            );
        }
    }
}

/// Reads one shard to its end or up to its damage. Returns its row.
fn read_shard(
    context: &Context,
    settings: &Settings,
    input: &InputReader,
    shard: &PlanRow,
    open_unit: &OpenUnit<'_>,
    outputs: &mut Outputs,
) -> Result<ShardRow> {
    let uri = input.uri(shard);
    let unreadable = |e: std::io::Error| Error::of_io(e, &uri);
    let reader = input.samples(shard)?;
    let compression = reader.compression();
    let mut details = Details::default();
    let mut damaged = None;
    let mut in_samples = 0;
    let counts = std::thread::scope(|scope| {
        let (batches, counts) = EventBatches::spawn(scope, reader)?;
        for batch in batches {
            let EventBatch { samples, others } = batch.map_err(unreadable)?;
            let rows = samples.into_par_iter().map(|sample| {
                context.check_stop()?;
                let is_several = has_unjudged(&sample, settings);
                Ok((
                    examine(sample, shard, settings, &context.memory),
                    is_several,
                ))
            });
            let rows = rows.collect::<sluice_manifest::Result<Vec<_>>>()?;
            open_unit.advance(rows.len())?;
            for (row, is_several) in rows {
                in_samples += row.own_members();
                outputs.several += u64::from(is_several);
                outputs.counts.add(context.step(), row.reason.as_ref());
                outputs.images.push(row)?;
            }
            for event in others {
                match event {
                    Event::Sample(_) => {}
                    Event::Skipped(skipped) => outputs.skipped.push(SkippedRow {
                        shard: shard.shard.clone(),
                        member: skipped.name,
                        bytes: skipped.bytes,
                        reason: skipped.why.as_str().to_owned(),
                    })?,
                    Event::Note(note) => {
                        details.note(format!("{} at byte {}", note.kind.as_str(), note.offset));
                    }
                    Event::Damage(damage) => {
                        let lost = match damage.kind {
                            DamageKind::BrokenTable | DamageKind::Gap => "",
                            _ => "; samples after it cannot be read",
                        };
                        tracing::warn!(shard = uri, "{damage}{lost}");
                        damaged = Some(damage.to_string());
                    }
                }
            }
        }
        // Unwrap safety: the reading thread ended its batches, so only a panic there can fail this.
        anyhow::Ok(counts.join().expect("the reading thread did not panic"))
    })?;
    let accounted = in_samples + counts.skipped + counts.truncated;
    if accounted != counts.members {
        return Err(Error::bug(format!(
            "{uri}: {} members found, but {accounted} accounted for",
            counts.members
        ))
        .into());
    }
    Ok(ShardRow {
        shard: shard.shard.clone(),
        compression: compression.as_str().to_owned(),
        samples: counts.samples,
        members: counts.members,
        skipped: counts.skipped,
        torn: counts.truncated,
        status: match &damaged {
            Some(_) => ShardStatus::Damaged,
            None => ShardStatus::Ok,
        },
        detail: details.text(damaged),
    })
}

/// How many samples or shards are bad.
struct BadShare {
    what: &'static str,
    kind: &'static str,
    bad: u64,
    all: u64,
}

impl BadShare {
    fn in_samples(counts: &Counts) -> Self {
        Self {
            what: "samples cannot be used",
            kind: "images",
            bad: counts.dropped_total(),
            all: counts.input,
        }
    }

    fn in_shards(damaged: u64, all: u64) -> Self {
        Self {
            what: "shards are damaged",
            kind: "shards",
            bad: damaged,
            all,
        }
    }

    /// Returns an error if the share of bad ones exceeds the limit.
    fn check(&self, limit: f64) -> Result<()> {
        let Self {
            what,
            kind,
            bad,
            all,
        } = self;
        if *bad as f64 <= limit * *all as f64 {
            return Ok(());
        }
        let message = format!("{bad} of {all} {what}, more than --max-bad-fraction {limit}");
        let hint = format!("`sluice inspect RUN/read/{kind}/part-00000.parquet` shows the reasons");
        Err(Error::data(message).hint(hint).into())
    }
}

/// The maximum number of notes for one shard. Further ones are counted.
const NOTES: usize = 20;

/// Damage and irregularities of a shard.
#[derive(Default)]
struct Details {
    notes: Vec<String>,
    further: u64,
}

impl Details {
    fn note(&mut self, note: String) {
        if self.notes.len() < NOTES {
            self.notes.push(note)
        } else {
            self.further += 1
        }
    }

    /// Returns the notes and the damage as one text.
    fn text(mut self, damage: Option<String>) -> Option<String> {
        if self.further > 0 {
            self.notes.push(format!("{} further notes", self.further));
        }
        self.notes.extend(damage);
        (!self.notes.is_empty()).then(|| self.notes.join("; "))
    }
}
