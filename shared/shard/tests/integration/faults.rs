//! A failing reader is an error and nothing else is; limits are respected.

use std::io::{self, Read, Write};

use sluice_shard::{
    Compression, DamageKind, Event, Missing, NoteKind, SampleProblem, ShardLimits, ShardReader,
    ShardWriter, Skip,
};

use crate::support::{read, read_with, summary};

/// Fails with `kind` after `left` bytes.
struct FailingReader<'a> {
    bytes: &'a [u8],
    left: usize,
    kind: io::ErrorKind,
}

impl Read for FailingReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::Error::new(self.kind, "the network is gone"));
        }
        let n = buf.len().min(self.left).min(1000);
        let n = (&self.bytes[..n]).read(&mut buf[..n])?;
        self.bytes = &self.bytes[n..];
        self.left -= n;
        Ok(n)
    }
}

/// Returns ten samples of incompressible bytes.
fn shard() -> Vec<u8> {
    let mut writer = ShardWriter::new(Vec::new());
    let mut state = 1_u32;
    for i in 0..10 {
        let picture: Vec<u8> = (0..3000)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        writer.append(format!("{i:04}.jpg"), &picture).unwrap();
        writer.append(format!("{i:04}.txt"), b"caption").unwrap();
    }
    writer.finish().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 1).unwrap()
}

#[test]
fn readers_and_events_go_over_threads() {
    fn sent<T: Send>() {}
    sent::<ShardReader<&[u8]>>();
    sent::<Event>();
}

#[test]
fn a_failing_reader_is_an_error_and_never_damage() {
    let plain = shard();
    for packed in [plain.clone(), gzip(&plain), zstd(&plain)] {
        // Some clients report a dropped connection as UnexpectedEof.
        for kind in [io::ErrorKind::TimedOut, io::ErrorKind::UnexpectedEof] {
            for left in [0, 100, 700, 5000, 20_000, packed.len() - 1, packed.len()] {
                let failing = FailingReader {
                    bytes: &packed,
                    left,
                    kind,
                };
                let reader = match ShardReader::new(failing, ShardLimits::default()) {
                    Ok(reader) => reader,
                    Err(error) => {
                        assert!(left < 512);
                        assert_eq!(error.to_string(), "the network is gone");
                        continue;
                    }
                };
                let events: Vec<io::Result<Event>> = reader.collect();
                let (last, before) = events.split_last().unwrap();
                let error = last.as_ref().unwrap_err();
                assert_eq!(
                    (error.kind(), error.to_string().as_str()),
                    (kind, "the network is gone")
                );
                assert!(
                    before
                        .iter()
                        .all(|event| matches!(event, Ok(Event::Sample(_))))
                );
            }
        }
    }
}

#[test]
fn a_cut_shard_is_damage_and_never_an_error() {
    let plain = shard();
    for packed in [gzip(&plain), zstd(&plain)] {
        for cut in (20..packed.len()).step_by(97) {
            let kind = read(&packed[..cut]).damage.expect("damage").kind;
            assert_eq!(kind, DamageKind::CompressedTruncated);
        }
    }
}

#[test]
fn compressed_shards_read_as_plain_ones() {
    let plain = shard();
    let expected = read(&plain);
    for (packed, name) in [(gzip(&plain), "gzip"), (zstd(&plain), "zstd")] {
        let read = read(&packed);
        assert_eq!(read.compression, name);
        assert_eq!(read.samples, expected.samples);
    }
    assert_eq!(Compression::Gzip.as_str(), "gzip");
}

#[test]
fn a_tar_whose_first_name_looks_like_gzip_is_a_tar() {
    let mut writer = ShardWriter::new(Vec::new());
    writer.append(b"\x1f\x8b.jpg", b"data").unwrap();
    let read = read(&writer.finish().unwrap());
    assert_eq!(summary(&read), "1 samples");
    assert_eq!(read.samples[0].key, "\u{1f}\\x8b");
}

#[test]
fn junk_behind_gzip_is_noted() {
    let mut packed = gzip(&shard());
    packed.extend_from_slice(&[0; 700]);
    let read = read(&packed);
    assert!(read.damage.is_none());
    assert_eq!(read.notes[0].kind, NoteKind::TrailingGarbageCompressed);
}

#[test]
fn an_empty_gzip_is_empty() {
    assert_eq!(read(&gzip(b"")).damage.unwrap().kind, DamageKind::Empty);
    assert_eq!(read(&zstd(b"")).damage.unwrap().kind, DamageKind::Empty);
}

#[test]
fn a_zero_block_in_the_middle_is_not_taken_for_the_end() {
    let mut bytes = shard();
    let read_before = read(&bytes);
    // The header of the fourth member is overwritten with zeros; its data is not a header.
    let at = usize::try_from(read_before.samples[2].members[0].offset).unwrap();
    bytes[at - 512..at].fill(0);
    let read = read(&bytes);
    assert_eq!(read.damage.unwrap().kind, DamageKind::BadHeader);
    assert_eq!(read.samples.len(), 2);
}

#[test]
fn large_members_are_passed_over() {
    let limits = ShardLimits {
        max_member_bytes: 2999,
        ..ShardLimits::default()
    };
    let read = read_with(&shard(), limits);
    assert_eq!(summary(&read), "10 samples");
    for sample in &read.samples {
        assert_eq!(sample.members[0].missing, Some(Missing::TooLarge));
        assert_eq!(sample.members[0].data, None);
        assert_eq!(sample.members[1].data.as_deref(), Some(&b"caption"[..]));
    }
    let limits = ShardLimits {
        max_sample_bytes: 3000,
        ..ShardLimits::default()
    };
    let read = read_with(&shard(), limits);
    assert_eq!(read.samples[9].members[0].missing, None);
    assert_eq!(read.samples[9].members[1].missing, Some(Missing::TooLarge));
}

#[test]
fn a_sample_has_so_many_members_and_no_more() {
    let limits = ShardLimits {
        max_sample_members: 1,
        ..ShardLimits::default()
    };
    let read = read_with(&shard(), limits);
    assert_eq!(read.counts.skipped, 10);
    assert!(
        read.skipped
            .iter()
            .all(|skipped| skipped.why == Skip::TooManyMembers)
    );
    assert_eq!(read.samples[0].problem, Some(SampleProblem::TooManyMembers));
}

#[test]
fn a_bomb_stops_at_the_limit() {
    let mut writer = ShardWriter::new(Vec::new());
    writer.append("ok.jpg", b"sound").unwrap();
    writer.append("zeros.jpg", &vec![0; 8 << 20]).unwrap();
    let tar = writer.finish().unwrap();
    for packed in [gzip(&tar), zstd(&tar)] {
        for limits in [
            ShardLimits {
                max_inflated_bytes: 1 << 20,
                ..ShardLimits::default()
            },
            ShardLimits {
                inflate_ratio_from: 1 << 20,
                max_inflate_ratio: 2,
                ..ShardLimits::default()
            },
        ] {
            let read = read_with(&packed, limits);
            assert_eq!(read.damage.unwrap().kind, DamageKind::InflatesTooMuch);
            assert_eq!(read.samples[0].problem, None);
            assert!(matches!(
                read.samples[1].problem,
                Some(SampleProblem::Truncated { .. })
            ));
        }
        assert_eq!(read(&packed).damage, None);
    }
}
