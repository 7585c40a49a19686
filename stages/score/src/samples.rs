//! The samples that a program gets, batch by batch, in the order of `read`.

use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use rayon::prelude::*;
use sluice_harness::MemoryBudget;
use sluice_inference::Images;
use sluice_manifest::rows::{EMBEDDINGS, SampleRow};
use sluice_manifest::{ImageId, Result};
use sluice_pixels::{Filter, Limits, decode_admitted, resize};
use sluice_run::{ScoreReader, Verdicts};

use crate::command::samples::{SampleBatch, Sent, SentSample};

/// Images that are decoded at once.
const AT_ONCE: usize = 64;
/// Bytes of the files, and of the pixels, of images that are decoded at once, about.
const BYTES_AT_ONCE: usize = 32 << 20;

/// What a sample is made of, before it is in a batch.
struct Part {
    id: ImageId,
    image: Vec<u8>,
    pixels: Vec<u8>,
}

/// Batches of samples.
pub(crate) struct Samples<'a> {
    files: Box<dyn Iterator<Item = Result<(ImageId, Vec<u8>)>> + Send + 'a>,
    /// All samples, where more than their files is sent.
    rows: Option<Verdicts<SampleRow>>,
    embeddings: Option<ScoreReader>,
    pixels: Option<(u32, u32)>,
    keeps_image: bool,
    memory: &'a MemoryBudget,
    batch: SampleBatch,
    sent: Arc<Mutex<Vec<ImageId>>>,
}

impl<'a> Samples<'a> {
    /// Opens the samples of a partition for which `skip` is false. `embeddings` is the path of the
    /// partition's embeddings, which are read if they are sent.
    ///
    /// # Errors
    /// Data, when a manifest is missing or damaged; of storage.
    pub(crate) fn open(
        images: Images<'a>,
        memory: &'a MemoryBudget,
        sent: &[Sent],
        embeddings: &str,
        skip: impl FnMut(&ImageId) -> Result<bool> + Send + 'a,
    ) -> Result<Self> {
        let partition = images.partition.partition;
        let has = |wanted: Sent| sent.contains(&wanted);
        let mut dimension = 0;
        let embeddings = if has(Sent::Embedding) {
            let table = images.run.table(embeddings, EMBEDDINGS, &["embedding"])?;
            let width = table.required(sluice_manifest::rows::DIMENSION_KEY)?;
            dimension = width.parse().unwrap_or_default();
            Some(ScoreReader::open_path(
                images.run,
                embeddings,
                EMBEDDINGS,
                &["embedding"],
            )?)
        } else {
            None
        };
        let needs_rows = has(Sent::Caption) || has(Sent::Metadata) || embeddings.is_some();
        let rows = if needs_rows {
            Some(images.survivors.verdicts(partition)?)
        } else {
            None
        };
        Ok(Self {
            files: Box::new(images.files(skip)?),
            rows,
            embeddings,
            pixels: sent.iter().find_map(|sent| match sent {
                Sent::Pixels { width, height } => Some((*width, *height)),
                _ => None,
            }),
            keeps_image: has(Sent::Image),
            memory,
            batch: SampleBatch::new(sent, dimension)?,
            sent: Arc::default(),
        })
    }

    /// Returns the columns.
    pub(crate) fn schema(&self) -> &SchemaRef {
        self.batch.schema()
    }

    /// Returns the names of the samples that were put into batches, in order.
    pub(crate) fn sent(&self) -> Arc<Mutex<Vec<ImageId>>> {
        self.sent.clone()
    }

    fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        while !self.batch.is_full() {
            let files = self.next_files()?;
            if files.is_empty() {
                break;
            }
            let (pixels, keeps_image, memory) = (self.pixels, self.keeps_image, self.memory);
            let parts: Vec<Option<Part>> = files
                .into_par_iter()
                .map(|(id, image)| part(id, image, pixels, keeps_image, memory))
                .collect();
            for part in parts.into_iter().flatten() {
                self.push(part)?;
            }
        }
        if self.batch.is_empty() {
            Ok(None)
        } else {
            self.batch.take().map(Some)
        }
    }

    /// Returns the files of the next images, as many as are held at once.
    fn next_files(&mut self) -> Result<Vec<(ImageId, Vec<u8>)>> {
        let pixels = self.pixels.map_or(0, |(width, height)| 3 * width * height) as usize;
        let mut files = Vec::new();
        let mut bytes = 0;
        while files.len() < AT_ONCE && bytes < BYTES_AT_ONCE {
            let Some(file) = self.files.next().transpose()? else {
                break;
            };
            bytes += file.1.len().max(pixels);
            files.push(file);
        }
        Ok(files)
    }

    fn push(&mut self, part: Part) -> Result<()> {
        let (row, embedding) = self.row_of(&part.id)?;
        if self.embeddings.is_some() && embedding.is_empty() {
            return Ok(()); // not sent, so without a score
        }
        self.batch.push(&SentSample {
            image_id: part.id.as_str(),
            image: &part.image,
            pixels: &part.pixels,
            caption: row.as_ref().and_then(|row| row.caption.as_deref()),
            metadata: row.as_ref().and_then(|row| row.metadata.as_deref()),
            embedding: &embedding,
        })?;
        let mut sent = self.sent.lock().unwrap_or_else(|e| e.into_inner());
        sent.push(part.id);
        Ok(())
    }

    /// Walks to an image's row. Returns it, and the embedding where there is one.
    fn row_of(&mut self, id: &ImageId) -> Result<(Option<SampleRow>, Vec<f32>)> {
        for verdict in self.rows.iter_mut().flatten() {
            let row = verdict?.sample;
            let embedding = match &mut self.embeddings {
                Some(embeddings) => embeddings.next_if(row.image_id.as_str())?,
                None => None,
            };
            if row.image_id == *id {
                return Ok((Some(row), embedding.unwrap_or_default()));
            }
        }
        Ok((None, Vec::new()))
    }
}

impl Iterator for Samples<'_> {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_batch().transpose()
    }
}

/// Decodes an image where its pixels are sent. None: it cannot be decoded.
fn part(
    id: ImageId,
    image: Vec<u8>,
    pixels: Option<(u32, u32)>,
    keeps_image: bool,
    memory: &MemoryBudget,
) -> Option<Part> {
    // Held until the pixels are resized.
    let mut _share = None;
    let mut admit = |bytes| _share = Some(memory.take(bytes));
    let pixels = match pixels {
        None => Vec::new(),
        Some((width, height)) => match decode_admitted(&image, &Limits::default(), &mut admit) {
            Ok(decoded) => resize(&decoded.upright(), width, height, Filter::Bicubic).data,
            Err(e) => {
                let image_id = id.as_str();
                tracing::warn!(
                    image_id,
                    "cannot be decoded, though read found it sound: {e}"
                );
                return None;
            }
        },
    };
    let image = if keeps_image { image } else { Vec::new() };
    Some(Part { id, image, pixels })
}
