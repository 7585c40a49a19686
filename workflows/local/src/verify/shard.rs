//! Checks one output shard: its rows and members against the samples that belong into it.
//!
//! The tar is read with another implementation than the one that wrote it.

use std::collections::HashMap;
use std::io::Read;

use sha2::{Digest, Sha256};
use sluice_export::captions::{self, KeepCaptions};
use sluice_export::format::OutputFormat;
use sluice_export::groups::{Group, Groups};
use sluice_export::recoded;
use sluice_export::split::{Split, group_of, split_of};
use sluice_manifest::layout::{DECISIONS, IMAGES};
use sluice_manifest::rows::{CuratedRow, DecisionRow, MemberRow, OutputPlanRow, SampleRow};
use sluice_manifest::{Class, Error, ImageId, Partition, Result, StepName, Unit};
use sluice_pixels::Recode;
use sluice_shard::{Sample, safe_member_name};
use sluice_source::{EachImage, InputReader};
use sluice_store::{ObjectReader, RowReader, Store};

use super::CheckedRun;
use super::checks::{Check, CheckResults};
use super::images::TableImages;
use super::source::Sources;

/// The number of bytes that are compared at once.
const CHUNK: usize = 256 << 10;

/// The unit in which the plan counts: samples, or their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PlanWeight {
    /// 1.
    Images,
    /// The bytes of its members.
    Bytes,
}

/// The curated dataset and its origin.
pub(super) struct CheckedOutput<'a> {
    /// The run.
    pub run: &'a CheckedRun<'a>,
    /// The export that wrote it.
    pub export: &'a StepName,
    /// The source.
    pub input: &'a Store,
    /// The curated dataset.
    pub store: &'a Store,
    /// The unit of the plan's ranges.
    pub weight: PlanWeight,
    /// The groups of duplicates, by the manifests of the dedup steps.
    pub groups: Groups,
    /// The format of its shards.
    pub format: OutputFormat,
    /// The re-encoding of its images.
    pub recode: Recode,
    /// The captions of its samples.
    pub keep_captions: KeepCaptions,
    /// Its splits.
    pub splits: Vec<Split>,
}

/// The source of a shard's members.
enum MemberSource<'e> {
    /// A tar with all members.
    Tar(tar::Entries<'e, ObjectReader>),
    /// The Parquet file with the images.
    Table(Box<TableImages>),
}

/// The reason why the rest of a shard cannot be checked.
enum CheckStop {
    /// The shard is broken, which was recorded.
    Noted,
    /// A storage error or a signal.
    Error(Error),
}

impl From<Error> for CheckStop {
    fn from(e: Error) -> Self {
        CheckStop::Error(e)
    }
}

