//! The images that the filters keep, over all partitions.

use anyhow::Result;
use sluice_harness::{Context, Plan, Verdict, Verdicts, filter_inputs};
use sluice_manifest::{Filter, ImageId, Input, Partition};

use crate::ranking::Candidate;

/// An image that no filter dropped.
pub struct Survivor {
    pub partition: Partition,
    pub image_id: ImageId,
    pub sha256: Option<[u8; 32]>,
    pub phash: Option<u64>,
    pub score: Option<f32>,
    pub pixels: u64,
}

impl Survivor {
    /// The survivor of a verdict, if it is one.
    pub fn of(verdict: Verdict, partition: Partition) -> Option<Self> {
        if verdict.dropped.is_some() {
            return None;
        }
        let mut digest = [0; 32];
        let sha256 = verdict.sample.sha256.as_ref();
        let decoded = sha256.and_then(|text| hex::decode_to_slice(text, &mut digest).ok());
        Some(Self {
            partition,
            sha256: decoded.map(|()| digest),
            phash: verdict.sample.phash,
            score: verdict.aesthetic,
            pixels: verdict.sample.pixels(),
            image_id: verdict.sample.image_id,
        })
    }

    /// As the rankings see it; `distance` is the one to its centroid.
    pub fn candidate(&self, distance: f32) -> Candidate<'_> {
        Candidate {
            image_id: self.image_id.as_str(),
            score: self.score,
            pixels: self.pixels,
            distance,
        }
    }
}

/// The survivors of all partitions that `wanted` picks.
pub fn survivors(
    context: &Context,
    plan: &Plan,
    filters: &[Filter],
    wanted: impl Fn(&Survivor) -> bool,
) -> Result<Vec<Survivor>> {
    let mut found = Vec::new();
    for partition in &plan.partitions {
        context.check_stop()?;
        for verdict in Verdicts::open(context, partition.partition, filters)? {
            found.extend(Survivor::of(verdict?, partition.partition).filter(&wanted));
        }
    }
    Ok(found)
}

/// What a unit that walks the verdicts of all partitions reads.
pub fn all_inputs(
    context: &Context,
    plan: &Plan,
    filters: &[Filter],
) -> sluice_manifest::Result<Vec<Input>> {
    let mut inputs = Vec::new();
    for partition in &plan.partitions {
        inputs.extend(filter_inputs(context, partition.partition, filters)?);
    }
    Ok(vec![Input::combined("survivors", &inputs)])
}
