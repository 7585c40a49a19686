//! Resizing, bit for bit like Pillow.
//!
//! The algorithm is that of Pillow's `ImagingResample` for 8-bit pixels
//! (`src/libImaging/Resample.c`), which the models' own processors use:
//! - convolution with a filter that is widened by the scale when shrinking (antialiasing);
//! - one pass along the rows and one down the columns, rounded to 8 bits in between;
//! - weights normalised in f64, then in fixed point with 22 fractional bits, products summed in
//!   i32.
//!
//! The order of the passes affects the last bit. Pillow up to 12 always processes the rows first.
//! Pillow 13 processes the columns first if that leaves less work (`columns_first`). That is the
//! case when reducing images more than twice as high as wide, and when stretching portraits to a
//! square. The rule was found by comparing 4000 random sizes with Pillow 13.0.0, which created our
//! references; all agree.
//!
//! `axis.rs` computes the weights, `passes.rs` has the passes.
//!
//! A crop is part of the call, and both passes compute only what it needs: resizing the short side
//! of a 1x10000 image to 224 gives an image of 2.2 million rows, of which 224 are needed.

use crate::axis::{Axis, AxisSpec};
use crate::buffers;
use crate::decode::RgbImage;
use crate::passes::{along_rows, down_columns};

pub use crate::axis::Filter;

/// Returns whether Pillow 13 processes the columns before the rows.
fn columns_first(width: u32, height: u32, full: (u64, u64)) -> bool {
    let lost = |from: u32, to: u64| i128::from(from) - i128::from(to);
    let (across, down) = (lost(width, full.0), lost(height, full.1));
    down > 0 && 2 * across < down
}

/// A part of a resized image: `width` x `height` pixels from column `left` and row `top` on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub left: u64,
    pub top: u64,
    pub width: u32,
    pub height: u32,
}

/// Resizes an image to `width` x `height`.
pub fn resize(image: &RgbImage, width: u32, height: u32, filter: Filter) -> RgbImage {
    let all = Window {
        left: 0,
        top: 0,
        width,
        height,
    };
    resize_window(image, (u64::from(width), u64::from(height)), filter, all)
}

/// An image of original size `size` (width, height) that decoding reduced by the factor `by`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReducedImage<'a> {
    pub image: &'a RgbImage,
    pub size: (u32, u32),
    pub by: u32,
}

impl<'a> From<&'a RgbImage> for ReducedImage<'a> {
    fn from(image: &'a RgbImage) -> Self {
        let size = (image.width, image.height);
        Self { image, size, by: 1 }
    }
}

