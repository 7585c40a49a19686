//! Copies the kept samples of an output shard, byte for byte, and writes its Parquet file.

use std::collections::{HashMap, VecDeque};
use std::io::{self, BufRead, Read};
use std::ops::Range;

use anyhow::Result;
use serde_json::json;
use sha2::{Digest, Sha256};
use sluice_harness::{Common, Context, PartitionPlan, Plan, Task, Work};
use sluice_manifest::dag::{self, Step};
use sluice_manifest::rows::{CuratedRow, OutputPlanRow, PlanRow, SampleRow};
use sluice_manifest::{Counts, Error, Filter, Input, Receipt, ShardPath, Unit};
use sluice_shard::{ShardWriter, safe_member_name, split_key};
use sluice_source::{SourceShard, packing};
use sluice_store::{ObjectWriter, Store};

use crate::curated::CuratedWriter;
use crate::decide::filters_of;
use crate::kept::{Embedder, Kept, KeptSample};
use crate::plan::{OutputPlan, as_input};

/// Output shards at once for each core: a third of the time one waits until it has come to disk.
const AT_ONCE: usize = 2;

/// Sum in the receipt: bytes of the members copied.
pub const BYTES: &str = "bytes";

/// Copy the kept samples into the output shards
///
/// Units of work are the output shards of the plan.
///
/// Example: sluice-export write --run runs/a --task-index 0 --task-count 8
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,
}

/// What all output shards need.
struct Export<'a> {
    context: &'a Context,
    source: Plan,
    input: Store,
    plan: OutputPlan,
}

/// Writes the output shards that are this process's share.
pub fn run(context: &Context) -> Result<()> {
    let source = context.plan()?;
    let export = Export {
        context,
        input: source.input()?,
        source,
        plan: OutputPlan::open(context)?,
    };
    let units = export.plan.units();
    let numbers: HashMap<Unit, u32> = units.iter().cloned().zip(0..).collect();
    context.each_unit(&dag::EXPORT_WRITE, units, AT_ONCE * context.jobs, |unit| {
        export.write_shard(unit, numbers[unit])
    })?;
    export.plan.output.tidy();
    Ok(())
}

/// A stretch of a partition that goes into an output shard, and how it was decided.
struct Part<'a> {
    row: OutputPlanRow,
    partition: &'a PartitionPlan,
    filters: Vec<Filter>,
}

impl Export<'_> {
    fn write_shard(&self, unit: &Unit, number: u32) -> Result<()> {
        let (parts, inputs) = self.parts(number)?;
        let work = Work {
            step: &dag::EXPORT_WRITE,
            version: 1,
            unit,
            units: self.plan.shards as usize,
            settings: json!({}),
            basis: None,
            inputs,
        };
        let Some(mut task) = self.context.begin(work)? else {
            return Ok(());
        };
        let output = &self.plan.output;
        let embedder = self.embedder(&parts)?;
        let mut shard = OutputShard {
            tar: ShardWriter::new(output.writer(&format!("{unit}.tar"))?),
            table: CuratedWriter::open(output, &format!("{unit}.parquet"), embedder.as_ref())?,
            counts: Counts::default(),
            bytes: 0,
        };
        for part in &parts {
            self.copy_part(part, &task, &mut shard)?;
        }
        let tar = shard
            .tar
            .finish()
            .map_err(|e| Error::of_io(e, &output.uri(&format!("{unit}.tar"))))?;
        task.wrote_outside(output, tar.finish()?);
        task.wrote_outside(output, shard.table.finish()?);
        task.sum(BYTES, shard.bytes);
        Ok(task.commit(shard.counts)?)
    }

    /// The stretches of an output shard, and all that is read for it.
    fn parts(&self, number: u32) -> Result<(Vec<Part<'_>>, Vec<Input>)> {
        let context = self.context;
        let mut parts = Vec::new();
        let mut inputs = vec![as_input(&self.plan.receipt)];
        for row in self.plan.rows(context, number)? {
            let unit = Unit::from(row.partition);
            let decided = context.required_receipt(&dag::EXPORT_DECIDE, &unit)?;
            self.plan
                .refuse_other_decisions(std::slice::from_ref(&decided))?;
            let filters = filters_of(&decided)?;
            inputs.push(as_input(&decided));
            inputs.push(unchanged(context, &decided, &dag::READ, &unit)?);
            if filters.contains(&Filter::Aesthetic) {
                inputs.push(unchanged(context, &decided, &dag::AESTHETIC, &unit)?);
            }
            if filters.contains(&Filter::Nsfw) {
                inputs.push(unchanged(context, &decided, &dag::NSFW, &unit)?);
            }
            if self.plan.embeddings {
                inputs.push(context.input(&dag::EMBED, &unit)?);
            }
            parts.push(Part {
                row,
                partition: self.source.partition(&unit)?,
                filters,
            });
        }
        Ok((parts, inputs))
    }

    /// The one embedder of all partitions of an output shard.
    fn embedder(&self, parts: &[Part<'_>]) -> Result<Option<Embedder>> {
        if !self.plan.embeddings {
            return Ok(None);
        }
        let mut found: Option<Embedder> = None;
        for part in parts {
            let embedder = Embedder::of(&self.context.run, &part.row.partition.into())?;
            if let Some(first) = &found
                && *first != embedder
            {
                let message = format!(
                    "{} was embedded by {}, other partitions by {}",
                    part.row.partition, embedder.model, first.model
                );
                return Err(Error::data(message)
                    .hint("run sluice-embed for all partitions with one --model")
                    .into());
            }
            found = Some(embedder);
        }
        Ok(found)
    }

    fn copy_part(&self, part: &Part<'_>, task: &Task<'_>, shard: &mut OutputShard) -> Result<()> {
        let packing = packing(&self.context.run, &part.row.partition.into())?;
        let (plan, filters) = (&self.plan, &part.filters);
        let kept = Kept::open(
            self.context,
            &part.row,
            plan.weight,
            filters,
            plan.embeddings,
        )?;
        let mut kept = kept.peekable();
        let mut ahead: VecDeque<KeptSample> = VecDeque::new();
        while let Some(first) = kept.next().transpose()? {
            let planned = planned(part.partition, &first.sample.shard)?;
            let mut source = SourceShard::open(&self.input, planned, &packing)?;
            source.want(extent(&first));
            ahead.push_back(first);
            while let Some(sample) = ahead.pop_front() {
                let same_shard = |next: &sluice_manifest::Result<KeptSample>| match next {
                    Ok(next) => next.sample.shard == planned.shard,
                    Err(_) => true,
                };
                while ahead.is_empty() || (ahead.len() < AHEAD && !source.is_busy()) {
                    let Some(next) = kept.next_if(same_shard).transpose()? else {
                        break;
                    };
                    source.want(extent(&next));
                    ahead.push_back(next);
                }
                shard.copy(&mut source, sample)?;
                task.advance(1)?;
            }
        }
        Ok(())
    }
}

