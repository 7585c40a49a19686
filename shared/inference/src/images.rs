//! The sound images of a partition, decoded and preprocessed in batches.
//!
//! One thread reads the image members of each shard, several requests ahead, and spreads decoding
//! over the pool, straight into the batch's tensor; the batch before it is in inference meanwhile.
//! Two batches are alive, and take turns.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};

use rayon::prelude::*;
use sluice_harness::{Context, PartitionPlan};
use sluice_manifest::rows::{MemberRow, PictureRow, PlanRow, Status};
use sluice_manifest::{ImageId, Result, Unit, layout};
use sluice_pixels::{Limits, Preprocess};
use sluice_source::{SourceShard, packing};
use sluice_store::{RowReader, Store};

use crate::arguments::Feed;

/// Images that are looked ahead at, at most.
const AHEAD: usize = 256;

/// Some images, ready for a model.
pub struct Batch {
    /// The images, in the order of `read/images`.
    pub ids: Vec<ImageId>,
    /// Their tensors, one after the other.
    pub tensor: Vec<f32>,
    /// The tensor's shape, `[ids.len(), …]`.
    pub shape: [usize; 4],
    /// Images that did not decode, though `read` found them sound.
    pub failed: u64,
}

/// Hands the images of a partition to `work`, a batch at a time, in order.
pub fn each_batch(
    context: &Context,
    input: &Store,
    partition: &PartitionPlan,
    preprocess: &Preprocess,
    feed: Feed,
    mut work: impl FnMut(&mut Batch) -> Result<()>,
) -> Result<()> {
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel(0);
        let (spend, spent) = channel();
        let source = Source {
            context,
            input,
            partition,
            preprocess,
            feed,
            spent,
        };
        scope.spawn(move || {
            if let Err(e) = source.send_all(&sender) {
                // The receiver may have given up; then nobody asks for the error.
                let _ = sender.send(Err(e));
            }
        });
        for batch in receiver {
            let mut batch = batch?;
            work(&mut batch)?;
            // After the last batch nobody takes it.
            let _ = spend.send(batch.tensor);
        }
        Ok(())
    })
}

struct Source<'a> {
    context: &'a Context,
    input: &'a Store,
    partition: &'a PartitionPlan,
    preprocess: &'a Preprocess,
    feed: Feed,
    /// Tensors that were worked on, to be filled again.
    spent: Receiver<Vec<f32>>,
}

impl Source<'_> {
    fn send_all(&self, sender: &SyncSender<Result<Batch>>) -> Result<()> {
        let unit = Unit::from(self.partition.partition);
        let path = layout::manifest("read", "images", &unit);
        let mut pictures = self.context.run.rows::<PictureRow>(&path)?;
        let packing = packing(&self.context.run, &unit)?;
        let mut files: Vec<(ImageId, Vec<u8>)> = Vec::with_capacity(self.feed.batch_size);
        for planned in &self.partition.shards {
            let mut ahead = VecDeque::new();
            let mut shard = None;
            loop {
                let busy =
                    |shard: &Option<SourceShard>| shard.as_ref().is_some_and(SourceShard::is_busy);
                while ahead.is_empty() || (ahead.len() < AHEAD && !busy(&shard)) {
                    let Some((id, image)) = next_image(&mut pictures, planned)? else {
                        break;
                    };
                    let shard = match &mut shard {
                        Some(shard) => shard,
                        none => none.insert(SourceShard::open(self.input, planned, &packing)?),
                    };
                    shard.want(image.offset..image.offset + image.size);
                    ahead.push_back((id, image));
                }
                let (Some((id, image)), Some(shard)) = (ahead.pop_front(), &mut shard) else {
                    break;
                };
                files.push((id, shard.read_member(image.offset, image.size)?));
                if files.len() == self.feed.batch_size
                    && sender.send(Ok(self.batch(&mut files))).is_err()
                {
                    return Ok(());
                }
            }
        }
        if !files.is_empty() {
            let _ = sender.send(Ok(self.batch(&mut files)));
        }
        Ok(())
    }

    fn batch(&self, files: &mut Vec<(ImageId, Vec<u8>)>) -> Batch {
        let (preprocess, fidelity) = (self.preprocess, self.feed.fidelity);
        let length = preprocess.tensor_len();
        let mut tensor = self.spent.try_recv().unwrap_or_default();
        tensor.resize(files.len() * length, 0.0);
        let decoded: Vec<Option<ImageId>> = files
            .par_drain(..)
            .zip(tensor.par_chunks_exact_mut(length))
            .map(|((id, bytes), tensor)| {
                match preprocess.tensor_of_file(&bytes, &Limits::default(), fidelity, tensor) {
                    Ok(()) => Some(id),
                    Err(e) => {
                        let image_id = id.as_str();
                        tracing::warn!(image_id, "sound when it was read, but now: {e}");
                        None
                    }
                }
            })
            .collect();
        let failed = decoded.iter().filter(|id| id.is_none()).count();
        if failed > 0 {
            close_gaps(&mut tensor, length, |index| decoded[index].is_some());
        }
        let ids: Vec<ImageId> = decoded.into_iter().flatten().collect();
        Batch {
            failed: failed as u64,
            shape: preprocess.tensor_shape(ids.len()),
            tensor,
            ids,
        }
    }
}

/// Moves the rows that stay together, to the front.
fn close_gaps(tensor: &mut Vec<f32>, length: usize, stays: impl Fn(usize) -> bool) {
    let mut kept = 0;
    for index in (0..tensor.len() / length).filter(|&index| stays(index)) {
        tensor.copy_within(index * length..(index + 1) * length, kept * length);
        kept += 1;
    }
    tensor.truncate(kept * length);
}

/// The next sound image of a shard.
fn next_image(
    pictures: &mut RowReader<PictureRow>,
    planned: &PlanRow,
) -> Result<Option<(ImageId, MemberRow)>> {
    while let Some(picture) = pictures.next_if(|row| row.shard == planned.shard)? {
        let image = picture.image().filter(|_| picture.status == Status::Ok);
        if let Some(image) = image.cloned() {
            return Ok(Some((picture.image_id, image)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_close_in_order() {
        let mut tensor = vec![0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5];
        close_gaps(&mut tensor, 2, |index| index % 2 == 1);
        assert_eq!(tensor, [1.0, 1.5, 3.0, 3.5]);
    }
}
