//! Helpers that the tests share.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};
use sluice_shard::{Damage, Event, MemberCounts, Note, Sample, ShardLimits, ShardReader, Skipped};

/// Everything read from a shard.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Read {
    pub samples: Vec<Sample>,
    pub skipped: Vec<Skipped>,
    pub notes: Vec<Note>,
    pub damage: Option<Damage>,
    pub counts: MemberCounts,
    pub compression: &'static str,
}

/// Reads a shard to its end and checks what holds for every shard: damage comes once and last, and
/// each member is counted once.
pub(crate) fn read(bytes: &[u8]) -> Read {
    read_with(bytes, ShardLimits::default())
}

pub(crate) fn read_with(bytes: &[u8], limits: ShardLimits) -> Read {
    let mut reader = ShardReader::new(bytes, limits).expect("bytes do not fail");
    let mut all = Read {
        compression: reader.compression().as_str(),
        ..Read::default()
    };
    for event in &mut reader {
        assert!(all.damage.is_none(), "damage is the last event");
        match event.expect("bytes do not fail") {
            Event::Sample(sample) => all.samples.push(sample),
            Event::Skipped(skipped) => all.skipped.push(skipped),
            Event::Note(note) => all.notes.push(note),
            Event::Damage(damage) => all.damage = Some(damage),
        }
    }
    assert!(reader.next().is_none(), "the end is the end");
    all.counts = reader.counts();
    let counts = all.counts;
    let listed: usize = all.samples.iter().map(|sample| sample.members.len()).sum();
    assert_eq!(counts.samples, all.samples.len() as u64);
    assert_eq!(counts.in_samples, listed as u64);
    assert_eq!(counts.skipped, all.skipped.len() as u64);
    assert!(counts.truncated <= 1);
    assert_eq!(
        counts.members,
        counts.in_samples + counts.skipped + counts.truncated
    );
    let mut ids: Vec<String> = all.samples.iter().map(Sample::id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), all.samples.len(), "ids are unique");
    all
}

/// Summarises the content of a shard in one line.
pub(crate) fn summary(read: &Read) -> String {
    let mut line = format!("{} samples", read.counts.samples);
    for skipped in &read.skipped {
        let _ = write!(line, ", {}", skipped.why.as_str());
    }
    for sample in &read.samples {
        if let Some(problem) = &sample.problem {
            let _ = write!(line, ", {} is {}", sample.id(), problem.as_str());
        }
    }
    for note in &read.notes {
        let _ = write!(line, ", note {}", note.kind.as_str());
    }
    if let Some(damage) = &read.damage {
        let _ = write!(
            line,
            ", damage {} at {}",
            damage.kind.as_str(),
            damage.offset
        );
    }
    line
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
