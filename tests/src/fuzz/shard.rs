//! Shards: a tar, plain or compressed, as members grouped into samples.
//!
//! - Every member is counted once, ids are unique, reading memory never fails.
//! - The grouping does not depend on how many bytes each read returns.
//! - Later readers, which seek by offset in the decompressed bytes, find every listed member.
//! - The listed members can be written as a shard and read back.

use std::collections::BTreeSet;
use std::io::{self, Read};

use sluice_shard::{
    Compression, Event, Member, MemberCounts, Sample, ShardLimits, ShardReader, ShardWriter,
    TarBytes, caption_member, image_member, metadata_member,
};

/// Small, so that a decompression bomb is rejected quickly.
const LIMITS: ShardLimits = ShardLimits {
    max_member_bytes: 64 << 10,
    max_sample_bytes: 128 << 10,
    max_sample_members: 16,
    max_name_bytes: 1 << 10,
    max_extended_bytes: 4 << 10,
    max_inflated_bytes: 4 << 20,
    max_inflate_ratio: 256,
    inflate_ratio_from: 1 << 20,
};

/// A reader that returns bytes in small pieces, like a slow connection.
struct Pieces<'a> {
    bytes: &'a [u8],
    most: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = buf.len().min(self.most);
        self.bytes.read(&mut buf[..most])
    }
}

/// The contents of a shard.
#[derive(Debug, PartialEq)]
struct ShardContent {
    events: Vec<Event>,
    counts: MemberCounts,
    compression: Compression,
}

impl ShardContent {
    fn of(reader: impl Read) -> Self {
        let mut reader = ShardReader::new(reader, LIMITS).expect("memory can be read");
        let events: Result<Vec<Event>, _> = reader.by_ref().collect();
        Self {
            events: events.expect("memory can be read"),
            counts: reader.counts(),
            compression: reader.compression(),
        }
    }

    fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.events.iter().filter_map(|event| match event {
            Event::Sample(sample) => Some(sample),
            _ => None,
        })
    }

    fn members(&self) -> impl Iterator<Item = &Member> {
        self.samples().flat_map(|sample| &sample.members)
    }
}

pub(super) fn run(data: &[u8]) {
    let (most, data) = super::choice(data);
    let content = ShardContent::of(data);
    check_counts(&content);
    let pieces = Pieces {
        bytes: data,
        most: 1 + most,
    };
    assert_eq!(
        ShardContent::of(pieces),
        content,
        "in pieces of {}",
        1 + most
    );
    check_offsets(&content, data);
    write_and_read(&content);
}

fn check_counts(content: &ShardContent) {
    let counts = content.counts;
    let told = counts.in_samples + counts.skipped + counts.truncated;
    assert_eq!(counts.members, told, "{counts:?}");
    assert_eq!(counts.samples as usize, content.samples().count());
    assert_eq!(counts.in_samples as usize, content.members().count());
    let ids: BTreeSet<String> = content.samples().map(Sample::id).collect();
    assert_eq!(ids.len(), content.samples().count(), "ids are unique");
    for sample in content.samples() {
        let members = &sample.members;
        for role in [image_member, caption_member, metadata_member] {
            assert!(role(members).is_none_or(|index| index < members.len()));
        }
    }
    let damages = content.events.iter().rev().skip(1);
    let early = damages
        .filter(|event| matches!(event, Event::Damage(_)))
        .count();
    assert_eq!(early, 0, "damage is the last event");
}

/// Listed members can be read by offset, whatever damage follows them.
fn check_offsets(content: &ShardContent, data: &[u8]) {
    let mut bytes = TarBytes::new(data, &LIMITS).expect("memory can be read");
    for member in content.members() {
        let Some(expected) = &member.data else {
            continue;
        };
        let skipped = member.offset - bytes.position();
        let passed = io::copy(&mut bytes.by_ref().take(skipped), &mut io::sink());
        assert_eq!(passed.ok(), Some(skipped), "to {}", member.offset);
        let mut found = Vec::new();
        let read = bytes.by_ref().take(member.size).read_to_end(&mut found);
        assert_eq!(
            read.ok(),
            Some(found.len()),
            "{} at {}",
            member.size,
            member.offset
        );
        assert!(found == *expected, "at {}", member.offset);
    }
}

fn write_and_read(content: &ShardContent) {
    let mut writer = ShardWriter::new(Vec::new());
    let mut written = Vec::new();
    for member in content.members() {
        let Some(data) = &member.data else {
            continue;
        };
        match writer.append(&member.name, data) {
            Ok(_) => written.push((&member.name, data)),
            Err(e) => assert_eq!(e.kind(), io::ErrorKind::InvalidInput, "{e}"),
        }
    }
    let shard = writer.finish().expect("memory can be written");
    let again = ShardContent::of(shard.as_slice());
    let read: Vec<_> = again.members().collect();
    assert_eq!(read.len() + again.counts.skipped as usize, written.len());
    if again.counts.skipped == 0 {
        for (member, (name, data)) in read.into_iter().zip(written) {
            assert_eq!(&member.name, name);
            assert!(member.data.as_ref().is_none_or(|found| found == data));
        }
    }
}
