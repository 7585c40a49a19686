//! Reads the image files of some samples of a run, in any order, from their source shards.

use std::collections::BTreeMap;

use rayon::prelude::*;
use sluice_manifest::rows::{MemberRow, PlanRow};
use sluice_manifest::{Class, Error, Partition, Result, ShardPath};
use sluice_run::card::ImageCard;
use sluice_run::{Plan, Run};
use sluice_store::Store;

use crate::{InputReader, compressions};

/// Samples of one shard, sorted by the offsets of their images.
struct OfShard<'p> {
    partition: Partition,
    planned: &'p PlanRow,
    /// The index of the card, and the member.
    images: Vec<(usize, &'p MemberRow)>,
}

/// The result for a card: its index, and the output of `work`, or why there is no file.
type Made<T> = (usize, std::result::Result<T, &'static str>);

/// Reads the image file of each card and passes it to `work`, with the card's index. Reads several
/// shards concurrently. A file that cannot be read, or has more than `max_bytes`, yields a note
/// instead of an output.
///
/// # Errors
///
/// Fails like `work`, with a transient error if storage fails, and with a stopped error after a
/// signal.
pub fn each_image_file<T: Send>(
    run: &Run,
    plan: &Plan,
    cards: &[&ImageCard],
    max_bytes: u64,
    work: impl Fn(usize, Vec<u8>) -> Result<T> + Sync,
) -> Result<Vec<Made<T>>> {
    let shards = by_shard(plan, cards);
    let input = plan.input();
    let made = shards.par_iter().map(|shard| {
        run.check_stop()?;
        let input = input.as_ref().map_err(Error::clone);
        let made = input.and_then(|input| shard.files(run, input, max_bytes, &work));
        or_without(shard, made)
    });
    let made = made.collect::<Result<Vec<Vec<Made<T>>>>>()?;
    Ok(made.into_iter().flatten().collect())
}

fn by_shard<'p>(plan: &'p Plan, cards: &[&'p ImageCard]) -> Vec<OfShard<'p>> {
    let mut wanted: BTreeMap<(Partition, &ShardPath), Vec<(usize, &MemberRow)>> = BTreeMap::new();
    for (place, card) in cards.iter().enumerate() {
        if let Some(member) = &card.member {
            let images = wanted.entry((card.partition, &card.shard)).or_default();
            images.push((place, member));
        }
    }
    let shards = wanted
        .into_iter()
        .filter_map(|((partition, path), mut images)| {
            images.sort_by_key(|(_, member)| member.offset);
            let planned = plan
                .partitions
                .iter()
                .find(|planned| planned.partition == partition)?;
            let planned = planned.shards.iter().find(|row| row.shard == *path)?;
            Some(OfShard {
                partition,
                planned,
                images,
            })
        });
    shards.collect()
}

impl OfShard<'_> {
    fn files<T>(
        &self,
        run: &Run,
        input: &Store,
        max_bytes: u64,
        work: impl Fn(usize, Vec<u8>) -> Result<T>,
    ) -> Result<Vec<Made<T>>> {
        let compressions = compressions(run, self.partition.into())?;
        let reader = InputReader::new(run, input, &run.storage);
        let mut shard = reader.shard(self.planned, &compressions)?;
        let (images, large): (Vec<_>, Vec<_>) = self
            .images
            .iter()
            .copied()
            .partition(|(_, member)| member.size <= max_bytes);
        shard.prefetch(images.iter().map(|(_, member)| *member))?;
        let large = large
            .into_iter()
            .map(|(place, _)| (place, Err("the file is too large")));
        let mut made: Vec<Made<T>> = large.collect();
        for (place, member) in images {
            let file = shard.read_member(member)?;
            made.push((place, Ok(work(place, file)?)));
        }
        Ok(made)
    }
}

/// Returns a note for each sample of a shard that cannot be read.
fn or_without<T>(shard: &OfShard<'_>, made: Result<Vec<Made<T>>>) -> Result<Vec<Made<T>>> {
    match made {
        Err(e) if matches!(e.class(), Class::Data | Class::Usage) => {
            tracing::warn!("no pictures: {e}");
            let places = shard.images.iter().map(|(place, _)| *place);
            Ok(places
                .map(|place| (place, Err("its shard cannot be read")))
                .collect())
        }
        made => made,
    }
}
