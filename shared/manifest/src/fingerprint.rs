//! Fingerprints: what shaped an output, in one hash.
//!
//! A unit's fingerprint is a BLAKE3 hash over the step's name and version, the settings that can
//! change the output, and the fingerprints of the inputs. Upstream receipts' fingerprints are
//! used as they stand, so no byte of data is hashed twice. What cannot change an output (threads,
//! batch size, log level) lives in other structs and never gets here.

use std::fmt;

use serde::{Deserialize, Serialize};

/// 32 hexadecimal digits (the first 16 bytes of a BLAKE3 hash).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(String);

/// Something that a unit of work reads, and its fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// What it is: a shard, or the upstream stage and unit.
    pub name: String,
    /// Its fingerprint: a receipt's, or an object's size with etag or modification time.
    pub fingerprint: Fingerprint,
}

impl Fingerprint {
    /// Hashes the parts with their lengths, so that no two lists of parts look alike.
    pub fn of<'a>(parts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        Self(hasher.finalize().to_hex()[..32].to_owned())
    }

    /// The fingerprint of a unit of work. `settings` must be the canonical JSON of the settings.
    pub fn of_work(step: &str, version: u32, settings: &str, inputs: &[Input]) -> Self {
        let version = version.to_string();
        let head = [step, &version, settings];
        let tail = inputs
            .iter()
            .flat_map(|input| [input.name.as_str(), input.fingerprint.as_str()]);
        Self::of(head.into_iter().chain(tail))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Input {
    /// Several inputs as one, in the order given.
    pub fn combined(name: &str, inputs: &[Input]) -> Self {
        let parts = inputs
            .iter()
            .flat_map(|input| [input.name.as_str(), input.fingerprint.as_str()]);
        Self {
            name: name.to_owned(),
            fingerprint: Fingerprint::of(parts),
        }
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_keep_parts_apart() {
        assert_ne!(Fingerprint::of(["ab", "c"]), Fingerprint::of(["a", "bc"]));
        assert_ne!(Fingerprint::of(["ab"]), Fingerprint::of(["ab", ""]));
    }

    #[test]
    fn everything_counts() {
        let input = |print: &str| Input {
            name: "read/part-00000".into(),
            fingerprint: Fingerprint::of([print]),
        };
        let base = Fingerprint::of_work("embed", 1, "{}", &[input("a")]);
        assert_eq!(base, Fingerprint::of_work("embed", 1, "{}", &[input("a")]));
        assert_ne!(base, Fingerprint::of_work("embed", 2, "{}", &[input("a")]));
        assert_ne!(base, Fingerprint::of_work("embed", 1, "[]", &[input("a")]));
        assert_ne!(base, Fingerprint::of_work("embed", 1, "{}", &[input("b")]));
        assert_ne!(base, Fingerprint::of_work("nsfw", 1, "{}", &[input("a")]));
    }
}
