//! Tar and WebDataset: index members, group samples, write shards.
//!
//! Works on readers and bytes; knows no file system and no store.
//!
//! ```
//! use sluice_shard::{Event, Limits, ShardReader, ShardWriter};
//!
//! let mut writer = ShardWriter::new(Vec::new());
//! writer.append("0001.jpg", b"not really a picture")?;
//! writer.append("0001.txt", b"a caption")?;
//! let shard = writer.finish()?;
//!
//! let mut samples = 0;
//! for event in ShardReader::new(shard.as_slice(), Limits::default())? {
//!     if let Event::Sample(sample) = event? {
//!         assert_eq!((sample.key.as_str(), sample.members.len()), ("0001", 2));
//!         samples += 1;
//!     }
//! }
//! assert_eq!(samples, 1);
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Module by module: `header` reads one block, `inflate` decompresses, `source` gives the decompressed
//! bytes, `archive` the stream of entries, `reader` groups them; `writer` writes; `names` and `roles`
//! say what names mean, `split` makes a sample of each image.

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
    Compression, Counts, Damage, DamageKind, Event, Limits, Member, Missing, Note, NoteKind,
    Sample, SampleProblem, Skip, Skipped,
};
pub use names::{safe_member_name, split_key};
pub use reader::ShardReader;
pub use roles::{IMAGE_EXTENSIONS, caption_member, image_member, image_members, metadata_member};
pub use source::TarBytes;
pub use split::split_images;
pub use writer::ShardWriter;
