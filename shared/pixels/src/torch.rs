//! Resizing, bit for bit like PyTorch with tensors of bytes.
//!
//! The "fast" image processors of transformers resize tensors with torchvision, which calls
//! `torch.nn.functional.interpolate(antialias=True)`. For bytes on x86 with AVX2 this is the
//! algorithm of `aten/src/ATen/native/cpu/UpSampleKernelAVXAntialias.h`: Pillow's with 16-bit
//! weights, always along the rows first. Some values differ from Pillow's by 1.
//!
//! Nearest-neighbour selection of both libraries is also here: it has no weights.

use crate::axis::Filter;
use crate::decode::RgbImage;
use crate::preprocess::Resampler;
use crate::resize::Window;

/// Resizes an image to `full` (width, height) and returns a window of the result.
pub(crate) fn resize_window(
    image: &RgbImage,
    full: (u64, u64),
    filter: Filter,
    window: Window,
) -> RgbImage {
    let across = TorchAxis::new(image.width, full.0, filter, window.left, window.width);
    let down = TorchAxis::new(image.height, full.1, filter, window.top, window.height);
    let rows = down.needed();
    let stride = window.width as usize * 3;
    let mut narrow = vec![0; stride * rows.len()];
    for (row, out) in rows.clone().zip(narrow.chunks_exact_mut(stride.max(1))) {
        across.along_row(image.row(row), out);
    }
    let mut data = vec![0; stride * window.height as usize];
    down.down_columns(&narrow, rows.start, stride, &mut data);
    RgbImage {
        width: window.width,
        height: window.height,
        data,
    }
}

/// Selects the nearest pixels by the rule of `library`.
pub(crate) fn nearest_window(
    image: &RgbImage,
    full: (u64, u64),
    library: Resampler,
    window: Window,
) -> RgbImage {
    let columns = nearest(image.width, full.0, library, window.left, window.width);
    let rows = nearest(image.height, full.1, library, window.top, window.height);
    let mut data = Vec::with_capacity(columns.len() * rows.len() * 3);
    for row in rows {
        let row = image.row(row);
        for &column in &columns {
            data.extend_from_slice(&row[3 * column..3 * column + 3]);
        }
    }
    RgbImage {
        width: window.width,
        height: window.height,
        data,
    }
}

/// Returns the input position for each output position of a window.
fn nearest(input: u32, output: u64, library: Resampler, start: u64, length: u32) -> Vec<usize> {
    let last = (input as usize).saturating_sub(1);
    let window = start..start + u64::from(length);
    match library {
        // `ImagingScaleAffine` adds up the step, including rounding errors.
        Resampler::Pillow => {
            let step = f64::from(input) / output as f64;
            let mut at = step * 0.5;
            let mut chosen = Vec::with_capacity(length as usize);
            for position in 0..window.end {
                if position >= window.start {
                    chosen.push((at as usize).min(last));
                }
                at += step;
            }
            chosen
        }
        // The mode `nearest-exact`, in float32.
        Resampler::Torchvision => {
            let step = input as f32 / output as f32;
            let chosen = window.map(|position| (step * (position as f32 + 0.5)).floor() as usize);
            chosen.map(|position| position.min(last)).collect()
        }
    }
}

/// The weights along one axis, for a window of the output.
struct TorchAxis {
    /// For each output position: the first input position, and the weights from there on.
    taps: Vec<(usize, Vec<i32>)>,
    /// The number of fractional bits of a weight.
    precision: u32,
}

impl TorchAxis {
    fn new(input: u32, output: u64, filter: Filter, start: u64, length: u32) -> Self {
        let window = start..start + u64::from(length);
        if u64::from(input) == output {
            let taps = window.map(|position| (position as usize, vec![1]));
            return Self {
                taps: taps.collect(),
                precision: 0,
            };
        }
        let (mut largest, mut exact) = (0.0, Vec::with_capacity(length as usize));
        // The precision depends on the largest weight of the whole axis.
        for position in 0..output {
            let taps = weights(input, output, filter, position);
            largest = taps.1.iter().copied().fold(largest, f64::max);
            if window.contains(&position) {
                exact.push(taps);
            }
        }
        let fits = |bits: &u32| 0.5 + largest * f64::from(1_u32 << (bits + 1)) < 32768.0;
        let precision = (0..22).find(|bits| !fits(bits)).unwrap_or(22);
        let fixed = |weight: f64| (weight * f64::from(1_u32 << precision)).round() as i32;
        let taps = exact
            .into_iter()
            .map(|(first, weights)| (first, weights.into_iter().map(fixed).collect()));
        Self {
            taps: taps.collect(),
            precision,
        }
    }

