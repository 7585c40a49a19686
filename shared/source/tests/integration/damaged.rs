//! Compressed shards, damaged at many positions. Every member that `read` finds complete must be
//! available, byte for byte, to the readers of later steps, however they read.

use std::collections::HashMap;
use std::io::{Read, Write};

use sluice_manifest::rows::{MemberRow, PlanRow};
use sluice_manifest::{Partition, ShardPath};
use sluice_run::Run;
use sluice_shard::{Compression, Event, ShardLimits, ShardReader, ShardWriter};
use sluice_source::{InputReader, SourceShard, open_shard};
use sluice_store::{Location, Storage, Store};

/// A member found by `read`.
struct FoundMember {
    offset: u64,
    bytes: Vec<u8>,
}

struct Random(u32);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0 >> 8
    }
}

/// Returns samples of incompressible images and of captions that compress.
fn tar() -> Vec<u8> {
    let mut random = Random(7);
    let mut writer = ShardWriter::new(Vec::new());
    for number in 0..16 {
        let length = 500 + random.next() % 12_000;
        let image: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        writer.append(format!("{number:04}.jpg"), &image).unwrap();
        let caption = format!("caption {number} ").repeat(300 * (number % 4));
        writer
            .append(format!("{number:04}.txt"), caption.as_bytes())
            .unwrap();
    }
    writer.finish().unwrap()
}

fn gzip(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8], level: i32, has_checksum: bool) -> Vec<u8> {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), level).unwrap();
    encoder.include_checksum(has_checksum).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn in_pieces(bytes: &[u8], pack: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    bytes.chunks(30_000).flat_map(pack).collect()
}

/// Returns the shard, damaged in several ways at one position.
fn damaged(packed: &[u8], at: usize) -> [Vec<u8>; 4] {
    let mut flipped = packed.to_vec();
    flipped[at] ^= 0x40;
    let mut zeroed = packed.to_vec();
    let end = packed.len().min(at + 64);
    zeroed[at..end].fill(0);
    let without = [&packed[..at], &packed[end..]].concat();
    [packed[..at].to_vec(), flipped, zeroed, without]
}

fn planned(store: &Store) -> PlanRow {
    let info = store.stat("a.tar").unwrap().unwrap();
    PlanRow {
        partition: Partition(0),
        shard: ShardPath::new("a.tar"),
        bytes: info.bytes,
        etag: info.etag,
        modified: info.modified,
        ..PlanRow::default()
    }
}

/// Reads the shard as `read` does.
fn find(store: &Store, planned: &PlanRow) -> (Compression, Vec<FoundMember>) {
    let reader = open_shard(store, planned).unwrap();
    let mut reader = ShardReader::new(reader, ShardLimits::default()).unwrap();
    let compression = reader.compression();
    let mut found = Vec::new();
    for event in reader.by_ref() {
        let Event::Sample(sample) = event.unwrap() else {
            continue;
        };
        for member in sample.members {
            found.push(FoundMember {
                offset: member.offset,
                bytes: member.data.unwrap_or_default(),
            });
        }
    }
    (compression, found)
}

/// Reads some of the members as later steps do, in pieces of `piece` bytes.
fn check<'f>(
    open: impl Fn() -> SourceShard,
    members: impl Iterator<Item = &'f FoundMember>,
    piece: usize,
    what: &str,
) {
    let mut source = open();
    let mut buffer = vec![0; piece];
    for member in members {
        let size = member.bytes.len() as u64;
        let address = MemberRow {
            extension: String::new(),
            offset: member.offset,
            size,
        };
        source.prefetch([&address]).unwrap();
        let mut reader = source.member(&address).unwrap();
        let mut bytes = Vec::new();
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => bytes.extend_from_slice(&buffer[..length]),
                Err(e) => panic!("{what}: the member at {}: {e}", member.offset),
            }
        }
        assert!(
            bytes == member.bytes,
            "{what}: the member at {}",
            member.offset
        );
    }
}

#[test]
fn later_readers_reach_what_read_reached() {
    let tar = tar();
    let shards = [
        ("gzip -1", gzip(&tar, 1)),
        ("gzip -9", gzip(&tar, 9)),
        ("stored gzip", gzip(&tar, 0)),
        ("gzip in members", in_pieces(&tar, |piece| gzip(piece, 6))),
        ("zstd -1", zstd(&tar, 1, false)),
        ("zstd -19", zstd(&tar, 19, true)),
        (
            "zstd in frames",
            in_pieces(&tar, |piece| zstd(piece, 3, true)),
        ),
    ];
    let storage = Storage::default();
    let location = Location::parse("memory://damaged").unwrap();
    let store = storage.create(&location).unwrap();
    let run = Run::open_read_only(&storage, "memory://damaged").unwrap();
    let input = InputReader::new(&run, &store, &storage);
    let mut reached = 0;
    for (name, packed) in shards {
        let places = (12..packed.len()).step_by(packed.len() / 23);
        for (at, packed) in places.flat_map(|at| damaged(&packed, at).map(|shard| (at, shard))) {
            store.put("a.tar", packed).unwrap();
            let planned = planned(&store);
            let (compression, found) = find(&store, &planned);
            let compression = compression.as_str().to_owned();
            let compressions = HashMap::from([(planned.shard.clone(), compression)]);
            let open = || input.shard(&planned, &compressions).unwrap();
            let what = format!("{name} damaged at {at}");
            check(open, found.iter(), 1 << 20, &what);
            check(open, found.iter().skip(1).step_by(3), 700, &what);
            check(open, found.last().into_iter(), 100_000, &what);
            reached += found.len();
        }
    }
    assert!(reached > 5000, "{reached}");
}
