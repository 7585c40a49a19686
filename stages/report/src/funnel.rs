//! The funnel: how many samples came in, what each stage dropped and why, how many stay.

use serde::Serialize;
use sluice_manifest::{Counts, Reason};

/// Where the samples went, stage by stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Funnel {
    /// Samples that came in.
    #[serde(rename = "in")]
    pub input: u64,
    /// The stages that can drop samples, in their order.
    pub stages: Vec<Level>,
    /// Samples that stay.
    pub kept: u64,
}

/// What one stage did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Level {
    /// The stage.
    pub stage: &'static str,
    /// Samples that it dropped.
    pub dropped: u64,
    /// Samples that are left after it.
    pub left: u64,
    /// Why it dropped them.
    pub reasons: Vec<Dropped>,
}

/// Samples dropped for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// The reason.
    pub reason: Reason,
    /// How many.
    pub count: u64,
}

impl Funnel {
    /// Lays the counts of `export decide` out by stage.
    pub fn of(counts: &Counts) -> Self {
        let mut stages: Vec<Level> = Vec::new();
        let mut left = counts.input;
        for &reason in Reason::ALL {
            if stages
                .last()
                .is_none_or(|level| level.stage != reason.stage())
            {
                stages.push(Level {
                    stage: reason.stage(),
                    dropped: 0,
                    left,
                    reasons: Vec::new(),
                });
            }
            let count = counts.dropped.get(&reason).copied().unwrap_or(0);
            if let Some(level) = stages.last_mut()
                && count > 0
            {
                left -= count.min(left);
                level.dropped += count;
                level.left = left;
                level.reasons.push(Dropped { reason, count });
            }
        }
        Self {
            input: counts.input,
            stages,
            kept: counts.kept,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_goes_down_to_what_is_kept() {
        let mut counts = Counts::default();
        let drops = [
            (None, 5),
            (Some(Reason::Truncated), 2),
            (Some(Reason::BelowMinScore), 3),
            (Some(Reason::ExactDuplicate), 1),
            (Some(Reason::SemanticDuplicate), 4),
        ];
        for (reason, times) in drops {
            (0..times).for_each(|_| counts.add(reason));
        }
        let funnel = Funnel::of(&counts);
        let left: Vec<_> = funnel
            .stages
            .iter()
            .map(|level| (level.stage, level.dropped, level.left))
            .collect();
        let expected = [
            ("read", 2, 13),
            ("embed", 0, 13),
            ("aesthetic", 3, 10),
            ("nsfw", 0, 10),
            ("dedup", 5, 5),
        ];
        assert_eq!(left, expected);
        assert_eq!((funnel.input, funnel.kept), (15, 5));
    }
}
