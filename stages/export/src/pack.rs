//! Packs output shards from counts alone.
//!
//! All kept samples form one sequence, partition after partition. Each has its weight as length: 1,
//! or its bytes. Output shard k takes the samples that start in `k * S .. (k + 1) * S`. So the
//! shard of a sample depends only on the weights before it, and a shard's share of a partition is a
//! range that can be located by reading that partition's decisions.
//!
//! With bytes, a sample that starts just before a shard's end extends past it. No shard is empty as
//! long as no sample is longer than S. The sequence ends where the last sample starts: otherwise
//! the last shard could be empty.

use serde::{Deserialize, Serialize};
use sluice_manifest::rows::OutputPlanRow;
use sluice_manifest::{Error, Partition, Result};

/// How the length of a sample is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// Each sample has length 1.
    Images,
    /// The length is the total size of the members in bytes.
    Bytes,
}

impl Weight {
    /// Returns the name in the plan's metadata.
    pub fn as_str(self) -> &'static str {
        match self {
            Weight::Images => "images",
            Weight::Bytes => "bytes",
        }
    }

    /// Returns the length of a sample with this many bytes.
    pub fn of(self, bytes: u64) -> u64 {
        match self {
            Weight::Images => 1,
            Weight::Bytes => bytes,
        }
    }
}

/// A partition's kept samples in the sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeptLength {
    /// The partition.
    pub partition: Partition,
    /// The total weight of its kept samples.
    pub length: u64,
    /// The weight of the last kept sample; 0 if there is none.
    pub last: u64,
}

/// Divides the sequence into shards of length `per_shard`. The rows are sorted by shard and
/// partition. Every position at which a sample can start is in exactly one of them.
///
/// # Errors
///
/// Returns a usage error if there are more shards than can be numbered.
///
/// # Panics
///
/// Panics if `per_shard` is 0.
pub(crate) fn pack(lengths: &[KeptLength], per_shard: u64) -> Result<Vec<OutputPlanRow>> {
    let total: u64 = lengths.iter().map(|kept| kept.length).sum();
    if total / per_shard > u64::from(u32::MAX) {
        return Err(too_many(total, per_shard));
    }
    let mut rows = Vec::new();
    let mut begin: u64 = 0;
    for kept in lengths.iter().filter(|kept| kept.length > 0) {
        // The last sample starts just before it, and nothing starts after it.
        let end = begin + kept.length - kept.last + 1;
        let mut from = begin;
        while from < end {
            let shard = from / per_shard;
            let to = end.min((shard + 1).saturating_mul(per_shard));
            rows.push(OutputPlanRow {
                shard: u32::try_from(shard).map_err(|_| too_many(total, per_shard))?,
                partition: kept.partition,
                from: from - begin,
                to: to - begin,
                split: None,
            });
            from = to;
        }
        begin += kept.length;
    }
    Ok(rows)
}

/// Divides the sequences of the splits into shards, one after another. The shards are numbered
/// consecutively.
///
/// # Errors
///
/// Fails like [`pack`].
///
/// # Panics
///
/// Panics if `per_shard` is 0.
pub(crate) fn pack_splits(
    lines: &[(&str, Vec<KeptLength>)],
    per_shard: u64,
) -> Result<Vec<OutputPlanRow>> {
    let mut rows: Vec<OutputPlanRow> = Vec::new();
    for (split, lengths) in lines {
        let first = rows.last().map_or(0, |row| row.shard + 1);
        for mut row in pack(lengths, per_shard)? {
            let shard = first.checked_add(row.shard);
            row.shard =
                shard.ok_or_else(|| too_many(u64::from(u32::MAX) * per_shard, per_shard))?;
            row.split = Some((*split).to_owned());
            rows.push(row);
        }
    }
    Ok(rows)
}

