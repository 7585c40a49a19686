//! The images of a partition, decoded and preprocessed in batches.
//!
//! One thread reads the image members, several requests ahead, and spreads decoding over the pool,
//! straight into the batch's tensor; the batch before it is in inference meanwhile. Two batches are
//! alive, and take turns.

use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};

use rayon::prelude::*;
use sluice_manifest::{ImageId, Result};
use sluice_pixels::{Limits, Preprocess};

use crate::arguments::Feed;
use crate::files::Images;

/// Some images, ready for a model.
pub struct Batch {
    /// The images, in the order of `read/images`.
    pub ids: Vec<ImageId>,
    /// Their tensors, one after the other.
    pub tensor: Vec<f32>,
    /// The tensor's shape, `[ids.len(), …]`.
    pub shape: [usize; 4],
}

/// Hands the images of a partition to `work`, a batch at a time, in order. Images for which `skip` is
/// true are left out, and so are those that cannot be decoded though `read` found them sound.
///
/// # Errors
/// As `work` and `skip`; of storage; data, when a shard has changed.
pub fn each_batch(
    images: Images<'_>,
    preprocess: &Preprocess,
    feed: Feed,
    skip: impl FnMut(&ImageId) -> Result<bool> + Send,
    mut work: impl FnMut(&mut Batch) -> Result<()>,
) -> Result<()> {
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel(0);
        let (spend, spent) = channel();
        let decoder = Decoder {
            preprocess,
            feed,
            spent,
        };
        scope.spawn(move || {
            if let Err(e) = decoder.send_all(images, skip, &sender) {
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

struct Decoder<'a> {
    preprocess: &'a Preprocess,
    feed: Feed,
    /// Tensors that were worked on, to be filled again.
    spent: Receiver<Vec<f32>>,
}

impl Decoder<'_> {
    fn send_all(
        &self,
        images: Images<'_>,
        skip: impl FnMut(&ImageId) -> Result<bool>,
        sender: &SyncSender<Result<Batch>>,
    ) -> Result<()> {
        let mut files: Vec<(ImageId, Vec<u8>)> = Vec::with_capacity(self.feed.batch_size);
        for file in images.files(skip)? {
            files.push(file?);
            let is_full = files.len() == self.feed.batch_size;
            if is_full && sender.send(Ok(self.batch(&mut files))).is_err() {
                return Ok(());
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
                        tracing::warn!(
                            image_id,
                            "cannot be decoded, though read found it sound: {e}"
                        );
                        None
                    }
                }
            })
            .collect();
        if decoded.iter().any(Option::is_none) {
            close_gaps(&mut tensor, length, |index| decoded[index].is_some());
        }
        let ids: Vec<ImageId> = decoded.into_iter().flatten().collect();
        Batch {
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
