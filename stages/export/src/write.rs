//! Copies the kept samples of an output shard, byte for byte: all members into a tar with a Parquet
//! file, or the images into the Parquet file.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read};

use anyhow::Result;
use sha2::{Digest, Sha256};
use sluice_harness::{Context, MemoryBudget, OpenUnit, StepArgs, Work};
use sluice_manifest::rows::{CuratedRow, MemberRow, OutputPlanRow, PlanRow, Row as _, SampleRow};
use sluice_manifest::{
    Counts, Error, Input, InputOf, Partition, Receipt, ShardPath, StepName, Unit, UnitKind,
};
use sluice_pixels::Recode;
use sluice_run::{PartitionPlan, Plan, Survivors};
use sluice_shard::{ShardWriter, safe_member_name, split_key};
use sluice_source::{InputReader, SourceShard, compressions};
use sluice_store::ObjectWriter;

use crate::NoSettings;
use crate::curated::{CuratedWriter, Image};
use crate::format::OutputFormat;
use crate::hub::Extensions;
use crate::kept::{EmbeddingsInfo, KeptSample, KeptSamples};
use crate::output_plan::OutputPlan;
use crate::recoded::recode;

/// The key of the extensions of a shard's members in receipts.
pub const EXTENSIONS: &str = "extensions";

/// The number of concurrent output shards for each core. A shard spends a third of its time waiting
/// for storage.
const AT_ONCE: usize = 2;

/// Copy the kept samples into the output shards
///
/// Units of work are the output shards of the plan.
///
/// Example: sluice-export write --run runs/a --task-index 0 --task-count 8
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The arguments of every step after `read`.
    #[command(flatten)]
    pub step: StepArgs,
}

/// What all output shards share.
struct Export<'a> {
    context: &'a Context,
    source: Plan,
    input: InputReader,
    plan: OutputPlan,
    /// The decisions of the chain.
    survivors: Survivors<'a>,
}

/// Writes the output shards of this process.
///
/// # Errors
///
/// Returns a data error if a source shard or anything that the plan was made from has changed
/// since, and otherwise a storage error.
pub fn run(context: &Context) -> Result<()> {
    let source = context.plan()?;
    let plan = OutputPlan::open(context)?;
    let decided = context.required_receipt(context.step(), Unit::once(UnitKind::Partition))?;
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
struct ShardPart<'a> {
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
        let Some(mut open_unit) = self.context.begin(work)? else {
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
            tar: (format == OutputFormat::Webdataset).then(tar).transpose()?,
            table: CuratedWriter::open(output, &table, scores, embeddings.as_ref(), format)?,
            counts: Counts::default(),
            bytes: 0,
            extensions: Extensions::default(),
            recode: self.plan.settings.recode,
            memory: &self.context.memory,
        };
        for part in &parts {
            self.copy_part(part, &open_unit, &mut shard)?;
        }
        let tar = shard.tar.map(ShardWriter::finish).transpose();
        let tar = tar.map_err(|e| Error::of_io(e, &output.uri(&path)))?;
        open_unit.publish_outside(output, || shard.table.finish())?;
        if let Some(tar) = tar {
            open_unit.publish_outside(output, || tar.finish())?;
        }
        open_unit.about(EXTENSIONS, &serde_json::to_string(&shard.extensions)?);
        open_unit.sums.bytes = shard.bytes;
        Ok(open_unit.commit(shard.counts)?)
    }

    /// Returns the parts of an output shard, and all inputs.
    fn parts(&self, shard: u32) -> Result<(Vec<ShardPart<'_>>, Vec<Input>)> {
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
            parts.push(ShardPart {
                row,
                partition: self.source.partition(unit)?,
            });
        }
        Ok((parts, inputs))
    }

    /// Returns `read`'s unit as an input, after checking that it and all decisions have not changed
    /// since the samples were chosen.
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

    /// Returns the model and dimension of the embeddings in an output shard. All its partitions
    /// must have the same.
    fn embeddings(&self, parts: &[ShardPart<'_>]) -> Result<Option<EmbeddingsInfo>> {
        let Some(step) = &self.plan.settings.embeddings else {
            return Ok(None);
        };
        let mut first: Option<EmbeddingsInfo> = None;
        for part in parts {
            let unit = Unit::from(part.row.partition);
            let found = EmbeddingsInfo::partition(&self.context.run, step, unit)?;
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
        part: &ShardPart<'_>,
        open_unit: &OpenUnit<'_>,
        shard: &mut OutputShard<'_>,
    ) -> Result<()> {
        let compressions = compressions(&self.context.run, part.row.partition.into())?;
        let kept = KeptSamples::open(self.context, &part.row, &self.plan.settings)?;
        let mut kept = kept.peekable();
        let mut ahead: VecDeque<KeptSample> = VecDeque::new();
        while let Some(first) = kept.next().transpose()? {
            let planned = planned(part.partition, &first.sample.shard)?;
            let mut source = self.input.shard(planned, &compressions)?;
            source.prefetch(&first.sample.members)?;
            ahead.push_back(first);
            while let Some(sample) = ahead.pop_front() {
                let same_shard = |next: &sluice_manifest::Result<KeptSample>| match next {
                    Ok(next) => next.sample.shard == planned.shard,
                    Err(_) => true,
                };
                while ahead.is_empty() || (has_room(&ahead) && !source.is_prefetch_full()) {
                    let Some(next) = kept.next_if(same_shard).transpose()? else {
                        break;
                    };
                    source.prefetch(&next.sample.members)?;
                    ahead.push_back(next);
                }
                shard.copy(&mut source, sample)?;
                open_unit.advance(1)?;
            }
        }
        Ok(())
    }
}

/// The maximum number of kept samples announced to the source shard.
const AHEAD: usize = 64;
/// The approximate maximum size of their captions and metadata.
const AHEAD_BYTES: usize = 2 << 20;

/// Returns whether another sample may be announced.
fn has_room(ahead: &VecDeque<KeptSample>) -> bool {
    let texts = ahead.iter().map(|kept| kept.sample.text_bytes());
    ahead.len() < AHEAD && texts.sum::<usize>() < AHEAD_BYTES
}

/// Returns a shard of a partition.
fn planned<'p>(partition: &'p PartitionPlan, path: &ShardPath) -> Result<&'p PlanRow> {
    let found = partition.shards.iter().find(|row| row.shard == *path);
    found.ok_or_else(|| {
        Error::data(format!(
            "{path}: has a sample, but is not a shard of {}",
            partition.partition
        ))
        .hint("run sluice-read again")
        .into()
    })
}

/// An output shard being written.
struct OutputShard<'m> {
    /// `None` if the Parquet file contains the images.
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
            group,
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
            group_id: group.id,
            group_size: group.size,
        };
        self.table.push(row, &scores, embedding.as_deref(), image)?;
        self.counts.merge(&Counts::all_kept(1));
        Ok(())
    }

    /// Reads the image, converts it if requested, and updates the sample's row.
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

/// A reader that hashes what is read through it.
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
        // The consumed bytes are still buffered: `fill_buf` returns them without reading.
        if let Ok(bytes) = self.inner.fill_buf() {
            self.hasher.update(&bytes[..count]);
        }
        self.inner.consume(count);
    }
}
