//! Names of shards, images, steps, partitions and units of work.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A shard's path relative to the input's root, for example `2024/00017.tar`. A shard of plain
/// files is named by the key of its first file and the number of files after it: `cats/0001+411`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShardPath(String);

impl ShardPath {
    /// Creates the path from its text, relative to the input's root.
    pub fn new(path: impl Into<String>) -> Self {
        Self(path.into())
    }

    /// Returns the path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the path without `.tar` or `.parquet`. The extension of compressed shards is kept,
    /// so that `a.tar` and `a.tar.gz` in one folder give different image ids.
    pub fn stem(&self) -> &str {
        let stem = self.0.strip_suffix(".tar");
        let stem = stem.or_else(|| self.0.strip_suffix(".parquet"));
        stem.unwrap_or(&self.0)
    }
}

impl fmt::Display for ShardPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A sample's name in the run: shard stem, `/`, WebDataset key. If a key repeats in a shard, `#n`
/// marks its n-th repetition. Unique in a run and stable between runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImageId(String);

impl ImageId {
    /// Returns the id of the sample with `key` in `shard`. `occurrence` is the number of earlier
    /// samples with that key.
    pub fn new(shard: &ShardPath, key: &str, occurrence: u32) -> Self {
        let stem = shard.stem();
        Self(match occurrence {
            0 => format!("{stem}/{key}"),
            n => format!("{stem}/{key}#{n}"),
        })
    }

    /// Returns the id of a sample of plain files, whose key is the path without its extension.
    pub fn of_file(key: &str, occurrence: u32) -> Self {
        Self(match occurrence {
            0 => key.to_owned(),
            n => format!("{key}#{n}"),
        })
    }

    /// Creates an id from its text in a manifest or on a command line.
    pub fn from_text(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The maximum length of a step name. Kubernetes allows 63 characters for a Job, including
/// `sluice-` and the subcommand.
const LONGEST_STEP: usize = 40;

/// The name of a pipeline step: its directory in the run, and its name in logs, rules and workflow
/// engines.
///
/// Consists of lower-case letters, digits and `-`, and starts with a letter. So it is valid as a
/// directory, as a Kubernetes name and, with `_` for `-`, as a CEL identifier.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StepName(Arc<str>);

impl StepName {
    /// Parses a step name.
    ///
    /// # Errors
    ///
    /// Returns a usage error if the text is not a valid step name.
    pub fn new(name: &str) -> Result<Self> {
        let valid = name.starts_with(|c: char| c.is_ascii_lowercase())
            && !name.ends_with('-')
            && name.len() <= LONGEST_STEP
            && name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if valid {
            return Ok(Self(name.into()));
        }
        Err(Error::usage(format!("invalid step name {name:?}")).hint(format!(
            "use lower-case letters, digits and '-', a letter first, at most {LONGEST_STEP} characters"
        )))
    }

    /// Creates a step name from a literal in the program.
    ///
    /// # Panics
    ///
    /// Panics if the name is not valid.
    pub fn fixed(name: &'static str) -> Self {
        // Unwrap safety: the names are literals, and tests cover them.
        Self::new(name).expect("a valid step name")
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the name as a CEL identifier, with `_` for `-`.
    pub fn identifier(&self) -> String {
        self.0.replace('-', "_")
    }

    /// Returns the name of the step that lists the input and plans the partitions.
    pub fn partition() -> Self {
        Self::fixed("partition")
    }

    /// Returns the name of the step that indexes and validates the samples.
    pub fn read() -> Self {
        Self::fixed("read")
    }
}

impl FromStr for StepName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::new(name)
    }
}

impl TryFrom<String> for StepName {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        Self::new(&name)
    }
}

impl From<StepName> for String {
    fn from(name: StepName) -> Self {
        name.as_str().to_owned()
    }
}

impl fmt::Display for StepName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a score: `STEP`, or `STEP.OUTPUT` if the step's model has several outputs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ScoreName {
    /// The step that computes the score.
    pub step: StepName,
    /// The output, for models with several outputs.
    pub output: Option<String>,
}

impl FromStr for ScoreName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let (step, output) = match name.split_once('.') {
            Some((step, output)) => (step, Some(output.to_owned())),
            None => (name, None),
        };
        Ok(Self {
            step: StepName::new(step)?,
            output,
        })
    }
}

impl TryFrom<String> for ScoreName {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        name.parse()
    }
}

impl From<ScoreName> for String {
    fn from(name: ScoreName) -> Self {
        name.to_string()
    }
}

impl fmt::Display for ScoreName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.output {
            Some(output) => write!(f, "{}.{output}", self.step),
            None => write!(f, "{}", self.step),
        }
    }
}

/// The number of a partition. Formats as its unit's name, `part-00007`.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Partition(pub u32);

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Unit::from(*self).fmt(f)
    }
}

