//! The image files of a partition's survivors, in the order of `read`.

use std::collections::{HashMap, VecDeque};

use sluice_manifest::rows::{MemberRow, PictureRow};
use sluice_manifest::{Error, ImageId, Result, ShardPath};
use sluice_run::{PartitionPlan, Run, Survivors, Verdicts};
use sluice_source::{InputReader, SourceShard, compressions};
use sluice_store::Store;

/// The maximum number of images whose byte ranges are requested ahead.
const AHEAD: usize = 256;

/// The images of one partition.
#[derive(Clone, Copy)]
pub struct Images<'a> {
    /// The run.
    pub run: &'a Run,
    /// The store of the source shards.
    pub input: &'a Store,
    /// The partition.
    pub partition: &'a PartitionPlan,
    /// Which of its samples are read.
    pub survivors: &'a Survivors<'a>,
}

impl<'a> Images<'a> {
    /// Returns the files of the images for which `skip` returns false. `skip` is called for every
    /// sample of the partition in order, including dropped ones.
    ///
    /// # Errors
    /// Data, when a manifest is missing or damaged.
    pub fn files<S: FnMut(&ImageId) -> Result<bool>>(
        self,
        mut skip: S,
    ) -> Result<impl Iterator<Item = Result<(ImageId, Vec<u8>)>> + use<'a, S>> {
        let files = self.files_with(move |id| Ok((!skip(id)?).then_some(())))?;
        Ok(files.map(|file| file.map(|file| (file.id, file.bytes))))
    }

    /// Returns the files of the images for which `choose` returns a note, each with its note.
    /// `choose` is called for every sample of the partition in order, including dropped ones.
    pub(crate) fn files_with<T, C>(self, choose: C) -> Result<ImageFiles<'a, T, C>>
    where
        C: FnMut(&ImageId) -> Result<Option<T>>,
    {
        let partition = self.partition.partition;
        Ok(ImageFiles {
            reader: InputReader::new(self.run, self.input, &self.run.storage),
            pictures: self.survivors.verdicts(partition)?,
            compressions: compressions(self.run, partition.into())?,
            images: self,
            choose,
            open: None,
            pending: None,
            ahead: VecDeque::new(),
        })
    }
}

/// An image file.
pub(crate) struct ImageFile<T> {
    pub id: ImageId,
    /// What `choose` returned for the image.
    pub note: T,
    pub bytes: Vec<u8>,
}

/// An image that is read later.
struct Chosen<T> {
    id: ImageId,
    note: T,
    member: MemberRow,
}

/// Iterator over image files, which requests several images ahead.
pub(crate) struct ImageFiles<'a, T, C> {
    images: Images<'a>,
    pictures: Verdicts<PictureRow>,
    reader: InputReader,
    compressions: HashMap<ShardPath, String>,
    choose: C,
    /// The shard that is being read.
    open: Option<(ShardPath, SourceShard)>,
    /// The next image, which may be in another shard.
    pending: Option<(ShardPath, Chosen<T>)>,
    /// Requested images of the open shard.
    ahead: VecDeque<Chosen<T>>,
}

impl<T, C: FnMut(&ImageId) -> Result<Option<T>>> ImageFiles<'_, T, C> {
    fn step(&mut self) -> Result<Option<ImageFile<T>>> {
        self.request_ahead()?;
        let (Some(image), Some((_, shard))) = (self.ahead.pop_front(), &mut self.open) else {
            return Ok(None);
        };
        Ok(Some(ImageFile {
            bytes: shard.read_member(&image.member)?,
            id: image.id,
            note: image.note,
        }))
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
            let Some((path, image)) = self.pending.take() else {
                return Ok(());
            };
            let is_open = self.open.as_ref().is_some_and(|(open, _)| *open == path);
            if !is_open && !self.ahead.is_empty() {
                self.pending = Some((path, image));
                return Ok(());
            }
            if !is_open {
                self.open = Some((path.clone(), self.open_shard(&path)?));
            }
            if let Some((_, shard)) = &mut self.open {
                shard.prefetch([&image.member])?;
            }
            self.ahead.push_back(image);
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

    fn next_image(&mut self) -> Result<Option<(ShardPath, Chosen<T>)>> {
        for verdict in self.pictures.by_ref() {
            let verdict = verdict?;
            let picture = verdict.sample;
            let note = (self.choose)(&picture.image_id)?;
            let (Some(note), None) = (note, verdict.dropped) else {
                continue;
            };
            if let Some(member) = picture.image().cloned() {
                let id = picture.image_id;
                return Ok(Some((picture.shard, Chosen { id, note, member })));
            }
        }
        Ok(None)
    }
}

impl<T, C: FnMut(&ImageId) -> Result<Option<T>>> Iterator for ImageFiles<'_, T, C> {
    type Item = Result<ImageFile<T>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}
