//! Exif orientation: reading it, and turning a picture upright.

use image::metadata::Orientation;

use crate::decode::RgbImage;

/// The orientation in an Exif block (TIFF structure, without the `Exif\0\0` before it). 1 where the
/// block is broken, has none, or has an illegal one.
///
/// Only the first directory is read, and no offset but its own is followed, so a directory that
/// points at itself costs nothing.
pub(crate) fn from_exif(block: &[u8]) -> u8 {
    Orientation::from_exif_chunk(block).map_or(1, Orientation::to_exif)
}

/// Turns and mirrors the picture as the Exif orientation (1 to 8) asks. 2 to 4 are done in place.
pub(crate) fn upright(mut image: RgbImage, orientation: u8) -> RgbImage {
    let (width, height) = (image.width as usize, image.height as usize);
    match orientation {
        2 => {
            for row in image.data.chunks_exact_mut(width * 3) {
                reverse_pixels(row);
            }
            image
        }
        3 => {
            reverse_pixels(&mut image.data);
            image
        }
        4 => {
            let stride = image.stride();
            for y in 0..height / 2 {
                let (above, below) = image.data.split_at_mut((height - 1 - y) * stride);
                above[y * stride..][..stride].swap_with_slice(&mut below[..stride]);
            }
            image
        }
        5 => turn(&image, |x, y| (y, x)),
        6 => turn(&image, |x, y| (y, height - 1 - x)),
        7 => turn(&image, |x, y| (width - 1 - y, height - 1 - x)),
        8 => turn(&image, |x, y| (width - 1 - y, x)),
        _ => image,
    }
}

fn reverse_pixels(data: &mut [u8]) {
    data.as_chunks_mut::<3>().0.reverse();
}

/// A picture with width and height exchanged; `from` gives the old column and row of a new column
/// and row. Done in tiles, so that both pictures stay in the cache.
fn turn(old: &RgbImage, from: impl Fn(usize, usize) -> (usize, usize)) -> RgbImage {
    const TILE: usize = 32;
    let (width, height) = (old.height as usize, old.width as usize);
    let mut data = vec![0; old.data.len()];
    let source = old.data.as_chunks::<3>().0;
    let target = data.as_chunks_mut::<3>().0;
    for top in (0..height).step_by(TILE) {
        for left in (0..width).step_by(TILE) {
            for y in top..(top + TILE).min(height) {
                for x in left..(left + TILE).min(width) {
                    let (column, row) = from(x, y);
                    target[y * width + x] = source[row * old.width as usize + column];
                }
            }
        }
    }
    RgbImage {
        width: old.height,
        height: old.width,
        data,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 3x2, the pixels numbered: 1 2 3 / 4 5 6.
    fn numbered() -> RgbImage {
        RgbImage::from_fn(3, 2, |x, y| [(1 + x + 3 * y) as u8; 3])
    }

    fn rows(image: &RgbImage) -> Vec<Vec<u8>> {
        (0..image.height as usize)
            .map(|y| image.row(y).iter().step_by(3).copied().collect())
            .collect()
    }

    #[test]
    fn all_eight_orientations() {
        let upright = |orientation| rows(&upright(numbered(), orientation));
        assert_eq!(upright(1), [[1, 2, 3], [4, 5, 6]]);
        assert_eq!(upright(2), [[3, 2, 1], [6, 5, 4]]);
        assert_eq!(upright(3), [[6, 5, 4], [3, 2, 1]]);
        assert_eq!(upright(4), [[4, 5, 6], [1, 2, 3]]);
        assert_eq!(upright(5), [[1, 4], [2, 5], [3, 6]]);
        assert_eq!(upright(6), [[4, 1], [5, 2], [6, 3]]);
        assert_eq!(upright(7), [[6, 3], [5, 2], [4, 1]]);
        assert_eq!(upright(8), [[3, 6], [2, 5], [1, 4]]);
        assert_eq!(upright(0), upright(1));
        assert_eq!(upright(99), upright(1));
    }

    #[test]
    fn broken_exif_is_upright() {
        assert_eq!(from_exif(b""), 1);
        assert_eq!(from_exif(b"II*\0\xff\xff\xff\xff"), 1);
        let block = |value: u16| {
            let mut block = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
            block.extend_from_slice(&value.to_le_bytes());
            block.extend_from_slice(&[0; 6]);
            block
        };
        assert_eq!(from_exif(&block(6)), 6);
        assert_eq!(from_exif(&block(0)), 1);
        assert_eq!(from_exif(&block(99)), 1);
    }
}