macro_rules! unit_kinds {
    ($($variant:ident, $name:literal, $numbered:literal, $about:literal;)*) => {
        /// The kind of a unit of work.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum UnitKind {
            $(#[doc = $about] #[serde(rename = $name)] $variant,)*
        }

        impl UnitKind {
            /// All kinds of units, in their order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Returns the kind's name, the first part of its units' names.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Returns whether there can be several units of this kind.
            pub fn is_numbered(self) -> bool {
                match self { $(Self::$variant => $numbered,)* }
            }
        }
    };
}

unit_kinds! {
    Plan, "plan", false, "A plan: of the partitions, or of the output shards.";
    Partition, "part", true, "A partition.";
    Exact, "exact", true, "A range of content hashes.";
    Pairs, "pairs", true, "A range of the bands of perceptual hashes, for their pairs.";
    Perceptual, "perceptual", true, "All perceptual hashes.";
    Fit, "fit", false, "The fit of k-means.";
    Group, "group", true, "A group of clusters.";
    Shard, "shard", true, "An output shard.";
    Index, "index", false, "The index and the card of the output.";
    Report, "report", false, "The report's page.";
}

/// A unit of work. Its text (`part-00007`, `plan`) is the file name of its manifests and its
/// receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Unit {
    /// The kind of work.
    pub kind: UnitKind,
    /// The unit's number; 0 if there is only one of its kind.
    pub index: u32,
}

impl Unit {
    /// Creates the `index`-th unit of a kind.
    pub const fn new(kind: UnitKind, index: u32) -> Self {
        Self { kind, index }
    }

    /// Creates the only unit of a kind.
    pub const fn once(kind: UnitKind) -> Self {
        Self { kind, index: 0 }
    }

    /// Returns the first `count` units of a kind, in order.
    pub fn all(kind: UnitKind, count: u32) -> Vec<Self> {
        (0..count).map(|index| Self::new(kind, index)).collect()
    }
}

impl From<Partition> for Unit {
    fn from(partition: Partition) -> Self {
        Self::new(UnitKind::Partition, partition.0)
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.as_str())?;
        if self.kind.is_numbered() {
            write!(f, "-{:05}", self.index)?;
        }
        Ok(())
    }
}

impl FromStr for Unit {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let (kind, index) = match name.rsplit_once('-') {
            Some((kind, index)) => (kind, index.parse().ok()),
            None => (name, Some(0)),
        };
        let kind = UnitKind::ALL.iter().find(|known| known.as_str() == kind);
        let unit = kind.zip(index).map(|(&kind, index)| Self::new(kind, index));
        unit.filter(|unit| unit.to_string() == name)
            .ok_or_else(|| Error::data(format!("{name:?} is not the name of a unit")))
    }
}

impl TryFrom<String> for Unit {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        name.parse()
    }
}

impl From<Unit> for String {
    fn from(unit: Unit) -> Self {
        unit.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_the_design() {
        let shard = ShardPath::new("2024/00017.tar");
        assert_eq!(
            ImageId::new(&shard, "cats/1", 0).as_str(),
            "2024/00017/cats/1"
        );
        assert_eq!(ImageId::new(&shard, "1", 2).as_str(), "2024/00017/1#2");
        assert_eq!(Unit::from(Partition(7)).to_string(), "part-00007");
    }

    #[test]
    fn compressed_shards_of_one_stem_give_different_ids() {
        let id = |name| ImageId::new(&ShardPath::new(name), "1", 0);
        let names = ["a.tar", "a.tar.gz", "a.tgz", "a.tar.zst"];
        let ids: std::collections::BTreeSet<_> = names.map(id).into();
        assert_eq!(ids.len(), 4);
    }

    #[test]
    fn units_parse_back_and_sort_by_number() {
        for kind in UnitKind::ALL {
            let unit = Unit::once(*kind);
            assert_eq!(unit.to_string().parse::<Unit>().unwrap(), unit);
        }
        let mut units = [100_000, 99_999, 3].map(|index| Unit::new(UnitKind::Partition, index));
        units.sort();
        assert_eq!(
            units.map(|unit| unit.to_string()),
            ["part-00003", "part-99999", "part-100000"]
        );
        for wrong in ["part", "part-7", "plan-00000", "x-00001", "", "part-00001x"] {
            assert!(wrong.parse::<Unit>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn step_names_are_checked() {
        for name in ["a", "nsfw-2", "clip"] {
            assert_eq!(StepName::new(name).unwrap().as_str(), name);
        }
        for name in [
            "",
            "A",
            "a_b",
            "2a",
            "a-",
            "-a",
            "a/b",
            "ä",
            &"a".repeat(41),
        ] {
            assert!(StepName::new(name).is_err(), "{name}");
        }
        let score: ScoreName = "nsfw-5.porn".parse().unwrap();
        assert_eq!(
            (score.step.identifier(), score.output.as_deref()),
            ("nsfw_5".to_owned(), Some("porn"))
        );
    }
}
