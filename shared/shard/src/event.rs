//! What the reader finds in a shard: samples, members without a sample, notes and damage.
//!
//! All enums here are exhaustive. Each variant has a stable short name (`as_str`).

use std::fmt;

/// Limits that protect the process from irregular shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardLimits {
    /// The maximum size of a buffered member. The `data` of a larger one is `None`. 256 MiB.
    pub max_member_bytes: u64,
    /// The maximum number of bytes buffered for one sample. A member that would exceed it is
    /// treated as too large. 512 MiB.
    pub max_sample_bytes: u64,
    /// The maximum number of members in a sample. Further ones are skipped, and the sample has
    /// [`SampleProblem::TooManyMembers`]. 1024.
    pub max_sample_members: usize,
    /// The maximum length of a member name (GNU long name). A member with a longer one is skipped.
    /// 64 KiB.
    pub max_name_bytes: u64,
    /// The maximum size of a pax header. A member with a larger one is skipped. 1 MiB.
    pub max_extended_bytes: u64,
    /// The maximum decompressed size of a shard. 64 GiB.
    pub max_inflated_bytes: u64,
    /// The maximum ratio of decompressed to compressed bytes, checked after `inflate_ratio_from`
    /// bytes. 256.
    pub max_inflate_ratio: u64,
    /// The number of decompressed bytes up to which any ratio is allowed. 32 MiB.
    pub inflate_ratio_from: u64,
}

impl Default for ShardLimits {
    fn default() -> Self {
        const MIB: u64 = 1 << 20;
        Self {
            max_member_bytes: 256 * MIB,
            max_sample_bytes: 512 * MIB,
            max_sample_members: 1024,
            max_name_bytes: 64 << 10,
            max_extended_bytes: MIB,
            max_inflated_bytes: 64 << 30,
            max_inflate_ratio: 256,
            inflate_ratio_from: 32 * MIB,
        }
    }
}

/// The compression of a shard, detected from its first bytes and never from its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// A plain tar. Offsets are positions in the object itself.
    None,
    /// gzip, with one or more members.
    Gzip,
    /// Zstandard, with one or more frames.
    Zstd,
}

impl Compression {
    /// Returns `none`, `gzip` or `zstd`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// One item found in a shard, in shard order.
///
/// A sample is emitted after its last member. The `Skipped` of a member between two members of one
/// sample therefore comes before that `Sample`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Consecutive members that share a key.
    Sample(Sample),
    /// A member that belongs to no sample.
    Skipped(Skipped),
    /// An irregularity for the log. Nothing was lost.
    Note(Note),
    /// Damage. It is always the last event: nothing after it can be read, except after a gap.
    Damage(Damage),
}

/// A sample: consecutive members of a shard that share a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The key as text. UTF-8 is unchanged; other bytes are written as `\xNN`.
    pub key: String,
    /// 0 for the first sample with this key in the shard. Otherwise the number `n` that makes
    /// `KEY#n` unique in the shard: 1, 2, … Numbers used by a literal key such as `a#1` are
    /// skipped.
    pub occurrence: u32,
    /// The members in shard order. Only complete ones: `problem` reports a truncated member.
    pub members: Vec<Member>,
    /// Why the sample is incomplete or irregular.
    pub problem: Option<SampleProblem>,
}

impl Sample {
    /// Returns the key, with `#n` if it is a repetition. Unique within the shard.
    pub fn id(&self) -> String {
        match self.occurrence {
            0 => self.key.clone(),
            n => format!("{}#{n}", self.key),
        }
    }
}

/// One member of a sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The part after the key's dot, as written (`JPG`, `mask.png`). Bytes that are not UTF-8 are
    /// written as `\xNN`.
    pub extension: String,
    /// The raw name in the tar.
    pub name: Vec<u8>,
    /// The offset of its data in the decompressed tar.
    pub offset: u64,
    /// The size of its data in the tar.
    pub size: u64,
    /// The data, or `None` for the reason in `missing`.
    pub data: Option<Vec<u8>>,
    /// Why `data` is `None`.
    pub missing: Option<Missing>,
}

