//! What a shard holds, as the reader tells it: samples, members that belong to none, notes, damage.
//!
//! All enums here are closed, and each kind has a short name (`as_str`) that is stable: it may be
//! written into manifests and counted by.

use std::fmt;

/// Bounds that keep one odd shard from taking the process with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// A larger member is passed over without being buffered: its `data` is `None`. 256 MiB.
    pub max_member_bytes: u64,
    /// Bytes buffered for one sample; a member that would go beyond is treated as too large. 512 MiB.
    pub max_sample_bytes: u64,
    /// Members of one sample; the further ones are skipped and the sample says so. 1024.
    pub max_sample_members: usize,
    /// A longer member name (GNU long name) is not taken up, its member is skipped. 64 KiB.
    pub max_name_bytes: u64,
    /// A larger pax header is not taken up, its member is skipped. 1 MiB.
    pub max_extended_bytes: u64,
    /// What a compressed shard may inflate to. 64 GiB.
    pub max_inflated_bytes: u64,
    /// Inflated bytes per compressed byte, judged once `inflate_ratio_from` bytes came out. 256.
    pub max_inflate_ratio: u64,
    /// Below this many inflated bytes any ratio is fine. 32 MiB.
    pub inflate_ratio_from: u64,
}

impl Default for Limits {
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

/// How the shard is packed, told by its first bytes, never by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// A plain tar: offsets are positions in the object itself.
    None,
    /// gzip, in one member or several.
    Gzip,
    /// Zstandard, in one frame or several.
    Zstd,
}

impl Compression {
    /// `none`, `gzip`, `zstd`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// One thing found in a shard, in shard order.
///
/// A sample is told when its last member has been read, so the `Skipped` of a member that lies
/// between two members of one sample comes before that `Sample`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Members that follow each other and share a key.
    Sample(Sample),
    /// A member that belongs to no sample.
    Skipped(Skipped),
    /// Something worth a line in the log; nothing was lost by it.
    Note(Note),
    /// What lies behind this cannot be read. At most one, and then the last event.
    Damage(Damage),
}

/// A sample: members that follow each other in the shard and share a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The key as text: lossless for UTF-8, `\xNN` for bytes that are not.
    pub key: String,
    /// 0 the first time this key stands in the shard; else the n for which `KEY#n` is unique in
    /// the shard: 1, 2, … (a number that a literal key such as `a#1` has taken is passed over).
    pub occurrence: u32,
    /// In shard order. Only whole members: a torn one is told by `problem`.
    pub members: Vec<Member>,
    /// Why the sample is not as it should be.
    pub problem: Option<SampleProblem>,
}

impl Sample {
    /// The key, with `#n` when it stood in the shard before: unique within the shard.
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
    /// What follows the key's dot, as written (`JPG`, `mask.png`); `\xNN` for bytes that are not UTF-8.
    pub extension: String,
    /// The raw name in the tar.
    pub name: Vec<u8>,
    /// Where its data begins, counted in the decompressed tar.
    pub offset: u64,
    /// Bytes its data takes in the tar.
    pub size: u64,
    /// Its bytes; `None` for the reason that `missing` gives.
    pub data: Option<Vec<u8>>,
    /// Why `data` is `None`.
    pub missing: Option<Missing>,
}

/// Why a member's bytes were not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Missing {
    /// Larger than the limits. The bytes are whole in the tar, at `offset`.
    TooLarge,
    /// A sparse file: what the tar holds is not the file's bytes, so nobody should take them as such.
    Sparse,
    /// A hard link: the bytes are those of an earlier member, at `offset`.
    Link,
}

impl Missing {
    /// `too-large`, `sparse`, `link`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too-large",
            Self::Sparse => "sparse",
            Self::Link => "link",
        }
    }
}

/// Why a sample is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SampleProblem {
    /// The shard ends inside the member with this extension. The whole members stay listed.
    Truncated {
        /// The torn member's extension.
        extension: String,
    },
    /// All its members are whole, but the shard is damaged right behind them: there may have been more.
    CutShort,
    /// The member with this extension is sparse and was set aside.
    Sparse {
        /// The sparse member's extension.
        extension: String,
    },
    /// It has more members than the limit; the further ones are reported as skipped.
    TooManyMembers,
    /// Its image is an object that cannot be read.
    Missing {
        /// Why.
        detail: String,
    },
}

impl SampleProblem {
    /// `truncated`, `cut-short`, `sparse`, `too-many-members`, `missing`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Truncated { .. } => "truncated",
            Self::CutShort => "cut-short",
            Self::Sparse { .. } => "sparse",
            Self::TooManyMembers => "too-many-members",
            Self::Missing { .. } => "missing",
        }
    }

    /// Whether a member is known to be lost. False for `CutShort`, where one only may be: what is
    /// listed is sound, and a picture among it can be used.
    pub const fn lost_a_member(&self) -> bool {
        !matches!(self, Self::CutShort)
    }
}

