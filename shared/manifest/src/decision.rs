//! Decisions: keep, or drop for one reason from a closed list.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

macro_rules! reasons {
    ($($variant:ident, $name:literal, $stage:literal, $text:literal;)*) => {
        /// Why a sample was left behind. The list is closed: every dropped sample of every run
        /// carries exactly one of these.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Reason {
            $(#[doc = $text] #[serde(rename = $name)] $variant,)*
        }

        impl Reason {
            /// Every reason, in the order of the stages.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)*];

            /// The reason's name in manifests, receipts and results.
            pub fn as_str(self) -> &'static str {
                match self { $(Reason::$variant => $name,)* }
            }

            /// The stage that gives it.
            pub fn stage(self) -> &'static str {
                match self { $(Reason::$variant => $stage,)* }
            }

            /// What it says, for people.
            pub fn text(self) -> &'static str {
                match self { $(Reason::$variant => $text,)* }
            }
        }
    };
}

reasons! {
    NoImage, "no-image", "read", "the sample holds no image member";
    EmptyFile, "empty-file", "read", "the image member has no bytes";
    NotAnImage, "not-an-image", "read", "the bytes are no image format that is known";
    UnsupportedFormat, "unsupported-format", "read", "an image format that is known but not read";
    Truncated, "truncated-image", "read", "the image ends before its last pixel";
    Corrupt, "corrupt-image", "read", "the image cannot be decoded without errors";
    TooLarge, "too-large", "read", "the image exceeds the limit on pixels or bytes";
    ShardDamaged, "shard-damaged", "read", "the shard is cut or broken inside the sample";
    SparseMember, "sparse-member", "read", "the image is stored as a sparse tar member";
    TooSmall, "too-small", "read", "the short side is below --min-side";
    ExtremeAspect, "extreme-aspect", "read", "the long side is more than --max-aspect times the short one";
    NotEmbedded, "not-embedded", "embed", "the model gave no finite embedding";
    NotAesthetic, "not-scored-aesthetic", "aesthetic", "the model gave no finite score";
    BelowMinScore, "below-min-score", "aesthetic", "the score is below --min-score";
    NotNsfw, "not-scored-nsfw", "nsfw", "the model gave no finite score";
    MaxScoreReached, "max-score-reached", "nsfw", "the score is at or above --max-score";
    ExactDuplicate, "exact-duplicate", "dedup", "another image has the same bytes";
    PerceptualDuplicate, "perceptual-duplicate", "dedup", "another image has nearly the same perceptual hash";
    SemanticDuplicate, "semantic-duplicate", "dedup", "another image has nearly the same embedding";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Reason {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|reason| reason.as_str() == name)
            .ok_or_else(|| Error::data(format!("unknown reason {name:?}")))
    }
}

/// A stage or method whose decisions count. A sample stays when every filter keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// `aesthetic/scores`.
    Aesthetic,
    /// `nsfw/scores`.
    Nsfw,
    /// `dedup exact`.
    Exact,
    /// `dedup perceptual`.
    Perceptual,
    /// `dedup match`.
    Semantic,
}

impl Filter {
    /// The filter's name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Filter::Aesthetic => "aesthetic",
            Filter::Nsfw => "nsfw",
            Filter::Exact => "exact",
            Filter::Perceptual => "perceptual",
            Filter::Semantic => "semantic",
        }
    }

    /// Parses `aesthetic,nsfw,dedup`; `dedup` stands for its three methods. Sorted, without
    /// repetitions, so that the order on the command line does not change a fingerprint.
    pub fn parse_list(text: &str) -> Result<Vec<Filter>> {
        let mut filters = Vec::new();
        for name in text
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
        {
            match name {
                "aesthetic" => filters.push(Filter::Aesthetic),
                "nsfw" => filters.push(Filter::Nsfw),
                "exact" => filters.push(Filter::Exact),
                "perceptual" => filters.push(Filter::Perceptual),
                "semantic" => filters.push(Filter::Semantic),
                "dedup" => filters.extend([Filter::Exact, Filter::Perceptual, Filter::Semantic]),
                other => {
                    return Err(Error::usage(format!("unknown filter {other:?}")).hint(
                        "filters are aesthetic, nsfw, exact, perceptual, semantic; dedup stands for the last three",
                    ));
                }
            }
        }
        filters.sort_unstable();
        filters.dedup();
        Ok(filters)
    }
}

/// Samples that came in, stayed, and were dropped, by reason. `input = kept + dropped`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Samples that came in.
    #[serde(rename = "in")]
    pub input: u64,
    /// Samples that stayed.
    pub kept: u64,
    /// Samples that were dropped, by reason.
    pub dropped: BTreeMap<Reason, u64>,
}

impl Counts {
    /// Counts one sample.
    pub fn add(&mut self, dropped: Option<Reason>) {
        self.input += 1;
        match dropped {
            None => self.kept += 1,
            Some(reason) => *self.dropped.entry(reason).or_default() += 1,
        }
    }

    /// Adds another unit's counts.
    pub fn merge(&mut self, other: &Counts) {
        self.input += other.input;
        self.kept += other.kept;
        for (reason, count) in &other.dropped {
            *self.dropped.entry(*reason).or_default() += count;
        }
    }

    /// How many were dropped for all reasons together.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.values().sum()
    }

    /// Fails when a sample got lost or was counted twice.
    pub fn check(&self) -> Result<()> {
        let accounted = self.kept + self.dropped_total();
        if accounted == self.input {
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
    fn reasons_have_distinct_names_and_parse_back() {
        for &reason in Reason::ALL {
            assert_eq!(reason.as_str().parse::<Reason>().unwrap(), reason);
            let json = serde_json::to_string(&reason).unwrap();
            assert_eq!(json, format!("{:?}", reason.as_str()));
        }
    }

    #[test]
    fn a_lost_sample_is_noticed() {
        let mut counts = Counts::default();
        counts.add(None);
        counts.add(Some(Reason::Corrupt));
        counts.check().unwrap();
        counts.input += 1;
        assert!(counts.check().is_err());
    }

    #[test]
    fn dedup_stands_for_its_methods() {
        let filters = Filter::parse_list("dedup, aesthetic,exact").unwrap();
        let all = [
            Filter::Aesthetic,
            Filter::Exact,
            Filter::Perceptual,
            Filter::Semantic,
        ];
        assert_eq!(filters, all);
        assert!(Filter::parse_list("beauty").is_err());
    }
}
