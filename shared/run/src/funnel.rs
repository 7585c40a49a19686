//! The funnel: how many samples entered, how many each step dropped and why, and how many are kept.

use serde::Serialize;
use sluice_manifest::{Counts, Reason, StepName, UnitKind};

use crate::{Receipts, steps};

/// The samples dropped and left, step by step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Funnel {
    /// Samples that entered the run.
    #[serde(rename = "in")]
    pub input: u64,
    /// `read` and the deciding steps, in their order.
    pub steps: Vec<Level>,
    /// Samples that are kept.
    pub kept: u64,
}

/// The samples dropped by one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Level {
    /// The name of the step.
    pub step: StepName,
    /// Samples that the step dropped.
    pub dropped: u64,
    /// Samples left after the step.
    pub left: u64,
    /// The dropped samples by reason.
    pub reasons: Vec<ReasonCount>,
}

/// Samples dropped for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReasonCount {
    /// The reason.
    pub reason: Reason,
    /// The number of samples.
    pub count: u64,
    /// A description of the reason for people.
    pub text: &'static str,
}

impl Funnel {
    /// Groups counts by step: `read`, then the deciding steps of the chain.
    pub fn of(counts: &Counts, chain: &[&StepName]) -> Self {
        let read = StepName::read();
        let mut order = vec![&read];
        order.extend(chain);
        for dropped in counts.dropped.keys() {
            if !order.contains(&&dropped.step) {
                order.push(&dropped.step);
            }
        }
        let mut left = counts.input;
        let levels = order.into_iter().map(|step| {
            let counted = counts
                .dropped
                .iter()
                .filter(|(dropped, _)| dropped.step == *step);
            let reasons: Vec<ReasonCount> = counted
                .map(|(dropped, count)| ReasonCount {
                    reason: dropped.reason.clone(),
                    count: *count,
                    text: dropped.reason.text(),
                })
                .collect();
            let dropped = reasons.iter().map(|reason| reason.count).sum();
            left = left.saturating_sub(dropped);
            Level {
                step: step.clone(),
                dropped,
                left,
                reasons,
            }
        });
        Self {
            input: counts.input,
            steps: levels.collect(),
            kept: counts.kept,
        }
    }

    /// Returns the funnel of a run: from the counts of `export decide` or, until it has processed
    /// all partitions, from the deciding steps that are complete. Returns `None` until `read` has
    /// processed all partitions.
    pub fn of_run(receipts: &Receipts) -> Option<Self> {
        let chain = steps::chain(receipts);
        if let Some(export) = decided(receipts) {
            return Some(Self::of(
                &receipts.counts(export, UnitKind::Partition),
                &chain,
            ));
        }
        let read = StepName::read();
        if !receipts.is_complete(&read, UnitKind::Partition) {
            return None;
        }
        let complete = chain
            .iter()
            .take_while(|step| steps::has_decided(receipts, step));
        let complete: Vec<&StepName> = complete.copied().collect();
        Some(Self::of_chain(receipts, &complete))
    }

    /// Returns the funnel from the counts of `read` and of the given deciding steps, in their
    /// order.
    pub fn of_chain(receipts: &Receipts, chain: &[&StepName]) -> Self {
        let mut counts = receipts.counts(&StepName::read(), UnitKind::Partition);
        for step in chain {
            for &kind in steps::decides(receipts, step) {
                let dropped = receipts.counts(step, kind).dropped;
                counts.kept = counts.kept.saturating_sub(dropped.values().sum());
                counts.dropped.extend(dropped);
            }
        }
        Self::of(&counts, chain)
    }
}

/// Returns the export that has decided all partitions.
pub fn decided(receipts: &Receipts) -> Option<&StepName> {
    steps::export(receipts).filter(|step| receipts.is_complete(step, UnitKind::Partition))
}

#[cfg(test)]
mod tests {
    use sluice_manifest::ReasonKind;

    use super::*;

    #[test]
    fn what_is_left_goes_down_to_what_is_kept() {
        let mut counts = Counts::default();
        let [read, usable, dedup, other] =
            ["read", "usable", "dedup", "other"].map(StepName::fixed);
        let below = Reason::about(ReasonKind::BelowMin, "beauty");
        let drops = [
            (&read, None, 5),
            (&dedup, Some(ReasonKind::ExactDuplicate.into()), 1),
            (&dedup, Some(ReasonKind::SemanticDuplicate.into()), 4),
            (&read, Some(ReasonKind::Truncated.into()), 2),
            (&usable, Some(below), 3),
        ];
        for (step, reason, times) in &drops {
            (0..*times).for_each(|_| counts.add(step, reason.as_ref()));
        }
        let funnel = Funnel::of(&counts, &[&usable, &other, &dedup]);
        let levels = funnel.steps.iter();
        let left: Vec<_> = levels
            .map(|level| (level.step.as_str(), level.dropped, level.left))
            .collect();
        let expected = [
            ("read", 2, 13),
            ("usable", 3, 10),
            ("other", 0, 10),
            ("dedup", 5, 5),
        ];
        assert_eq!(left, expected);
        assert_eq!((funnel.input, funnel.kept), (15, 5));
        let json = serde_json::to_value(&funnel).unwrap();
        let usable = &json["steps"][1];
        assert_eq!((&json["in"], &usable["left"]), (&15.into(), &10.into()));
        assert_eq!(usable["reasons"][0]["reason"], "below-min:beauty");
        assert_eq!(
            usable["reasons"][0]["text"],
            "the score is below the minimum"
        );
    }
}
