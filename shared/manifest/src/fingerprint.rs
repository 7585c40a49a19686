//! Fingerprints: one hash over everything that shaped an output.
//!
//! A unit's fingerprint is a BLAKE3 hash over the names of the stage and the subcommand, the
//! revision of the operation, the settings that can change the output, and the fingerprints of
//! its inputs. The fingerprints of upstream receipts are used as they are, so no data is hashed
//! twice. What cannot change an output (threads, batch size, log level) is not part of the
//! settings.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::receipt::canonical;
use crate::rows::PlanRow;
use crate::{ShardPath, StepName, Unit, UnitKind};

/// A fingerprint: 32 hexadecimal digits, the first 16 bytes of a BLAKE3 hash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// Hashes the parts together with their lengths, so that different lists of parts never hash
    /// the same bytes.
    pub fn of<'a>(parts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        Self(hasher.finalize().to_hex()[..32].to_owned())
    }

    /// Returns the fingerprint of a unit of work. `node` names the stage and its subcommand.
    /// Settings parsed from a receipt produce the same fingerprint as the settings written to it.
    pub fn of_work(node: &str, version: u32, settings: &Value, inputs: &[Input]) -> Self {
        let version = version.to_string();
        // Parsing may change the last digit of a number, so the parsed settings are hashed.
        let settings = settings.to_string();
        let settings = canonical(settings.as_bytes()).unwrap_or(settings);
        let names: Vec<String> = inputs.iter().map(|input| input.of.to_string()).collect();
        let head = [node, &version, &settings];
        let tail = names.iter().zip(inputs);
        let tail = tail.flat_map(|(name, input)| [name.as_str(), input.fingerprint.as_str()]);
        Self::of(head.into_iter().chain(tail))
    }

    /// Returns one fingerprint for several, in the given order.
    pub fn combined<'a>(fingerprints: impl IntoIterator<Item = &'a Fingerprint>) -> Self {
        Self::of(fingerprints.into_iter().map(Self::as_str))
    }

    /// Returns the fingerprint as 32 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An input of a unit of work, with its fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// What the input is.
    #[serde(flatten)]
    pub of: InputOf,
    /// The fingerprint of a receipt, or of an object's size and entity tag or modification time.
    pub fingerprint: Fingerprint,
}

/// The kind of an input. An input that is a unit has a receipt of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "input")]
pub enum InputOf {
    /// A source shard.
    Shard {
        /// The shard's path below the input's root.
        shard: ShardPath,
    },
    /// All source shards, in the order of the plan.
    Shards {
        /// The number of shards.
        count: u64,
    },
    /// A unit of another step, or of another subcommand of the same step.
    Unit {
        /// The step of the unit.
        step: StepName,
        /// The unit of work.
        unit: Unit,
    },
    /// All units of a kind, in order, with one fingerprint for all.
    Units {
        /// The step of the units.
        step: StepName,
        /// The kind of the units.
        kind: UnitKind,
        /// The number of units.
        count: u32,
    },
    /// An object outside of the run, such as a table of imported scores.
    Object {
        /// The object's URI, without credentials.
        uri: String,
    },
}

impl fmt::Display for InputOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shard { shard } => write!(f, "shard {shard}"),
            Self::Shards { count } => write!(f, "{count} shards"),
            Self::Unit { step, unit } => write!(f, "{step}/{unit}"),
            Self::Units { step, kind, count } => {
                write!(f, "{step}, {count} units {}", kind.as_str())
            }
            Self::Object { uri } => f.write_str(uri),
        }
    }
}

impl Input {
    /// Returns a shard of the plan as an input of `read`: its size, its entity tag or modification
    /// time, and everything else that decides how it is read.
    pub fn shard(planned: &PlanRow) -> Self {
        let stamp = planned.etag.as_deref().or(planned.modified.as_deref());
        let bytes = planned.bytes.to_string();
        let parts = [bytes.as_str(), stamp.unwrap_or_default()].into_iter();
        let how = [
            ("image", &planned.image_column),
            ("caption", &planned.caption_column),
            ("sidecar", &planned.sidecar_stamp),
        ];
        let how = how
            .iter()
            .filter_map(|(name, value)| Some([*name, value.as_deref()?]))
            .flatten();
        Self {
            of: InputOf::Shard {
                shard: planned.shard.clone(),
            },
            fingerprint: Fingerprint::of(parts.chain(how)),
        }
    }

    /// Creates the input for a unit from the fingerprint of its receipt.
    pub fn unit(step: &StepName, unit: Unit, fingerprint: &Fingerprint) -> Self {
        Self {
            of: InputOf::Unit {
                step: step.clone(),
                unit,
            },
            fingerprint: fingerprint.clone(),
        }
    }

    /// Creates the input for all units of a kind from their fingerprints, in order.
    pub fn units<'a>(
        step: &StepName,
        kind: UnitKind,
        fingerprints: impl ExactSizeIterator<Item = &'a Fingerprint>,
    ) -> Self {
        Self {
            of: InputOf::Units {
                step: step.clone(),
                kind,
                count: fingerprints.len() as u32,
            },
            fingerprint: Fingerprint::combined(fingerprints),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lengths_keep_parts_apart() {
        assert_ne!(Fingerprint::of(["ab", "c"]), Fingerprint::of(["a", "bc"]));
        assert_ne!(Fingerprint::of(["ab"]), Fingerprint::of(["ab", ""]));
    }

    #[test]
    fn everything_counts() {
        let unit = Unit::new(UnitKind::Partition, 0);
        let input = |print: &str| Input::unit(&StepName::read(), unit, &Fingerprint::of([print]));
        let of = |node: &str, version: u32, settings: Value, print: &str| {
            Fingerprint::of_work(node, version, &settings, &[input(print)])
        };
        let base = of("embed", 1, json!({}), "a");
        assert_eq!(base, of("embed", 1, json!({}), "a"));
        assert_ne!(base, of("embed", 2, json!({}), "a"));
        assert_ne!(base, of("embed", 1, json!([]), "a"));
        assert_ne!(base, of("embed", 1, json!({}), "b"));
        assert_ne!(base, of("nsfw", 1, json!({}), "a"));
    }

    #[test]
    fn inputs_come_back_from_json() {
        let print = Fingerprint::of(["x"]);
        let inputs = [
            Input::unit(&StepName::read(), Unit::new(UnitKind::Partition, 3), &print),
            Input::units(
                &StepName::read(),
                UnitKind::Partition,
                [&print, &print].into_iter(),
            ),
        ];
        for input in inputs {
            let json = serde_json::to_string(&input).unwrap();
            assert_eq!(
                serde_json::from_str::<Input>(&json).unwrap(),
                input,
                "{json}"
            );
        }
    }
}
