//! Copies the kept samples of an output shard, byte for byte: all members into a tar with a Parquet
//! file beside it, or the images into the Parquet file.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read};

use anyhow::Result;
use sha2::{Digest, Sha256};
use sluice_harness::{Context, MemoryBudget, PartitionPlan, Plan, StepArgs, Survivors, Task, Work};
use sluice_manifest::rows::{CuratedRow, MemberRow, OutputPlanRow, PlanRow, Row as _, SampleRow};
use sluice_manifest::{
    Counts, Error, Input, InputOf, Partition, Receipt, ShardPath, StepName, Unit, UnitKind,
};
use sluice_pixels::Recode;
use sluice_shard::{ShardWriter, safe_member_name, split_key};
use sluice_source::{InputReader, SourceShard, packing};
use sluice_store::ObjectWriter;

use crate::NoSettings;
use crate::curated::{CuratedWriter, Image};
use crate::format::Format;
use crate::hub::Extensions;
use crate::kept::{EmbeddingsOf, Kept, KeptSample};
use crate::plan::OutputPlan;
use crate::recoded::recode;

/// What a receipt calls the extensions of a shard's members.
pub const EXTENSIONS: &str = "extensions";

/// Output shards at once for each core: a shard waits a third of its time for storage.
const AT_ONCE: usize = 2;

/// Copy the kept samples into the output shards
///
/// Units of work are the output shards of the plan.
///
/// Example: sluice-export write --run runs/a --task-index 0 --task-count 8
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub step: StepArgs,
}

/// What all output shards need.
struct Export<'a> {
    context: &'a Context,
    source: Plan,
    input: InputReader,
    plan: OutputPlan,
    /// What the decisions were made on.
    survivors: Survivors<'a>,
}

/// Writes the output shards that are this process's share.
///
/// # Errors
/// Data, when what the plan was made from has changed since, or a source shard has.
pub fn run(context: &Context) -> Result<()> {
    let source = context.plan()?;
    let plan = OutputPlan::open(context)?;
    let decided = context.required_receipt(context.step(), Unit::once(UnitKind::Part))?;
    let export = Export {
        context,
        input: InputReader::new(&context.run, &source.input()?, &context.storage),
        source,
        plan,
        survivors: context.survivors(decided.survivors_of.as_ref())?,
    };
    let written = context.each_unit(export.plan.units(), AT_ONCE * context.jobs, |unit| {
        export.write_shard(unit)
    });
    export.plan.output.tidy();
    written
}

/// The samples of one partition that go into an output shard.
struct Part<'a> {
    row: OutputPlanRow,
    partition: &'a PartitionPlan,
}

