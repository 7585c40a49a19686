//! Vectors as signed bytes, and their products by AVX-512 VNNI.
//!
//! A vector x becomes codes q in -127..=127 and a scale s, with x ≈ o + s q for
//! an origin o that all vectors share (the mean of the data, so that what all
//! have in common costs no precision; or 0). `VPDPBUSD` multiplies 64 pairs of
//! codes and adds them up in one instruction, four times what `f32` does; the
//! sums are exact integers, the same on every processor.
//!
//! # Error
//! With x' = x - o and its rounding x̂ = s q, the product that is left out is
//! |x'·y' - x̂·ŷ| = |(x' - x̂)·y' + x̂·(y' - ŷ)| <= |x' - x̂| |y'| + |x̂| |y' - ŷ|
//! by Cauchy and Schwarz. All four lengths are known when a vector is coded, so
//! the bound holds for any data; for unit vectors of a few hundred normal
//! values it is about 0.015. [`Code::error`] and [`Code::length`] are rounded
//! up, and hold what is lost by `f32` arithmetic as well.
//!
//! # Layout
//! Four codes of one vector make a word. Panels interleave the words of
//! [`LEFT`] or [`RIGHT`] vectors, so that the inner loop reads both sides from
//! front to back: a tile of 8 x 32 sums stays in 16 registers of AVX-512, and a
//! right panel of 768 dimensions (24 kB) in the first-level cache. Codes on the
//! right are stored plus 128, as the instruction wants one side unsigned;
//! [`Code::sum`] takes it back.

use std::ops::Range;

use multiversion::multiversion;

use crate::products::dot;

/// Vectors of a left panel.
pub(crate) const LEFT: usize = 8;

/// Vectors of a right panel: two registers of 16 sums.
pub(crate) const RIGHT: usize = 32;

/// Bytes in a word.
const WORD: usize = 4;

/// Adds 128 to each byte of a word.
const UNSIGNED: i32 = i32::from_ne_bytes([0x80; WORD]);

/// Rounding of `f32` arithmetic on a product of two lengths, generously: an
/// estimate passes through fewer than ten roundings of 2^-24 each.
const ROUNDING: f32 = 1e-6;

/// The words of one register, at the address that it likes best.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Line([i32; 16]);

/// What is known of a coded vector x beside its codes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Code {
    /// s: what a step of a code is worth. Not-a-number where x is not finite, so that all its estimates are none.
    pub scale: f32,
    /// At least |x - o - s q|.
    pub error: f32,
    /// At least |x - o| and |s q|.
    pub length: f32,
    /// o·x, which turns products of x - o back to ones of x.
    pub offset: f32,
    /// Sum of the codes.
    pub sum: i32,
}

/// Turns vectors into codes.
#[derive(Clone, Debug)]
pub(crate) struct Coder {
    /// o.
    origin: Vec<f32>,
    /// |o|².
    square: f32,
}

impl Coder {
    pub fn new(origin: Vec<f32>) -> Self {
        let square = dot(&origin, &origin) as f32;
        Self { origin, square }
    }

    pub fn dim(&self) -> usize {
        self.origin.len()
    }

    /// Words of a coded vector.
    pub fn words(&self) -> usize {
        self.dim().div_ceil(WORD)
    }

    /// Codes `vector` into `words`.
    pub fn code(&self, vector: &[f32], words: &mut [i32]) -> Code {
        let code = code(vector, &self.origin, words);
        let offset = if self.square == 0.0 {
            0.0
        } else {
            dot(&self.origin, vector) as f32
        };
        Code { offset, ..code }
    }

    /// The part of the rounding that the offsets of a product bring in.
    pub fn rounding(&self, left: f32, right: f32) -> f32 {
        ROUNDING * (left.abs() + right.abs() + self.square)
    }
}