/// Kept samples that are looked ahead at, at most.
const AHEAD: usize = 64;

/// Where a sample's members lie.
fn extent(kept: &KeptSample) -> Range<u64> {
    let members = &kept.sample.members;
    let begin = members.iter().map(|member| member.offset).min();
    let end = members.iter().map(|m| m.offset + m.size).max();
    begin.unwrap_or(0)..end.unwrap_or(0)
}

/// A shard of a partition.
fn planned<'p>(partition: &'p PartitionPlan, path: &ShardPath) -> Result<&'p PlanRow> {
    let found = partition.shards.iter().find(|row| row.shard == *path);
    found.ok_or_else(|| {
        Error::data(format!(
            "{path}: a sample lies in it, but it is no shard of {}",
            partition.partition
        ))
        .hint("run sluice-read again")
        .into()
    })
}

/// A unit of an earlier step as an input, if it is still what the decision was made from.
fn unchanged(context: &Context, decided: &Receipt, step: &Step, unit: &Unit) -> Result<Input> {
    let input = context.input(step, unit)?;
    if decided.inputs.contains(&input) {
        return Ok(input);
    }
    let message = format!("{} {unit} was done again after {}", step.name, decided.step);
    Err(Error::data(message)
        .hint("run sluice-export decide again, then plan")
        .into())
}

/// An output shard being written.
struct OutputShard {
    tar: ShardWriter<ObjectWriter>,
    table: CuratedWriter,
    counts: Counts,
    bytes: u64,
}

impl OutputShard {
    fn copy(&mut self, source: &mut SourceShard, kept: KeptSample) -> Result<()> {
        let KeptSample {
            sample,
            aesthetic,
            nsfw,
            embedding,
        } = kept;
        let mut key = None;
        for member in &sample.members {
            let name = safe_member_name(sample.image_id.as_str(), &member.extension);
            let mut bytes = Hashing {
                inner: source.member(member.offset, member.size)?,
                hasher: Sha256::new(),
            };
            let copied = self.tar.append_from(&name, member.size, &mut bytes);
            let sha256 = hex::encode(bytes.hasher.finalize());
            copied.map_err(|e| Error::of_io(e, source.uri()))?;
            if sample.image_extension.as_ref() == Some(&member.extension) {
                check_image(&sample, &sha256)?;
            }
            self.bytes += member.size;
            let split = split_key(name.as_bytes());
            key = key.or(split.map(|(key, _)| String::from_utf8_lossy(key).into_owned()));
        }
        let no_key = || Error::bug(format!("{}: its member has no key", sample.image_id));
        let row = CuratedRow {
            key: key.ok_or_else(no_key)?,
            image_id: sample.image_id,
            source_shard: sample.shard,
            source_key: sample.key,
            caption: sample.caption,
            metadata: sample.metadata,
            format: sample.format,
            width: sample.width,
            height: sample.height,
            bytes: sample.bytes,
            sha256: sample.sha256,
            phash: sample.phash,
            aesthetic_score: aesthetic,
            nsfw_score: nsfw,
        };
        self.table.push(row, embedding.as_deref())?;
        self.counts.add(None);
        Ok(())
    }
}

/// The copied image must be the one that `read` validated.
fn check_image(sample: &SampleRow, sha256: &str) -> sluice_manifest::Result<()> {
    if sample.sha256.as_deref() == Some(sha256) {
        return Ok(());
    }
    Err(Error::data(format!(
        "{}: the image of {} is not the one that was read",
        sample.shard, sample.image_id
    ))
    .hint("the shard has changed: run sluice-partition and the steps after it"))
}

/// Hashes what goes through.
struct Hashing<R> {
    inner: R,
    hasher: Sha256,
}

impl<R: BufRead> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.inner.fill_buf()?;
        let length = bytes.len().min(buffer.len());
        buffer[..length].copy_from_slice(&bytes[..length]);
        self.consume(length);
        Ok(length)
    }
}

impl<R: BufRead> BufRead for Hashing<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        // What is done with is still there: `fill_buf` gives it again and reads nothing.
        if let Ok(bytes) = self.inner.fill_buf() {
            self.hasher.update(&bytes[..count]);
        }
        self.inner.consume(count);
    }
}
