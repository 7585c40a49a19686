//! The sound images of a partition, decoded and preprocessed in batches.
//!
//! One thread reads the image members of each shard, several requests ahead, and spreads decoding
//! over the pool; the batch before it is in inference meanwhile. Three batches are alive at most.

use std::collections::VecDeque;
use std::sync::mpsc::{SyncSender, sync_channel};

use rayon::prelude::*;
use sluice_harness::{Context, PartitionPlan};
use sluice_manifest::rows::{MemberRow, PictureRow, PlanRow, Status};
use sluice_manifest::{ImageId, Result, Unit, layout};
use sluice_pixels::{Layout, Limits, Preprocess, decode};
use sluice_source::{SourceShard, packing};
use sluice_store::{RowReader, Store};

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
    batch_size: usize,
    mut work: impl FnMut(Batch) -> Result<()>,
) -> Result<()> {
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel(1);
        let source = Source {
            context,
            input,
            partition,
            preprocess,
            batch_size,
        };
        scope.spawn(move || {
            if let Err(e) = source.send_all(&sender) {
                // The receiver may have given up; then nobody asks for the error.
                let _ = sender.send(Err(e));
            }
        });
        for batch in receiver {
            work(batch?)?;
        }
        Ok(())
    })
}

struct Source<'a> {
    context: &'a Context,
    input: &'a Store,
    partition: &'a PartitionPlan,
    preprocess: &'a Preprocess,
    batch_size: usize,
}

impl Source<'_> {
    fn send_all(&self, sender: &SyncSender<Result<Batch>>) -> Result<()> {
        let unit = Unit::from(self.partition.partition);
        let path = layout::manifest("read", "images", &unit);
        let mut pictures = self.context.run.rows::<PictureRow>(&path)?;
        let packing = packing(&self.context.run, &unit)?;
        let mut files: Vec<(ImageId, Vec<u8>)> = Vec::with_capacity(self.batch_size);
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
                if files.len() == self.batch_size
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
        let count = files.len();
        let decoded = files.par_drain(..).filter_map(|(id, bytes)| {
            let image = match decode(&bytes, &Limits::default()) {
                Ok(decoded) => decoded.upright(),
                Err(e) => {
                    tracing::warn!(
                        image_id = id.as_str(),
                        "sound when it was read, but now: {e}"
                    );
                    return None;
                }
            };
            let mut tensor = vec![0.0; self.preprocess.tensor_len()];
            self.preprocess
                .write_tensor(&self.preprocess.pixels(&image), &mut tensor);
            Some((id, tensor))
        });
        let (ids, tensors): (Vec<_>, Vec<_>) = decoded.unzip();
        let (width, height) = self.preprocess.output_size();
        let (width, height) = (width as usize, height as usize);
        let rest = match self.preprocess.layout {
            Layout::Nchw => [3, height, width],
            Layout::Nhwc => [height, width, 3],
        };
        Batch {
            failed: (count - ids.len()) as u64,
            shape: [ids.len(), rest[0], rest[1], rest[2]],
            tensor: tensors.concat(),
            ids,
        }
    }
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