/// Values that are coded at a time: a register of AVX-512.
const LANES: usize = 16;

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn code(vector: &[f32], origin: &[f32], words: &mut [i32]) -> Code {
    let (xs, x_rest) = vector.as_chunks::<LANES>();
    let (os, o_rest) = origin.as_chunks::<LANES>();
    let (x_rest, o_rest) = (padded(x_rest), padded(o_rest));

    let mut sizes = Sizes::default();
    for (x, o) in xs.iter().zip(os) {
        sizes.add(x, o);
    }
    sizes.add(&x_rest, &o_rest);
    let length = rounded_up(&sizes.squares);
    words.fill(0);
    if !length.is_finite() {
        return Code::of_no_vector();
    }
    let mut most = 0.0;
    for size in sizes.most {
        most = if size > most { size } else { most };
    }

    let mut rounding = Rounding::to(most / 127.0);
    let (quads, words_rest) = words.as_chunks_mut::<{ LANES / WORD }>();
    for ((x, o), words) in xs.iter().zip(os).zip(&mut *quads) {
        *words = rounding.codes(x, o);
    }
    let last = rounding.codes(&x_rest, &o_rest);
    if quads.len() > xs.len() {
        quads[xs.len()] = last; // the rest fills a register but for less than a word
    }
    words_rest.copy_from_slice(&last[..words_rest.len()]);
    let error = rounded_up(&rounding.errors);
    Code {
        scale: rounding.scale,
        error: error + ROUNDING * length,
        length: length + error,
        offset: 0.0,
        sum: rounding.sums.iter().sum(),
    }
}

/// The last values of a vector, and zeros.
#[inline(always)]
fn padded(rest: &[f32]) -> [f32; LANES] {
    let mut values = [0.0; LANES];
    values[..rest.len()].copy_from_slice(rest);
    values
}

// The loops over lanes below become vector code: no closures, which would not.

/// Of x - o: the greatest values, and the sums of the squares.
#[derive(Default)]
struct Sizes {
    most: [f32; LANES],
    squares: [f32; LANES],
}

impl Sizes {
    #[inline(always)]
    fn add(&mut self, x: &[f32; LANES], o: &[f32; LANES]) {
        for lane in 0..LANES {
            let centred = x[lane] - o[lane];
            let (size, most) = (centred.abs(), self.most[lane]);
            self.most[lane] = if size > most { size } else { most };
            self.squares[lane] += centred * centred;
        }
    }
}

/// What rounding to multiples of `scale` leaves.
struct Rounding {
    scale: f32,
    inverse: f32,
    /// Sums of (x - o - s q)².
    errors: [f32; LANES],
    /// Sums of q.
    sums: [i32; LANES],
}

impl Rounding {
    #[inline(always)]
    fn to(scale: f32) -> Self {
        Self {
            scale,
            inverse: if scale > 1e-30 { 1.0 / scale } else { 0.0 },
            errors: [0.0; LANES],
            sums: [0; LANES],
        }
    }

    #[inline(always)]
    fn codes(&mut self, x: &[f32; LANES], o: &[f32; LANES]) -> [i32; LANES / WORD] {
        let mut bytes = [0_u8; LANES];
        for lane in 0..LANES {
            let centred = x[lane] - o[lane];
            let q = (centred * self.inverse).round_ties_even();
            let q = q.clamp(-127.0, 127.0);
            let error = centred - q * self.scale;
            self.errors[lane] += error * error;
            #[expect(unsafe_code, reason = "a checked conversion is many times slower")]
            // SAFETY: q lies in -127..=127. It is a number, as x - o is finite (the
            // caller returns early where it is not) and so is the inverse.
            let q: i32 = unsafe { q.to_int_unchecked() };
            self.sums[lane] += q;
            bytes[lane] = q as u8; // two's complement
        }
        let mut words = [0; LANES / WORD];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<WORD>().0) {
            *word = i32::from_ne_bytes(*bytes);
        }
        words
    }
}

/// The root of a sum of squares, or a little more: also what underflows.
#[inline(always)]
fn rounded_up(squares: &[f32; LANES]) -> f32 {
    squares.iter().sum::<f32>().sqrt() * 1.001 + 1e-17
}

impl Code {
    /// Of what is not finite: all its estimates are not-a-number.
    fn of_no_vector() -> Self {
        Self {
            scale: f32::NAN,
            error: f32::NAN,
            length: f32::NAN,
            offset: f32::NAN,
            sum: 0,
        }
    }
}

/// Coded vectors on the left of products: their words, [`LEFT`] by [`LEFT`].
#[derive(Default)]
pub(crate) struct LeftPanels(Vec<[i32; LEFT]>);