impl CheckedOutput<'_> {
    /// Checks a shard, and returns the number of its samples.
    ///
    /// # Errors
    /// Storage errors only.
    pub(super) fn check(&self, rows: &[OutputPlanRow]) -> Result<(CheckResults, u64)> {
        let mut findings = CheckResults::default();
        let mut samples = 0;
        match self.compare(rows, &mut findings, &mut samples) {
            Ok(()) | Err(CheckStop::Noted) => {}
            Err(CheckStop::Error(e)) => findings.note(Check::Packing, e)?,
        }
        Ok((findings, samples))
    }

    /// Returns the captions that were added to a partition's samples.
    fn captions(&self, partition: Partition) -> Result<HashMap<ImageId, Vec<String>>> {
        match self.keep_captions {
            KeepCaptions::Kept => Ok(HashMap::new()),
            KeepCaptions::All => captions::of_partition(self.run.recorded, self.export, partition),
        }
    }

    /// Returns a sample's re-encoded image, and changes the sample's row accordingly. Without the
    /// source, the row follows the output's.
    fn recoded(
        &self,
        row: &CuratedRow,
        sample: &mut SampleRow,
        source: Option<(&Sources<'_>, &Sample)>,
    ) -> Result<Option<Vec<u8>>> {
        let extension = sample.image_extension.as_ref();
        let mut members = sample.members.iter();
        let number = members.position(|member| Some(&member.extension) == extension);
        let Some(number) = number.filter(|_| !self.recode.is_verbatim()) else {
            return Ok(None);
        };
        let Some((sources, source)) = source else {
            recoded::follow(sample, row);
            return Ok(None);
        };
        let mut image = Vec::new();
        match &source.members[number].data {
            Some(data) => image.extend_from_slice(data),
            None => {
                let mut large = sources.large(&sample.shard, &sample.members[number])?;
                let read = large.read_to_end(&mut image);
                read.map_err(|e| Error::of_io(e, sample.shard.as_str()))?;
            }
        }
        let memory = self.run.memory;
        recoded::recode(&self.recode, sample, image, memory).map(Some)
    }

    fn compare(
        &self,
        rows: &[OutputPlanRow],
        findings: &mut CheckResults,
        samples: &mut u64,
    ) -> Result<(), CheckStop> {
        let Some(path) = rows.first().map(OutputPlanRow::path) else {
            return Ok(());
        };
        let table = format!("{path}.parquet");
        let name = format!("{path}.{}", self.format.extension());
        let mut archive = match self.format {
            OutputFormat::Webdataset => Some(tar::Archive::new(self.store.reader(&name)?)),
            OutputFormat::Parquet => None,
        };
        let entries = archive.as_mut().map(tar::Archive::entries).transpose();
        let mut shard = ShardCheck {
            uri: self.store.uri(&name),
            members: match entries.map_err(|e| Error::data(format!("{name}: {e}")))? {
                Some(entries) => MemberSource::Tar(entries),
                None => MemberSource::Table(Box::new(TableImages::open(self.store, &table)?)),
            },
            curated: self.store.rows(&table)?,
            findings,
        };
        let recorded = self.run.recorded;
        let read = self.run.receipts.of(&StepName::read()).first();
        let split = read.and_then(|receipt| EachImage::of_settings(&receipt.settings));
        let reader = InputReader::new(recorded, self.input, &recorded.storage).split(split);
        for row in rows {
            let partition = self.run.plan.partition(row.partition.into())?;
            let mut sources = if self.run.quick {
                None
            } else {
                Some(Sources::new(&reader, self.input, partition))
            };
            let captions = self.captions(row.partition)?;
            for sample in KeptRange::open(self, row)? {
                self.run.recorded.check_stop()?;
                let mut sample = sample?;
                let source = match &mut sources {
                    Some(sources) => Some(shard.source(sources, &sample)?),
                    None => None,
                };
                let before = sample.members.clone();
                if let Some(captions) = captions.get(&sample.image_id) {
                    captions::add(&mut sample, captions);
                }
                let row = shard.next_row(&sample)?;
                let at_hand = sources.as_ref().zip(source.as_ref());
                let image = self.recoded(&row, &mut sample, at_hand)?;
                shard.row(&row, &sample);
                shard.group(&row, &self.groups);
                for (number, member) in sample.members.iter().enumerate() {
                    let is_image = sample.image_extension.as_ref() == Some(&member.extension);
                    let changed = match &image {
                        Some(image) if is_image => Some(image.as_slice()),
                        _ if before.get(number) == Some(member) => None,
                        _ => sample.text_of(member).map(str::as_bytes),
                    };
                    let from = match (changed, at_hand) {
                        (Some(bytes), _) => Some(MemberOrigin::Bytes(bytes)),
                        // A quick check has no bytes to compare a re-encoded image with.
                        (None, Some((sources, source))) => {
                            Some(MemberOrigin::Source(sources, source, number))
                        }
                        _ => None,
                    };
                    shard.member(&sample, member, from)?;
                }
                *samples += 1;
            }
        }
        shard.end()
    }
}

/// The check of one output shard.
struct ShardCheck<'e, 'f> {
    uri: String,
    members: MemberSource<'e>,
    curated: RowReader<CuratedRow>,
    findings: &'f mut CheckResults,
}

impl ShardCheck<'_, '_> {
    /// Returns the next row, which must be this sample's. A missing or different row ends the
    /// comparison, because all later rows would differ too.
    fn next_row(&mut self, sample: &SampleRow) -> Result<CuratedRow, CheckStop> {
        let id = &sample.image_id;
        let Some(row) = self.curated.next().transpose()? else {
            let failure = format!("{}: {id} and what follows are missing", self.uri);
            self.findings.fail(Check::Packing, failure);
            return Err(CheckStop::Noted);
        };
        if row.image_id != *id {
            let found = &row.image_id;
            let failure = format!("{}: row of {found} in place of {id}", self.uri);
            self.findings.fail(Check::Packing, failure);
            return Err(CheckStop::Noted);
        }
        Ok(row)
    }

