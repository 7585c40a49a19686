//! Finds the partition of an image: its id begins with its shard's stem, or is the path of a file.

use std::collections::HashMap;

use sluice_manifest::rows::{PlanRow, ShardKind};
use sluice_run::Plan;

/// The shards of a plan by their stems.
pub struct Places<'p> {
    stems: HashMap<&'p str, &'p PlanRow>,
    /// Shards that are image files. Their images may have any id.
    files: Vec<&'p PlanRow>,
}

impl<'p> Places<'p> {
    /// Indexes the plan's shards by stem.
    pub fn new(plan: &'p Plan) -> Self {
        let shards = plan.partitions.iter().flat_map(|p| &p.shards);
        let is_files = |row: &&PlanRow| row.kind == ShardKind::Files;
        let (files, others): (Vec<_>, Vec<_>) = shards.partition(is_files);
        let stems = others.into_iter().map(|row| (row.shard.stem(), row));
        Self {
            stems: stems.collect(),
            files,
        }
    }

    /// Returns the shards that may contain an image of this name, the longest stem first. There can
    /// be several: `a/b/1` is sample `1` of `a/b.tar` or sample `b/1` of `a.tar`.
    pub fn of(&self, image_id: &str) -> Vec<&'p PlanRow> {
        let slashes = image_id.rmatch_indices('/');
        let shards = slashes.filter_map(|(at, _)| self.stems.get(&image_id[..at]).copied());
        shards.chain(self.files.iter().copied()).collect()
    }

    /// Returns the shards with the names nearest to an id that is in no shard.
    pub fn near(&self, image_id: &str, count: usize) -> Vec<&'p PlanRow> {
        let stem = image_id.rsplit_once('/').map_or(image_id, |(stem, _)| stem);
        let mut nearest = NearestNames::new(stem, count);
        for stem in self.stems.keys() {
            nearest.offer(stem);
        }
        let stems = nearest.names();
        stems.iter().map(|stem| self.stems[stem.as_str()]).collect()
    }
}

/// The names nearest to a text, by edit distance.
pub struct NearestNames {
    wanted: Vec<char>,
    count: usize,
    found: Vec<(usize, String)>,
}

impl NearestNames {
    /// Starts a search for the `count` nearest names.
    pub fn new(wanted: &str, count: usize) -> Self {
        Self {
            wanted: wanted.chars().collect(),
            count,
            found: Vec::new(),
        }
    }

    /// Compares a name with the text, and keeps it if it is among the nearest.
    pub fn offer(&mut self, name: &str) {
        self.offer_as(name, name);
    }

    /// Compares another text for a name, such as the name without a prefix.
    pub fn offer_as(&mut self, text: &str, name: &str) {
        let entry = (distance(&self.wanted, text), name.to_owned());
        let at = self.found.partition_point(|other| *other < entry);
        if at < self.count {
            self.found.insert(at, entry);
            self.found.truncate(self.count);
        }
    }

    /// Returns the nearest names, the smallest distance first.
    pub fn names(self) -> Vec<String> {
        self.found.into_iter().map(|(_, name)| name).collect()
    }

    /// Returns the nearest name if the difference may be a typing error: at most two letters, and
    /// at most half of the word.
    pub fn correction(self) -> Option<String> {
        let most = (self.wanted.len() / 2).min(2);
        let (changes, name) = self.found.into_iter().next()?;
        (changes <= most).then_some(name)
    }
}

/// Returns the Levenshtein distance: the number of letters to insert, delete or replace.
fn distance(a: &[char], b: &str) -> usize {
    let mut row: Vec<usize> = (0..=a.len()).collect();
    for (i, b) in b.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, a) in a.iter().enumerate() {
            let replaced = corner + usize::from(*a != b);
            corner = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(corner + 1);
        }
    }
    row[a.len()]
}

#[cfg(test)]
mod tests {
    use sluice_manifest::{Partition, RunInfo, ShardPath};
    use sluice_run::PartitionPlan;

    use sluice_store::Storage;

    use super::*;

    fn plan(shards: &[&str]) -> Plan {
        let row = |shard: &&str| PlanRow {
            partition: Partition(0),
            shard: ShardPath::new(*shard),
            bytes: 0,
            etag: None,
            modified: None,
            ..PlanRow::default()
        };
        Plan {
            info: RunInfo {
                layout: RunInfo::LAYOUT,
                input: "in".into(),
                patterns: Vec::new(),
                partitions: 1,
                shards: shards.len() as u64,
                ..RunInfo::default()
            },
            partitions: vec![PartitionPlan {
                partition: Partition(0),
                shards: shards.iter().map(row).collect(),
            }],
            storage: Storage::default(),
        }
    }

    #[test]
    fn every_shard_that_an_image_may_lie_in_is_found() {
        let plan = plan(&["a.tar", "a/b.tar", "c.tar.gz"]);
        let places = Places::new(&plan);
        let of = |id: &str| -> Vec<&str> {
            let rows = places.of(id).into_iter();
            rows.map(|row| row.shard.as_str()).collect()
        };
        assert_eq!(of("a/b/1"), ["a/b.tar", "a.tar"]);
        assert_eq!(of("a/1"), ["a.tar"]);
        assert_eq!(of("c.tar.gz/1"), ["c.tar.gz"]);
        assert_eq!(of("d/1"), [""; 0]);
        assert_eq!(places.near("q/1", 1)[0].shard.as_str(), "a.tar");
    }

    #[test]
    fn only_slips_are_corrected() {
        let correction = |wanted: &str| {
            let mut nearest = NearestNames::new(wanted, 1);
            ["filter", "score", "read"]
                .iter()
                .for_each(|name| nearest.offer(name));
            nearest.correction()
        };
        for (wanted, expected) in [
            ("filer", Some("filter")),
            ("Score", Some("score")),
            ("raed", Some("read")),
            ("colour", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(correction(wanted).as_deref(), expected, "{wanted}");
        }
    }

    #[test]
    fn distances() {
        let of = |a: &str, b: &str| distance(&a.chars().collect::<Vec<_>>(), b);
        assert_eq!(
            [of("kitten", "sitting"), of("", "ab"), of("é", "é")],
            [3, 2, 0]
        );
    }
}
