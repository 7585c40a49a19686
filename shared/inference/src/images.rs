//! The images of a partition, decoded and preprocessed in batches, for one model or for several.
//!
//! One thread reads the image members, several requests ahead, and a pool of threads decodes them into
//! the tensors of the batches. A file is decoded once for all models that take it at the same reduction
//! ([`decode_for_models`]). Meanwhile the batches before these are in inference, and for a GPU further
//! ones wait. The memory of a batch is used again after inference.
//!
//! The batches of each model are those that it would get alone.

use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use rayon::prelude::*;
use sluice_manifest::{Error, ImageId, Result};
use sluice_model::Model;
use sluice_pixels::{Fidelity, Limits, Preprocess, decode_for_models};
use sluice_threads::{MemoryBudget, MemoryShare, spawn};

use crate::files::{ImageFile, Images};
use crate::tensor::{PixelTensor, Row};

/// How a model is fed with images.
#[derive(Debug, Clone, Copy)]
pub struct BatchOptions<'a> {
    /// How an image becomes the model's input.
    pub preprocess: &'a Preprocess,
    /// Whether the model takes pixel values as bytes.
    pub takes_bytes: bool,
    /// Images that go through it at once.
    pub batch_size: usize,
    /// How closely its pixels must match those of a full decode.
    pub fidelity: Fidelity,
    /// Batches that may wait for it, in addition to the one being filled.
    pub ahead: usize,
}

impl<'a> BatchOptions<'a> {
    /// Returns how a model is fed, with `ahead` batches that may wait for it.
    ///
    /// # Errors
    /// A bug, when the model does not take images.
    pub fn of(model: &'a Model, fidelity: Fidelity, ahead: usize) -> Result<Self> {
        let preprocess = model.spec.preprocess.as_ref();
        Ok(Self {
            preprocess: preprocess
                .ok_or_else(|| Error::bug("a model of pixels without preprocessing"))?,
            takes_bytes: model.takes_bytes(),
            batch_size: model.placement.batch_size,
            fidelity,
            ahead,
        })
    }
}

/// Some images, ready for a model.
#[derive(Debug)]
pub struct TensorBatch {
    /// The images, in the order of `read/images`.
    pub ids: Vec<ImageId>,
    /// Their tensors, one after the other.
    pub tensor: PixelTensor,
    /// The tensor's shape, `[ids.len(), …]`.
    pub shape: [usize; 4],
}

/// Calls `work` with the batches of each model in order: the model's index in `feeds`, and the batch.
/// `takes` returns the indices of the models that need a sample. If no model needs it, it is not read.
/// Images that cannot be decoded are left out, although `read` could decode them. Decoding waits until
/// `memory` has room for the pixels.
///
/// # Errors
/// As `work` and `takes`; of storage; data, when a shard has changed.
pub fn each_batch(
    images: Images<'_>,
    memory: &MemoryBudget,
    feeds: &[BatchOptions<'_>],
    takes: impl FnMut(&ImageId) -> Result<Vec<usize>> + Send,
    mut work: impl FnMut(usize, &mut TensorBatch) -> Result<()>,
) -> Result<()> {
    std::thread::scope(|scope| {
        // While a model is at work, a batch of each other one may be complete.
        let ahead = feeds.iter().map(|feed| feed.ahead + 1).sum::<usize>();
        let (sender, receiver) = sync_channel(ahead.saturating_sub(1));
        let mut used = Vec::new();
        let fillings = feeds.iter().map(|feed| {
            let (sender, unused) = channel();
            used.push(sender);
            Filling::new(*feed, unused)
        });
        let mut decoder = Decoder {
            fillings: fillings.collect(),
            memory,
        };
        spawn(scope, move || {
            if let Err(e) = decoder.send_all(images, takes, &sender) {
                // If the receiver has failed, it does not read this error.
                let _ = sender.send(Err(e));
            }
        })?;
        work_through(receiver, &used, &mut work)
    })
}

/// A model's batch, or why there are no more.
type Next = Result<(usize, TensorBatch)>;

fn work_through(
    batches: Receiver<Next>,
    used: &[Sender<PixelTensor>],
    work: &mut impl FnMut(usize, &mut TensorBatch) -> Result<()>,
) -> Result<()> {
    for batch in batches {
        let (model, mut batch) = batch?;
        work(model, &mut batch)?;
        // The decoder does not take it after the last batch.
        let _ = used[model].send(batch.tensor);
    }
    Ok(())
}

/// Bytes of files that are held at once, about.
const FILE_BYTES: usize = 32 << 20;

/// An image file, with the indices of the models that take it.
type File = ImageFile<Vec<usize>>;

struct Decoder<'a> {
    fillings: Vec<Filling<'a>>,
    memory: &'a MemoryBudget,
}

