//! The crate against reference pictures and against synthetic ones.
//!
//! A failure is:
//! - `clip_reference`: a preprocessed pixel that differs from Pillow's and transformers';
//! - `hard_shards`: a picture file that decodes though it is damaged, or does not though it is
//!   sound, or to another size or mean colour than `expected.json` says; a panic;
//! - `photos`: one of 600 real photos that does not decode;
//! - `pillow`: a resized picture, JPEG round trip or hash that differs from Pillow's and ImageHash's;
//! - `measures`: hashes or quality measures that do not order pictures as a person would.
//!
//! `clip_reference`, `hard_shards` and `photos` need the fixtures (`sluice_testkit::fixtures`) and are skipped without them.
//! There are no golden files to update: the references come with the fixtures, the checksums in
//! `pillow` from Pillow.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "fixtures are local files, and this crate does without the store"
)]

#[path = "integration/clip_reference.rs"]
mod clip_reference;
#[path = "integration/hard_shards.rs"]
mod hard_shards;
#[path = "integration/measures.rs"]
mod measures;
#[path = "integration/npy.rs"]
mod npy;
#[path = "integration/photos.rs"]
mod photos;
#[path = "integration/pillow.rs"]
mod pillow;

use std::io::Read;
use std::path::Path;

/// The regular members of a tar shard: name and bytes, in order.
fn members(shard: &Path) -> Vec<(String, Vec<u8>)> {
    let file = std::fs::File::open(shard).unwrap();
    tar::Archive::new(std::io::BufReader::new(file))
        .entries()
        .unwrap()
        .map(|entry| {
            let mut entry = entry.unwrap();
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (name, bytes)
        })
        .collect()
}
