//! Decisions: a sample is kept, or dropped for one reason.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Error, Result, StepName};

macro_rules! reasons {
    ($($variant:ident, $name:literal, $stage:literal, $text:literal;)*) => {
        /// The kind of a reason.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ReasonKind {
            $(#[doc = $text] $variant,)*
        }

        impl ReasonKind {
            /// Every kind, in the order of the stages.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Returns the kind's name in manifests, receipts and results.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Returns the stage that drops samples for this reason.
            pub fn stage(self) -> &'static str {
                match self { $(Self::$variant => $stage,)* }
            }

            /// Returns a description for people.
            pub fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

reasons! {
    NoImage, "no-image", "read", "the sample has no image member";
    EmptyFile, "empty-file", "read", "the image member has no bytes";
    Missing, "missing-object", "read", "the object that a list names cannot be read";
    NotAnImage, "not-an-image", "read", "the bytes are not in a known image format";
    UnsupportedFormat, "unsupported-format", "read", "the image format is known but not supported";
    Truncated, "truncated-image", "read", "the image ends before its last pixel";
    Corrupt, "corrupt-image", "read", "the image cannot be decoded without errors";
    TooLarge, "too-large", "read", "the image exceeds the limit on pixels or bytes";
    ShardDamaged, "shard-damaged", "read", "the shard is cut or broken inside the sample";
    SparseMember, "sparse-member", "read", "the image is stored as a sparse tar member";
    NotScored, "not-scored", "filter", "the image has no such score";
    BelowMin, "below-min", "filter", "the score is below the minimum";
    AboveMax, "above-max", "filter", "the score is at or above the maximum";
    BelowTop, "below-top", "filter", "the score is not in the top fraction";
    Rule, "rule", "filter", "the rule does not hold";
    ClusterFull, "cluster-full", "filter", "enough other images of its cluster stay";
    ExactDuplicate, "exact-duplicate", "dedup", "another image has the same bytes";
    PerceptualDuplicate, "perceptual-duplicate", "dedup", "another image has nearly the same perceptual hash";
    SemanticDuplicate, "semantic-duplicate", "dedup", "another image has nearly the same embedding";
    InReference, "in-reference", "dedup", "a reference set has the image, or nearly the same one";
}

/// Why a sample was dropped: a kind and, for some kinds, the score or rule that failed. Formats as
/// `truncated-image`, `below-min:aesthetic` or `rule:large`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reason {
    /// The kind of reason.
    pub kind: ReasonKind,
    /// The score or the rule that failed.
    pub subject: Option<Arc<str>>,
}

impl Reason {
    /// Creates a reason about a score or a rule.
    pub fn about(kind: ReasonKind, subject: &str) -> Self {
        Self {
            kind,
            subject: Some(subject.into()),
        }
    }

    /// Returns a description for people.
    pub fn text(&self) -> &'static str {
        self.kind.text()
    }
}

impl From<ReasonKind> for Reason {
    fn from(kind: ReasonKind) -> Self {
        Self {
            kind,
            subject: None,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.as_str())?;
        match &self.subject {
            Some(subject) => write!(f, ":{subject}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Reason {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, subject) = match text.split_once(':') {
            Some((name, subject)) => (name, Some(subject.into())),
            None => (text, None),
        };
        let kind = ReasonKind::ALL.iter().find(|kind| kind.as_str() == name);
        let kind = *kind.ok_or_else(|| Error::data(format!("unknown reason {text:?}")))?;
        Ok(Self { kind, subject })
    }
}

/// A reason and the step that dropped the sample. Formats as `filter/below-min:aesthetic`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Dropped {
    /// The step that dropped the sample.
    pub step: StepName,
    /// The reason.
    pub reason: Reason,
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.step, self.reason)
    }
}

impl FromStr for Dropped {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (step, reason) = text
            .split_once('/')
            .ok_or_else(|| Error::data(format!("{text:?} is not STEP/REASON")))?;
        Ok(Self {
            step: step.parse()?,
            reason: reason.parse()?,
        })
    }
}

macro_rules! text_form {
    ($($name:ident),*) => {$(
        impl TryFrom<String> for $name {
            type Error = Error;

            fn try_from(text: String) -> Result<Self> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    )*};
}

text_form!(Reason, Dropped);

/// The number of samples that entered a step, were kept, and were dropped by step and reason.
/// `input = kept + dropped`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Samples that entered the step.
    #[serde(rename = "in")]
    pub input: u64,
    /// Samples that the step kept.
    pub kept: u64,
    /// Samples that the step dropped.
    pub dropped: BTreeMap<Dropped, u64>,
}

impl Counts {
    /// Returns the counts of a step that keeps every sample.
    pub fn all_kept(samples: u64) -> Self {
        Self {
            input: samples,
            kept: samples,
            dropped: BTreeMap::new(),
        }
    }

    /// Counts one sample: dropped for a reason, or kept.
    pub fn add(&mut self, step: &StepName, dropped: Option<&Reason>) {
        self.input += 1;
        let Some(reason) = dropped else {
            self.kept += 1;
            return;
        };
        let dropped = Dropped {
            step: step.clone(),
            reason: reason.clone(),
        };
        *self.dropped.entry(dropped).or_default() += 1;
    }

    /// Adds the counts of another unit to these.
    pub fn merge(&mut self, other: &Counts) {
        self.input = self.input.saturating_add(other.input);
        self.kept = self.kept.saturating_add(other.kept);
        for (dropped, count) in &other.dropped {
            let sum = self.dropped.entry(dropped.clone()).or_default();
            *sum = sum.saturating_add(*count);
        }
    }

    /// Returns the number of dropped samples.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.values().copied().fold(0, u64::saturating_add)
    }

    /// Checks that every sample is counted once.
    ///
    /// # Errors
    ///
    /// Returns a bug error if a sample was lost or counted twice.
    pub fn check(&self) -> Result<()> {
        let dropped = self.dropped.values().map(|count| u128::from(*count));
        let accounted = u128::from(self.kept) + dropped.sum::<u128>();
        if accounted == u128::from(self.input) {
            return Ok(());
        }
        Err(Error::bug(format!(
            "conservation broken: {} samples in, but {} kept + {} dropped = {accounted}",
            self.input,
            self.kept,
            self.dropped_total()
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_parse_back() {
        for &kind in ReasonKind::ALL {
            for reason in [Reason::from(kind), Reason::about(kind, "a.b:c")] {
                assert_eq!(reason.to_string().parse::<Reason>().unwrap(), reason);
                let json = serde_json::to_string(&reason).unwrap();
                assert_eq!(json, format!("{:?}", reason.to_string()));
            }
        }
        let text = "filter/below-min:aesthetic";
        assert_eq!(text.parse::<Dropped>().unwrap().to_string(), text);
        assert!("below-min".parse::<Dropped>().is_err() && "beauty".parse::<Reason>().is_err());
    }

    #[test]
    fn a_lost_sample_is_noticed() {
        let mut counts = Counts::default();
        let read = StepName::read();
        counts.add(&read, None);
        counts.add(&read, Some(&ReasonKind::Corrupt.into()));
        counts.check().unwrap();
        counts.input += 1;
        assert!(counts.check().is_err());
        counts.kept = u64::MAX;
        counts.merge(&counts.clone());
        assert_eq!(counts.dropped_total(), 2);
        assert!(counts.check().is_err());
    }
}
