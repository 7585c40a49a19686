//! Duplicates to show: the largest groups, and some pairs. Images of reference sets have no image
//! file in the run, so their duplicates are shown by reason only.

use std::collections::{BTreeMap, HashSet};

use anyhow::Result;
use sluice_manifest::rows::{DuplicateRow, Method};
use sluice_manifest::{ImageId, StepName};
use sluice_run::duplicates::each_duplicate;
use sluice_run::sampling::{Best, ascending, hash};
use sluice_run::{Receipts, Run};

use crate::frequent::Frequent;

/// The number of groups shown, and of members of each.
const GROUPS: usize = 6;
const MEMBERS: usize = 8;
/// The number of counters for finding the largest groups.
const COUNTERS: usize = 10_000;
/// The number of pairs of each method: the least similar, and random ones.
const LEAST_SIMILAR: usize = 6;
const RANDOM: usize = 6;

/// The duplicates to show.
#[derive(Debug, Default)]
pub(crate) struct Duplicates {
    /// Pairs by step and method.
    pub methods: Vec<Pairs>,
    /// The largest groups.
    pub groups: Vec<DuplicateGroup>,
}

/// Pairs found by one method of a step.
#[derive(Debug)]
pub(crate) struct Pairs {
    /// The step.
    pub step: StepName,
    /// The method.
    pub method: Method,
    /// The number of images that it removed.
    pub count: u64,
    /// The least similar pairs, followed by random ones.
    pub pairs: Vec<DuplicateRow>,
    /// The rule by which the kept image is chosen.
    pub choice: String,
}

/// Images that were dropped as duplicates of one image.
#[derive(Debug)]
pub(crate) struct DuplicateGroup {
    /// The image that they duplicate.
    pub of: ImageId,
    /// The number of dropped images.
    pub count: u64,
    /// Some of the dropped images.
    pub members: Vec<DuplicateRow>,
}

/// The pairs of a method while the manifests are read.
struct PairSampler {
    count: u64,
    least: Best<DuplicateRow>,
    random: Best<DuplicateRow>,
}

impl Duplicates {
    /// Reads the duplicates of a run. The first pass finds the pairs and the candidates for the
    /// largest groups, the second the members of the groups.
    ///
    /// # Errors
    ///
    /// Returns a data error if a manifest is missing or damaged, and otherwise a storage error.
    pub(crate) fn read(run: &Run, receipts: &Receipts) -> Result<Self> {
        let mut frequent = Frequent::new(COUNTERS);
        let mut found: BTreeMap<(StepName, Method), PairSampler> = BTreeMap::new();
        each_duplicate(run, receipts, |step, row| {
            if row.reference.is_some() {
                return;
            }
            frequent.add(row.duplicate_of.as_str());
            let found = found
                .entry((step.clone(), row.method))
                .or_insert_with(|| PairSampler {
                    count: 0,
                    least: Best::new(LEAST_SIMILAR),
                    random: Best::new(RANDOM),
                });
            found.add(&row);
        })?;
        let methods = found.into_iter().map(|((step, method), found)| Pairs {
            choice: choice(receipts, &step),
            pairs: found.pairs(),
            count: found.count,
            step,
            method,
        });
        let methods = methods.collect();
        let groups = groups(run, receipts, &frequent)?;
        Ok(Self { methods, groups })
    }

    /// Returns the names of the images to show.
    pub(crate) fn names(&self) -> HashSet<ImageId> {
        let pairs = self.methods.iter().flat_map(|method| &method.pairs);
        let members = self.groups.iter().flat_map(|group| &group.members);
        let both = pairs.chain(members);
        let names = both.flat_map(|row| [row.image_id.clone(), row.duplicate_of.clone()]);
        names.collect()
    }
}

impl PairSampler {
    fn add(&mut self, row: &DuplicateRow) {
        self.count += 1;
        let name = row.image_id.as_str();
        let similarity = ascending(f64::from(row.similarity));
        if row.method != Method::Exact {
            self.least.offer(similarity, name, || row.clone());
        }
        self.random.offer(hash(name), name, || row.clone());
    }

    fn pairs(&self) -> Vec<DuplicateRow> {
        let mut pairs: Vec<DuplicateRow> = self.least.items().cloned().collect();
        for row in self.random.items() {
            if pairs.iter().all(|other| other.image_id != row.image_id) {
                pairs.push(row.clone());
            }
        }
        pairs
    }
}

/// Describes the rule by which a step chooses the kept image of a group, from its receipts.
fn choice(receipts: &Receipts, step: &StepName) -> String {
    let setting = |name: &str| {
        let mut settings = receipts
            .of(step)
            .iter()
            .map(|receipt| &receipt.settings[name]);
        settings.find_map(|value| value.as_str()).map(str::to_owned)
    };
    let keep = setting("keep").unwrap_or_else(|| "best".to_owned());
    match (keep.as_str(), setting("rank_by")) {
        ("best", Some(score)) => format!("the highest {score} stays, then the most pixels"),
        ("best", None) => "the most pixels stay, then the first name".to_owned(),
        (other, _) => format!("--keep {other}"),
    }
}

fn groups(run: &Run, receipts: &Receipts, frequent: &Frequent) -> Result<Vec<DuplicateGroup>> {
    let candidates = frequent.top(4 * GROUPS).into_iter();
    let mut groups: Vec<DuplicateGroup> = candidates
        .map(|(of, _)| DuplicateGroup {
            of: ImageId::from_text(of),
            count: 0,
            members: Vec::new(),
        })
        .collect();
    if groups.is_empty() {
        return Ok(groups);
    }
    each_duplicate(run, receipts, |_, row| {
        if row.reference.is_some() {
            return;
        }
        let mut others = groups.iter_mut();
        let Some(group) = others.find(|group| group.of == row.duplicate_of) else {
            return;
        };
        group.count += 1;
        if group.members.len() < MEMBERS {
            group.members.push(row);
        }
    })?;
    groups.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.of.cmp(&b.of)));
    groups.truncate(GROUPS);
    Ok(groups)
}
