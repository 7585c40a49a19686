//! The statistics and samples that one pass over a run collects for the page, for a part or the
//! whole. Parts can be merged, and the result does not depend on how the run is divided.

use std::collections::{BTreeMap, HashMap, HashSet};

use sluice_manifest::{Dropped, Histogram, ImageId, Keep, Partition, ReasonKind, Result};
use sluice_run::card::ImageCard;
use sluice_run::sampling::{Best, ascending, hash};
use sluice_run::scoring::{Control, Scoring};
use sluice_run::walk::Walk;

use crate::data::DataFindings;

/// The number of images next to a threshold, on each side.
const NEAR: usize = 8;
/// The number of images with the lowest scores, and with the highest.
const EXTREMES: usize = 6;
/// The number of ranges of a score, with equal numbers of images, that show one image each.
pub const RANGES: usize = 24;
/// The number of random images for each reason.
const OF_REASON: usize = 12;
/// The number of random kept images, and of random dropped ones.
const RANDOM: usize = 24;

/// A sample during the pass.
pub struct Seen<'s> {
    /// Creates its card.
    pub card: &'s dyn Fn() -> ImageCard,
    /// The sample's name.
    pub image_id: &'s ImageId,
    /// The sample's scores, in the order of the run's scores; NaN for a missing one.
    pub scores: &'s [f32],
    /// The step that dropped the sample, and the reason.
    pub dropped: Option<&'s Dropped>,
    /// The position of that step among the deciding steps. `None` for `read`, or if the sample is
    /// kept.
    pub dropped_at: Option<usize>,
    /// The total size of the sample's members.
    pub bytes: u64,
}

/// What the pass collected.
#[derive(Debug, Clone)]
pub struct Findings {
    /// The total size of the kept samples.
    pub kept_bytes: u64,
    /// The total size of the dropped samples, by step and reason.
    pub dropped_bytes: BTreeMap<Dropped, u64>,
    /// The findings for each adjustable threshold.
    pub controls: Vec<ControlFindings>,
    /// Random samples of each reason.
    pub reasons: BTreeMap<Dropped, Best<ImageCard>>,
    /// Random kept samples.
    pub kept: Best<ImageCard>,
    /// Random dropped samples.
    pub dropped: Best<ImageCard>,
    /// The samples requested by name.
    pub named: HashMap<ImageId, ImageCard>,
    /// The composition of the dataset.
    pub data: DataFindings,
}

/// What the pass collected for an adjustable threshold.
#[derive(Debug, Clone)]
pub struct ControlFindings {
    /// Scores of the images that its filter keeps or, without a filter, that it would keep.
    pub kept: Histogram,
    /// Scores of the images that only this threshold drops.
    pub regained: Histogram,
    /// The number of images that reached the filter.
    pub came: u64,
    /// Images on the kept side, the nearest first.
    pub inside: Best<ImageCard>,
    /// Images on the dropped side, the nearest first.
    pub outside: Best<ImageCard>,
    /// Images with the lowest scores.
    pub lowest: Best<ImageCard>,
    /// Images with the highest scores.
    pub highest: Best<ImageCard>,
    /// One image for each range of scores.
    pub ranges: Vec<Best<ImageCard>>,
    /// The boundaries of the ranges.
    edges: Vec<f32>,
}

impl Findings {
    /// Returns the findings of a run. The images in `named` are kept as cards.
    ///
    /// # Errors
    ///
    /// Returns a data error if a manifest is missing or damaged, and otherwise a storage error.
    pub fn of_run(walk: &Walk<'_>, named: &HashSet<ImageId>) -> Result<Self> {
        let mut whole = Self::new(&walk.scoring);
        let part = |partition| Self::of_partition(walk, partition, named);
        walk.each_part(part, |part| whole.merge(part))?;
        Ok(whole)
    }

    fn of_partition(
        walk: &Walk<'_>,
        partition: Partition,
        named: &HashSet<ImageId>,
    ) -> Result<Self> {
        let mut findings = Self::new(&walk.scoring);
        for walked in walk.samples(partition)? {
            let walked = walked?;
            let (sample, dropped) = (&walked.verdict.sample, walked.verdict.dropped.as_ref());
            let card = || walk.card(&walked, partition);
            let seen = Seen {
                card: &card,
                image_id: &sample.image_id,
                scores: &walked.scores,
                dropped,
                dropped_at: dropped.and_then(|dropped| walk.position(&dropped.step)),
                bytes: sample.members.iter().map(|member| member.size).sum(),
            };
            findings.add(&seen, &walk.scoring, named);
            findings.data.add(sample, dropped.is_none());
        }
        Ok(findings)
    }

    /// Returns the findings for no samples.
    pub fn new(scoring: &Scoring) -> Self {
        let controls = scoring.controls.iter();
        Self {
            kept_bytes: 0,
            dropped_bytes: BTreeMap::new(),
            controls: controls
                .map(|control| ControlFindings::new(&scoring.scores[control.score].histogram))
                .collect(),
            reasons: BTreeMap::new(),
            kept: Best::new(RANDOM),
            dropped: Best::new(RANDOM),
            named: HashMap::new(),
            data: DataFindings::default(),
        }
    }

