//! The images of a partition, decoded and preprocessed in batches.
//!
//! One thread reads the image members, several requests ahead, and spreads decoding over the pool,
//! straight into the batch's tensor; the batch before it is in inference meanwhile. For a GPU further
//! batches wait between both. A batch that was worked on is filled again.

use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};

use rayon::prelude::*;
use sluice_harness::{MemoryBudget, spawn};
use sluice_manifest::{ImageId, Result};
use sluice_model::Input;
use sluice_pixels::{Fidelity, Limits, Preprocess};

use crate::files::Images;

/// How a model is fed with images.
#[derive(Debug, Clone, Copy)]
pub struct Feed {
    /// Images that go through it at once.
    pub batch_size: usize,
    /// How near its pixels are to those of a full decode.
    pub fidelity: Fidelity,
    /// Batches that may wait for it, besides the one in the making.
    pub ahead: usize,
}

/// Some images, ready for a model.
pub struct Batch<N> {
    /// The images, in the order of `read/images`.
    pub ids: Vec<ImageId>,
    /// Their tensors, one after the other.
    pub tensor: Vec<N>,
    /// The tensor's shape, `[ids.len(), …]`.
    pub shape: [usize; 4],
}

/// Hands the images of a partition to `work`, a batch at a time, in order. Images for which `skip` is
/// true are left out, and so are those that cannot be decoded though `read` found them sound.
///
/// # Errors
/// As `work` and `skip`; of storage; data, when a shard has changed.
pub fn each_batch<N: Input>(
    images: Images<'_>,
    preprocess: &Preprocess,
    feed: Feed,
    skip: impl FnMut(&ImageId) -> Result<bool> + Send,
    mut work: impl FnMut(&mut Batch<N>) -> Result<()>,
) -> Result<()> {
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel(feed.ahead);
        let (spend, spent) = channel();
        let memory = &*images.context.memory;
        let how = How {
            preprocess,
            feed,
            memory,
        };
        let decoder = Decoder { how, spent };
        spawn(scope, move || {
            if let Err(e) = decoder.send_all(images, skip, &sender) {
                // The receiver may have given up; then nobody asks for the error.
                let _ = sender.send(Err(e));
            }
        })?;
        for batch in receiver {
            let mut batch = batch?;
            work(&mut batch)?;
            // After the last batch nobody takes it.
            let _ = spend.send(batch.tensor);
        }
        Ok(())
    })
}

/// Bytes of files that are held at once, about.
const FILE_BYTES: usize = 32 << 20;

struct Decoder<'a, N> {
    how: How<'a>,
    /// Tensors that were worked on, to be filled again.
    spent: Receiver<Vec<N>>,
}

/// How files are decoded.
#[derive(Clone, Copy)]
struct How<'a> {
    preprocess: &'a Preprocess,
    feed: Feed,
    memory: &'a MemoryBudget,
}

impl How<'_> {
    /// Decodes a file. None: it cannot be decoded.
    fn decode<N: Input>(self, id: ImageId, bytes: &[u8], tensor: &mut [N]) -> Option<ImageId> {
        let (limits, fidelity) = (Limits::default(), self.feed.fidelity);
        // Held until the tensor is written.
        let mut _share = None;
        let mut admit = |bytes| _share = Some(self.memory.take(bytes));
        let preprocess = self.preprocess;
        match preprocess.tensor_of_file(bytes, &limits, &mut admit, fidelity, tensor) {
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
    }
}

impl<N: Input> Decoder<'_, N> {
    /// Large files are decoded while the batch is still filled, so that few of them are held.
    fn send_all(
        &self,
        images: Images<'_>,
        skip: impl FnMut(&ImageId) -> Result<bool>,
        sender: &SyncSender<Result<Batch<N>>>,
    ) -> Result<()> {
        let mut files: Vec<(ImageId, Vec<u8>)> = Vec::with_capacity(self.how.feed.batch_size);
        let (mut decoding, mut bytes) = (self.begin(), 0);
        for file in images.files(skip)? {
            let file = file?;
            bytes += file.1.len();
            files.push(file);
            let is_full = decoding.ids.len() + files.len() == self.how.feed.batch_size;
            if is_full || bytes >= FILE_BYTES {
                self.decode(&mut files, &mut decoding);
                bytes = 0;
            }
            if is_full {
                let batch = self.end(std::mem::replace(&mut decoding, self.begin()));
                if sender.send(Ok(batch)).is_err() {
                    return Ok(());
                }
            }
        }
        self.decode(&mut files, &mut decoding);
        if !decoding.ids.is_empty() {
            let _ = sender.send(Ok(self.end(decoding)));
        }
        Ok(())
    }

    fn begin(&self) -> Decoding<N> {
        let length = self.how.feed.batch_size * self.how.preprocess.tensor_len();
        let mut tensor = self.spent.try_recv().unwrap_or_default();
        if tensor.len() < length {
            tensor = vec![N::default(); length];
        }
        Decoding {
            ids: Vec::with_capacity(self.how.feed.batch_size),
            tensor,
        }
    }

    /// Decodes files to the end of the batch's tensor.
    fn decode(&self, files: &mut Vec<(ImageId, Vec<u8>)>, decoding: &mut Decoding<N>) {
        let length = self.how.preprocess.tensor_len();
        let begin = decoding.ids.len() * length;
        let tensors = decoding.tensor[begin..].par_chunks_exact_mut(length);
        let how = self.how;
        let ids = files
            .par_drain(..)
            .zip(tensors)
            .map(|((id, bytes), tensor)| how.decode(id, &bytes, tensor));
        decoding.ids.extend(ids.collect::<Vec<_>>());
    }

    fn end(&self, mut decoding: Decoding<N>) -> Batch<N> {
        let length = self.how.preprocess.tensor_len();
        decoding.tensor.truncate(decoding.ids.len() * length);
        if decoding.ids.iter().any(Option::is_none) {
            close_gaps(&mut decoding.tensor, length, |index| {
                decoding.ids[index].is_some()
            });
        }
        let ids: Vec<ImageId> = decoding.ids.into_iter().flatten().collect();
        Batch {
            shape: self.how.preprocess.tensor_shape(ids.len()),
            tensor: decoding.tensor,
            ids,
        }
    }
}

/// A batch in the making.
struct Decoding<N> {
    /// For each file its name; none where it cannot be decoded.
    ids: Vec<Option<ImageId>>,
    /// Room for all files of the batch.
    tensor: Vec<N>,
}

/// Moves the rows that stay together, to the front.
fn close_gaps<N: Copy>(tensor: &mut Vec<N>, length: usize, stays: impl Fn(usize) -> bool) {
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
