//! The two passes of resizing: along the rows, and down the columns.
//!
//! Both use [`weigh`]: cells of many bytes, with the same weight for all bytes of a cell. Down the
//! columns, a cell is a piece of a row. Along the rows, adjacent pixels need different weights, so
//! a cell consists of one pixel from each of many rows. [`gather`] interleaves the rows for this,
//! and [`scatter`] separates them again.
//!
//! The code is written for autovectorisation, once for each kind of processor (`multiversion`). The
//! sums are integers, so all variants produce the same bytes.

use multiversion::multiversion;

use crate::axis::{Axis, PRECISION};
use crate::buffers;

/// The size of a cell along the rows: a pixel from each of 21 rows, and a spare byte.
const CELL: usize = 64;
const ROWS: usize = CELL / 3;
type Cell = [u8; CELL];

const HALF: i32 = 1 << (PRECISION - 1);

/// Returns the weighted sum of cells, in fixed point, rounded.
#[inline(always)]
fn weigh<'a, const N: usize>(cells: impl Iterator<Item = &'a [u8; N]>, weights: &[i32]) -> [u8; N] {
    let mut sums = [HALF; N];
    for (cell, &weight) in cells.zip(weights) {
        for (sum, &value) in sums.iter_mut().zip(cell) {
            *sum += i32::from(value) * weight;
        }
    }
    let mut out = [0; N];
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = to_byte(sum);
    }
    out
}

