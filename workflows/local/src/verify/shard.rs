//! One output shard: its rows and its members against the samples that were to go into it.
//!
//! The tar is read with another implementation than the one that wrote it.

use std::io::Read;

use sha2::{Digest, Sha256};
use sluice_manifest::layout::{DECISIONS, IMAGES};
use sluice_manifest::rows::{CuratedRow, DecisionRow, MemberRow, OutputPlanRow, SampleRow};
use sluice_manifest::{Class, Error, Result, StepName, Unit};
use sluice_shard::{Sample, safe_member_name};
use sluice_source::InputReader;
use sluice_store::{ObjectReader, RowReader, Store};

use super::Run;
use super::checks::{Check, Findings};
use super::source::Sources;

/// Bytes compared at once.
const CHUNK: usize = 256 << 10;

/// Whether a sample counts as 1 or as its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// 1.
    Images,
    /// The bytes of its members.
    Bytes,
}

/// The curated dataset and where it came from.
pub struct Output<'a> {
    /// The run.
    pub run: &'a Run<'a>,
    /// The export that wrote it.
    pub export: &'a StepName,
    /// The source.
    pub input: &'a Store,
    /// The curated dataset.
    pub store: &'a Store,
    /// What the plan's ranges count.
    pub weight: Weight,
}

type Entries<'e> = tar::Entries<'e, ObjectReader>;

/// Why the rest cannot be checked.
enum Stop {
    /// It is broken, which was noted.
    Noted,
    /// Storage, a signal.
    Error(Error),
}

impl From<Error> for Stop {
    fn from(e: Error) -> Self {
        Stop::Error(e)
    }
}

