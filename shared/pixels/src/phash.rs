//! The classic 64-bit perceptual hash (pHash).
//!
//! Definition: "Looks Like It" (hackerfactor.com, archives/432) in the form of
//! `imagehash.phash(hash_size=8, highfreq_factor=4)` of the Python package ImageHash: convert to
//! grey, shrink to 32x32 with Lanczos, apply the two-dimensional DCT-II, and take the 8x8 lowest
//! frequencies. A bit is set if its coefficient is above the median of the 64. The bits are in row
//! order, the first one highest.
//!
//! It equals ImageHash's value on Pillow up to 12. (Pillow 13 uses the other order of passes for
//! images more than twice as high as wide, which changes a bit or two.) One exception: where a
//! coefficient is zero in exact arithmetic, rounding noise decides ImageHash's bit. Here it counts
//! as zero, so that a uniform image has the same hash at every size.

use std::f64::consts::PI;
use std::sync::LazyLock;

use crate::axis::{Axis, AxisSpec, Filter};
use crate::buffers;
use crate::counts::to_grey;
use crate::decode::RgbImage;
use crate::passes::{along_grey_rows, down_columns};

/// The side of the shrunk image.
const SIDE: usize = 32;
/// The side of the square of low frequencies.
const LOW: usize = 8;
/// The number of rows that are converted to grey at a time.
const ROWS: usize = 16;

/// Returns the perceptual hash of an upright image. Hashes of near-duplicates differ in a few bits
/// ([`hamming`]).
pub fn phash(image: &RgbImage) -> u64 {
    hash(&low_frequencies(&shrink(image)))
}

/// Returns the perceptual hashes of the seven transformed forms of an upright image, in this order:
/// mirrored left to right, mirrored top to bottom, rotated by 90 degrees counterclockwise, by 180, by
/// 270, mirrored at the diagonal from the top left (transposed), mirrored at the other diagonal.
///
/// The image itself is not transformed: mirroring changes the sign of the odd frequencies along an
/// axis, and transposing exchanges the axes.
pub fn phash_transformed(image: &RgbImage) -> [u64; 7] {
    let coefficients = low_frequencies(&shrink(image));
    let form = |mirror_rows: bool, mirror_columns: bool, transpose: bool| {
        let transformed = std::array::from_fn(|index| {
            let (row, column) = (index / LOW, index % LOW);
            let is_odd = |mirror: bool, frequency: usize| mirror && frequency % 2 == 1;
            let changes_sign = is_odd(mirror_rows, row) != is_odd(mirror_columns, column);
            let source = if transpose { column * LOW + row } else { index };
            let value = coefficients[source];
            if changes_sign { -value } else { value }
        });
        hash(&transformed)
    };
    [
        form(false, true, false),
        form(true, false, false),
        form(true, false, true),
        form(true, true, false),
        form(false, true, true),
        form(false, false, true),
        form(true, true, true),
    ]
}

/// Returns a bit for each coefficient: whether it is above the median.
fn hash(coefficients: &[f64; LOW * LOW]) -> u64 {
    let mut sorted = *coefficients;
    sorted.sort_by(f64::total_cmp);
    let median = (sorted[31] + sorted[32]) / 2.0;
    coefficients
        .iter()
        .fold(0, |hash, &c| (hash << 1) | u64::from(c > median))
}

/// Returns the number of bits in which two hashes differ.
pub fn hamming(a: u64, b: u64) -> u32 {
    (a ^ b).count_ones()
}

/// Converts to grey and shrinks to 32x32. Converts some rows at a time, never the whole image.
fn shrink(image: &RgbImage) -> [u8; SIDE * SIDE] {
    let mut out = [0; SIDE * SIDE];
    if image.width == 0 || image.height == 0 {
        return out;
    }
    let axis = |length| {
        Axis::for_spec(AxisSpec {
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

/// Returns the 8x8 lowest of the 32x32 coefficients of the DCT-II (unnormalised, scipy's default).
fn low_frequencies(grey: &[u8; SIDE * SIDE]) -> [f64; LOW * LOW] {
    /// Exact zeros are computed as 1e-10 at most. Other coefficients of integers are far above.
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
