//! Streams the samples of a shard.

use std::collections::VecDeque;
use std::io::{self, Read};

use sluice_manifest::rows::{FileRow, MemberRow, PlanRow, ShardKind, TEXT_BYTES};
use sluice_manifest::{Class, Error, Result};
use sluice_shard::{
    Compression, Damage, DamageKind, Event, Member, MemberCounts, Missing, Sample, SampleProblem,
    ShardLimits, ShardReader, split_images,
};
use sluice_store::ObjectReader;

use crate::files::Lookahead;
use crate::images::ImageRows;
use crate::linked::LinkedMembers;
use crate::planned::open_shard;
use crate::reader::{EachImage, InputReader};
use crate::sidecar::Sidecar;

/// Streams the samples of a shard and everything else found in it.
///
/// An `Err` is a storage error, and the last item. Damaged data is an [`Event::Damage`].
pub struct Samples {
    events: Events,
    counts: MemberCounts,
    /// The damage of a table, which is reported after the last sample.
    damage: Option<Damage>,
    split: Option<EachImage>,
    /// The remaining samples of one with several images.
    parts: VecDeque<Sample>,
    /// The number of additional samples from splitting.
    extra: u64,
    done: bool,
}

enum Events {
    Tar {
        reader: Box<ShardReader<ObjectReader>>,
        sidecar: Option<Sidecar>,
        linked: Box<LinkedMembers>,
    },
    Files(Box<Lookahead>),
    /// None where the table cannot be opened.
    Parquet(Option<Box<ImageRows>>),
}

impl Samples {
    pub(crate) fn open(input: &InputReader, planned: &PlanRow) -> Result<Self> {
        let mut damage = None;
        let events = match planned.kind {
            ShardKind::Tar => {
                let object = open_shard(&input.input, planned)?;
                let reader = ShardReader::new(object, ShardLimits::default());
                let reader = reader.map_err(|e| Error::of_io(e, &input.uri(planned)))?;
                let path = planned.sidecar.as_deref();
                let sidecar = path.map(|path| Sidecar::open(&input.input, path));
                let sidecar = unless_broken(sidecar.transpose(), &mut damage)?;
                Events::Tar {
                    reader: Box::new(reader),
                    sidecar: sidecar.flatten(),
                    linked: Box::new(LinkedMembers::new(input, planned)),
                }
            }
            ShardKind::Files => Events::Files(Box::new(Lookahead::open(input, planned)?)),
            ShardKind::Parquet => {
                input.check_unchanged(planned)?;
                let rows = ImageRows::open(input, planned);
                Events::Parquet(unless_broken(rows, &mut damage)?.map(Box::new))
            }
        };
        Ok(Self {
            events,
            counts: MemberCounts::default(),
            damage,
            split: input.split.clone(),
            parts: VecDeque::new(),
            extra: 0,
            done: false,
        })
    }

    /// Returns the compression of the shard.
    pub fn compression(&self) -> Compression {
        match &self.events {
            Events::Tar { reader, .. } => reader.compression(),
            Events::Files(_) | Events::Parquet(_) => Compression::None,
        }
    }

    /// Returns the counts so far. Complete once the iterator has ended.
    pub fn counts(&self) -> MemberCounts {
        let mut counts = match &self.events {
            Events::Tar { reader, .. } => reader.counts(),
            Events::Files(_) | Events::Parquet(_) => self.counts,
        };
        counts.samples += self.extra;
        counts
    }

    /// Splits a sample with several images. Returns the first part.
    fn split(&mut self, event: Event) -> Event {
        match (event, &self.split) {
            (Event::Sample(sample), Some(split)) => {
                let caption = split.caption_member.as_deref();
                let mut parts = split_images(sample, caption, copy_of);
                let first = parts.remove(0);
                self.extra += parts.len() as u64;
                self.parts = parts.into();
                Event::Sample(first)
            }
            (event, _) => event,
        }
    }

    fn step(&mut self) -> io::Result<Option<Event>> {
        let sample = match &mut self.events {
            Events::Tar {
                reader,
                sidecar,
                linked,
            } => {
                let event = reader.next().transpose()?;
                let Some(Event::Sample(mut sample)) = event else {
                    return Ok(event.or_else(|| self.damage.take().map(Event::Damage)));
                };
                let compression = reader.compression();
                linked
                    .fill(&mut sample, compression)
                    .map_err(io::Error::other)?;
                return Ok(Some(Event::Sample(match sidecar {
                    Some(sidecar) => sidecar.joined(sample),
                    None => sample,
                })));
            }
            Events::Files(files) => next_files(files),
            Events::Parquet(rows) => rows.as_mut().map_or(Ok(None), |rows| rows.step()),
        };
        match sample {
            Ok(Some(sample)) => {
                let members = sample.members.iter().filter(|member| !is_in_row(member));
                let members = members.count() as u64;
                self.counts.members += members;
                self.counts.in_samples += members;
                self.counts.samples += 1;
                Ok(Some(Event::Sample(sample)))
            }
            Ok(None) => Ok(self.table_damage().map(Event::Damage)),
            Err(e) => Err(io::Error::other(e)),
        }
    }

