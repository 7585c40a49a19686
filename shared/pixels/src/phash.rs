//! The classic 64-bit perceptual hash (pHash).
//!
//! Definition: "Looks Like It" (hackerfactor.com, archives/432) in the form of
//! `imagehash.phash(hash_size=8, highfreq_factor=4)` of the Python package ImageHash: grey, shrunk to
//! 32x32 with Lanczos, two-dimensional DCT-II, the 8x8 lowest frequencies; a bit is set where the
//! coefficient is above the median of the 64. Row by row, the first bit is the highest.
//!
//! It equals ImageHash's value on Pillow up to 12. (Pillow 13 shrinks pictures more than twice as
//! high as wide in the other order, which turns a bit or two.) The one exception: where a coefficient
//! is zero in exact arithmetic, rounding noise decides about theirs; we take it as zero, so that a
//! flat picture has the same hash at every size.

use std::f64::consts::PI;
use std::sync::LazyLock;

use crate::axis::{Axis, Filter, Stretch};
use crate::buffers;
use crate::decode::RgbImage;
use crate::passes::{along_grey_rows, down_columns};
use crate::tally::to_grey;

/// Side of the shrunk picture.
const SIDE: usize = 32;
/// Side of the square of low frequencies.
const LOW: usize = 8;
/// Rows that are made grey at a time.
const ROWS: usize = 16;

/// The perceptual hash of an upright picture. Near-copies are a few bits apart ([`hamming`]).
pub fn phash(image: &RgbImage) -> u64 {
    let coefficients = low_frequencies(&shrink(image));
    let mut sorted = coefficients;
    sorted.sort_by(f64::total_cmp);
    let median = (sorted[31] + sorted[32]) / 2.0;
    coefficients
        .iter()
        .fold(0, |hash, &c| (hash << 1) | u64::from(c > median))
}

/// In how many bits two hashes differ.
pub fn hamming(a: u64, b: u64) -> u32 {
    (a ^ b).count_ones()
}

/// Grey and 32x32. The grey picture is made some rows at a time, never whole.
fn shrink(image: &RgbImage) -> [u8; SIDE * SIDE] {
    let mut out = [0; SIDE * SIDE];
    if image.width == 0 || image.height == 0 {
        return out;
    }
    let axis = |length| {
        Axis::of_stretch(Stretch {
            input: length,
            size: length,
            by: 1,
            output: SIDE as u64,
            filter: Filter::Lanczos,
            start: 0,
            length: SIDE as u32,
        })
    };
    let (across, down) = (axis(image.width), axis(image.height));
    let width = image.width as usize;
    let mut grey = buffers::take(width * ROWS + across.slack());
    let mut narrowed = buffers::take(SIDE * image.height as usize);
    for (rows, narrowed) in image
        .data
        .chunks(image.stride() * ROWS)
        .zip(narrowed.chunks_mut(SIDE * ROWS))
    {
        to_grey(rows, &mut grey);
        along_grey_rows(&grey, width, &across, narrowed);
    }
    down_columns(&narrowed, SIDE, 0, 0, SIDE, &down, &mut out);
    buffers::give(grey);
    buffers::give(narrowed);
    out
}

/// The 8x8 lowest of the 32x32 coefficients of the DCT-II (unnormalised, as scipy's default).
fn low_frequencies(grey: &[u8; SIDE * SIDE]) -> [f64; LOW * LOW] {
    /// Exact zeros come out at 1e-10 at most, real coefficients of whole numbers far above.
    const NOISE: f64 = 1e-6;
    static COSINES: LazyLock<[[f64; SIDE]; LOW]> = LazyLock::new(|| {
        let angle = |k: usize, n: usize| PI * k as f64 * (2 * n + 1) as f64 / (2 * SIDE) as f64;
        std::array::from_fn(|k| std::array::from_fn(|n| 2.0 * angle(k, n).cos()))
    });
    let cosines = &*COSINES;
    // Down the columns first: `columns[k][x]`.
    let columns: [[f64; SIDE]; LOW] = std::array::from_fn(|k| {
        let mut sums = [0.0; SIDE];
        for (row, cosine) in grey.as_chunks::<SIDE>().0.iter().zip(cosines[k]) {
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum += f64::from(value) * cosine;
            }
        }
        sums
    });
    std::array::from_fn(|index| {
        let (row, column) = (index / LOW, index % LOW);
        let sum: f64 = (0..SIDE)
            .map(|x| columns[row][x] * cosines[column][x])
            .sum();
        if sum.abs() < NOISE { 0.0 } else { sum }
    })
}