impl LeftPanels {
    /// Holds the vectors of these words, and no others.
    pub fn load<'a>(&mut self, vectors: impl Iterator<Item = &'a [i32]>) {
        self.0.clear();
        for (index, words) in vectors.enumerate() {
            if index.is_multiple_of(LEFT) {
                self.0.resize(self.0.len() + words.len(), [0; LEFT]);
            }
            let first = self.0.len() - words.len();
            for (slot, word) in self.0[first..].iter_mut().zip(words) {
                slot[index % LEFT] = *word;
            }
        }
    }
}

/// Coded vectors on the right of products.
#[derive(Default)]
pub(crate) struct RightPanels {
    panels: Vec<[Line; RIGHT / 16]>,
    columns: Vec<Column>,
}

/// For the vectors of a panel what their products are multiplied by, and what
/// is added.
#[derive(Clone, Copy, Default)]
#[repr(align(64))]
struct Column {
    scales: [f32; RIGHT],
    offsets: [f32; RIGHT],
}

impl RightPanels {
    /// Adds the words of vector `index`, the next one; `bias` is added to all
    /// its products.
    pub fn push(&mut self, index: usize, words: &[i32], code: Code, bias: f32) {
        let lane = index % RIGHT;
        if lane == 0 {
            let panels = self.panels.len() + words.len();
            self.panels
                .resize(panels, [Line([UNSIGNED; 16]); RIGHT / 16]);
            self.columns.push(Column::default());
        }
        let first = self.panels.len() - words.len();
        for (lines, word) in self.panels[first..].iter_mut().zip(words) {
            lines[lane / 16].0[lane % 16] = word ^ UNSIGNED;
        }
        if let Some(column) = self.columns.last_mut() {
            column.scales[lane] = code.scale;
            column.offsets[lane] = code.offset + bias;
        }
    }
}

/// Estimates x·y + bias of all vectors of `left` (their codes: `codes`) with the vectors of the panels
/// `panels` of `right`, to `out`: one row for each vector of `left`, as wide as
/// the panels are.
pub(crate) fn estimate(
    coder: &Coder,
    codes: &[Code],
    left: &LeftPanels,
    right: &RightPanels,
    panels: Range<usize>,
    out: &mut [f32],
) {
    let words = coder.words();
    assert_eq!(out.len(), codes.len() * panels.len() * RIGHT);
    let block = Block {
        words,
        square: coder.square,
        codes,
        left: &left.0,
        right: &right.panels[panels.start * words..panels.end * words],
        columns: &right.columns[panels],
        out,
    };
    #[cfg(target_arch = "x86_64")]
    if available() {
        #[expect(unsafe_code, reason = "instructions that not every processor has")]
        // SAFETY: `available` says that this processor has them.
        unsafe {
            vnni::estimate(block);
        }
        return;
    }
    block.estimate(portable);
}

/// Whether this processor multiplies bytes faster than `f32`.
pub(crate) fn available() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vnni");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// The sums of a tile: left codes times (right codes + 128).
type Tile = [[i32; RIGHT]; LEFT];

/// What [`estimate`] works on.
struct Block<'a> {
    words: usize,
    square: f32,
    codes: &'a [Code],
    left: &'a [[i32; LEFT]],
    right: &'a [[Line; RIGHT / 16]],
    columns: &'a [Column],
    out: &'a mut [f32],
}

impl Block<'_> {
    #[inline(always)]
    fn estimate(self, tile: impl Fn(&[[i32; LEFT]], &[[Line; RIGHT / 16]]) -> Tile) {
        let width = self.columns.len() * RIGHT;
        let rights = self.right.chunks_exact(self.words).zip(self.columns);
        for (panel, (right, column)) in rights.enumerate() {
            let lefts = self.left.chunks_exact(self.words);
            let outs = self.out.chunks_mut(LEFT * width);
            for ((left, codes), out) in lefts.zip(self.codes.chunks(LEFT)).zip(outs) {
                let sums = tile(left, right);
                for ((sums, code), out) in sums.iter().zip(codes).zip(out.chunks_exact_mut(width)) {
                    let (own, less) = (code.offset - self.square, 128 * code.sum);
                    let (out, _) = out[panel * RIGHT..].as_chunks_mut::<RIGHT>();
                    for lane in 0..RIGHT {
                        let product = (sums[lane] - less) as f32;
                        out[0][lane] = product * (code.scale * column.scales[lane])
                            + (own + column.offsets[lane]);
                    }
                }
            }
        }
    }
}