    /// Returns the damage of a table, after its last row.
    fn table_damage(&mut self) -> Option<Damage> {
        let of_rows = match &mut self.events {
            Events::Parquet(Some(rows)) => rows.damage(),
            Events::Parquet(None) | Events::Tar { .. } | Events::Files(_) => None,
        };
        of_rows.or_else(|| self.damage.take())
    }
}

impl Iterator for Samples {
    type Item = io::Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(part) = self.parts.pop_front() {
            return Some(Ok(Event::Sample(part)));
        }
        if self.done {
            return None;
        }
        let event = self.step().transpose();
        self.done |= matches!(event, None | Some(Err(_) | Ok(Event::Damage(_))));
        event.map(|event| event.map(|event| self.split(event)))
    }
}

/// Returns what was opened; none where it is broken, which is noted as damage.
fn unless_broken<T>(opened: Result<T>, damage: &mut Option<Damage>) -> Result<Option<T>> {
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(e) if e.class() == Class::Data => {
            *damage = Some(Damage {
                offset: 0,
                kind: DamageKind::BrokenTable,
                detail: format!("{e}; nothing in it is used"),
            });
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

/// Whether a member has no bytes of its own in the shard.
pub(crate) fn is_in_row(member: &Member) -> bool {
    member.offset == MemberRow::IN_ROW
}

/// Returns a copy of a text for another sample, or `None` if it is not UTF-8 or too long for a row.
fn copy_of(extension: &str, member: &Member) -> Option<Member> {
    let text = String::from_utf8(member.data.clone()?).ok()?;
    text_member(extension, text)
}

/// Returns a member for a text without bytes of its own in the shard, or `None` if it is too long
/// for the sample's row.
pub(crate) fn text_member(extension: &str, text: String) -> Option<Member> {
    (text.len() <= TEXT_BYTES).then(|| Member {
        extension: extension.to_owned(),
        name: Vec::new(),
        offset: MemberRow::IN_ROW,
        size: text.len() as u64,
        data: Some(text.into_bytes()),
        missing: None,
    })
}

fn next_files(files: &mut Lookahead) -> Result<Option<Sample>> {
    let Some((number, row, reader)) = files.next_if(|_| true)? else {
        return Ok(None);
    };
    let (key, occurrence) = (row.key.clone(), row.occurrence);
    let mut sample = Sample {
        key: key.clone(),
        occurrence,
        members: Vec::new(),
        problem: None,
    };
    take_file(&mut sample, number, row, reader)?;
    let same = |row: &FileRow| (row.key.as_str(), row.occurrence) == (key.as_str(), occurrence);
    while let Some((number, row, reader)) = files.next_if(same)? {
        take_file(&mut sample, number, row, reader)?;
    }
    Ok(Some(sample))
}

fn take_file(
    sample: &mut Sample,
    number: u64,
    row: FileRow,
    reader: Option<ObjectReader>,
) -> Result<()> {
    let Some(reader) = reader else {
        match (row.path, row.text) {
            (None, Some(text)) => sample.members.extend(text_member(&row.extension, text)),
            (_, detail) => {
                let detail = detail.unwrap_or_default();
                sample.problem = Some(SampleProblem::Missing { detail });
            }
        }
        return Ok(());
    };
    let (size, path) = (row.bytes.unwrap_or(0), row.path.unwrap_or_default());
    let limits = ShardLimits::default();
    let buffered = sample.members.iter().map(|member| member.size).sum::<u64>();
    let fits = size <= limits.max_member_bytes && buffered + size <= limits.max_sample_bytes;
    let data = fits.then(|| whole(reader, size, &path)).transpose()?;
    sample.members.push(Member {
        extension: row.extension,
        name: path.into_bytes(),
        offset: number,
        size,
        missing: data.is_none().then_some(Missing::TooLarge),
        data,
    });
    Ok(())
}

fn whole(mut reader: ObjectReader, size: u64, path: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(size as usize);
    let read = reader.read_to_end(&mut bytes);
    read.map_err(|e| Error::of_io(e, path))?;
    Ok(bytes)
}