    /// Adds a sample to the findings.
    pub fn add(&mut self, seen: &Seen<'_>, scoring: &Scoring, named: &HashSet<ImageId>) {
        let name = seen.image_id.as_str();
        let random = hash(name);
        match seen.dropped {
            None => {
                self.kept_bytes += seen.bytes;
                self.kept.offer(random, name, seen.card);
            }
            Some(dropped) => {
                *entry(&mut self.dropped_bytes, dropped, || 0) += seen.bytes;
                self.dropped.offer(random, name, seen.card);
                if has_gallery(dropped.reason.kind) {
                    let of_reason = entry(&mut self.reasons, dropped, || Best::new(OF_REASON));
                    of_reason.offer(random, name, seen.card);
                }
            }
        }
        for (findings, control) in self.controls.iter_mut().zip(&scoring.controls) {
            findings.add(seen, control, scoring);
        }
        if named.contains(seen.image_id) {
            self.named.insert(seen.image_id.clone(), (seen.card)());
        }
    }

    /// Adds the findings of another part.
    pub fn merge(&mut self, other: Self) {
        self.kept_bytes += other.kept_bytes;
        for (dropped, bytes) in other.dropped_bytes {
            *self.dropped_bytes.entry(dropped).or_default() += bytes;
        }
        for (own, other) in self.controls.iter_mut().zip(other.controls) {
            own.merge(other);
        }
        for (dropped, best) in other.reasons {
            let own = self.reasons.entry(dropped);
            own.or_insert_with(|| Best::new(OF_REASON)).merge(best);
        }
        self.kept.merge(other.kept);
        self.dropped.merge(other.dropped);
        self.named.extend(other.named);
        self.data.merge(other.data);
    }
}

/// Returns an entry of a map. The key is cloned only if it is new.
fn entry<'m, V>(
    map: &'m mut BTreeMap<Dropped, V>,
    key: &Dropped,
    new: impl FnOnce() -> V,
) -> &'m mut V {
    if !map.contains_key(key) {
        map.insert(key.clone(), new());
    }
    // Unwrap safety: it was inserted if it was missing.
    map.get_mut(key).expect("an entry")
}

/// Returns whether random images of a reason are shown. For thresholds, the images next to them are
/// shown instead, and for duplicates, the images that they duplicate.
fn has_gallery(kind: ReasonKind) -> bool {
    !matches!(
        kind,
        ReasonKind::BelowMin
            | ReasonKind::AboveMax
            | ReasonKind::BelowTop
            | ReasonKind::ExactDuplicate
            | ReasonKind::PerceptualDuplicate
            | ReasonKind::SemanticDuplicate
    )
}

impl ControlFindings {
    fn new(histogram: &Histogram) -> Self {
        let edges: Vec<f32> = (1..RANGES)
            .filter_map(|range| histogram.top(range as f64 / RANGES as f64))
            .map(|top| top.threshold)
            .rev()
            .collect();
        Self {
            kept: Histogram::default(),
            regained: Histogram::default(),
            came: 0,
            inside: Best::new(NEAR),
            outside: Best::new(NEAR),
            lowest: Best::new(EXTREMES),
            highest: Best::new(EXTREMES),
            ranges: vec![Best::new(1); edges.len() + 1],
            edges,
        }
    }

    fn add(&mut self, seen: &Seen<'_>, control: &Control, scoring: &Scoring) {
        let came = match control.set_by {
            None => true,
            Some((filter, _)) => has_reached(seen, scoring.filters[filter].position),
        };
        if !came {
            return;
        }
        self.came += 1;
        let score = seen.scores[control.score];
        if !score.is_finite() {
            return;
        }
        let stays = match control.set_by {
            None => Some(control.keep.passes(score, control.threshold)),
            Some(_) => stays(seen, control, scoring),
        };
        let Some(stays) = stays else { return };
        let (histogram, near) = if stays {
            (&mut self.kept, &mut self.inside)
        } else {
            (&mut self.regained, &mut self.outside)
        };
        histogram.add(score);
        let (name, value) = (seen.image_id.as_str(), f64::from(score));
        let distance = (value - f64::from(control.threshold)).abs();
        near.offer(ascending(distance), name, seen.card);
        self.lowest.offer(ascending(value), name, seen.card);
        self.highest.offer(ascending(-value), name, seen.card);
        let range = self.edges.partition_point(|edge| *edge <= score);
        self.ranges[range].offer(hash(name), name, seen.card);
    }

    fn merge(&mut self, other: Self) {
        self.kept.merge(&other.kept);
        self.regained.merge(&other.regained);
        self.came += other.came;
        self.inside.merge(other.inside);
        self.outside.merge(other.outside);
        self.lowest.merge(other.lowest);
        self.highest.merge(other.highest);
        for (own, other) in self.ranges.iter_mut().zip(other.ranges) {
            own.merge(other);
        }
    }
}

/// Returns whether the sample was not dropped before the step at `position`.
fn has_reached(seen: &Seen<'_>, position: usize) -> bool {
    match (seen.dropped, seen.dropped_at) {
        (None, _) => true,
        (Some(_), Some(at)) => at >= position,
        (Some(_), None) => false,
    }
}

/// Returns whether the filter of a control keeps a sample that reached it, or `None` if the filter
/// drops it for any value of the control's threshold.
fn stays(seen: &Seen<'_>, control: &Control, scoring: &Scoring) -> Option<bool> {
    let (filter, own) = control.set_by?;
    let filter = &scoring.filters[filter];
    let dropped = match (seen.dropped, seen.dropped_at) {
        (Some(dropped), Some(at)) if at == filter.position => dropped,
        _ => return Some(true),
    };
    if control.reason(scoring).as_ref() != Some(&dropped.reason) {
        return None;
    }
    let mut others = filter
        .thresholds
        .iter()
        .enumerate()
        .filter(|(place, _)| *place != own);
    let passes_others = others.all(|(_, (score, threshold))| {
        let keep: Keep = threshold.keep();
        keep.passes(seen.scores[*score], threshold.value)
    });
    passes_others.then_some(false)
}