impl Export<'_> {
    fn write_shard(&self, unit: Unit) -> Result<()> {
        let (parts, inputs) = self.parts(unit.index)?;
        let work = Work {
            unit,
            units: self.plan.shards as usize,
            settings: NoSettings {},
            inputs,
        };
        let Some(mut task) = self.context.begin(work)? else {
            return Ok(());
        };
        let output = &self.plan.output;
        let scores = &self.plan.settings.scores;
        let embeddings = self.embeddings(&parts)?;
        let format = self.plan.settings.format;
        let place = parts
            .first()
            .map_or_else(|| unit.to_string(), |part| part.row.path());
        let path = format!("{place}.tar");
        let tar = || Ok::<_, Error>(ShardWriter::new(output.writer(&path)?));
        let table = format!("{place}.parquet");
        let mut shard = OutputShard {
            tar: (format == Format::Webdataset).then(tar).transpose()?,
            table: CuratedWriter::open(output, &table, scores, embeddings.as_ref(), format)?,
            counts: Counts::default(),
            bytes: 0,
            extensions: Extensions::default(),
            recode: self.plan.settings.recode,
            memory: &self.context.memory,
        };
        for part in &parts {
            self.copy_part(part, &task, &mut shard)?;
        }
        let tar = shard.tar.map(ShardWriter::finish).transpose();
        let tar = tar.map_err(|e| Error::of_io(e, &output.uri(&path)))?;
        task.publish_outside(output, || shard.table.finish())?;
        if let Some(tar) = tar {
            task.publish_outside(output, || tar.finish())?;
        }
        task.about(EXTENSIONS, &serde_json::to_string(&shard.extensions)?);
        task.sums.bytes = shard.bytes;
        Ok(task.commit(shard.counts)?)
    }

    /// Returns the parts of an output shard, and all that is read for it.
    fn parts(&self, shard: u32) -> Result<(Vec<Part<'_>>, Vec<Input>)> {
        let (context, plan) = (self.context, &self.plan);
        let mut parts = Vec::new();
        let mut inputs = vec![plan.receipt.as_input()];
        for row in plan.rows(context, shard)? {
            let unit = Unit::from(row.partition);
            let decided = context.required_receipt(context.step(), unit)?;
            plan.refuse_other_decisions(context, &decided)?;
            inputs.push(decided.as_input());
            inputs.push(self.unchanged(&decided, row.partition)?);
            let steps = plan.settings.score_steps();
            for step in steps.chain(&plan.settings.embeddings) {
                inputs.push(plan.planned_input(context, step, unit)?);
            }
            parts.push(Part {
                row,
                partition: self.source.partition(unit)?,
            });
        }
        Ok((parts, inputs))
    }

    /// Returns `read`'s unit as an input, if it and all decisions are still what the samples that stay
    /// were chosen from.
    fn unchanged(&self, decided: &Receipt, partition: Partition) -> Result<Input> {
        let inputs = self.survivors.inputs(partition)?;
        if let Some(changed) = inputs.iter().find(|input| !decided.inputs.contains(input)) {
            let step = &decided.step;
            return Err(
                Error::data(format!("{} was done again after {step}", changed.of))
                    .hint("run sluice-export decide again, then plan")
                    .into(),
            );
        }
        let is_read = |input: &Input| matches!(&input.of, InputOf::Unit { step, .. } if *step == StepName::read());
        let read = inputs.into_iter().find(is_read);
        Ok(read.ok_or_else(|| Error::bug("survivors without a unit of read"))?)
    }

    /// Returns what the embeddings of an output shard are: the same in all of its partitions.
    fn embeddings(&self, parts: &[Part<'_>]) -> Result<Option<EmbeddingsOf>> {
        let Some(step) = &self.plan.settings.embeddings else {
            return Ok(None);
        };
        let mut first: Option<EmbeddingsOf> = None;
        for part in parts {
            let unit = Unit::from(part.row.partition);
            let found = EmbeddingsOf::partition(&self.context.run, step, unit)?;
            let first = first.get_or_insert_with(|| found.clone());
            if *first != found {
                let message = format!(
                    "{step}: {unit} was embedded by {}, other partitions by {}",
                    found.model, first.model
                );
                return Err(Error::data(message)
                    .hint(format!(
                        "run the step {step} for all partitions with one --model"
                    ))
                    .into());
            }
        }
        Ok(first)
    }

    fn copy_part(
        &self,
        part: &Part<'_>,
        task: &Task<'_>,
        shard: &mut OutputShard<'_>,
    ) -> Result<()> {
        let packing = packing(&self.context.run, part.row.partition.into())?;
        let kept = Kept::open(self.context, &part.row, &self.plan.settings)?;
        let mut kept = kept.peekable();
        let mut ahead: VecDeque<KeptSample> = VecDeque::new();
        while let Some(first) = kept.next().transpose()? {
            let planned = planned(part.partition, &first.sample.shard)?;
            let mut source = self.input.shard(planned, &packing)?;
            source.want(&first.sample.members)?;
            ahead.push_back(first);
            while let Some(sample) = ahead.pop_front() {
                let same_shard = |next: &sluice_manifest::Result<KeptSample>| match next {
                    Ok(next) => next.sample.shard == planned.shard,
                    Err(_) => true,
                };
                while ahead.is_empty() || (has_room(&ahead) && !source.is_busy()) {
                    let Some(next) = kept.next_if(same_shard).transpose()? else {
                        break;
                    };
                    source.want(&next.sample.members)?;
                    ahead.push_back(next);
                }
                shard.copy(&mut source, sample)?;
                task.advance(1)?;
            }
        }
        Ok(())
    }
}

/// Kept samples that are announced to the source shard at once, at most.
const AHEAD: usize = 64;
/// Bytes of their captions and metadata, about.
const AHEAD_BYTES: usize = 2 << 20;

/// Whether another sample may be announced.
fn has_room(ahead: &VecDeque<KeptSample>) -> bool {
    let texts = ahead.iter().map(|kept| kept.sample.text_bytes());
    ahead.len() < AHEAD && texts.sum::<usize>() < AHEAD_BYTES
}