/// Why a member's data was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Missing {
    /// Larger than the limits. The data is complete in the tar, at `offset`.
    TooLarge,
    /// A sparse file. The data in the tar is not the file's content, so it must not be used as
    /// such.
    Sparse,
    /// A hard link. The data is that of an earlier member, at `offset`.
    Link,
}

impl Missing {
    /// Returns `too-large`, `sparse` or `link`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too-large",
            Self::Sparse => "sparse",
            Self::Link => "link",
        }
    }
}

/// Why a sample is incomplete or irregular.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SampleProblem {
    /// The shard ends inside the member with this extension. Complete members are listed.
    Truncated {
        /// The truncated member's extension.
        extension: String,
    },
    /// All listed members are complete, but the shard is damaged directly after them: more may be
    /// lost.
    DamageAfter,
    /// The member with this extension is sparse and cannot be used.
    Sparse {
        /// The sparse member's extension.
        extension: String,
    },
    /// The sample has more members than the limit. The further ones are reported as skipped.
    TooManyMembers,
    /// The sample's image is an object that cannot be read.
    Missing {
        /// The reason why.
        detail: String,
    },
    /// It is a row of a table that cannot be decoded.
    Undecodable {
        /// Why.
        detail: String,
    },
}

impl SampleProblem {
    /// Returns `truncated`, `damage-after`, `sparse`, `too-many-members`, `missing` or `undecodable`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Truncated { .. } => "truncated",
            Self::DamageAfter => "damage-after",
            Self::Sparse { .. } => "sparse",
            Self::TooManyMembers => "too-many-members",
            Self::Missing { .. } => "missing",
            Self::Undecodable { .. } => "undecodable",
        }
    }

    /// Returns whether a member is known to be lost. False for `DamageAfter`, where one may be: the
    /// listed members are complete, so an image among them can be used.
    pub const fn lost_a_member(&self) -> bool {
        !matches!(self, Self::DamageAfter)
    }
}

/// A member that belongs to no sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The name as text, in the format of [`Sample::key`].
    pub name: String,
    /// The offset of its data in the decompressed tar.
    pub offset: u64,
    /// The size of its data in the tar, according to its header.
    pub bytes: u64,
    /// Why the member is not part of a sample.
    pub why: Skip,
}

/// Why a member belongs to no sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Skip {
    /// A folder.
    Directory,
    /// A hard or symbolic link.
    Link,
    /// A device or a FIFO.
    Device,
    /// A type that is not a file: GNU dump folders, volume labels, parts of multi-volume files,
    /// unknown letters.
    UnknownType,
    /// The last component of its name starts with a dot (`.jpg`, `._photo.jpg`).
    NoKey,
    /// The last component of its name has no dot (`noext`).
    NoExtension,
    /// `__name__` or `__name__/…`, which WebDataset reserves for its own metadata and skips.
    Reserved,
    /// Its name exceeds the limit.
    NameTooLong,
    /// The extended (pax) header before it is invalid or too large, so its name is unknown.
    BadExtendedHeader,
    /// Its sample already has the maximum number of members.
    TooManyMembers,
}

impl Skip {
    /// All reasons, in the order of the enum.
    pub const ALL: [Self; 10] = [
        Self::Directory,
        Self::Link,
        Self::Device,
        Self::UnknownType,
        Self::NoKey,
        Self::NoExtension,
        Self::Reserved,
        Self::NameTooLong,
        Self::BadExtendedHeader,
        Self::TooManyMembers,
    ];

    /// Returns the stable name, such as `no-extension`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::Link => "link",
            Self::Device => "device",
            Self::UnknownType => "unknown-type",
            Self::NoKey => "no-key",
            Self::NoExtension => "no-extension",
            Self::Reserved => "reserved-name",
            Self::NameTooLong => "name-too-long",
            Self::BadExtendedHeader => "bad-extended-header",
            Self::TooManyMembers => "too-many-members",
        }
    }
}

