//! The image files of a partition's survivors, in the order of `read`.

use std::collections::{HashMap, VecDeque};

use sluice_harness::{Context, PartitionPlan, Survivors, Verdicts};
use sluice_manifest::rows::{MemberRow, PictureRow};
use sluice_manifest::{Error, ImageId, Result, ShardPath};
use sluice_source::{InputReader, SourceShard, compressions};
use sluice_store::Store;

/// Images whose byte ranges are requested ahead, at most.
const AHEAD: usize = 256;

/// The images of one partition.
#[derive(Clone, Copy)]
pub struct Images<'a> {
    /// The program at work.
    pub context: &'a Context,
    /// The source.
    pub input: &'a Store,
    /// The partition.
    pub partition: &'a PartitionPlan,
    /// Which of its samples are worked on.
    pub survivors: &'a Survivors<'a>,
}

impl<'a> Images<'a> {
    /// Returns the files of the images for which `skip` is false. `skip` sees every sample of the
    /// partition in order, also those that were dropped.
    ///
    /// # Errors
    /// Data, when a manifest is missing or broken.
    pub fn files<S: FnMut(&ImageId) -> Result<bool>>(self, skip: S) -> Result<ImageFiles<'a, S>> {
        let partition = self.partition.partition;
        let context = self.context;
        Ok(ImageFiles {
            reader: InputReader::new(&context.run, self.input, &context.storage),
            pictures: self.survivors.verdicts(partition)?,
            compressions: compressions(&self.context.run, partition.into())?,
            images: self,
            skip,
            open: None,
            pending: None,
            ahead: VecDeque::new(),
        })
    }
}

/// Image files with their names, read several requests ahead.
pub struct ImageFiles<'a, S> {
    images: Images<'a>,
    pictures: Verdicts<PictureRow>,
    reader: InputReader,
    compressions: HashMap<ShardPath, String>,
    skip: S,
    /// The shard that is being read.
    open: Option<(ShardPath, SourceShard)>,
    /// The next image; its shard may be another one.
    pending: Option<(ImageId, ShardPath, MemberRow)>,
    /// Images of the open shard that were requested.
    ahead: VecDeque<(ImageId, MemberRow)>,
}

impl<S: FnMut(&ImageId) -> Result<bool>> ImageFiles<'_, S> {
    fn step(&mut self) -> Result<Option<(ImageId, Vec<u8>)>> {
        self.request_ahead()?;
        let (Some((id, image)), Some((_, shard))) = (self.ahead.pop_front(), &mut self.open) else {
            return Ok(None);
        };
        Ok(Some((id, shard.read_member(&image)?)))
    }

    fn request_ahead(&mut self) -> Result<()> {
        loop {
            let is_busy = |open: &(ShardPath, SourceShard)| open.1.is_prefetch_full();
            let is_full = self.ahead.len() >= AHEAD || self.open.as_ref().is_some_and(is_busy);
            if !self.ahead.is_empty() && is_full {
                return Ok(());
            }
            if self.pending.is_none() {
                self.pending = self.next_image()?;
            }
            let Some((id, path, image)) = self.pending.take() else {
                return Ok(());
            };
            let is_open = self.open.as_ref().is_some_and(|(open, _)| *open == path);
            if !is_open && !self.ahead.is_empty() {
                self.pending = Some((id, path, image));
                return Ok(());
            }
            if !is_open {
                self.open = Some((path.clone(), self.open_shard(&path)?));
            }
            if let Some((_, shard)) = &mut self.open {
                shard.prefetch([&image])?;
            }
            self.ahead.push_back((id, image));
        }
    }

    fn open_shard(&self, path: &ShardPath) -> Result<SourceShard> {
        let partition = self.images.partition;
        let planned = partition.shards.iter().find(|row| row.shard == *path);
        let planned = planned.ok_or_else(|| {
            let number = partition.partition;
            Error::data(format!("{path}: not a shard of {number}")).hint("run sluice-read again")
        })?;
        self.reader.shard(planned, &self.compressions)
    }

    fn next_image(&mut self) -> Result<Option<(ImageId, ShardPath, MemberRow)>> {
        for verdict in self.pictures.by_ref() {
            let verdict = verdict?;
            let picture = verdict.sample;
            let skipped = (self.skip)(&picture.image_id)?;
            if skipped || verdict.dropped.is_some() {
                continue;
            }
            if let Some(image) = picture.image().cloned() {
                return Ok(Some((picture.image_id, picture.shard, image)));
            }
        }
        Ok(None)
    }
}

impl<S: FnMut(&ImageId) -> Result<bool>> Iterator for ImageFiles<'_, S> {
    type Item = Result<(ImageId, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}