/// Returns a shard of a partition.
fn planned<'p>(partition: &'p PartitionPlan, path: &ShardPath) -> Result<&'p PlanRow> {
    let found = partition.shards.iter().find(|row| row.shard == *path);
    found.ok_or_else(|| {
        Error::data(format!(
            "{path}: holds a sample, but is not a shard of {}",
            partition.partition
        ))
        .hint("run sluice-read again")
        .into()
    })
}

/// An output shard being written.
struct OutputShard<'m> {
    /// None where the Parquet file holds the images.
    tar: Option<ShardWriter<ObjectWriter>>,
    table: CuratedWriter,
    counts: Counts,
    bytes: u64,
    extensions: Extensions,
    recode: Recode,
    memory: &'m MemoryBudget,
}

impl OutputShard<'_> {
    fn copy(&mut self, source: &mut SourceShard, kept: KeptSample) -> Result<()> {
        let KeptSample {
            mut sample,
            scores,
            embedding,
        } = kept;
        let mut key = None;
        let mut image = None;
        for number in 0..sample.members.len() {
            let extension = &sample.members[number].extension;
            let is_image = sample.image_extension.as_ref() == Some(extension);
            let is_held = is_image && (self.tar.is_none() || !self.recode.is_verbatim());
            let held = is_held.then(|| self.image(source, &mut sample, number));
            let held = held.transpose()?;
            let member = &sample.members[number];
            let name = safe_member_name(sample.image_id.as_str(), &member.extension);
            let split = split_key(name.as_bytes());
            key = key.or(split.map(|(key, _)| String::from_utf8_lossy(key).into_owned()));
            self.extensions.add(&member.extension, is_image);
            match (&mut self.tar, held) {
                (Some(tar), Some(bytes)) => append(tar, &name, &bytes)?,
                (Some(tar), None) => copy_member(tar, source, &sample, member, &name)?,
                (None, Some(bytes)) => image = Some(Image { bytes, path: name }),
                (None, None) => {}
            }
            self.bytes += sample.members[number].size;
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
        };
        self.table.push(row, &scores, embedding.as_deref(), image)?;
        self.counts.merge(&Counts::all_kept(1));
        Ok(())
    }

    /// Reads the image, writes it anew where that is asked for, and changes the sample's row with it.
    fn image(
        &self,
        source: &mut SourceShard,
        sample: &mut SampleRow,
        number: usize,
    ) -> Result<Vec<u8>> {
        let member = sample.members[number].clone();
        let bytes = read_image(source, sample, &member)?;
        if self.recode.is_verbatim() {
            return Ok(bytes);
        }
        Ok(recode(&self.recode, sample, bytes, self.memory)?)
    }
}

fn append(tar: &mut ShardWriter<ObjectWriter>, name: &str, bytes: &[u8]) -> Result<()> {
    let appended = tar.append(name, bytes);
    appended.map_err(|e| Error::of_io(e, name))?;
    Ok(())
}

/// Copies a member into the tar.
fn copy_member(
    tar: &mut ShardWriter<ObjectWriter>,
    source: &mut SourceShard,
    sample: &SampleRow,
    member: &MemberRow,
    name: &str,
) -> Result<()> {
    if let Some(text) = sample.text_of(member) {
        return append(tar, name, text.as_bytes());
    }
    let mut bytes = Hashing::new(source.member(member)?);
    let copied = tar.append_from(name, member.size, &mut bytes);
    let sha256 = bytes.finish();
    copied.map_err(|e| Error::of_io(e, source.uri()))?;
    if sample.image_extension.as_ref() == Some(&member.extension) {
        check_image(sample, &sha256)?;
    }
    Ok(())
}

fn read_image(source: &mut SourceShard, sample: &SampleRow, member: &MemberRow) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = source
        .member(member)?
        .take(member.size)
        .read_to_end(&mut bytes);
    read.map_err(|e| Error::of_io(e, source.uri()))?;
    check_image(sample, &hex::encode(Sha256::digest(&bytes)))?;
    Ok(bytes)
}

/// Checks that the copied image is the one that `read` validated.
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

impl<R> Hashing<R> {
    fn new(inner: R) -> Self {
        let hasher = Sha256::new();
        Self { inner, hasher }
    }

    fn finish(self) -> String {
        hex::encode(self.hasher.finalize())
    }
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
        // The consumed bytes are still buffered: `fill_buf` returns them and reads nothing.
        if let Ok(bytes) = self.inner.fill_buf() {
            self.hasher.update(&bytes[..count]);
        }
        self.inner.consume(count);
    }
}