    /// Checks that the row matches `read/images` and the re-encoded image.
    fn row(&mut self, row: &CuratedRow, sample: &SampleRow) {
        let id = &sample.image_id;
        let same = row.source_shard == sample.shard
            && row.source_key == sample.key
            && row.caption == sample.caption
            && row.metadata == sample.metadata
            && row.format == sample.format
            && (row.width, row.height) == (sample.width, sample.height)
            && row.bytes == sample.bytes
            && row.sha256 == sample.sha256
            && row.phash == sample.phash;
        self.findings.expect(Check::Packing, same, || {
            format!("{}: the row of {id} differs from what read found", self.uri)
        });
    }

    /// Checks that the row has the group that follows from what the dedup steps removed, and its size.
    fn group(&mut self, row: &CuratedRow, groups: &Groups) {
        let id = &row.image_id;
        let group = groups.of_image(id).unwrap_or_else(|| Group::alone(id));
        let same = (row.group_id, row.group_size) == (group.id, group.size);
        self.findings.expect(Check::Duplicates, same, || {
            format!(
                "{}: {id} is in group {} of {} images; by the dedup steps in {} of {}",
                self.uri, row.group_id, row.group_size, group.id, group.size
            )
        });
    }

    /// Returns the sample from its source shard.
    fn source(
        &mut self,
        sources: &mut Sources<'_>,
        sample: &SampleRow,
    ) -> Result<Sample, CheckStop> {
        let id = &sample.image_id;
        let Some(source) = sources.sample(&sample.shard, id)? else {
            let failure = format!("{}: {id} is no longer in it", sample.shard);
            self.findings.fail(Check::Members, failure);
            return Err(CheckStop::Noted);
        };
        let same = source.members.len() == sample.members.len()
            && source.members.iter().zip(&sample.members).all(|(a, b)| {
                a.extension == b.extension && (a.offset, a.size) == (b.offset, b.size)
            });
        if same {
            return Ok(source);
        }
        let failure = format!("{}: {id} has other members than read found", sample.shard);
        self.findings.fail(Check::Members, failure);
        Err(CheckStop::Noted)
    }

    /// Checks that the next member has this name and these bytes.
    fn member(
        &mut self,
        sample: &SampleRow,
        member: &MemberRow,
        source: Option<MemberOrigin<'_, '_>>,
    ) -> Result<(), CheckStop> {
        let name = safe_member_name(sample.image_id.as_str(), &member.extension);
        let is_image = sample.image_extension.as_ref() == Some(&member.extension);
        let mut hasher = is_image.then(Sha256::new);
        let entries = match &mut self.members {
            MemberSource::Tar(entries) => entries,
            MemberSource::Table(_) if !is_image => return Ok(()),
            MemberSource::Table(images) => {
                let image = images.take()?;
                let compared = compare(image.as_slice(), sample, member, source, &mut hasher)?;
                let same = compared.map_err(|e| self.broken(&e))?;
                self.judge(sample, &name, same, hasher);
                return Ok(());
            }
        };
        let uri = &self.uri;
        let entry = match entries.next() {
            Some(Ok(entry)) => entry,
            Some(Err(e)) => return Err(self.broken(&e)),
            None => {
                let failure = format!("{uri}: {name} and what follows are missing");
                self.findings.fail(Check::Members, failure);
                return Err(CheckStop::Noted);
            }
        };
        if *entry.path_bytes() != *name.as_bytes() || entry.size() != member.size {
            let found = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let failure = format!(
                "{uri}: {found} ({} bytes) in place of {name} ({})",
                entry.size(),
                member.size
            );
            self.findings.fail(Check::Members, failure);
            return Err(CheckStop::Noted);
        }
        let compared = compare(entry, sample, member, source, &mut hasher)?;
        let same = compared.map_err(|e| self.broken(&e))?;
        self.judge(sample, &name, same, hasher);
        Ok(())
    }

    /// Records whether a member has its source's bytes, and an image the hash in `read/images`.
    fn judge(&mut self, sample: &SampleRow, name: &str, same: bool, hasher: Option<Sha256>) {
        let uri = &self.uri;
        self.findings.expect(Check::Members, same, || {
            format!("{uri}: {name} differs from its source, {}", sample.shard)
        });
        if let Some(hasher) = hasher {
            let hash = hex::encode(hasher.finalize());
            let same = sample.sha256.as_deref() == Some(hash.as_str());
            self.findings.expect(Check::Members, same, || {
                format!("{uri}: {name} is not the image that was read")
            });
        }
    }