/// Returns a window of the image resized to `full` (width, height), equal to cropping the whole.
/// The window is within `full`.
pub(crate) fn resize_window<'a>(
    source: impl Into<ReducedImage<'a>>,
    full: (u64, u64),
    filter: Filter,
    window: Window,
) -> RgbImage {
    let ReducedImage { image, size, by } = source.into();
    let stride = window.width as usize * 3;
    let mut data = buffers::take(stride * window.height as usize);
    if data.is_empty() || image.width == 0 || image.height == 0 {
        data.fill(0);
    } else {
        let axis = |input, size, output, start, length| {
            Axis::for_spec(AxisSpec {
                input,
                size,
                by,
                output,
                filter,
                start,
                length,
            })
        };
        let across = axis(image.width, size.0, full.0, window.left, window.width);
        let down = axis(image.height, size.1, full.1, window.top, window.height);
        let (columns, rows) = (across.needed(), down.needed());
        let between = if columns_first(image.width, image.height, full) {
            let wide = columns.len() * 3;
            let mut lowered = buffers::take(wide * window.height as usize);
            let begin = columns.start * 3;
            down_columns(
                &image.data,
                image.stride(),
                0,
                begin,
                wide,
                &down,
                &mut lowered,
            );
            along_rows(&lowered, wide, columns.start, &across, &mut data);
            lowered
        } else {
            let mut narrowed = buffers::take(stride * rows.len());
            let source = &image.data[rows.start * image.stride()..rows.end * image.stride()];
            along_rows(source, image.stride(), 0, &across, &mut narrowed);
            down_columns(&narrowed, stride, rows.start, 0, stride, &down, &mut data);
            narrowed
        };
        buffers::give(between);
    }
    RgbImage {
        width: window.width,
        height: window.height,
        data,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn noise(width: u32, height: u32, seed: u32) -> RgbImage {
        let mut state = seed | 1;
        RgbImage::from_fn(width, height, |_, _| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            [(state >> 24) as u8, (state >> 16) as u8, (state >> 8) as u8]
        })
    }

    const FILTERS: [Filter; 4] = [
        Filter::Box,
        Filter::Bilinear,
        Filter::Bicubic,
        Filter::Lanczos,
    ];

    #[test]
    fn same_size_is_the_same_picture() {
        let image = noise(31, 17, 7);
        for filter in FILTERS {
            assert_eq!(resize(&image, 31, 17, filter), image, "{filter:?}");
        }
    }

    #[test]
    fn box_halves_by_the_mean() {
        let image = RgbImage::from_fn(4, 2, |x, y| [(10 * x + y) as u8; 3]);
        let half = resize(&image, 2, 1, Filter::Box);
        // (0+10)/2 = 5 and (1+11)/2 = 6, then (5+6)/2 rounded up.
        assert_eq!(half.data, [6, 6, 6, 26, 26, 26]);
    }

    #[test]
    fn the_order_of_passes_is_pillow_13s() {
        // Measured around the boundary: for 100x100 to height 50, width 75 is the last one with the
        // rows first.
        assert!(!columns_first(100, 100, (75, 50)) && columns_first(100, 100, (76, 50)));
        assert!(!columns_first(375, 500, (250, 251)) && columns_first(375, 500, (251, 251)));
        assert!(!columns_first(375, 500, (500, 600)) && !columns_first(64, 64, (64, 64)));
        assert!(columns_first(375, 500, (256, 256)) && !columns_first(500, 375, (256, 256)));
    }

    #[test]
    fn extreme_shapes_cost_only_their_window() {
        let window = |left, top| Window {
            left,
            top,
            width: 224,
            height: 224,
        };
        let tall = noise(1, 10_000, 3);
        let got = resize_window(
            &tall,
            (224, 2_240_000),
            Filter::Bicubic,
            window(0, 1_119_888),
        );
        assert_eq!(got.data.len(), 224 * 224 * 3);
        let wide = noise(100_000, 1, 3);
        let got = resize_window(
            &wide,
            (22_400_000, 224),
            Filter::Bicubic,
            window(11_199_888, 0),
        );
        assert_eq!(got.data.len(), 224 * 224 * 3);
    }

    proptest! {
        #[test]
        fn one_colour_stays_one_colour(
            w in 1u32..60, h in 1u32..60, to_w in 1u32..90, to_h in 1u32..90, value: u8, f in 0usize..4,
        ) {
            let flat = RgbImage::filled(w, h, [value, 255 - value, value / 2]);
            let got = resize(&flat, to_w, to_h, FILTERS[f]);
            prop_assert_eq!(got, RgbImage::filled(to_w, to_h, [value, 255 - value, value / 2]));
        }

        #[test]
        fn a_window_is_a_crop_of_the_whole(
            w in 1u32..40, h in 1u32..40, to_w in 1u32..70, to_h in 1u32..70,
            l in 0.0..1.0f64, t in 0.0..1.0f64, seed: u32, f in 0usize..4,
        ) {
            let image = noise(w, h, seed);
            let whole = resize(&image, to_w, to_h, FILTERS[f]);
            let (left, top) = ((l * f64::from(to_w)) as u32, (t * f64::from(to_h)) as u32);
            let (cw, ch) = ((to_w - left).div_ceil(2), (to_h - top).div_ceil(2));
            let window = Window { left: left.into(), top: top.into(), width: cw, height: ch };
            let got = resize_window(&image, (to_w.into(), to_h.into()), FILTERS[f], window);
            let crop = RgbImage::from_fn(cw, ch, |x, y| {
                let at = ((top + y) * to_w + left + x) as usize * 3;
                [whole.data[at], whole.data[at + 1], whole.data[at + 2]]
            });
            prop_assert_eq!(got, crop);
        }
    }
}
