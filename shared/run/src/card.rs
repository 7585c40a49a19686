//! An image of the run, with everything that a page shows about it.

use sluice_manifest::rows::{MemberRow, SampleRow};
use sluice_manifest::text::one_line;
use sluice_manifest::{Dropped, ImageId, Partition, ShardPath};

/// An image and its metadata.
#[derive(Debug, Clone)]
pub struct ImageCard {
    /// The name of the sample.
    pub image_id: ImageId,
    /// The partition of the sample.
    pub partition: Partition,
    /// The shard of the sample.
    pub shard: ShardPath,
    /// The image member, or `None` if the sample has no image.
    pub member: Option<MemberRow>,
    /// The image format detected from the content.
    pub format: Option<String>,
    /// Width and height of the upright image, in pixels.
    pub size: Option<(u32, u32)>,
    /// The size of the image member in bytes.
    pub bytes: u64,
    /// The caption.
    pub caption: Option<String>,
    /// The scores, in the order of the run's scores; NaN for a missing one.
    pub scores: Vec<f32>,
    /// The step that dropped the sample, and the reason.
    pub dropped: Option<Dropped>,
    /// The values that led to the decision.
    pub detail: Option<String>,
    /// Whether the image is blurred until it is clicked.
    pub is_nsfw: bool,
}

impl ImageCard {
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

    /// Describes what happened to the image, as a sentence without a full stop.
    pub fn fate(&self) -> String {
        let Some(dropped) = &self.dropped else {
            return "kept".to_owned();
        };
        let text = format!("dropped by {}: {}", dropped.step, dropped.reason);
        match &self.detail {
            Some(detail) => format!("{text} ({})", one_line(detail)),
            None => text,
        }
    }

    /// Returns `kept` or `dropped by STEP`.
    pub fn state(&self) -> String {
        match &self.dropped {
            None => "kept".to_owned(),
            Some(dropped) => format!("dropped by {}", dropped.step),
        }
    }
}

/// Truncates a text to `limit` characters, on one line.
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
