//! Resizing, bit for bit as Pillow does it.
//!
//! The algorithm of Pillow's `ImagingResample` for 8-bit pixels (`src/libImaging/Resample.c`), which
//! is what the models' own processors use:
//! - convolution with a filter that is stretched by the scale when shrinking (antialiasing);
//! - one pass along the rows and one down the columns, rounded to 8 bits in between;
//! - weights normalised in f64, then fixed point with 22 fractional bits, products summed in i32.
//!
//! Which pass comes first changes the last bit. Pillow up to 12 always goes along the rows first.
//! Pillow 13 goes down the columns first when that leaves less to do (`columns_first`), which
//! happens for an aspect-keeping reduction of pictures more than twice as high as wide, and for
//! stretching portraits to a square. The rule was found by comparing 4000 random sizes with Pillow
//! 13.0.0, which made our references; all agree.
//!
//! A crop is part of the call, and only what it needs is computed, in both passes: the short side of
//! a 1x10000 picture taken to 224 makes a picture of 2.2 million rows, of which 224 are wanted.

use serde::{Deserialize, Serialize};

use crate::decode::RgbImage;

/// Fractional bits of a weight: 32, less 8 for the pixel and 2 for overshoot.
const PRECISION: u32 = 32 - 8 - 2;

/// How pixels are weighed. All are antialiased when shrinking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filter {
    /// The mean of the pixels below.
    Box,
    Bilinear,
    /// Keys' cubic with a = -0.5 (Pillow's; OpenCV and torch tensors use -0.75).
    Bicubic,
    /// Windowed sinc over three lobes.
    Lanczos,
}