    /// Checks that nothing follows.
    fn end(&mut self) -> Result<(), CheckStop> {
        let uri = &self.uri;
        if let Some(row) = self.curated.next().transpose()? {
            let failure = format!("{uri}: row of {} was not planned", row.image_id);
            self.findings.fail(Check::Packing, failure);
        }
        let MemberSource::Tar(entries) = &mut self.members else {
            return Ok(());
        };
        match entries.next() {
            None => Ok(()),
            Some(Ok(entry)) => {
                let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
                let failure = format!("{uri}: {name} was not planned");
                self.findings.fail(Check::Members, failure);
                Ok(())
            }
            Some(Err(e)) => Err(self.broken(&e)),
        }
    }

    fn broken(&mut self, e: &std::io::Error) -> CheckStop {
        let message = format!("{}: {e}", self.uri);
        // The readers below return Sluice's errors, which the tar reader wraps.
        if let Some(class) = Class::of_ours(e) {
            return CheckStop::Error(Error::new(class, message));
        }
        self.findings.fail(Check::Members, message);
        CheckStop::Noted
    }
}

/// The origin of a member.
enum MemberOrigin<'s, 'p> {
    /// The source shards, the sample in its shard, and the member's index.
    Source(&'s Sources<'p>, &'s Sample, usize),
    /// Bytes derived from the source: metadata with captions, or a re-encoded image.
    Bytes(&'s [u8]),
}

/// Compares a member with its source, if there is one.
fn compare(
    entry: impl Read,
    sample: &SampleRow,
    member: &MemberRow,
    source: Option<MemberOrigin<'_, '_>>,
    hasher: &mut Option<Sha256>,
) -> Result<std::io::Result<bool>> {
    let (sources, source, number) = match source {
        None => return Ok(same_bytes(entry, None::<&[u8]>, hasher)),
        Some(MemberOrigin::Bytes(bytes)) => return Ok(same_bytes(entry, Some(bytes), hasher)),
        Some(MemberOrigin::Source(sources, source, number)) => (sources, source, number),
    };
    Ok(match &source.members[number].data {
        Some(data) => same_bytes(entry, Some(data.as_slice()), hasher),
        None => same_bytes(entry, Some(sources.large(&sample.shard, member)?), hasher),
    })
}

/// Reads an entry to its end, and compares it with its source, if there is one.
fn same_bytes(
    mut entry: impl Read,
    mut source: Option<impl Read>,
    hasher: &mut Option<Sha256>,
) -> std::io::Result<bool> {
    let (mut ours, mut theirs) = (vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        let length = fill(&mut entry, &mut ours)?;
        if let Some(hasher) = hasher {
            hasher.update(&ours[..length]);
        }
        if let Some(source) = &mut source {
            let other = fill(source, &mut theirs)?;
            if ours[..length] != theirs[..other] {
                return Ok(false);
            }
        }
        if length == 0 {
            return Ok(true);
        }
    }
}

fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..])? {
            0 => break,
            length => filled += length,
        }
    }
    Ok(filled)
}

/// The kept samples in a range of a partition.
struct KeptRange {
    samples: RowReader<SampleRow>,
    decisions: RowReader<DecisionRow>,
    row: OutputPlanRow,
    splits: Vec<Split>,
    weight: PlanWeight,
    position: u64,
}

impl KeptRange {
    fn open(output: &CheckedOutput<'_>, row: &OutputPlanRow) -> Result<Self> {
        let unit = Unit::from(row.partition);
        let run = output.run.recorded;
        Ok(Self {
            samples: run.rows(&IMAGES.path(&StepName::read(), unit))?,
            decisions: run.rows(&DECISIONS.path(output.export, unit))?,
            row: row.clone(),
            splits: output.splits.clone(),
            weight: output.weight,
            position: 0,
        })
    }
}

impl KeptRange {
    fn split_of(&self, sample: &SampleRow) -> Option<&str> {
        let group = group_of(sample.phash, sample.image_id.as_str());
        Some(split_of(&self.splits, group)?.name.as_str())
    }
}

impl Iterator for KeptRange {
    type Item = Result<SampleRow>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.position < self.row.to {
            let (sample, decision) = match (self.samples.next()?, self.decisions.next()?) {
                (Ok(sample), Ok(decision)) => (sample, decision),
                (Err(e), _) | (_, Err(e)) => return Some(Err(e)),
            };
            if !decision.keep || self.split_of(&sample) != self.row.split.as_deref() {
                continue;
            }
            let start = self.position;
            self.position += match self.weight {
                PlanWeight::Images => 1,
                PlanWeight::Bytes => sample.members.iter().map(|member| member.size).sum(),
            };
            if (self.row.from..self.row.to).contains(&start) {
                return Some(Ok(sample));
            }
        }
        None
    }
}
