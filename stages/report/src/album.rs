//! The pictures of a page: each is made once, from its source shard, however often it is shown.
//!
//! Thumbnails are as large as their number allows. A picture that cannot be shown (its shard is gone,
//! it cannot be decoded, there is no more room) has a note in its place; it is never an error.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sluice_harness::{Context, Plan};
use sluice_manifest::{ImageId, Result};
use sluice_pixels::{Limits, Thumbnail, thumbnail};

use crate::card::Card;
use crate::files::each_file;

/// The longest side of a thumbnail, in pixels, at least and at most.
const SMALLEST: f64 = 64.0;
const LARGEST: f64 = 200.0;
/// Bytes of a thumbnail in a page, by the square of its long side, as measured on photographs.
const BYTES_PER_AREA: f64 = 0.25;

/// A picture of the album.
#[derive(Debug)]
pub struct Picture {
    /// What is known about it.
    pub card: Card,
    /// Its thumbnail, or why there is none.
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

/// The pictures of a page, in the order in which they are first shown.
#[derive(Debug, Default)]
pub struct Album {
    /// The pictures.
    pub pictures: Vec<Picture>,
    places: HashMap<ImageId, usize>,
}

impl Album {
    /// Adds a picture and returns its place. A picture has one place.
    pub fn add(&mut self, card: &Card) -> usize {
        if let Some(&place) = self.places.get(&card.image_id) {
            // Known from a duplicate, perhaps, whose score it has not itself.
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

    /// Makes the thumbnails, in `bytes` bytes of the page.
    ///
    /// # Errors
    /// Of storage; stopped, after a signal.
    pub fn make_thumbnails(&mut self, context: &Context, plan: &Plan, bytes: u64) -> Result<()> {
        let side = (bytes as f64 / BYTES_PER_AREA / self.pictures.len().max(1) as f64).sqrt();
        let side = side.clamp(SMALLEST, LARGEST) as u32;
        let cards: Vec<&Card> = self.pictures.iter().map(|picture| &picture.card).collect();
        let made = each_file(context, plan, &cards, |_, file| {
            let mut _share = None;
            let mut admit = |bytes| _share = Some(context.memory.take(bytes));
            let small = thumbnail(&file, side, &Limits::default(), &mut admit);
            let thumb = small.map(|small| Thumb::new(&small));
            Ok(thumb.map_err(|_| "cannot be decoded"))
        })?;
        for (place, thumbnail) in made {
            self.pictures[place].thumbnail = thumbnail.and_then(|thumbnail| thumbnail);
        }
        self.fit(bytes);
        Ok(())
    }

    /// Leaves the last thumbnails out where all together take more than `bytes`.
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

    /// Returns the bytes that it takes in a page, about.
    fn bytes(&self) -> u64 {
        self.base64.len() as u64 + 80
    }
}