impl Decoder<'_> {
    /// Decodes large files before the batch is full, which limits the memory for files.
    fn send_all(
        &mut self,
        images: Images<'_>,
        mut takes: impl FnMut(&ImageId) -> Result<Vec<usize>>,
        sender: &SyncSender<Next>,
    ) -> Result<()> {
        let (mut files, mut bytes) = (Vec::new(), 0);
        let choose = |id: &ImageId| Ok(Some(takes(id)?).filter(|models| !models.is_empty()));
        for file in images.files_with(choose)? {
            let file = file?;
            bytes += file.bytes.len();
            for &model in &file.note {
                self.fillings[model].expected += 1;
            }
            files.push(file);
            let is_full = self.fillings.iter().any(Filling::is_full);
            if is_full || bytes >= FILE_BYTES {
                self.decode(std::mem::take(&mut files));
                bytes = 0;
            }
            if is_full && !self.send(sender, |filling| filling.is_full()) {
                return Ok(());
            }
        }
        self.decode(files);
        self.send(sender, |filling| filling.expected > 0);
        Ok(())
    }

    /// Sends batches. Returns false if the receiver is closed.
    fn send(&mut self, sender: &SyncSender<Next>, ready: impl Fn(&Filling<'_>) -> bool) -> bool {
        let fillings = self.fillings.iter_mut().enumerate();
        let mut ready = fillings.filter(|(_, filling)| ready(filling));
        ready.all(|(model, filling)| sender.send(Ok((model, filling.take()))).is_ok())
    }

    /// Decodes files to the end of the batches of the models that take them.
    fn decode(&mut self, files: Vec<File>) {
        let feeds: Vec<BatchOptions<'_>> =
            self.fillings.iter().map(|filling| filling.feed).collect();
        let memory = self.memory;
        let mut jobs: Vec<Job<'_>> = files.into_iter().map(Job::new).collect();
        for (model, filling) in self.fillings.iter_mut().enumerate() {
            let taking = jobs.iter_mut().filter(|job| job.file.note.contains(&model));
            for (job, row) in taking.zip(filling.rows()) {
                job.rows.push((model, row));
            }
        }
        let decode = |job: Job<'_>| job.decode(&feeds, memory);
        let decoded: Vec<Vec<(usize, Option<ImageId>)>> =
            jobs.into_par_iter().map(decode).collect();
        for (model, id) in decoded.into_iter().flatten() {
            self.fillings[model].ids.push(id);
        }
    }
}

/// A file to decode, and where its tensors go.
struct Job<'t> {
    file: File,
    /// Rows of the batches of models, with the models' indices.
    rows: Vec<(usize, Row<'t>)>,
}

impl<'t> Job<'t> {
    fn new(file: File) -> Self {
        Self {
            file,
            rows: Vec::new(),
        }
    }

    /// Decodes the file. Returns for each model the image's name, or `None` if it cannot be decoded.
    fn decode(
        mut self,
        feeds: &[BatchOptions<'_>],
        memory: &MemoryBudget,
    ) -> Vec<(usize, Option<ImageId>)> {
        let (id, bytes) = (&self.file.id, &self.file.bytes);
        // Held until the tensors are written.
        let mut share: Option<MemoryShare<'_>> = None;
        let mut admit = |bytes| {
            drop(share.take());
            share = Some(memory.take(bytes));
        };
        let of = |(model, _): &(usize, Row<'t>)| {
            let feed = &feeds[*model];
            (feed.preprocess, feed.fidelity)
        };
        let models: Vec<(&Preprocess, Fidelity)> = self.rows.iter().map(of).collect();
        let rows = &mut self.rows;
        let results = decode_for_models(
            bytes,
            &Limits::default(),
            &mut admit,
            &models,
            |index, source| rows[index].1.write(models[index].0, source),
        );
        if let Some(e) = results.iter().find_map(|result| result.as_ref().err()) {
            let image_id = id.as_str();
            tracing::warn!(image_id, "cannot be decoded, although read decoded it: {e}");
        }
        let models = rows.iter().map(|(model, _)| *model);
        let decoded = results.iter().map(|result| result.is_ok());
        let named = models.zip(decoded);
        named
            .map(|(model, is_decoded)| (model, is_decoded.then(|| id.clone())))
            .collect()
    }
}

/// A batch that is being filled.
struct Filling<'a> {
    feed: BatchOptions<'a>,
    /// For each decoded file its name, `None` if it cannot be decoded.
    ids: Vec<Option<ImageId>>,
    /// Files of the batch, including those that are not decoded yet.
    expected: usize,
    tensor: PixelTensor,
    /// Tensors that went through the model.
    unused: Receiver<PixelTensor>,
}

impl<'a> Filling<'a> {
    fn new(feed: BatchOptions<'a>, unused: Receiver<PixelTensor>) -> Self {
        Self {
            ids: Vec::with_capacity(feed.batch_size),
            expected: 0,
            tensor: PixelTensor::new(feed.takes_bytes),
            unused,
            feed,
        }
    }

    fn is_full(&self) -> bool {
        self.expected == self.feed.batch_size
    }

    /// Returns the rows that are not filled yet.
    fn rows(&mut self) -> Vec<Row<'_>> {
        let length = self.feed.preprocess.tensor_len();
        self.tensor.set_len(self.feed.batch_size * length);
        self.tensor.rows(self.ids.len(), length)
    }

    /// Returns the batch, and begins the next one.
    fn take(&mut self) -> TensorBatch {
        let preprocess = self.feed.preprocess;
        let next = self.unused.try_recv();
        let next = next.unwrap_or_else(|_| PixelTensor::new(self.feed.takes_bytes));
        let mut tensor = std::mem::replace(&mut self.tensor, next);
        let ids = std::mem::take(&mut self.ids);
        self.expected = 0;
        let is_decoded = |row: usize| ids.get(row).is_some_and(Option::is_some);
        tensor.retain_rows(preprocess.tensor_len(), is_decoded);
        let ids: Vec<ImageId> = ids.into_iter().flatten().collect();
        TensorBatch {
            shape: preprocess.tensor_shape(ids.len()),
            tensor,
            ids,
        }
    }
}
