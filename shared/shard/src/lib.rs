//! Reads and writes tar shards in the WebDataset format: members, samples, damage.
//!
//! Works on readers and bytes, without access to a file system or a store.
//!
//! ```
//! use sluice_shard::{Event, ShardLimits, ShardReader, ShardWriter};
//!
//! let mut writer = ShardWriter::new(Vec::new());
//! writer.append("0001.jpg", b"not really a picture")?;
//! writer.append("0001.txt", b"a caption")?;
//! let shard = writer.finish()?;
//!
//! let mut samples = 0;
//! for event in ShardReader::new(shard.as_slice(), ShardLimits::default())? {
//!     if let Event::Sample(sample) = event? {
//!         assert_eq!((sample.key.as_str(), sample.members.len()), ("0001", 2));
//!         samples += 1;
//!     }
//! }
//! assert_eq!(samples, 1);
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Modules: `header` parses one block, `inflate` decompresses, `source` provides the decompressed
//! bytes, `archive` the stream of entries, and `reader` groups them into samples. `writer` writes.
//! `names` and `roles` interpret names, and `split` makes a sample of each image.

mod archive;
mod event;
mod header;
mod inflate;
mod names;
mod reader;
mod roles;
mod source;
mod split;
mod writer;

pub use event::{
    Compression, Damage, DamageKind, Event, Member, MemberCounts, Missing, Note, NoteKind, Sample,
    SampleProblem, ShardLimits, Skip, Skipped,
};
pub use names::{safe_member_name, split_key};
pub use reader::ShardReader;
pub use roles::{IMAGE_EXTENSIONS, caption_member, image_member, image_members, metadata_member};
pub use source::TarBytes;
pub use split::split_images;
pub use writer::ShardWriter;
