//! The two passes of resizing: along the rows, and down the columns.
//!
//! Both come down to one thing, [`weigh`]: cells of many bytes each, the same weight for all bytes of
//! a cell. Down the columns, a cell is a piece of a row. Along the rows, neighbours would need
//! different weights; there a cell is one pixel of each of many rows, which are laid side by side
//! for it ([`gather`]) and apart again afterwards.
//!
//! Written for the compiler to vectorise, once for each kind of processor (`multiversion`); the sums
//! are whole numbers, so all kinds give the same bytes.

use multiversion::multiversion;

use crate::axis::{Axis, PRECISION};
use crate::buffers;

/// Bytes in a cell: 21 rows of RGB and a spare one, or 64 grey rows.
pub(crate) const CELL: usize = 64;
type Cell = [u8; CELL];

const HALF: i32 = 1 << (PRECISION - 1);

/// The weighted sum of cells, in fixed point, rounded.
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
        *out = (sum >> PRECISION).clamp(0, 255) as u8;
    }
    out
}

/// Resamples rows of `stride` bytes along themselves; they hold `C` interleaved channels and the
/// columns from `first_column` on. `out` takes as many rows of `axis.len() * C` bytes.
pub(crate) fn along_rows<const C: usize>(
    source: &[u8],
    stride: usize,
    first_column: usize,
    axis: &Axis,
    out: &mut [u8],
) {
    let width = axis.len() * C;
    if let Some(first) = axis.identity {
        let begin = (first - first_column) * C;
        for (row, out) in source.chunks_exact(stride).zip(out.chunks_exact_mut(width)) {
            out.copy_from_slice(&row[begin..][..width]);
        }
        return;
    }
    let needed = axis.needed();
    let begin = (needed.start - first_column) * C;
    let rows = CELL / C;
    let mut wide = buffers::take(needed.len() * CELL);
    let mut narrow = buffers::take(axis.len() * CELL);
    for (source, out) in source
        .chunks(rows * stride)
        .zip(out.chunks_mut(rows * width))
    {
        let wide = wide.as_chunks_mut::<CELL>().0;
        let narrow = narrow.as_chunks_mut::<CELL>().0;
        gather::<C>(source, stride, begin, wide);
        along_cells(wide, needed.start, axis, narrow);
        for (row, out) in out.chunks_exact_mut(width).enumerate() {
            scatter::<C>(narrow, row * C, out);
        }
    }
    buffers::give(wide);
    buffers::give(narrow);
}

/// Lays the pixels of as many rows as a cell takes side by side, from the byte `begin` of each row on.
/// Cell by cell, so that each is written as a whole while it is in the cache.
fn gather<const C: usize>(rows: &[u8], stride: usize, begin: usize, cells: &mut [Cell]) {
    let (fours, rest) = cells.as_chunks_mut::<4>();
    let begin_of_rest = begin + 4 * C * fours.len();
    for (index, [a, b, c, d]) in fours.iter_mut().enumerate() {
        let rows = rows[begin + 4 * C * index..].chunks(stride);
        for (row, at) in rows.zip((0..=CELL - C).step_by(C)) {
            match row.first_chunk::<12>() {
                // Four bytes are moved faster than three; the one too many is the next row's.
                Some(row) if C == 3 && at <= CELL - 4 => {
                    a[at..at + 4].copy_from_slice(&row[0..4]);
                    b[at..at + 4].copy_from_slice(&row[3..7]);
                    c[at..at + 4].copy_from_slice(&row[6..10]);
                    d[at..at + 3].copy_from_slice(&row[9..12]);
                }
                _ => {
                    let cells = [&mut *a, b, c, d].into_iter();
                    for (cell, pixel) in cells.zip(row.as_chunks::<C>().0) {
                        cell[at..at + C].copy_from_slice(pixel);
                    }
                }
            }
        }
    }
    for (index, cell) in rest.iter_mut().enumerate() {
        let rows = rows[begin_of_rest + C * index..].chunks(stride);
        for (row, at) in rows.zip((0..=CELL - C).step_by(C)) {
            cell[at..at + C].copy_from_slice(&row[..C]);
        }
    }
}

/// Takes a row's pixels out of the cells again.
fn scatter<const C: usize>(cells: &[Cell], at: usize, row: &mut [u8]) {
    if C != 3 {
        for (pixel, cell) in row.as_chunks_mut::<C>().0.iter_mut().zip(cells) {
            pixel.copy_from_slice(&cell[at..at + C]);
        }
        return;
    }
    let (fours, rest) = cells.as_chunks::<4>();
    for (four, [a, b, c, d]) in row.as_chunks_mut::<12>().0.iter_mut().zip(fours) {
        four[0..4].copy_from_slice(&a[at..at + 4]);
        four[3..7].copy_from_slice(&b[at..at + 4]);
        four[6..10].copy_from_slice(&c[at..at + 4]);
        four[9..12].copy_from_slice(&d[at..at + 3]);
    }
    let last = &mut row[fours.len() * 12..];
    for (pixel, cell) in last.as_chunks_mut::<3>().0.iter_mut().zip(rest) {
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

/// Resamples down the columns. `source` has rows of `stride` bytes, from row `first_row` on; `out`
/// takes `axis.len()` rows of `width` bytes, of those that stand at `begin` in each row.
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

/// The first `N` bytes of an output row; gives N.
#[inline(always)]
fn piece<const N: usize>(rows: &[u8], stride: usize, weights: &[i32], out: &mut [u8]) -> usize {
    // Unwrap safety: a row has `N` bytes from here on, the last one too.
    let cells = rows.chunks(stride).map(|row| row.first_chunk().unwrap());
    out[..N].copy_from_slice(&weigh::<N>(cells, weights));
    N
}
