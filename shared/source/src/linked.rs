//! Members that are hard links: their bytes are those of an earlier member of the shard.
//!
//! They are rare, so each is read with a separate request, and in a compressed shard from the
//! start.

use std::io::{self, Read};

use sluice_manifest::rows::PlanRow;
use sluice_manifest::{Error, Result};
use sluice_shard::{Compression, Missing, Sample, ShardLimits, TarBytes};

use crate::planned::open_shard;
use crate::reader::InputReader;

/// Reads bytes of a shard before its reader's position.
#[derive(Clone)]
pub(crate) struct LinkedMembers {
    input: InputReader,
    planned: PlanRow,
}

impl LinkedMembers {
    pub(crate) fn new(input: &InputReader, planned: &PlanRow) -> Self {
        Self {
            input: input.clone(),
            planned: planned.clone(),
        }
    }

    /// Reads the bytes of a sample's linked members.
    pub(crate) fn fill(&self, sample: &mut Sample, compression: Compression) -> Result<()> {
        let members = sample.members.iter_mut();
        for member in members.filter(|member| member.missing == Some(Missing::Link)) {
            member.data = Some(self.read(member.offset, member.size, compression)?);
            member.missing = None;
        }
        Ok(())
    }

    /// Returns bytes of the decompressed shard.
    pub(crate) fn read(&self, offset: u64, size: u64, compression: Compression) -> Result<Vec<u8>> {
        let uri = self.input.uri(&self.planned);
        let failed = |e: io::Error| Error::of_io(e, &uri);
        let mut bytes = Vec::with_capacity(size as usize);
        if compression == Compression::None {
            let path = self.planned.shard.as_str();
            let mut object = self.input.input.read_ranges(path, self.planned.bytes);
            object.prefetch(offset..offset + size);
            object.skip_to(offset)?;
            object.take(size).read_to_end(&mut bytes).map_err(failed)?;
        } else {
            let object = open_shard(&self.input.input, &self.planned)?;
            let mut shard = TarBytes::new(object, &ShardLimits::default()).map_err(failed)?;
            io::copy(&mut shard.by_ref().take(offset), &mut io::sink()).map_err(failed)?;
            shard.take(size).read_to_end(&mut bytes).map_err(failed)?;
        }
        Ok(bytes)
    }
}
