//! PDQ, the 256-bit perceptual hash of ThreatExchange.
//!
//! Definition: "The TMK+PDQF Video-Hashing Algorithm and the PDQ Image-Hashing Algorithm"
//! (Facebook, 2019): luma, two passes of a box filter along each axis, decimated to 64x64, the
//! 16x16 lowest frequencies of its DCT without the constant ones. A bit is set if the coefficient
//! is above the median of the 256.
//!
//! Filter and decimation are linear and separable, so each of the 64x64 values is a weighted sum
//! over a small rectangle of the image. The weights are computed once for each axis, and the image
//! is read once. The reference program first shrinks images of more than 512 pixels a side. Its
//! library does not, and neither does this module. The hash equals the library's, except for
//! coefficients within rounding of the median.

use std::f64::consts::PI;
use std::sync::LazyLock;

use crate::decode::RgbImage;

/// The side of the decimated image.
const SIDE: usize = 64;
/// The side of the square of frequencies.
const LOW: usize = 16;
/// The smallest side of an image with a hash.
const MIN_SIDE: u32 = 5;

/// A PDQ hash and its reliability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pdq {
    /// The hash, in the order of its hexadecimal form: the highest frequencies come first.
    pub hash: [u8; 32],
    /// The strength of the gradients, 0 to 100.
    pub quality: u8,
}

impl Pdq {
    /// The quality from which ThreatExchange matches hashes.
    pub const RELIABLE: u8 = 50;
}

/// Returns the PDQ hash of an upright image, or `None` for a side of less than 5 pixels.
pub fn pdq(image: &RgbImage) -> Option<Pdq> {
    if image.width < MIN_SIDE || image.height < MIN_SIDE {
        return None;
    }
    let small = decimate(image);
    Some(Pdq {
        hash: bits(&frequencies(&small)),
        quality: gradients(&small),
    })
}

/// The inputs of one output of filter and decimation, and their weights.
struct Weights {
    start: usize,
    weights: Vec<f32>,
}

/// Returns the inputs that a box filter averages for one output. The window is truncated at the
/// ends.
fn window(at: usize, length: usize) -> std::ops::Range<usize> {
    let size = length.div_ceil(2 * SIDE);
    let ahead = size / 2;
    at.saturating_sub(size - 1 - ahead)..(at + ahead + 1).min(length)
}

/// Returns the weights of two box filters and the decimation of `length` values to 64.
fn axis(length: usize) -> Vec<Weights> {
    let one = |output: usize| {
        let centre = (2 * output + 1) * length / (2 * SIDE);
        let outer = window(centre, length);
        let inner: Vec<_> = outer.clone().map(|at| window(at, length)).collect();
        let (start, end) = (inner[0].start, inner[inner.len() - 1].end);
        let mut weights = vec![0.0; end - start];
        for window in inner {
            let share = 1.0 / (outer.len() * window.len()) as f32;
            for at in window {
                weights[at - start] += share;
            }
        }
        Weights { start, weights }
    };
    (0..SIDE).map(one).collect()
}

/// Returns the filtered image's luma at 64x64 points, row by row.
fn decimate(image: &RgbImage) -> [[f32; SIDE]; SIDE] {
    let (across, down) = (axis(image.width as usize), axis(image.height as usize));
    let mut luma = vec![0.0_f32; image.width as usize];
    let mut small = [[0.0; SIDE]; SIDE];
    // Each row contributes to the few outputs whose weights reach it.
    let mut first = 0;
    for (y, row) in image.data.chunks_exact(image.stride()).enumerate() {
        while first < SIDE && down[first].start + down[first].weights.len() <= y {
            first += 1;
        }
        let reached = down[first..].iter().take_while(|column| column.start <= y);
        let reached = reached.count();
        if reached == 0 {
            continue;
        }
        for (luma, [r, g, b]) in luma.iter_mut().zip(row.as_chunks::<3>().0) {
            *luma = 0.299 * f32::from(*r) + 0.587 * f32::from(*g) + 0.114 * f32::from(*b);
        }
        let narrowed: [f32; SIDE] = std::array::from_fn(|x| {
            let Weights { start, weights } = &across[x];
            let pixels = &luma[*start..];
            weights.iter().zip(pixels).map(|(w, p)| w * p).sum()
        });
        for at in first..first + reached {
            let weight = down[at].weights[y - down[at].start];
            for (sum, value) in small[at].iter_mut().zip(narrowed) {
                *sum += weight * value;
            }
        }
    }
    small
}

/// Returns the sum of the differences between adjacent values, in hundredths of the range of luma,
/// divided by 90, at most 100.
fn gradients(small: &[[f32; SIDE]; SIDE]) -> u8 {
    let step = |a: f32, b: f32| (((a - b) * 100.0) / 255.0).abs() as u32;
    let mut sum = 0;
    for (y, row) in small.iter().enumerate() {
        sum += row
            .windows(2)
            .map(|pair| step(pair[0], pair[1]))
            .sum::<u32>();
        if let Some(below) = small.get(y + 1) {
            sum += row
                .iter()
                .zip(below)
                .map(|(&a, &b)| step(a, b))
                .sum::<u32>();
        }
    }
    (sum / 90).min(100) as u8
}

/// Returns the DCT's frequencies 1 to 16 along each axis, row by row.
fn frequencies(small: &[[f32; SIDE]; SIDE]) -> [[f32; LOW]; LOW] {
    static COSINES: LazyLock<[[f32; SIDE]; LOW]> = LazyLock::new(|| {
        let scale = (2.0 / SIDE as f64).sqrt();
        let angle = |k: usize, n: usize| PI / 2.0 / SIDE as f64 * ((k + 1) * (2 * n + 1)) as f64;
        std::array::from_fn(|k| std::array::from_fn(|n| (scale * angle(k, n).cos()) as f32))
    });
    let cosines = &*COSINES;
    std::array::from_fn(|k| {
        let mut columns = [0.0; SIDE];
        for (row, cosine) in small.iter().zip(cosines[k]) {
            for (sum, value) in columns.iter_mut().zip(row) {
                *sum += cosine * value;
            }
        }
        std::array::from_fn(|l| columns.iter().zip(cosines[l]).map(|(c, w)| c * w).sum())
    })
}

/// Returns a bit for each coefficient, the last one first.
fn bits(coefficients: &[[f32; LOW]; LOW]) -> [u8; 32] {
    let mut sorted = coefficients.as_flattened().to_vec();
    sorted.sort_by(f32::total_cmp);
    // The lower of the two middle values.
    let median = sorted[LOW * LOW / 2 - 1];
    let mut hash = [0; 32];
    for (at, &coefficient) in coefficients.as_flattened().iter().enumerate() {
        if coefficient > median {
            hash[31 - at / 8] |= 1 << (at % 8);
        }
    }
    hash
}
