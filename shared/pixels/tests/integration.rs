//! Tests of the crate with reference images and synthetic ones.
//!
//! Failures:
//! - `clip_reference`: a preprocessed pixel differs from Pillow's and transformers';
//! - `hard_shards`: a damaged file decodes, a valid one does not, or the size or mean colour
//!   differs from `expected.json`; a panic;
//! - `photos`: one of 600 real photos does not decode;
//! - `pillow`: a resized image, JPEG round trip or hash differs from Pillow's and ImageHash's;
//! - `pdq`: a PDQ hash differs from Meta's library by more than rounding;
//! - `measures`: hashes or quality measures do not order images as a person would.
//!
//! `clip_reference`, `hard_shards` and `photos` need the fixtures (`sluice_testkit::fixtures`) and
//! are skipped without them. There are no golden files to update: the references come with the
//! fixtures, the checksums in `pillow` from Pillow.

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
#[path = "integration/pdq.rs"]
mod pdq;
#[path = "integration/photos.rs"]
mod photos;
#[path = "integration/pillow.rs"]
mod pillow;

use std::io::Read;
use std::path::Path;

/// Returns the name and bytes of the regular members of a tar shard, in order.
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
