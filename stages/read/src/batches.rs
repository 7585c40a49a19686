//! Reads a shard's samples in batches, on a separate thread while earlier ones are decoded.

use std::io;
use std::sync::mpsc::{IntoIter, SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use sluice_harness::spawn;
use sluice_manifest::Result;
use sluice_shard::{Event, MemberCounts, Sample};
use sluice_source::Samples;

/// A batch ends with this many samples, other events or bytes, whichever comes first. Two batches
/// exist at a time (being read, being decoded), which limits memory.
const BATCH_SAMPLES: usize = 128;
const BATCH_OTHERS: usize = 1024;
const BATCH_BYTES: u64 = 32 << 20;

/// Some samples, and the other events between them.
#[derive(Default)]
pub struct EventBatch {
    /// The samples in shard order.
    pub samples: Vec<Sample>,
    /// Skipped members, notes and damage.
    pub others: Vec<Event>,
}

/// The batches of a shard, in order. A storage error is the last item.
pub struct EventBatches;

impl EventBatches {
    /// Starts reading. The handle returns the shard's member counts.
    ///
    /// # Errors
    ///
    /// Returns a transient error if no thread can be started.
    pub fn spawn<'scope>(
        scope: &'scope Scope<'scope, '_>,
        samples: Samples,
    ) -> Result<(
        IntoIter<io::Result<EventBatch>>,
        ScopedJoinHandle<'scope, MemberCounts>,
    )> {
        // A batch is passed on when the previous one is done.
        let (sender, receiver) = sync_channel(0);
        let handle = spawn(scope, move || send_all(samples, &sender))?;
        Ok((receiver.into_iter(), handle))
    }
}

fn send_all(mut reader: Samples, sender: &SyncSender<io::Result<EventBatch>>) -> MemberCounts {
    let mut batch = EventBatch::default();
    let mut bytes = 0;
    while let Some(event) = reader.next() {
        match event {
            Ok(Event::Sample(sample)) => {
                bytes += sample.members.iter().map(|member| member.size).sum::<u64>();
                batch.samples.push(sample);
            }
            Ok(other) => {
                if let Event::Skipped(skipped) = &other {
                    bytes += skipped.name.len() as u64;
                }
                batch.others.push(other);
            }
            Err(e) => {
                // If the receiver has ended, the error is not needed.
                let _ = sender.send(Err(e));
                return reader.counts();
            }
        }
        let is_full = batch.samples.len() >= BATCH_SAMPLES
            || batch.others.len() >= BATCH_OTHERS
            || bytes >= BATCH_BYTES;
        if is_full {
            bytes = 0;
            if sender.send(Ok(std::mem::take(&mut batch))).is_err() {
                return reader.counts();
            }
        }
    }
    let _ = sender.send(Ok(batch));
    reader.counts()
}

#[cfg(test)]
mod tests {
    use sluice_manifest::ShardPath;
    use sluice_manifest::rows::PlanRow;
    use sluice_run::Run;
    use sluice_shard::ShardWriter;
    use sluice_source::InputReader;
    use sluice_store::{Location, Storage};

    use super::*;

    fn batches(
        members: impl Iterator<Item = (String, Vec<u8>)>,
    ) -> (Vec<EventBatch>, MemberCounts) {
        let mut writer = ShardWriter::new(Vec::new());
        for (name, data) in members {
            writer.append(name, &data).unwrap();
        }
        let shard = writer.finish().unwrap();
        let storage = Storage::default();
        let location = Location::parse("memory://batches").unwrap();
        let store = storage.create(&location).unwrap();
        store.put("a.tar", shard).unwrap();
        let info = store.stat("a.tar").unwrap().unwrap();
        let planned = PlanRow {
            shard: ShardPath::new("a.tar"),
            bytes: info.bytes,
            etag: info.etag,
            modified: info.modified,
            ..PlanRow::default()
        };
        let run = Run::open_read_only(&storage, "memory://batches").unwrap();
        let input = InputReader::new(&run, &store, &storage);
        let reader = input.samples(&planned).unwrap();
        std::thread::scope(|scope| {
            let (batches, counts) = EventBatches::spawn(scope, reader).unwrap();
            let batches = batches.map(Result::unwrap).collect();
            (batches, counts.join().unwrap())
        })
    }

    #[test]
    fn batches_end_with_samples_bytes_or_members_without_a_sample() {
        let small = (0..300).map(|i| (format!("{i}.jpg"), vec![0]));
        let large = (0..3).map(|i| (format!("{i}.jpg"), vec![0; 17 << 20]));
        let foreign = (0..2500).map(|i| (format!("{i}"), Vec::new()));
        let sizes =
            |(batches, counts): (Vec<EventBatch>, MemberCounts)| -> (Vec<(usize, usize)>, u64) {
                let sizes = batches
                    .iter()
                    .map(|batch| (batch.samples.len(), batch.others.len()));
                (sizes.collect(), counts.members)
            };
        assert_eq!(
            sizes(batches(small)),
            (vec![(128, 0), (128, 0), (44, 0)], 300)
        );
        assert_eq!(sizes(batches(large)), (vec![(2, 0), (1, 0)], 3));
        let foreign = sizes(batches(foreign));
        assert_eq!(foreign, (vec![(0, 1024), (0, 1024), (0, 452)], 2500));
    }

    #[test]
    fn many_members_of_one_sample_take_no_time() {
        let started = std::time::Instant::now();
        let (batches, counts) = batches((0..200_000).map(|i| (format!("a.{i}"), Vec::new())));
        assert_eq!((counts.samples, counts.skipped), (1, 200_000 - 1024));
        assert!(
            batches
                .iter()
                .all(|batch| batch.others.len() <= BATCH_OTHERS)
        );
        // This took 20 s when each member was compared with those of the sample.
        assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
    }
}
