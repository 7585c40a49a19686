//! Orientation: reads it from Exif and XMP, and rotates images upright.

use image::metadata::Orientation;

use crate::decode::RgbImage;

/// The orientations in a file's metadata. Exif takes precedence over XMP, and earlier values over
/// later ones. Invalid values are ignored.
#[derive(Debug, Default)]
pub(crate) struct Orientations {
    exif: Option<u8>,
    xmp: Option<u8>,
}

impl Orientations {
    /// Returns the orientation, 1 if there is none.
    pub(crate) fn get(&self) -> u8 {
        self.exif.or(self.xmp).unwrap_or(1)
    }

    /// Adds the value of an Exif tag. The first valid one counts.
    pub(crate) fn add(&mut self, value: u8) {
        let value = (1..=8).contains(&value).then_some(value);
        self.exif = self.exif.or(value);
    }

    /// Adds an Exif block, with or without `Exif\0\0` before it.
    ///
    /// Only the first directory is read, and no offset except its own is followed, so a directory
    /// that points at itself causes no loop.
    pub(crate) fn add_exif(&mut self, block: &[u8]) {
        let block = block.strip_prefix(EXIF).unwrap_or(block);
        let found = Orientation::from_exif_chunk(block).map(Orientation::to_exif);
        self.exif = self.exif.or(found);
    }

    /// Adds the body of a JPEG's APP1 segment: Exif or XMP.
    pub(crate) fn add_app1(&mut self, body: &[u8]) {
        if body.starts_with(EXIF) {
            self.add_exif(body);
        } else if body.starts_with(XMP) || body.starts_with(b"<") {
            self.add_xmp(body);
        }
    }

    /// Adds XMP, whose `tiff:Orientation` is an attribute or an element.
    pub(crate) fn add_xmp(&mut self, xmp: &[u8]) {
        self.xmp = self.xmp.or_else(|| in_xmp(xmp));
    }
}

/// Precedes Exif in a JPEG, and in some writers' other files.
const EXIF: &[u8] = b"Exif\0\0";
/// Precedes XMP in a JPEG.
const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";

fn in_xmp(xmp: &[u8]) -> Option<u8> {
    const NAME: &[u8] = b"tiff:Orientation";
    let mut places = xmp.windows(NAME.len()).enumerate();
    let values = places.by_ref().filter(|(_, window)| *window == NAME);
    let mut values = values.filter_map(|(at, _)| {
        let mut rest = xmp[at + NAME.len()..].iter().skip_while(|byte| {
            byte.is_ascii_whitespace() || matches!(byte, b'=' | b'"' | b'\'' | b'>')
        });
        match (rest.next()?, rest.next()?) {
            (digit @ b'1'..=b'8', next) if !next.is_ascii_digit() => Some(digit - b'0'),
            _ => None,
        }
    });
    values.next()
}

/// Rotates and mirrors the image according to the Exif orientation (1 to 8). 2 to 4 are done in
/// place.
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

/// Exchanges width and height. `from` returns the old column and row of a new column and row.
/// Processes tiles, so that both images stay in the cache.
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
pub(crate) mod tests {
    use super::*;

    /// Returns a 3x2 image with numbered pixels: 1 2 3 / 4 5 6.
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

    /// Returns an Exif block with an orientation.
    pub(crate) fn exif(value: u16) -> Vec<u8> {
        let mut block = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
        block.extend_from_slice(&value.to_le_bytes());
        block.extend_from_slice(&[0; 6]);
        block
    }

    /// Returns XMP with an orientation.
    pub(crate) fn xmp(value: u16) -> Vec<u8> {
        format!("<rdf:Description tiff:Orientation=\"{value}\"/>").into_bytes()
    }

    fn orientation(add: impl FnOnce(&mut Orientations)) -> u8 {
        let mut found = Orientations::default();
        add(&mut found);
        found.get()
    }

    #[test]
    fn broken_exif_is_upright() {
        let of = |block: &[u8]| orientation(|found| found.add_exif(block));
        assert_eq!(of(b""), 1);
        assert_eq!(of(b"II*\0\xff\xff\xff\xff"), 1);
        assert_eq!(of(&exif(6)), 6);
        assert_eq!(of(&[EXIF, &exif(6)].concat()), 6);
        assert_eq!(of(&exif(0)), 1);
        assert_eq!(of(&exif(99)), 1);
    }

    #[test]
    fn xmp_counts_where_exif_says_nothing() {
        let of = |xmp: &str| orientation(|found| found.add_app1(&[XMP, xmp.as_bytes()].concat()));
        assert_eq!(of("<x tiff:Orientation=\"6\"/>"), 6);
        assert_eq!(of("<x tiff:Orientation = '8'/>"), 8);
        assert_eq!(of("<tiff:Orientation>3</tiff:Orientation>"), 3);
        for none in [
            "",
            "tiff:Orientation",
            "tiff:Orientation=\"9\"",
            "tiff:Orientation=\"12\"",
        ] {
            assert_eq!(of(none), 1, "{none}");
        }
        for (value, expected) in [(3, 3), (0, 6)] {
            let both = |found: &mut Orientations| {
                found.add_xmp(&xmp(6));
                found.add_exif(&exif(value));
            };
            assert_eq!(orientation(both), expected);
        }
    }
}