/// An irregularity that lost no data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The offset in the decompressed tar.
    pub offset: u64,
    /// The kind of irregularity.
    pub kind: NoteKind,
}

/// Kinds of [`Note`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NoteKind {
    /// Bytes after the end of the archive are not a tar. They were ignored.
    TrailingGarbage {
        /// The number of ignored bytes.
        bytes: u64,
    },
    /// Bytes after the gzip stream are not gzip. They were ignored.
    TrailingGarbageCompressed,
    /// The shard ends without the zero blocks that end a tar. It was read completely, but if it was
    /// truncated exactly between two members, there is no other sign.
    NoEndOfArchive,
    /// Members follow zero blocks, as in concatenated archives. They were read.
    AnotherArchive,
}

impl NoteKind {
    /// Returns the stable name, such as `trailing-garbage`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TrailingGarbage { .. } => "trailing-garbage",
            Self::TrailingGarbageCompressed => "trailing-garbage-compressed",
            Self::NoEndOfArchive => "no-end-of-archive",
            Self::AnotherArchive => "another-archive",
        }
    }
}

/// The position and cause of damage. Reading ended there, except at a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The offset, in the decompressed tar, of the invalid header or of the first missing byte.
    pub offset: u64,
    /// The kind of damage.
    pub kind: DamageKind,
    /// A description for people, as a lower-case fragment.
    pub detail: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.kind {
            DamageKind::BrokenTable => "row",
            _ => "byte",
        };
        write!(f, "{} (at {unit} {})", self.detail, self.offset)
    }
}

/// Kinds of [`Damage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DamageKind {
    /// The shard has 0 bytes, compressed or decompressed.
    Empty,
    /// The first block is not a tar header.
    NotATar,
    /// A header's checksum or one of its numbers is wrong.
    BadHeader,
    /// A header has an impossible size (negative, or more than 63 bits).
    BadSize,
    /// The shard ends inside a header.
    TruncatedHeader,
    /// The shard ends inside a member's data.
    TruncatedMember,
    /// Zeros in place of members. The members after them were read.
    Gap,
    /// The gzip or zstd stream ends too early.
    CompressedTruncated,
    /// The gzip or zstd stream is invalid, or its checksum is wrong.
    CompressedCorrupt,
    /// The decompressed size exceeds the limits.
    InflatesTooMuch,
    /// The rows of a Parquet file cannot be decoded.
    BrokenTable,
}

impl DamageKind {
    /// All kinds of damage, in the order of the enum.
    pub const ALL: [Self; 11] = [
        Self::Empty,
        Self::NotATar,
        Self::BadHeader,
        Self::BadSize,
        Self::TruncatedHeader,
        Self::TruncatedMember,
        Self::Gap,
        Self::CompressedTruncated,
        Self::CompressedCorrupt,
        Self::InflatesTooMuch,
        Self::BrokenTable,
    ];

    /// Returns the stable name, such as `truncated-member`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::NotATar => "not-a-tar",
            Self::BadHeader => "bad-header",
            Self::BadSize => "bad-size",
            Self::TruncatedHeader => "truncated-header",
            Self::TruncatedMember => "truncated-member",
            Self::Gap => "gap",
            Self::CompressedTruncated => "compressed-truncated",
            Self::CompressedCorrupt => "compressed-corrupt",
            Self::InflatesTooMuch => "inflates-too-much",
            Self::BrokenTable => "broken-table",
        }
    }
}

/// Counts of members and samples so far. At the end, `members == in_samples + skipped + truncated`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemberCounts {
    /// Members whose header was read. Extended headers are not members.
    pub members: u64,
    /// Members that are part of a sample.
    pub in_samples: u64,
    /// Members reported as [`Skipped`].
    pub skipped: u64,
    /// Members, at most one, inside whose data the shard ends, reported as a sample's problem.
    pub truncated: u64,
    /// Samples.
    pub samples: u64,
}
