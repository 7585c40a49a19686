//! The images of a page. Each thumbnail is made once from its source shard, however often it is
//! shown.
//!
//! Thumbnails are as large as their number allows. An image without a thumbnail (its shard is
//! missing, it cannot be decoded, the page is full) has a note instead. It is never an error.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sluice_harness::MemoryBudget;
use sluice_manifest::{ImageId, Result};
use sluice_pixels::{Limits, Thumbnail, thumbnail};
use sluice_run::card::ImageCard;
use sluice_run::{Plan, Run};
use sluice_source::each_image_file;

/// The smallest and largest long side of a thumbnail, in pixels.
const SMALLEST: f64 = 64.0;
const LARGEST: f64 = 200.0;
/// The bytes of a thumbnail in a page, divided by the square of its long side, as measured on
/// photographs.
const BYTES_PER_AREA: f64 = 0.25;

/// An image of the album.
#[derive(Debug)]
pub struct Picture {
    /// The image's metadata.
    pub card: ImageCard,
    /// The thumbnail, or why there is none.
    pub thumbnail: Result<Thumb, &'static str>,
}

/// A thumbnail in a page.
#[derive(Debug)]
pub struct Thumb {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// The JPEG file in base64.
    pub base64: String,
}

/// The images of a page, in the order in which they are first shown.
#[derive(Debug, Default)]
pub struct Album {
    /// The pictures.
    pub pictures: Vec<Picture>,
    places: HashMap<ImageId, usize>,
}

impl Album {
    /// Adds an image and returns its index. An image that is already in the album keeps its index.
    pub fn add(&mut self, card: &ImageCard) -> usize {
        if let Some(&place) = self.places.get(&card.image_id) {
            // The image may have been added because of a duplicate whose score it does not share.
            self.pictures[place].card.is_nsfw |= card.is_nsfw;
            return place;
        }
        let place = self.pictures.len();
        self.places.insert(card.image_id.clone(), place);
        self.pictures.push(Picture {
            card: card.clone(),
            thumbnail: Err("pictures are left out"),
        });
        place
    }

    /// Creates the thumbnails, in `bytes` bytes of the page.
    ///
    /// # Errors
    ///
    /// Returns a transient error if storage fails, and a stopped error after a signal.
    pub fn make_thumbnails(
        &mut self,
        run: &Run,
        memory: &MemoryBudget,
        plan: &Plan,
        bytes: u64,
    ) -> Result<()> {
        let side = (bytes as f64 / BYTES_PER_AREA / self.pictures.len().max(1) as f64).sqrt();
        let side = side.clamp(SMALLEST, LARGEST) as u32;
        let cards: Vec<&ImageCard> = self.pictures.iter().map(|picture| &picture.card).collect();
        let limits = Limits::default();
        let made = each_image_file(run, plan, &cards, limits.max_bytes, |_, file| {
            let mut _share = None;
            let mut admit = |bytes| _share = Some(memory.take(bytes));
            let small = thumbnail(&file, side, &limits, &mut admit);
            let thumb = small.map(|small| Thumb::new(&small));
            Ok(thumb.map_err(|_| "cannot be decoded"))
        })?;
        for (place, thumbnail) in made {
            self.pictures[place].thumbnail = thumbnail.and_then(|thumbnail| thumbnail);
        }
        self.fit(bytes);
        Ok(())
    }

    /// Removes the last thumbnails if all together take more than `bytes`.
    fn fit(&mut self, bytes: u64) {
        let mut left = bytes;
        for picture in &mut self.pictures {
            if let Ok(thumb) = &picture.thumbnail {
                match left.checked_sub(thumb.bytes()) {
                    Some(rest) => left = rest,
                    None => picture.thumbnail = Err("no room on the page (--max-bytes)"),
                }
            } else if picture.card.member.is_none() {
                picture.thumbnail = Err("the sample has no image");
            }
        }
    }
}

impl Thumb {
    fn new(thumbnail: &Thumbnail) -> Self {
        Self {
            width: thumbnail.width,
            height: thumbnail.height,
            base64: STANDARD.encode(&thumbnail.jpeg),
        }
    }

    /// Returns the approximate number of bytes in a page.
    fn bytes(&self) -> u64 {
        self.base64.len() as u64 + 80
    }
}