fn portable(left: &[[i32; LEFT]], right: &[[Line; RIGHT / 16]]) -> Tile {
    let mut sums = [[0; RIGHT]; LEFT];
    for (left, right) in left.iter().zip(right) {
        for (sums, left) in sums.iter_mut().zip(left) {
            let left = left.to_ne_bytes().map(|byte| i32::from(byte as i8));
            for (sum, right) in sums.iter_mut().zip(right.iter().flat_map(|line| line.0)) {
                let right = right.to_ne_bytes().map(i32::from);
                *sum += (0..WORD).map(|i| left[i] * right[i]).sum::<i32>();
            }
        }
    }
    sums
}

#[cfg(target_arch = "x86_64")]
mod vnni {
    use std::arch::x86_64::{
        _mm512_dpbusd_epi32, _mm512_load_si512, _mm512_set1_epi32, _mm512_setzero_si512,
        _mm512_storeu_si512,
    };

    use super::{Block, LEFT, Line, RIGHT, Tile};

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    pub fn estimate(block: Block<'_>) {
        block.estimate(|left, right| tile(left, right));
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    pub fn tile(left: &[[i32; LEFT]], right: &[[Line; RIGHT / 16]]) -> Tile {
        let mut sums = [[_mm512_setzero_si512(); RIGHT / 16]; LEFT];
        for (left, right) in left.iter().zip(right) {
            #[expect(unsafe_code, reason = "loading from memory has no safe form")]
            // SAFETY: a line is 64 bytes, aligned to 64.
            let right = right
                .each_ref()
                .map(|line| unsafe { _mm512_load_si512(std::ptr::from_ref(line).cast()) });
            for (sums, word) in sums.iter_mut().zip(left) {
                let word = _mm512_set1_epi32(*word);
                for (sum, line) in sums.iter_mut().zip(right) {
                    *sum = _mm512_dpbusd_epi32(*sum, line, word);
                }
            }
        }
        let mut tile = [[0; RIGHT]; LEFT];
        for (tile, sums) in tile.iter_mut().zip(sums) {
            for (tile, sum) in tile.as_chunks_mut::<16>().0.iter_mut().zip(sums) {
                #[expect(unsafe_code, reason = "storing to memory has no safe form")]
                // SAFETY: the chunk is 64 bytes, and the instruction needs no alignment.
                unsafe {
                    _mm512_storeu_si512(tile.as_mut_ptr().cast(), sum)
                };
            }
        }
        tile
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The sums are integers: every kernel gives the same.
        #[test]
        fn kernels_agree(
            left in prop::collection::vec(prop::array::uniform8(any::<i32>()), 0..40),
            right in prop::collection::vec(prop::array::uniform32(any::<i32>()), 40),
        ) {
            let lines: Vec<[Line; RIGHT / 16]> = right
                .iter()
                .map(|words| {
                    let (lines, _) = words.as_chunks::<16>();
                    [Line(lines[0]), Line(lines[1])]
                })
                .collect();
            let expected = portable(&left, &lines[..left.len()]);
            for (row, sums) in expected.iter().enumerate() {
                for (column, sum) in sums.iter().enumerate() {
                    let bytes = left.iter().zip(&right).flat_map(|(left, right)| {
                        let (left, right) = (left[row].to_ne_bytes(), right[column].to_ne_bytes());
                        left.into_iter().zip(right)
                    });
                    let exact: i32 = bytes.map(|(l, r)| i32::from(l as i8) * i32::from(r)).sum();
                    prop_assert_eq!(*sum, exact);
                }
            }
            #[cfg(target_arch = "x86_64")]
            if available() {
                #[expect(unsafe_code, reason = "instructions that not every processor has")]
                // SAFETY: `available` says that this processor has them.
                let sums = unsafe { vnni::tile(&left, &lines[..left.len()]) };
                prop_assert_eq!(sums, expected);
            }
        }
    }
}
