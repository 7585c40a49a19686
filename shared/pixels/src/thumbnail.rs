//! Thumbnails for the report and galleries.

use crate::decode::{Admit, DecodeError, Format, Limits, decode_reduced};
use crate::jpeg::{self, Reduction};
use crate::resize::{Filter, resize};

/// The quality of the JPEG, 1 to 100.
const QUALITY: u8 = 72;

/// A small image as JPEG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thumbnail {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// The content of the file.
    pub jpeg: Vec<u8>,
}

/// Returns the upright image, reduced so that its long side has at most `side` pixels. A smaller
/// image keeps its size. For `admit` see [`decode_admitted`](crate::decode_admitted).
///
/// # Errors
///
/// Fails like [`decode`](crate::decode), and if the thumbnail cannot be encoded.
pub fn thumbnail(
    bytes: &[u8],
    side: u32,
    limits: &Limits,
    admit: Admit<'_>,
) -> Result<Thumbnail, DecodeError> {
    let reduction = |width: u32, height: u32| match width.max(height) / (2 * side.max(1)) {
        0..=1 => Reduction::None,
        2..=3 => Reduction::Half,
        4..=7 => Reduction::Quarter,
        _ => Reduction::Eighth,
    };
    let image = decode_reduced(bytes, limits, admit, reduction)?.upright();
    let (width, height) = fit(image.width, image.height, side);
    let small = if (width, height) == (image.width, image.height) {
        image
    } else {
        resize(&image, width, height, Filter::Box)
    };
    let jpeg = jpeg::encode(&small, QUALITY).map_err(|detail| DecodeError::Corrupt {
        format: Format::Jpeg,
        detail,
    })?;
    Ok(Thumbnail {
        width,
        height,
        jpeg,
    })
}

/// Returns the size with the same aspect ratio whose long side is at most `side`.
fn fit(width: u32, height: u32, side: u32) -> (u32, u32) {
    let long = width.max(height);
    if long <= side {
        return (width, height);
    }
    let scaled = |length: u32| {
        let scaled = u64::from(length) * u64::from(side) / u64::from(long);
        u32::try_from(scaled).unwrap_or(side).max(1)
    };
    (scaled(width), scaled(height))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{RgbImage, decode};

    #[test]
    fn thumbnails_are_small_and_show_the_picture() {
        let colour = |x: u32, y: u32| [(x / 8) as u8, (y / 4) as u8, 90];
        let large = RgbImage::from_fn(1600, 900, colour);
        let file = jpeg::encode(&large, 95).unwrap();
        let limits = Limits::default();
        let small = thumbnail(&file, 160, &limits, &mut |_| {}).unwrap();
        assert_eq!((small.width, small.height), (160, 90));
        let decoded = decode(&small.jpeg, &limits).unwrap().image;
        let at = 3 * (45 * 160 + 80);
        let expected = colour(800, 450);
        for (found, expected) in decoded.data[at..at + 3].iter().zip(expected) {
            assert!(found.abs_diff(expected) < 8, "{found} {expected}");
        }
        let same = thumbnail(&small.jpeg, 200, &limits, &mut |_| {}).unwrap();
        assert_eq!((same.width, same.height), (160, 90));
        assert!(thumbnail(b"no image", 160, &limits, &mut |_| {}).is_err());
    }

    #[test]
    fn extreme_shapes_keep_a_pixel() {
        assert_eq!(fit(10_000, 3, 160), (160, 1));
        assert_eq!(fit(3, 4, 160), (3, 4));
    }
}
