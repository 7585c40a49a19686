//! A shard's samples in batches, read on a thread of their own while earlier ones are decoded.

use std::io::{self, Read};
use std::sync::mpsc::{IntoIter, SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use sluice_shard::{Counts, Event, Sample, ShardReader};

/// A batch ends with this many samples or bytes, whichever comes first. Three batches are alive at
/// once (being read, waiting, being decoded), which bounds the memory.
const BATCH_SAMPLES: usize = 128;
const BATCH_BYTES: u64 = 32 << 20;

/// Some samples, and what else the shard held between them.
#[derive(Default)]
pub struct Batch {
    /// In shard order.
    pub samples: Vec<Sample>,
    /// Members passed over, notes, damage.
    pub others: Vec<Event>,
}

/// The batches of a shard, in order. An error of the store is the last item.
pub struct Batches;

impl Batches {
    /// Starts reading. The handle gives the shard's member counts.
    pub fn spawn<'scope, R: Read + Send + 'scope>(
        scope: &'scope Scope<'scope, '_>,
        reader: ShardReader<R>,
    ) -> (
        IntoIter<io::Result<Batch>>,
        ScopedJoinHandle<'scope, Counts>,
    ) {
        let (sender, receiver) = sync_channel(1);
        let handle = scope.spawn(move || send_all(reader, &sender));
        (receiver.into_iter(), handle)
    }
}

fn send_all<R: Read>(mut reader: ShardReader<R>, sender: &SyncSender<io::Result<Batch>>) -> Counts {
    let mut batch = Batch::default();
    let mut bytes = 0;
    while let Some(event) = reader.next() {
        match event {
            Ok(Event::Sample(sample)) => {
                bytes += sample.members.iter().map(|member| member.size).sum::<u64>();
                batch.samples.push(sample);
            }
            Ok(other) => batch.others.push(other),
            Err(e) => {
                // The receiver may have given up; then nobody asks for the error.
                let _ = sender.send(Err(e));
                return reader.counts();
            }
        }
        let full = batch.samples.len() >= BATCH_SAMPLES || bytes >= BATCH_BYTES;
        if full {
            bytes = 0;
            if sender.send(Ok(std::mem::take(&mut batch))).is_err() {
                return reader.counts();
            }
        }
    }
    let _ = sender.send(Ok(batch));
    reader.counts()
}
