//! Reads samples from the source shards. The shards are indexed again, so that a wrong offset in
//! `read/images` is detected too.

use std::io::{self, Read};

use sluice_manifest::rows::{MemberRow, PlanRow, ShardKind};
use sluice_manifest::{Error, ImageId, Result, ShardPath};
use sluice_run::PartitionPlan;
use sluice_shard::{Event, Sample, ShardLimits, TarBytes};
use sluice_source::{InputReader, Samples, open_shard};
use sluice_store::Store;

/// The samples of a partition's shards, which must be requested in order.
pub(super) struct Sources<'a> {
    reader: &'a InputReader,
    input: &'a Store,
    partition: &'a PartitionPlan,
    open: Option<OpenShard<'a>>,
}

struct OpenShard<'a> {
    planned: &'a PlanRow,
    samples: Samples,
}

impl<'a> Sources<'a> {
    /// Returns the samples of a partition.
    pub(super) fn new(
        reader: &'a InputReader,
        input: &'a Store,
        partition: &'a PartitionPlan,
    ) -> Self {
        Self {
            reader,
            input,
            partition,
            open: None,
        }
    }

    fn planned(&self, shard: &ShardPath) -> Result<&'a PlanRow> {
        let planned = self.partition.shards.iter().find(|row| row.shard == *shard);
        let partition = self.partition.partition;
        planned.ok_or_else(|| Error::data(format!("{shard}: not a shard of {partition}")))
    }

    /// Returns the sample with this name, or `None` if the rest of the shard does not contain it.
    ///
    /// # Errors
    /// Data, when the shard does not belong to the partition or has changed; or a storage error.
    pub(super) fn sample(&mut self, shard: &ShardPath, id: &ImageId) -> Result<Option<Sample>> {
        let uri = self.input.uri(shard.as_str());
        let failed = |e: io::Error| Error::of_io(e, &uri);
        if self
            .open
            .as_ref()
            .is_none_or(|open| open.planned.shard != *shard)
        {
            let planned = self.planned(shard)?;
            self.open = Some(OpenShard {
                planned,
                samples: self.reader.samples(planned)?,
            });
        }
        let Some(open) = &mut self.open else {
            return Ok(None);
        };
        for event in open.samples.by_ref() {
            if let Event::Sample(sample) = event.map_err(failed)?
                && open.planned.image_id(&sample.key, sample.occurrence) == *id
            {
                return Ok(Some(sample));
            }
        }
        Ok(None)
    }

    /// Returns a reader of a member that is too large for memory.
    ///
    /// # Errors
    /// The errors of [`sample`](Self::sample).
    pub(super) fn large(&self, shard: &ShardPath, member: &MemberRow) -> Result<Box<dyn Read>> {
        let planned = self.planned(shard)?;
        if planned.kind != ShardKind::Tar {
            let packing = [(shard.clone(), String::new())].into();
            let mut shard = self.reader.shard(planned, &packing)?;
            shard.member(member)?;
            return Ok(Box::new(shard.take(member.size)));
        }
        let uri = self.input.uri(shard.as_str());
        let failed = |e: io::Error| Error::of_io(e, &uri);
        let object = open_shard(self.input, planned)?;
        let mut bytes = TarBytes::new(object, &ShardLimits::default()).map_err(failed)?;
        io::copy(&mut (&mut bytes).take(member.offset), &mut io::sink()).map_err(failed)?;
        Ok(Box::new(bytes.take(member.size)))
    }
}