impl Output<'_> {
    /// Checks a shard, and returns the number of its samples.
    ///
    /// # Errors
    /// Of storage only.
    pub fn check(&self, unit: Unit, rows: &[OutputPlanRow]) -> Result<(Findings, u64)> {
        let mut findings = Findings::default();
        let mut samples = 0;
        match self.compare(unit, rows, &mut findings, &mut samples) {
            Ok(()) | Err(Stop::Noted) => {}
            Err(Stop::Error(e)) => findings.note(Check::Packing, e)?,
        }
        Ok((findings, samples))
    }

    fn compare(
        &self,
        unit: Unit,
        rows: &[OutputPlanRow],
        findings: &mut Findings,
        samples: &mut u64,
    ) -> Result<(), Stop> {
        let tar = format!("{unit}.tar");
        let mut archive = tar::Archive::new(self.store.reader(&tar)?);
        let entries = archive.entries();
        let mut shard = ShardCheck {
            uri: self.store.uri(&tar),
            entries: entries.map_err(|e| Error::data(format!("{tar}: {e}")))?,
            curated: self.store.rows(&format!("{unit}.parquet"))?,
            findings,
        };
        let context = self.run.context;
        let reader = InputReader::new(&context.run, self.input, &context.storage);
        for row in rows {
            let partition = self.run.plan.partition(row.partition.into())?;
            let mut sources = match self.run.quick {
                true => None,
                false => Some(Sources::new(&reader, self.input, partition)),
            };
            for sample in KeptRange::open(self, row)? {
                self.run.context.check_stop()?;
                let sample = sample?;
                shard.row(&sample)?;
                let source = match &mut sources {
                    Some(sources) => Some(shard.source(sources, &sample)?),
                    None => None,
                };
                for (number, member) in sample.members.iter().enumerate() {
                    let from = match (&sources, &source) {
                        (Some(sources), Some(source)) => Some((sources, source, number)),
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

/// An output shard being read.
struct ShardCheck<'e, 'f> {
    uri: String,
    entries: Entries<'e>,
    curated: RowReader<CuratedRow>,
    findings: &'f mut Findings,
}

impl ShardCheck<'_, '_> {
    /// The next row must be this sample's. A missing or a different row ends the comparison: all
    /// rows after it would differ too.
    fn row(&mut self, sample: &SampleRow) -> Result<(), Stop> {
        let id = &sample.image_id;
        let Some(row) = self.curated.next().transpose()? else {
            let failure = format!("{}: {id} and what follows are missing", self.uri);
            self.findings.fail(Check::Packing, failure);
            return Err(Stop::Noted);
        };
        if row.image_id != *id {
            let found = &row.image_id;
            let failure = format!("{}: row of {found} in place of {id}", self.uri);
            self.findings.fail(Check::Packing, failure);
            return Err(Stop::Noted);
        }
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
        Ok(())
    }

    /// The sample in its source shard.
    fn source(&mut self, sources: &mut Sources<'_>, sample: &SampleRow) -> Result<Sample, Stop> {
        let id = &sample.image_id;
        let Some(source) = sources.sample(&sample.shard, id)? else {
            let failure = format!("{}: {id} is not found there again", sample.shard);
            self.findings.fail(Check::Members, failure);
            return Err(Stop::Noted);
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
        Err(Stop::Noted)
    }

    /// The next member must be this one, with these bytes.
    fn member(
        &mut self,
        sample: &SampleRow,
        member: &MemberRow,
        source: Option<(&Sources<'_>, &Sample, usize)>,
    ) -> Result<(), Stop> {
        let name = safe_member_name(sample.image_id.as_str(), &member.extension);
        let uri = &self.uri;
        let entry = match self.entries.next() {
            Some(Ok(entry)) => entry,
            Some(Err(e)) => return Err(self.broken(&e)),
            None => {
                let failure = format!("{uri}: {name} and what follows are missing");
                self.findings.fail(Check::Members, failure);
                return Err(Stop::Noted);
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
            return Err(Stop::Noted);
        }
        let is_image = sample.image_extension.as_ref() == Some(&member.extension);
        let mut hasher = is_image.then(Sha256::new);
        let compared = match source {
            None => same_bytes(entry, None::<&[u8]>, &mut hasher),
            Some((sources, source, number)) => match &source.members[number].data {
                Some(data) => same_bytes(entry, Some(data.as_slice()), &mut hasher),
                None => same_bytes(
                    entry,
                    Some(sources.large(&sample.shard, member)?),
                    &mut hasher,
                ),
            },
        };
        let same = compared.map_err(|e| self.broken(&e))?;
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
        Ok(())
    }

    /// Nothing may follow.
    fn end(&mut self) -> Result<(), Stop> {
        let uri = &self.uri;
        if let Some(row) = self.curated.next().transpose()? {
            let failure = format!("{uri}: row of {} was not planned", row.image_id);
            self.findings.fail(Check::Packing, failure);
        }
        match self.entries.next() {
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

    fn broken(&mut self, e: &std::io::Error) -> Stop {
        let message = format!("{}: {e}", self.uri);
        // The readers below fail with errors of ours, whatever the tar's reader puts around them.
        if let Some(class) = Class::of_ours(e) {
            return Stop::Error(Error::new(class, message));
        }
        self.findings.fail(Check::Members, message);
        Stop::Noted
    }
}

/// Reads an entry to its end and compares it with its source, where there is one.
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

/// The kept samples that start in a range of a partition.
struct KeptRange {
    samples: RowReader<SampleRow>,
    decisions: RowReader<DecisionRow>,
    row: OutputPlanRow,
    weight: Weight,
    position: u64,
}

impl KeptRange {
    fn open(output: &Output<'_>, row: &OutputPlanRow) -> Result<Self> {
        let unit = Unit::from(row.partition);
        let run = &output.run.context.run;
        Ok(Self {
            samples: run.rows(&IMAGES.path(&StepName::read(), unit))?,
            decisions: run.rows(&DECISIONS.path(output.export, unit))?,
            row: row.clone(),
            weight: output.weight,
            position: 0,
        })
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
            if !decision.keep {
                continue;
            }
            let start = self.position;
            self.position += match self.weight {
                Weight::Images => 1,
                Weight::Bytes => sample.members.iter().map(|member| member.size).sum(),
            };
            if (self.row.from..self.row.to).contains(&start) {
                return Some(Ok(sample));
            }
        }
        None
    }
}