fn too_many(total: u64, per_shard: u64) -> Error {
    let shards = total / per_shard;
    Error::usage(format!(
        "{total} in shards of {per_shard} are {shards} output shards, more than can be numbered"
    ))
    .hint("raise --images-per-shard or --bytes-per-shard")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn lengths(partitions: &[Vec<u64>]) -> Vec<KeptLength> {
        let numbered = partitions.iter().enumerate();
        numbered
            .map(|(number, weights)| KeptLength {
                partition: Partition(number as u32),
                length: weights.iter().sum(),
                last: weights.last().copied().unwrap_or(0),
            })
            .collect()
    }

    /// Returns the row that takes each sample, as `write` computes it.
    fn taken(partitions: &[Vec<u64>], rows: &[OutputPlanRow]) -> Vec<Vec<usize>> {
        let mut taken = vec![Vec::new(); rows.len()];
        let mut sample = 0;
        for (number, weights) in partitions.iter().enumerate() {
            let mut start = 0;
            for weight in weights {
                for (row, takes) in rows.iter().zip(&mut taken) {
                    let inside = (row.from..row.to).contains(&start);
                    if row.partition.0 == number as u32 && inside {
                        takes.push(sample);
                    }
                }
                sample += 1;
                start += weight;
            }
        }
        taken
    }

    fn check(partitions: &[Vec<u64>], per_shard: u64) -> BTreeMap<u32, Vec<usize>> {
        let rows = pack(&lengths(partitions), per_shard).unwrap();
        let taken = taken(partitions, &rows);
        let all: Vec<usize> = taken.iter().flatten().copied().collect();
        let samples = partitions.iter().map(Vec::len).sum();
        assert_eq!(all, (0..samples).collect::<Vec<_>>(), "once each, in order");
        assert!(taken.iter().all(|takes| !takes.is_empty()), "{rows:?}");
        let mut shards: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (row, takes) in rows.iter().zip(taken) {
            shards.entry(row.shard).or_default().extend(takes);
        }
        let numbers: Vec<u32> = shards.keys().copied().collect();
        assert_eq!(numbers, (0..shards.len() as u32).collect::<Vec<_>>());
        shards
    }

    #[test]
    fn shards_cross_partitions() {
        let row = |shard, partition, from, to| OutputPlanRow {
            shard,
            partition: Partition(partition),
            from,
            to,
            split: None,
        };
        let counts = [vec![1; 5], vec![], vec![1; 2], vec![1; 6]];
        assert_eq!(
            pack(&lengths(&counts), 4).unwrap(),
            [
                row(0, 0, 0, 4),
                row(1, 0, 4, 5),
                row(1, 2, 0, 2),
                row(1, 3, 0, 1),
                row(2, 3, 1, 5),
                row(3, 3, 5, 6),
            ]
        );
    }

    #[test]
    fn nothing_kept_makes_no_shard() {
        assert!(pack(&[], 10).unwrap().is_empty());
        assert!(pack(&lengths(&[vec![], vec![]]), 10).unwrap().is_empty());
    }

    #[test]
    fn a_tail_makes_no_shard_of_its_own() {
        assert_eq!(check(&[vec![8, 8]], 10).len(), 1);
        assert_eq!(check(&[vec![8, 8], vec![10]], 10).len(), 2);
    }

    #[test]
    fn numbers_that_no_shard_can_have_are_refused() {
        let kept = KeptLength {
            partition: Partition(0),
            length: u64::from(u32::MAX) + 2,
            last: 1,
        };
        assert_eq!(pack(&[kept], u64::MAX / 2).unwrap().len(), 1);
        let error = pack(&[kept], 1).unwrap_err().to_string();
        assert!(error.contains("--images-per-shard"), "{error}");
    }

    proptest! {
        #[test]
        fn images_fill_every_shard_but_the_last(
            counts in prop::collection::vec(0_usize..40, 0..12),
            per_shard in 1_u64..50,
        ) {
            let partitions: Vec<Vec<u64>> = counts.iter().map(|&n| vec![1; n]).collect();
            let shards = check(&partitions, per_shard);
            let last = shards.len().saturating_sub(1) as u32;
            for (number, samples) in shards {
                let full = samples.len() as u64 == per_shard;
                prop_assert!(full || (number == last && (samples.len() as u64) < per_shard));
            }
        }

        #[test]
        fn bytes_fill_every_shard_to_within_a_sample(
            partitions in prop::collection::vec(prop::collection::vec(1_u64..30, 0..20), 0..8),
            more in 0_u64..60,
        ) {
            let weights: Vec<u64> = partitions.iter().flatten().copied().collect();
            let largest = weights.iter().copied().max().unwrap_or(1);
            let per_shard = largest + more;
            let shards = check(&partitions, per_shard);
            let last = shards.len().saturating_sub(1) as u32;
            for (number, samples) in shards {
                let bytes: u64 = samples.iter().map(|&sample| weights[sample]).sum();
                prop_assert!(bytes < per_shard + largest);
                prop_assert!(number == last || bytes > per_shard - largest);
            }
        }
    }
}
