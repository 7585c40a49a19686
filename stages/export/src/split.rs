//! Splits of the output, such as `train` and `val`.
//!
//! A sample's split depends only on its group of duplicates. `dedup` keeps one of the duplicates
//! that it finds, so what remains of a group are copies that no step removed. They have the same
//! perceptual hash, even if they were re-encoded, so this hash identifies the group. The hash of
//! it, as a number from 0 to 1, falls into the share of one split. Nothing else affects the split:
//! the same image is in the same split in a later curation, too.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sluice_manifest::{Error, Result};

/// The allowed deviation of the sum of the shares from 1.
const TOLERANCE: f64 = 1e-6;

/// A split and its share of the groups. Formats as `train=0.98`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Split {
    /// The name of the split.
    pub name: String,
    /// The share, above 0 and at most 1.
    pub share: f64,
}

impl FromStr for Split {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |what: &str| {
            Error::usage(format!("{text:?}: {what}"))
                .hint("write NAME=SHARE for each split, such as train=0.98,val=0.02")
        };
        let (name, share) = text.split_once('=').ok_or_else(|| wrong("has no share"))?;
        let share: f64 = share
            .parse()
            .map_err(|_| wrong("expected a number as share"))?;
        if !(share > 0.0 && share <= 1.0) {
            return Err(wrong("the share is not between 0 and 1"));
        }
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        // `datasets` reserves the name "all".
        if name.is_empty() || !name.chars().all(is_word) || name == "all" {
            return Err(wrong(
                "a name has letters, digits and underscores, and is not \"all\"",
            ));
        }
        let name = name.to_owned();
        Ok(Self { name, share })
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.share)
    }
}

/// Checks that splits have distinct names, and that their shares add up to 1.
///
/// # Errors
///
/// Returns a usage error if they do not.
pub fn refuse_partial(splits: &[Split]) -> Result<()> {
    if splits.is_empty() {
        return Ok(());
    }
    let shown: Vec<String> = splits.iter().map(Split::to_string).collect();
    let wrong = |what: String| Err(Error::usage(format!("--split {}: {what}", shown.join(","))));
    // Names are folders, and some disks are case-insensitive.
    let names: BTreeSet<String> = splits.iter().map(|s| s.name.to_lowercase()).collect();
    if names.len() < splits.len() {
        return wrong("two splits have the same name".into());
    }
    let sum: f64 = splits.iter().map(|split| split.share).sum();
    if (sum - 1.0).abs() > TOLERANCE {
        return wrong(format!("the shares add up to {sum}, not to 1"));
    }
    Ok(())
}

/// Returns the hash of a sample's group: of its perceptual hash or, if it has none, of its name.
pub fn group_of(phash: Option<u64>, image_id: &str) -> u64 {
    let digest = match phash {
        Some(phash) => Sha256::digest(phash.to_le_bytes()),
        None => Sha256::digest(image_id),
    };
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest[..8]);
    u64::from_le_bytes(bytes)
}

/// Returns the split of a group, or `None` if there are no splits.
pub fn split_of(splits: &[Split], group: u64) -> Option<&Split> {
    let place = group as f64 / 2.0_f64.powi(64);
    let mut end = 0.0;
    let found = splits.iter().find(|split| {
        end += split.share;
        place < end
    });
    // The shares may add up to slightly less than 1.
    found.or(splits.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Vec<Split> {
        text.split(',').map(|one| one.parse().unwrap()).collect()
    }

    #[test]
    fn shares_are_kept() {
        let splits = parse("train=0.9,val=0.1");
        let groups = (0..20_000_u64).map(|phash| group_of(Some(phash), ""));
        let of_val = groups.filter(|&group| split_of(&splits, group) == splits.get(1));
        let count = of_val.count();
        assert!((1800..2200).contains(&count), "{count}");
        assert_eq!(split_of(&splits, u64::MAX), splits.get(1));
        assert_eq!(split_of(&[], 0), None);
    }

    #[test]
    fn wrong_splits_are_refused() {
        for text in [
            "train",
            "train=x",
            "train=0",
            "train=1.5",
            "a-b=1",
            "all=1",
            "=1",
            "a/b=1",
        ] {
            let error = text.parse::<Split>().unwrap_err().to_string();
            assert!(error.contains("hint: write NAME=SHARE"), "{error}");
        }
        for (text, message) in [
            ("train=0.5,val=0.4", "the shares add up to 0.9, not to 1"),
            ("a=0.5,A=0.5", "two splits have the same name"),
        ] {
            let error = refuse_partial(&parse(text)).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
        refuse_partial(&parse("a=0.3,b=0.3,c=0.4")).unwrap();
        refuse_partial(&[]).unwrap();
    }
}
