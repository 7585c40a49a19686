//! `--sample-per-cluster`: at most so many images of each cluster that a dedup step assigned.
//!
//! The survivors of a cluster are put into an order, and the first ones stay. Large clusters lose most
//! and small ones nothing, so the concepts of a dataset become balanced.
//!
//! - `random`: an order drawn from the seed. Balanced sampling.
//! - `nearest`: nearest to the centroid first, the prototypes of the cluster.
//! - `farthest`: farthest from the centroid first. Sorscher et al., "Beyond neural scaling laws",
//!   NeurIPS 2022, and Tirumala et al., "D4: Improving LLM Pretraining via Document De-Duplication and
//!   Diversification", NeurIPS 2023, drop the prototypes where there is much data.
//!
//! The order is a function of seed, name and distance, so the result does not depend on tasks. A task
//! reads the names and clusters of all partitions once, and keeps the key of the last image that
//! stays, after at most N keys of 16 bytes for each cluster.

use std::collections::{BinaryHeap, HashMap, HashSet};

use anyhow::Result;
use arrow::array::AsArray;
use arrow::datatypes::{Float32Type, UInt32Type};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sluice_harness::Context;
use sluice_manifest::rows::{ASSIGNMENTS, NameRow};
use sluice_manifest::{Error, ImageId, Reason, ReasonKind, StepName, Unit, UnitKind, layout};
use sluice_run::{Plan, Survivors};

/// Which images of a cluster stay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum SampleBy {
    /// An order drawn from the seed
    #[default]
    Random,
    /// Those nearest to the centroid: its prototypes
    Nearest,
    /// Those farthest from the centroid
    Farthest,
}

/// What is sampled, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// The dedup step that assigned the clusters.
    pub clusters_of: StepName,
    /// Images of a cluster that stay at most.
    pub per_cluster: u32,
    /// Which ones.
    pub by: SampleBy,
    /// The seed of the order, where it is random.
    pub seed: Option<u64>,
}

/// The place of an image in its cluster's order: whoever is less is preferred.
type Key = (u32, u64);

/// An image's cluster, and its distance to the centroid.
type Place = (u32, f32);

/// The images of a partition that are in a cluster.
pub(crate) type Clusters = HashMap<ImageId, Place>;

/// The last image that stays of each cluster that has more than may stay.
pub struct Sample(HashMap<u32, Key>);

impl Sampling {
    /// Returns the clusters of a partition's images.
    ///
    /// # Errors
    /// Usage, when the step has no clusters; data, when its manifest is missing or broken.
    pub fn clusters(&self, context: &Context, unit: Unit) -> Result<Clusters> {
        let step = &self.clusters_of;
        let receipt = context.required_receipt(step, unit)?;
        let path = layout::ASSIGNMENTS.path(step, unit);
        if receipt.output(&path).is_none() {
            return Err(self.no_clusters().into());
        }
        let columns = ["cluster", "home", "image_id", "distance"];
        let mut found = Clusters::new();
        for batch in context.run.table(&path, ASSIGNMENTS, &columns)? {
            let batch = batch?;
            let clusters = batch["cluster"].as_primitive::<UInt32Type>();
            let homes = batch["home"].as_primitive::<UInt32Type>();
            let ids = batch["image_id"].as_string::<i32>();
            let distances = batch["distance"].as_primitive::<Float32Type>();
            let own = (0..batch.num_rows()).filter(|&row| clusters.value(row) == homes.value(row));
            found.extend(own.map(|row| {
                let place = (homes.value(row), distances.value(row));
                (ImageId::from_text(ids.value(row)), place)
            }));
        }
        Ok(found)
    }

    /// Samples the survivors of all partitions.
    ///
    /// # Errors
    /// As [`clusters`](Self::clusters); stopped, after a signal.
    pub fn sample(
        &self,
        context: &Context,
        plan: &Plan,
        survivors: &Survivors<'_>,
    ) -> Result<Sample> {
        let most = self.per_cluster as usize;
        let mut first: HashMap<u32, BinaryHeap<Key>> = HashMap::new();
        let mut is_full = HashSet::new();
        for planned in &plan.partitions {
            context.check_stop()?;
            let clusters = self.clusters(context, planned.partition.into())?;
            for sample in survivors.samples::<NameRow>(planned.partition)? {
                let id = sample?.image_id;
                let Some((cluster, distance)) = clusters.get(&id) else {
                    continue;
                };
                let keys = first.entry(*cluster).or_default();
                keys.push(self.key(&id, *distance));
                if keys.len() > most {
                    keys.pop();
                    is_full.insert(*cluster);
                }
            }
        }
        let last = first
            .into_iter()
            .filter(|(cluster, _)| is_full.contains(cluster));
        let last = last.filter_map(|(cluster, keys)| Some((cluster, *keys.peek()?)));
        Ok(Sample(last.collect()))
    }

    fn key(&self, id: &ImageId, distance: f32) -> Key {
        let order = match self.by {
            SampleBy::Random => 0,
            SampleBy::Nearest => ascending(distance),
            SampleBy::Farthest => !ascending(distance),
        };
        let seed = self.seed.unwrap_or_default().to_le_bytes();
        let digest = Sha256::new().chain_update(seed).chain_update(id.as_str());
        let mut head = [0; 8];
        head.copy_from_slice(&digest.finalize()[..8]);
        (order, u64::from_be_bytes(head))
    }

    /// Returns why an image is dropped, and the values that decided.
    pub fn failure(
        &self,
        sample: &Sample,
        clusters: &Clusters,
        id: &ImageId,
    ) -> Option<(Reason, String)> {
        let about = |kind| Reason::about(kind, self.clusters_of.as_str());
        let Some((cluster, distance)) = clusters.get(id) else {
            let detail = format!("{} has it in no cluster", self.clusters_of);
            return Some((about(ReasonKind::NotScored), detail));
        };
        let last = sample.0.get(cluster)?;
        (self.key(id, *distance) > *last).then(|| {
            let detail = format!(
                "{} others of cluster {cluster} stay, distance {distance}",
                self.per_cluster
            );
            (about(ReasonKind::ClusterFull), detail)
        })
    }

    /// Returns what is read of all partitions.
    ///
    /// # Errors
    /// Usage, when the step has no clusters; data, when it was not run for all partitions.
    pub fn input(&self, context: &Context) -> Result<sluice_manifest::Input> {
        let step = &self.clusters_of;
        let is_assigned = context
            .receipt(step, Unit::once(UnitKind::Partition))?
            .is_some();
        if !is_assigned && !context.run.list(&layout::receipts(step))?.is_empty() {
            return Err(self.no_clusters().into());
        }
        Ok(context.combined_input(step, UnitKind::Partition)?)
    }

    fn no_clusters(&self) -> Error {
        Error::usage(format!(
            "--clusters-of {}: it has no clusters",
            self.clusters_of
        ))
        .hint("name a dedup step with the method semantic, and run its sluice-dedup fit and assign")
    }
}

/// Returns a number that is in the order of the values.
fn ascending(value: f32) -> u32 {
    let bits = value.to_bits();
    if value.is_sign_negative() {
        !bits
    } else {
        bits | 1 << 31
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_in_the_order_of_the_values() {
        let values = [-1.0, -0.5, -1e-9, 0.0, 1e-9, 0.25, 2.0];
        assert!(values.map(ascending).is_sorted());
    }
}
