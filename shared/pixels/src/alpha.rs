//! Converts samples to RGB, and composites alpha onto a background.
//!
//! Transparent images are composited onto white, as in transformers 5, with the rounding of
//! Pillow's `alpha_composite`. An image that would vanish there (a white drawing on transparency)
//! is composited onto black: when less than one hundredth of its visible area differs from white by
//! 24 of 255 or more.

use image::ColorType;

/// Pixels of three bytes each.
pub(crate) struct Rgb {
    pub data: Vec<u8>,
    /// Whether the background is black.
    pub over_black: bool,
}

/// A sample that differs from white by this much is visible on it.
const CONTRAST: u8 = 24;
/// The reciprocal of the share of the visible area that must be visible on white.
const SHARE: u64 = 100;

/// Converts decoder output to RGB, in place if the pixels are wide enough. Samples of more than 8
/// bits are in native byte order. Returns `None` for a colour type that the `image` crate does not
/// have today.
pub(crate) fn rgb_of(data: Vec<u8>, color: ColorType) -> Option<Rgb> {
    let opaque = |data| Rgb {
        data,
        over_black: false,
    };
    Some(match color {
        ColorType::Rgb8 => opaque(data),
        ColorType::L8 => opaque(map_pixels::<1>(data, |p| [p[0]; 3])),
        ColorType::La8 => composite::<2>(data, |p| ([p[0]; 3], p[1])),
        ColorType::Rgba8 => composite::<4>(data, |p| ([p[0], p[1], p[2]], p[3])),
        _ => return None,
    })
}

/// Composites pixels onto a background. `split` returns the colour and the alpha of a pixel.
pub(crate) fn composite<const N: usize>(
    data: Vec<u8>,
    split: impl Fn(&[u8; N]) -> ([u8; 3], u8),
) -> Rgb {
    let over_black = vanishes_on_white(data.as_chunks::<N>().0, &split);
    let background = if over_black { 0 } else { 255 };
    let data = map_pixels::<N>(data, |pixel| {
        let (color, alpha) = split(pixel);
        color.map(|value| over(value, alpha, background))
    });
    Rgb { data, over_black }
}

fn vanishes_on_white<const N: usize>(
    pixels: &[[u8; N]],
    split: impl Fn(&[u8; N]) -> ([u8; 3], u8),
) -> bool {
    let (mut visible, mut seen) = (0, 0);
    for pixel in pixels {
        let (color, alpha) = split(pixel);
        let is_seen = color.iter().any(|&value| value <= 255 - CONTRAST);
        visible += u64::from(alpha);
        seen += u64::from(alpha) * u64::from(is_seen);
    }
    let has_transparency = visible < 255 * pixels.len() as u64;
    has_transparency && visible > 0 && seen * SHARE < visible
}

/// Composites a sample onto a background, with exactly the rounding of Pillow's
/// `Image.alpha_composite` (`src/libImaging/AlphaComposite.c`: 7 extra bits, division by 255 by
/// shifts).
fn over(value: u8, alpha: u8, background: u8) -> u8 {
    const EXTRA_BITS: u32 = 7;
    let (value, alpha, background) = (u32::from(value), u32::from(alpha), u32::from(background));
    let sum = (value * alpha + background * (255 - alpha)) << EXTRA_BITS;
    let sum = sum + (0x80 << EXTRA_BITS);
    ((((sum >> 8) + sum) >> 8) >> EXTRA_BITS) as u8
}

/// Replaces every `N` bytes by three; in place when `N >= 3`.
pub(crate) fn map_pixels<const N: usize>(
    mut data: Vec<u8>,
    rgb: impl Fn(&[u8; N]) -> [u8; 3],
) -> Vec<u8> {
    if N < 3 {
        return data.as_chunks::<N>().0.iter().flat_map(rgb).collect();
    }
    let pixels = data.len() / N;
    for i in 0..pixels {
        let mut pixel = [0; N];
        pixel.copy_from_slice(&data[N * i..N * (i + 1)]);
        data[3 * i..3 * (i + 1)].copy_from_slice(&rgb(&pixel));
    }
    data.truncate(pixels * 3);
    data.shrink_to_fit();
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alpha_over_a_background_is_the_rounded_blend() {
        assert_eq!(over(10, 255, 255), 10);
        assert_eq!(over(10, 0, 255), 255);
        for background in [0, 255] {
            for value in 0..=255u8 {
                for alpha in 0..=255u8 {
                    let (v, a, b) = (f64::from(value), f64::from(alpha), f64::from(background));
                    let exact = (v * a + b * (255.0 - a)) / 255.0;
                    let got = f64::from(over(value, alpha, background));
                    assert!(
                        (got - exact).abs() <= 0.51,
                        "{value} {alpha}: {got} {exact}"
                    );
                }
            }
        }
    }

    /// Composites an image of 100 pixels, of which `visible` have a colour and the others are
    /// transparent. Returns whether the background is black.
    fn over_black(color: [u8; 4], visible: usize) -> bool {
        let mut pixels = [255, 255, 255, 0].repeat(100);
        for pixel in pixels.chunks_exact_mut(4).take(visible) {
            pixel.copy_from_slice(&color);
        }
        rgb_of(pixels, ColorType::Rgba8).unwrap().over_black
    }

    #[test]
    fn only_what_vanishes_on_white_is_laid_over_black() {
        assert!(over_black([255; 4], 20));
        assert!(over_black([255, 255, 255, 90], 20));
        assert!(over_black([240, 250, 255, 255], 20));
        assert!(!over_black([255, 255, 200, 255], 20));
        assert!(!over_black([0, 0, 0, 255], 20));
        assert!(!over_black([255; 4], 0), "nothing is visible");
        assert!(!over_black([255; 4], 100), "nothing is transparent");
        let drawing = rgb_of([255, 255, 9, 0].to_vec(), ColorType::La8).unwrap();
        assert_eq!(
            (drawing.data, drawing.over_black),
            (vec![255, 255, 255, 0, 0, 0], true)
        );
    }
}