    /// Returns the range of input positions that any output position needs.
    fn needed(&self) -> std::ops::Range<usize> {
        let first = self.taps.iter().map(|(first, _)| *first).min();
        let ends = self.taps.iter().map(|(first, taps)| first + taps.len());
        first.unwrap_or(0)..ends.max().unwrap_or(0)
    }

    /// Returns half a unit of the result.
    fn half(&self) -> i32 {
        match self.precision {
            0 => 0,
            bits => 1 << (bits - 1),
        }
    }

    fn byte(&self, sum: i32) -> u8 {
        (sum >> self.precision).clamp(0, 255) as u8
    }

    fn along_row(&self, row: &[u8], out: &mut [u8]) {
        for ((first, weights), out) in self.taps.iter().zip(out.as_chunks_mut::<3>().0) {
            let mut sums = [self.half(); 3];
            for (pixel, weight) in row[3 * first..].as_chunks::<3>().0.iter().zip(weights) {
                for (sum, &value) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(value) * weight;
                }
            }
            *out = sums.map(|sum| self.byte(sum));
        }
    }

    /// Resamples down the columns. `source` has rows of `stride` bytes, from row `first_row` on.
    fn down_columns(&self, source: &[u8], first_row: usize, stride: usize, out: &mut [u8]) {
        let mut sums = vec![0; stride];
        for ((first, weights), out) in self.taps.iter().zip(out.chunks_exact_mut(stride.max(1))) {
            sums.fill(self.half());
            let rows = source[(first - first_row) * stride..].chunks_exact(stride);
            for (row, &weight) in rows.zip(weights) {
                for (sum, &value) in sums.iter_mut().zip(row) {
                    *sum += i32::from(value) * weight;
                }
            }
            for (out, &sum) in out.iter_mut().zip(&sums) {
                *out = self.byte(sum);
            }
        }
    }
}

/// Returns the first input position for an output position, and the weights from there on.
fn weights(input: u32, output: u64, filter: Filter, position: u64) -> (usize, Vec<f64>) {
    let scale = f64::from(input) / output as f64;
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    let center = scale * (position as f64 + 0.5);
    // Casts to unsigned saturate at 0 and truncate, as in C.
    let first = (center - support + 0.5) as usize;
    let end = ((center + support + 0.5) as usize).min(input as usize);
    let weight = |at: usize| filter.weight((at as f64 - center + 0.5) / stretch);
    let weights: Vec<f64> = (first..end).map(weight).collect();
    let sum: f64 = weights.iter().sum();
    if sum == 0.0 {
        (first, weights)
    } else {
        (first, weights.iter().map(|weight| weight / sum).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(width: u32, height: u32) -> Window {
        Window {
            left: 0,
            top: 0,
            width,
            height,
        }
    }

    #[test]
    fn a_window_is_a_part_of_the_whole() {
        let image = RgbImage::from_fn(37, 53, |x, y| [(7 * x) as u8, (5 * y) as u8, (x ^ y) as u8]);
        let whole = resize_window(&image, (24, 30), Filter::Bicubic, all(24, 30));
        let window = Window {
            left: 3,
            top: 4,
            width: 10,
            height: 20,
        };
        let part = resize_window(&image, (24, 30), Filter::Bicubic, window);
        for y in 0..20 {
            assert_eq!(part.row(y), &whole.row(y + 4)[9..39]);
        }
    }

    #[test]
    fn one_size_is_the_same_picture() {
        let image = RgbImage::from_fn(9, 7, |x, y| [(40 * x) as u8, (30 * y) as u8, 255]);
        for filter in [Filter::Bilinear, Filter::Bicubic] {
            assert_eq!(resize_window(&image, (9, 7), filter, all(9, 7)), image);
        }
        for library in [Resampler::Pillow, Resampler::Torchvision] {
            assert_eq!(nearest_window(&image, (9, 7), library, all(9, 7)), image);
        }
    }

    #[test]
    fn nearest_takes_the_middle_one() {
        for library in [Resampler::Pillow, Resampler::Torchvision] {
            assert_eq!(nearest(9, 3, library, 0, 3), [1, 4, 7]);
            assert_eq!(nearest(2, 4, library, 1, 3), [0, 1, 1]);
        }
    }
}