impl Filter {
    /// Half the width over which the filter is not zero, in pixels of the coarser grid.
    fn support(self) -> f64 {
        match self {
            Self::Box => 0.5,
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        let distance = x.abs();
        match self {
            Self::Box => f64::from(u8::from(x > -0.5 && x <= 0.5)),
            Self::Bilinear => (1.0 - distance).max(0.0),
            Self::Bicubic if distance < 1.0 => {
                ((A + 2.0) * distance - (A + 3.0)) * distance * distance + 1.0
            }
            Self::Bicubic if distance < 2.0 => {
                (((distance - 5.0) * distance + 8.0) * distance - 4.0) * A
            }
            Self::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Self::Bicubic | Self::Lanczos => 0.0,
        }
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let x = x * std::f64::consts::PI;
    x.sin() / x
}

/// The weights along one axis, for a window of the output.
pub(crate) struct Axis {
    /// For each output position: the first input position that counts, and how many.
    spans: Vec<(usize, usize)>,
    /// Fixed point weights, `taps` for each output position.
    weights: Vec<i32>,
    taps: usize,
    /// Where the window begins, if input and output are of one size, so that weights do nothing.
    identity: Option<usize>,
}

impl Axis {
    /// Weights for output positions `start..start + length` out of `output`, from `input` positions.
    pub(crate) fn new(input: u32, output: u64, filter: Filter, start: u64, length: u32) -> Self {
        let scale = f64::from(input) / output as f64;
        let stretch = scale.max(1.0);
        let support = filter.support() * stretch;
        let taps = support.ceil() as usize * 2 + 1;
        let shrink = 1.0 / stretch;

        let mut spans = Vec::with_capacity(length as usize);
        let mut weights = vec![0; taps * length as usize];
        let mut exact = vec![0.0; taps];
        for (index, fixed) in weights.chunks_exact_mut(taps).enumerate() {
            let center = ((start + index as u64) as f64 + 0.5) * scale;
            // Casts to unsigned stop at 0, and cut as C's do.
            let first = (center - support + 0.5) as usize;
            let end = ((center + support + 0.5) as usize).min(input as usize);
            let count = end - first;
            let mut sum = 0.0;
            for (offset, weight) in exact[..count].iter_mut().enumerate() {
                *weight = filter.weight(((first + offset) as f64 - center + 0.5) * shrink);
                sum += *weight;
            }
            for (fixed, weight) in fixed.iter_mut().zip(&exact[..count]) {
                let weight = if sum == 0.0 { *weight } else { weight / sum };
                // `round` goes away from zero at one half, as adding or taking 0.5 and cutting does.
                *fixed = (weight * f64::from(1u32 << PRECISION)).round() as i32;
            }
            spans.push((first, count));
        }
        Self {
            spans,
            weights,
            taps,
            identity: (u64::from(input) == output).then_some(start as usize),
        }
    }

    fn of(&self, index: usize) -> (usize, &[i32]) {
        let (first, count) = self.spans[index];
        (first, &self.weights[index * self.taps..][..count])
    }

    /// The input positions that any output position needs.
    fn needed(&self) -> std::ops::Range<usize> {
        let first = self.spans.iter().map(|&(first, _)| first).min();
        let end = self.spans.iter().map(|&(first, count)| first + count).max();
        first.unwrap_or(0)..end.unwrap_or(0)
    }
}

fn to_byte(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

const HALF: i32 = 1 << (PRECISION - 1);

/// Resamples one row of `C` interleaved channels, of which `row` holds the columns from
/// `first_column` on.
pub(crate) fn along_row<const C: usize>(
    row: &[u8],
    first_column: usize,
    axis: &Axis,
    out: &mut [u8],
) {
    let row = row.as_chunks::<C>().0;
    let out = out.as_chunks_mut::<C>().0;
    if let Some(first) = axis.identity {
        out.copy_from_slice(&row[first - first_column..][..out.len()]);
        return;
    }
    for (index, target) in out.iter_mut().enumerate() {
        let (first, weights) = axis.of(index);
        let mut sums = [HALF; C];
        for (pixel, &weight) in row[first - first_column..].iter().zip(weights) {
            for channel in 0..C {
                sums[channel] += i32::from(pixel[channel]) * weight;
            }
        }
        *target = sums.map(to_byte);
    }
}

/// Resamples down the columns into rows of `stride` bytes. `row` gives an input row by its number.
pub(crate) fn down_columns<'a>(
    row: impl Fn(usize) -> &'a [u8],
    stride: usize,
    axis: &Axis,
    out: &mut [u8],
) {
    let mut sums = vec![0; stride];
    for (index, target) in out.chunks_exact_mut(stride).enumerate() {
        if let Some(first) = axis.identity {
            target.copy_from_slice(row(first + index));
            continue;
        }
        let (first, weights) = axis.of(index);
        sums.fill(HALF);
        for (number, &weight) in (first..).zip(weights) {
            for (sum, &value) in sums.iter_mut().zip(row(number)) {
                *sum += i32::from(value) * weight;
            }
        }
        for (target, &sum) in target.iter_mut().zip(&sums) {
            *target = to_byte(sum);
        }
    }
}

/// Whether Pillow 13 resizes the columns before the rows.
fn columns_first(width: u32, height: u32, full: (u64, u64)) -> bool {
    let lost = |from: u32, to: u64| i128::from(from) - i128::from(to);
    let (across, down) = (lost(width, full.0), lost(height, full.1));
    down > 0 && 2 * across < down
}

/// A part of a resized picture: `width` x `height` pixels from column `left` and row `top` on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub left: u64,
    pub top: u64,
    pub width: u32,
    pub height: u32,
}

/// The picture resized to `width` x `height`.
pub fn resize(image: &RgbImage, width: u32, height: u32, filter: Filter) -> RgbImage {
    let all = Window {
        left: 0,
        top: 0,
        width,
        height,
    };
    resize_window(image, (u64::from(width), u64::from(height)), filter, all)
}

/// A window of the picture resized to `full` (width, height), equal to cropping the whole.
/// The window lies within `full`.
pub(crate) fn resize_window(
    image: &RgbImage,
    full: (u64, u64),
    filter: Filter,
    window: Window,
) -> RgbImage {
    let stride = window.width as usize * 3;
    let mut data = vec![0; stride * window.height as usize];
    if !data.is_empty() && image.width > 0 && image.height > 0 {
        let across = Axis::new(image.width, full.0, filter, window.left, window.width);
        let down = Axis::new(image.height, full.1, filter, window.top, window.height);
        let (columns, rows) = (across.needed(), down.needed());
        if columns_first(image.width, image.height, full) {
            let wide = columns.len() * 3;
            let mut lowered = vec![0; wide * window.height as usize];
            let row = |y| &image.row(y)[columns.start * 3..][..wide];
            down_columns(row, wide, &down, &mut lowered);
            for (row, out) in lowered
                .chunks_exact(wide)
                .zip(data.chunks_exact_mut(stride))
            {
                along_row::<3>(row, columns.start, &across, out);
            }
        } else {
            let mut narrowed = vec![0; stride * rows.len()];
            for (y, out) in rows.clone().zip(narrowed.chunks_exact_mut(stride)) {
                along_row::<3>(image.row(y), 0, &across, out);
            }
            let row = |y: usize| &narrowed[(y - rows.start) * stride..][..stride];
            down_columns(row, stride, &down, &mut data);
        }
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
        // Around the boundary, as measured: for 100x100 to height 50, width 75 is the last of the old order.
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