/// A member that belongs to no sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Its name as text, as in [`Sample::key`].
    pub name: String,
    /// Where its data begins, counted in the decompressed tar.
    pub offset: u64,
    /// Bytes of data it takes in the tar, as its header says.
    pub bytes: u64,
    /// Why it is not part of a sample.
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
    /// A type that is no file: GNU dump folders, volume labels, parts of multi-volume files, unknown letters.
    UnknownType,
    /// The last part of its name begins with a dot (`.jpg`, `._photo.jpg`).
    NoKey,
    /// The last part of its name has no dot (`noext`).
    NoExtension,
    /// `__name__` or `__name__/…`, which WebDataset keeps for its own metadata and passes over.
    Reserved,
    /// Its name is longer than the limit.
    NameTooLong,
    /// The extended (pax) header before it is broken or too large, so its true name is not known.
    BadExtendedHeader,
    /// Its sample has as many members as the limit allows.
    TooManyMembers,
}

impl Skip {
    /// Every reason there is.
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

    /// The stable name, such as `no-extension`.
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

/// Something worth saying that cost nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Where, counted in the decompressed tar.
    pub offset: u64,
    /// What.
    pub kind: NoteKind,
}

/// Kinds of [`Note`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NoteKind {
    /// This many bytes behind the end of the archive are no tar; they were ignored.
    TrailingGarbage {
        /// Bytes ignored.
        bytes: u64,
    },
    /// Bytes that are no gzip follow the gzip stream; they were ignored.
    TrailingGarbageCompressed,
    /// The shard ends without the zero blocks that end a tar. It was read whole, but should it have
    /// been cut exactly between two members, nothing else would show it.
    NoEndOfArchive,
    /// Members follow zero blocks, as in archives laid one after the other; they were read too.
    AnotherArchive,
}

impl NoteKind {
    /// The stable name, such as `trailing-garbage`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TrailingGarbage { .. } => "trailing-garbage",
            Self::TrailingGarbageCompressed => "trailing-garbage-compressed",
            Self::NoEndOfArchive => "no-end-of-archive",
            Self::AnotherArchive => "another-archive",
        }
    }
}

/// Where and why the shard cannot be read further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The broken header's position, or that of the first byte that is missing; counted in the
    /// decompressed tar.
    pub offset: u64,
    /// What is wrong.
    pub kind: DamageKind,
    /// The same for people, as a lower-case fragment.
    pub detail: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at byte {})", self.detail, self.offset)
    }
}

/// Kinds of [`Damage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DamageKind {
    /// The shard has 0 bytes (or inflates to 0).
    Empty,
    /// It does not begin as a tar does.
    NotATar,
    /// A header's checksum or a number in it is wrong.
    BadHeader,
    /// A header gives a size that cannot be (negative, beyond 63 bits).
    BadSize,
    /// The shard ends inside a header.
    TruncatedHeader,
    /// The shard ends inside a member's data.
    TruncatedMember,
    /// The gzip or zstd stream ends too early.
    CompressedTruncated,
    /// The gzip or zstd stream is broken, or its checksum is wrong.
    CompressedCorrupt,
    /// It inflates to more than the limits allow.
    InflatesTooMuch,
    /// A Parquet file whose rows cannot be decoded.
    BrokenTable,
}

impl DamageKind {
    /// Every kind there is.
    pub const ALL: [Self; 10] = [
        Self::Empty,
        Self::NotATar,
        Self::BadHeader,
        Self::BadSize,
        Self::TruncatedHeader,
        Self::TruncatedMember,
        Self::CompressedTruncated,
        Self::CompressedCorrupt,
        Self::InflatesTooMuch,
        Self::BrokenTable,
    ];

    /// The stable name, such as `truncated-member`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::NotATar => "not-a-tar",
            Self::BadHeader => "bad-header",
            Self::BadSize => "bad-size",
            Self::TruncatedHeader => "truncated-header",
            Self::TruncatedMember => "truncated-member",
            Self::CompressedTruncated => "compressed-truncated",
            Self::CompressedCorrupt => "compressed-corrupt",
            Self::InflatesTooMuch => "inflates-too-much",
            Self::BrokenTable => "broken-table",
        }
    }
}

/// What was counted so far. `members == in_samples + skipped + torn` at the end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Members whose header was read (extended headers are no members).
    pub members: u64,
    /// Members listed in a sample.
    pub in_samples: u64,
    /// Members told as [`Skipped`].
    pub skipped: u64,
    /// The member, at most one, inside whose data the shard ends and that a sample's problem tells.
    pub torn: u64,
    /// Samples told.
    pub samples: u64,
}
