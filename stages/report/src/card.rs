//! A picture of the run, with all that a page says about it.

use sluice_manifest::rows::{MemberRow, SampleRow};
use sluice_manifest::{Dropped, ImageId, Partition, ShardPath};

/// A picture and what is known about it.
#[derive(Debug, Clone)]
pub struct Card {
    /// The sample.
    pub image_id: ImageId,
    /// Its partition.
    pub partition: Partition,
    /// Its shard.
    pub shard: ShardPath,
    /// The image member; none where the sample has no image.
    pub member: Option<MemberRow>,
    /// Format told by the content.
    pub format: Option<String>,
    /// Width and height of the upright image, in pixels.
    pub size: Option<(u32, u32)>,
    /// Bytes of the image member.
    pub bytes: u64,
    /// The caption.
    pub caption: Option<String>,
    /// The scores, in the order of the run's scores; NaN where there is none.
    pub scores: Vec<f32>,
    /// The step that dropped it, and why.
    pub dropped: Option<Dropped>,
    /// The values that decided.
    pub detail: Option<String>,
    /// Whether it is blurred until it is clicked.
    pub is_nsfw: bool,
}

impl Card {
    /// Returns the card of a sample.
    pub fn new(sample: &SampleRow, partition: Partition) -> Self {
        let extension = sample.image_extension.as_ref();
        let mut members = sample.members.iter();
        let member = members.find(|member| Some(&member.extension) == extension);
        Self {
            image_id: sample.image_id.clone(),
            partition,
            shard: sample.shard.clone(),
            member: member.cloned(),
            format: sample.format.clone(),
            size: sample.width.zip(sample.height),
            bytes: sample.bytes,
            caption: sample.caption.clone(),
            scores: Vec::new(),
            dropped: None,
            detail: sample.detail.clone(),
            is_nsfw: false,
        }
    }

    /// Returns the number of pixels.
    pub fn pixels(&self) -> u64 {
        let size = self
            .size
            .map(|(width, height)| u64::from(width) * u64::from(height));
        size.unwrap_or(0)
    }
}

/// Returns at most `limit` characters of a text, on one line.
pub fn shortened(text: &str, limit: usize) -> String {
    let mut characters = text.trim().chars();
    let visible = |c: char| if c.is_control() { ' ' } else { c };
    let mut short: String = characters.by_ref().take(limit).map(visible).collect();
    if characters.next().is_some() {
        short.pop();
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(shortened("äöü\n4", 5), "äöü 4");
        assert_eq!(shortened("123456", 5), "1234…");
    }
}