#[inline(always)]
fn to_byte(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// Resamples rows of RGB, `stride` bytes each, along the rows. The rows contain the columns from
/// `first_column` on. `out` receives as many rows of `3 * axis.len()` bytes.
pub(crate) fn along_rows(
    source: &[u8],
    stride: usize,
    first_column: usize,
    axis: &Axis,
    out: &mut [u8],
) {
    let width = axis.len() * 3;
    if let Some(first) = axis.identity {
        let begin = (first - first_column) * 3;
        for (row, out) in source.chunks_exact(stride).zip(out.chunks_exact_mut(width)) {
            out.copy_from_slice(&row[begin..][..width]);
        }
        return;
    }
    let needed = axis.needed();
    let begin = (needed.start - first_column) * 3;
    let mut wide = buffers::take(needed.len() * CELL);
    let mut narrow = buffers::take(axis.len() * CELL);
    for (source, out) in source
        .chunks(ROWS * stride)
        .zip(out.chunks_mut(ROWS * width))
    {
        let wide = wide.as_chunks_mut().0;
        let narrow = narrow.as_chunks_mut().0;
        gather(&source[begin..], stride, wide);
        along_cells(wide, needed.start, axis, narrow);
        for (row, out) in out.chunks_exact_mut(width).enumerate() {
            scatter(narrow, 3 * row, out);
        }
    }
    buffers::give(wide);
    buffers::give(narrow);
}

/// Interleaves the pixels of up to [`ROWS`] rows. Works cell by cell, so that each is written
/// completely while it is in the cache.
fn gather(source: &[u8], stride: usize, cells: &mut [Cell]) {
    let places = (0..ROWS).map(|row| 3 * row);
    let (fours, rest) = cells.as_chunks_mut::<4>();
    for (index, [a, b, c, d]) in fours.iter_mut().enumerate() {
        for (row, at) in source[12 * index..].chunks(stride).zip(places.clone()) {
            // Copying four bytes is faster than three. The extra byte belongs to the next row.
            let Some(four) = row.first_chunk::<12>() else {
                break;
            };
            a[at..at + 4].copy_from_slice(&four[0..4]);
            b[at..at + 4].copy_from_slice(&four[3..7]);
            c[at..at + 4].copy_from_slice(&four[6..10]);
            d[at..at + 3].copy_from_slice(&four[9..12]);
        }
    }
    let done = 12 * fours.len();
    for (index, cell) in rest.iter_mut().enumerate() {
        let rows = source[done + 3 * index..].chunks(stride);
        for (row, at) in rows.zip(places.clone()) {
            cell[at..at + 3].copy_from_slice(&row[..3]);
        }
    }
}

/// Copies one row's pixels, at the byte `at`, out of the cells.
fn scatter(cells: &[Cell], at: usize, row: &mut [u8]) {
    let (fours, rest) = cells.as_chunks::<4>();
    for (four, [a, b, c, d]) in row.as_chunks_mut::<12>().0.iter_mut().zip(fours) {
        four[0..4].copy_from_slice(&a[at..at + 4]);
        four[3..7].copy_from_slice(&b[at..at + 4]);
        four[6..10].copy_from_slice(&c[at..at + 4]);
        four[9..12].copy_from_slice(&d[at..at + 3]);
    }
    let last = row[12 * fours.len()..].as_chunks_mut::<3>().0;
    for (pixel, cell) in last.iter_mut().zip(rest) {
        pixel.copy_from_slice(&cell[at..at + 3]);
    }
}

#[multiversion(targets = "simd")]
fn along_cells(cells: &[Cell], first_column: usize, axis: &Axis, out: &mut [Cell]) {
    for (index, out) in out.iter_mut().enumerate() {
        let (first, weights) = axis.of(index);
        *out = weigh(cells[first - first_column..].iter(), weights);
    }
}

/// Resamples grey rows of `width` bytes along the rows, for few outputs from many inputs: the
/// products within one row fill the vectors. `source` has [`Axis::slack`] bytes of any content
/// after its last row.
#[multiversion(targets = "simd")]
pub(crate) fn along_grey_rows(source: &[u8], width: usize, axis: &Axis, out: &mut [u8]) {
    for (row, out) in out.chunks_exact_mut(axis.len()).enumerate() {
        let row = &source[row * width..];
        if let Some(first) = axis.identity {
            out.copy_from_slice(&row[first..][..axis.len()]);
            continue;
        }
        for (index, out) in out.iter_mut().enumerate() {
            let (first, weights) = axis.padded(index);
            let values = row[first..].as_chunks::<{ Axis::STEP }>().0.iter();
            let mut sums = [0; Axis::STEP];
            for (values, weights) in values.zip(weights.as_chunks::<{ Axis::STEP }>().0) {
                for lane in 0..Axis::STEP {
                    sums[lane] += i32::from(values[lane]) * weights[lane];
                }
            }
            *out = to_byte(HALF + sums.iter().sum::<i32>());
        }
    }
}

/// Resamples down the columns. `source` has rows of `stride` bytes, from row `first_row` on. `out`
/// receives `axis.len()` rows of `width` bytes, taken from offset `begin` of each row.
#[multiversion(targets = "simd")]
pub(crate) fn down_columns(
    source: &[u8],
    stride: usize,
    first_row: usize,
    begin: usize,
    width: usize,
    axis: &Axis,
    out: &mut [u8],
) {
    for (index, out) in out.chunks_exact_mut(width).enumerate() {
        let rows = |first: usize| &source[(first - first_row) * stride + begin..];
        if let Some(first) = axis.identity {
            out.copy_from_slice(&rows(first + index)[..width]);
            continue;
        }
        let (first, weights) = axis.of(index);
        let rows = rows(first);
        let mut at = 0;
        while at < width {
            let (rows, out) = (&rows[at..], &mut out[at..]);
            at += match out.len() {
                48.. => piece::<48>(rows, stride, weights, out),
                16.. => piece::<16>(rows, stride, weights, out),
                _ => piece::<1>(rows, stride, weights, out),
            };
        }
    }
}

/// Computes the first `N` bytes of an output row. Returns `N`.
#[inline(always)]
fn piece<const N: usize>(rows: &[u8], stride: usize, weights: &[i32], out: &mut [u8]) -> usize {
    // Unwrap safety: a row has `N` bytes from here on, the last one too.
    let cells = rows.chunks(stride).map(|row| row.first_chunk().unwrap());
    out[..N].copy_from_slice(&weigh::<N>(cells, weights));
    N
}

/// Compares the vectorised paths with a sequential sum.
#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::axis::{AxisSpec, Filter};
    use proptest::prelude::*;

    fn plain(value: impl Fn(usize) -> u8, axis: &Axis, index: usize) -> u8 {
        let (first, weights) = axis.of(index);
        let products = (first..).zip(weights);
        to_byte(products.fold(HALF, |sum, (at, weight)| {
            sum + i32::from(value(at)) * weight
        }))
    }

    fn noise(length: usize, seed: u32) -> Vec<u8> {
        let mut state = seed | 1;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    fn axis(input: u32, output: u32, filter: usize) -> Rc<Axis> {
        use Filter::{Bicubic, Bilinear, Box, Lanczos};
        Axis::for_spec(AxisSpec {
            input,
            size: input,
            by: 1,
            output: output.into(),
            filter: [Box, Bilinear, Bicubic, Lanczos][filter],
            start: 0,
            length: output,
        })
    }

    proptest! {
        #[test]
        fn along_rows_of_rgb(
            width in 1u32..120, to in 1u32..90, rows in 1usize..50, filter in 0usize..4, seed: u32,
        ) {
            let (axis, stride) = (axis(width, to, filter), width as usize * 3);
            let source = noise(stride * rows, seed);
            let mut out = vec![0; to as usize * 3 * rows];
            along_rows(&source, stride, 0, &axis, &mut out);
            for (at, &got) in out.iter().enumerate() {
                let (row, column, channel) = (at / 3 / to as usize, at / 3 % to as usize, at % 3);
                let value = |x: usize| source[row * stride + x * 3 + channel];
                prop_assert_eq!(got, plain(value, &axis, column));
            }
        }

        #[test]
        fn along_rows_of_grey(
            width in 1u32..200, to in 1u32..40, rows in 1usize..20, filter in 0usize..4, seed: u32,
        ) {
            let (axis, stride) = (axis(width, to, filter), width as usize);
            let source = noise(stride * rows + axis.slack(), seed);
            let mut out = vec![0; to as usize * rows];
            along_grey_rows(&source, stride, &axis, &mut out);
            for (at, &got) in out.iter().enumerate() {
                let value = |x: usize| source[at / to as usize * stride + x];
                prop_assert_eq!(got, plain(value, &axis, at % to as usize));
            }
        }

        #[test]
        fn down_columns_of_any_width(
            height in 1u32..90, to in 1u32..90, width in 1usize..200, filter in 0usize..4, seed: u32,
        ) {
            let (axis, stride) = (axis(height, to, filter), width + 5);
            let source = noise(stride * height as usize, seed);
            let mut out = vec![0; width * to as usize];
            down_columns(&source, stride, 0, 2, width, &axis, &mut out);
            for (at, &got) in out.iter().enumerate() {
                let value = |y: usize| source[y * stride + 2 + at % width];
                prop_assert_eq!(got, plain(value, &axis, at / width));
            }
        }
    }
}
