//! Samples of the source shards, indexed again, so that a wrong offset of `read` is noticed too.

use std::io::{self, Read};

use sluice_harness::{PartitionPlan, open_shard};
use sluice_manifest::rows::{MemberRow, PlanRow};
use sluice_manifest::{Error, ImageId, Result, ShardPath};
use sluice_shard::{Event, Limits, Sample, ShardReader, TarBytes};
use sluice_store::{ObjectReader, Store};

/// The samples of a partition's shards, asked for in their order.
pub struct Sources<'a> {
    input: &'a Store,
    partition: &'a PartitionPlan,
    open: Option<Open>,
}

struct Open {
    shard: ShardPath,
    reader: ShardReader<ObjectReader>,
}

impl<'a> Sources<'a> {
    /// Returns the samples of a partition.
    pub fn new(input: &'a Store, partition: &'a PartitionPlan) -> Self {
        Self {
            input,
            partition,
            open: None,
        }
    }

    fn planned(&self, shard: &ShardPath) -> Result<&'a PlanRow> {
        let planned = self.partition.shards.iter().find(|row| row.shard == *shard);
        let partition = self.partition.partition;
        planned.ok_or_else(|| Error::data(format!("{shard}: no shard of {partition}")))
    }

    /// Returns the sample with this name, or none where the shard has no more of it.
    ///
    /// # Errors
    /// Data, when the shard is not of the partition or has changed; of storage.
    pub fn sample(&mut self, shard: &ShardPath, id: &ImageId) -> Result<Option<Sample>> {
        let uri = self.input.uri(shard.as_str());
        let failed = |e: io::Error| Error::of_io(e, &uri);
        if self.open.as_ref().is_none_or(|open| open.shard != *shard) {
            let object = open_shard(self.input, self.planned(shard)?)?;
            self.open = Some(Open {
                shard: shard.clone(),
                reader: ShardReader::new(object, Limits::default()).map_err(failed)?,
            });
        }
        let Some(open) = &mut self.open else {
            return Ok(None);
        };
        for event in open.reader.by_ref() {
            if let Event::Sample(sample) = event.map_err(failed)?
                && ImageId::new(shard, &sample.key, sample.occurrence) == *id
            {
                return Ok(Some(sample));
            }
        }
        Ok(None)
    }

    /// Returns a member that is too large to be held in memory.
    ///
    /// # Errors
    /// As [`sample`](Self::sample).
    pub fn large(&self, shard: &ShardPath, member: &MemberRow) -> Result<impl Read + use<>> {
        let uri = self.input.uri(shard.as_str());
        let failed = |e: io::Error| Error::of_io(e, &uri);
        let object = open_shard(self.input, self.planned(shard)?)?;
        let mut bytes = TarBytes::new(object, &Limits::default()).map_err(failed)?;
        io::copy(&mut (&mut bytes).take(member.offset), &mut io::sink()).map_err(failed)?;
        Ok(bytes.take(member.size))
    }
}
