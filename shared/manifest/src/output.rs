//! Objects written by a unit of work: their paths and checksums.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Error, Result, StepName, layout};

/// An object that a unit of work wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// The path in the run, or a full URI for objects outside the run (the curated shards).
    pub path: OutputPath,
    /// Size in bytes.
    pub bytes: u64,
    /// BLAKE3 of the content, 64 hexadecimal digits.
    pub blake3: String,
    /// The hashes of the blocks of a Parquet object.
    #[serde(default, skip_serializing_if = "Blocks::is_empty")]
    pub blocks: Blocks,
}

impl Output {
    /// Returns whether `content` has the recorded hash.
    pub fn is(&self, content: &[u8]) -> bool {
        *blake3::hash(content).to_hex() == *self.blake3
    }
}

/// The path of an output: relative to its run or, outside of the run, an absolute path or a URI. A
/// path on disk has no `.`, `..` or empty components, so it cannot point outside its folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OutputPath(String);

/// The schemes of output URIs. On local disk, outputs have plain paths.
const SCHEMES: [&str; 4] = ["s3", "gs", "az", "memory"];

impl OutputPath {
    /// Checks a path.
    ///
    /// # Errors
    ///
    /// Returns a data error if the path may point outside its folder, or is a URI with an unknown
    /// scheme.
    pub fn new(path: impl Into<String>) -> Result<Self> {
        let path = path.into();
        let is_plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
        let valid = match path.split_once("://") {
            Some((scheme, rest)) => SCHEMES.contains(&scheme) && !rest.is_empty(),
            None => path
                .strip_prefix('/')
                .unwrap_or(&path)
                .split('/')
                .all(is_plain),
        };
        if valid {
            Ok(Self(path))
        } else {
            Err(Error::data(format!(
                "{path:?} is not the path of an output"
            )))
        }
    }

    /// Returns the path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether the object is outside of the run.
    pub fn is_outside(&self) -> bool {
        self.0.starts_with('/') || self.0.contains("://")
    }

    /// Returns whether a step may write to this path: in its own folder, outside of the run, or one
    /// of the objects that exist once in a run.
    pub(crate) fn may_be_of(&self, step: &StepName) -> bool {
        let below = self.0.strip_prefix(step.as_str());
        self.is_outside()
            || below.is_some_and(|rest| rest.starts_with('/'))
            || [layout::RUN_INFO, layout::REPORT].contains(&self.as_str())
    }
}

impl PartialEq<str> for OutputPath {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl TryFrom<String> for OutputPath {
    type Error = Error;

    fn try_from(path: String) -> Result<Self> {
        Self::new(path)
    }
}

impl From<OutputPath> for String {
    fn from(path: OutputPath) -> Self {
        path.0
    }
}

impl fmt::Display for OutputPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The BLAKE3 hashes of an object's blocks, with which byte ranges can be verified. Serialised as
/// one text with 32 hexadecimal digits (the first 16 bytes of the hash) for each block.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Blocks(String);

impl Blocks {
    /// The size of a block in bytes. The last block may be shorter.
    pub const SIZE: usize = 256 << 10;
    /// The number of digits of a hash.
    const DIGITS: usize = 32;

    /// Appends the hash of the next block.
    pub fn push(&mut self, block: &[u8]) {
        self.0
            .push_str(&blake3::hash(block).to_hex()[..Self::DIGITS]);
    }

    /// Returns whether these bytes have the hash of block `number`.
    pub fn hold(&self, number: u64, block: &[u8]) -> bool {
        let hash = blake3::hash(block).to_hex();
        let begin = usize::try_from(number)
            .ok()
            .and_then(|number| number.checked_mul(Self::DIGITS));
        let stated = begin.and_then(|begin| self.0.get(begin..begin.saturating_add(Self::DIGITS)));
        stated == Some(&hash[..Self::DIGITS])
    }

    /// Returns whether there are no hashes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leads_out_of_its_folder() {
        for path in [
            "read/images/part-00000.parquet",
            "run.json",
            "/data/out/shard-00000.tar",
            "s3://bucket/a//b/shard-00000.tar",
            "memory://name/x",
        ] {
            assert_eq!(OutputPath::new(path).unwrap().as_str(), path);
        }
        for path in [
            "",
            "/",
            ".",
            "..",
            "../victim.txt",
            "read/../../victim.txt",
            "read/./x",
            "read//x",
            "read/",
            "//etc/passwd",
            "/data/../etc/passwd",
            "file:///etc/passwd",
            "ftp://host/x",
            "http://host/x",
            "s3://",
            "read/\0",
        ] {
            assert!(OutputPath::new(path).is_err(), "{path:?}");
            let json = serde_json::to_string(path).unwrap();
            assert!(
                serde_json::from_str::<OutputPath>(&json).is_err(),
                "{path:?}"
            );
        }
    }

    #[test]
    fn a_step_writes_to_its_own_folder() {
        let step = StepName::fixed("nsfw");
        let of = |path: &str| OutputPath::new(path).unwrap().may_be_of(&step);
        assert!(of("nsfw/scores/part-00000.parquet") && of("/out/shard-00000.tar"));
        assert!(!of("nsfw-2/scores/part-00000.parquet") && !of("read/images/part-00000.parquet"));
    }

    #[test]
    fn blocks_are_told_apart() {
        let mut blocks = Blocks::default();
        assert!(blocks.is_empty() && !blocks.hold(0, b"a"));
        blocks.push(b"a");
        blocks.push(b"b");
        assert!(blocks.hold(0, b"a") && blocks.hold(1, b"b"));
        assert!(!blocks.hold(0, b"b") && !blocks.hold(2, b"b") && !blocks.hold(u64::MAX, b"b"));
    }
}
