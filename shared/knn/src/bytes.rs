//! Products of vectors that are coded as bytes (`codes.rs`), by AVX-512 VNNI.
//!
//! `VPDPBUSD` multiplies 64 pairs of codes and adds them up in one instruction,
//! four times what `f32` does. The sums are integers, the same on every
//! processor.
//!
//! # Layout
//! Four codes of one vector make a word. Panels interleave the words of
//! [`LEFT`] or [`RIGHT`] vectors, so that the inner loop reads both sides from
//! front to back: a tile of 8 x 32 sums stays in 16 registers of AVX-512, and a
//! right panel of 768 dimensions (24 kB) in the first-level cache. Codes on the
//! right are stored plus 128, as the instruction needs one unsigned side;
//! [`Code::sum`] subtracts it again.

use std::ops::Range;

use crate::codes::{Code, Coder, WORD};

/// Vectors of a left panel.
pub(crate) const LEFT: usize = 8;

/// Vectors of a right panel: two registers of 16 sums.
pub(crate) const RIGHT: usize = 32;

/// Adds 128 to each byte of a word.
const UNSIGNED: i32 = i32::from_ne_bytes([0x80; WORD]);

/// The words of one register, aligned for it.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Line([i32; 16]);

/// Coded vectors on the left of products: their words, [`LEFT`] by [`LEFT`].
#[derive(Default)]
pub(crate) struct LeftPanels(Vec<[i32; LEFT]>);

impl LeftPanels {
    /// Replaces the vectors by those of these words.
    pub(crate) fn load<'a>(&mut self, vectors: impl Iterator<Item = &'a [i32]>) {
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
    pub(crate) fn push(&mut self, index: usize, words: &[i32], code: Code, bias: f32) {
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
/// the panels are. With `heads` from the heads of the vectors alone.
pub(crate) fn estimate(
    coder: &Coder,
    codes: &[Code],
    left: &LeftPanels,
    right: &RightPanels,
    panels: Range<usize>,
    heads: bool,
    out: &mut [f32],
) {
    let words = coder.words();
    assert_eq!(out.len(), codes.len() * panels.len() * RIGHT);
    let block = Block {
        words,
        multiplied: if heads { coder.head_words() } else { words },
        heads,
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
        // SAFETY: `available` has checked that this processor has them.
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
    /// How many of the words are multiplied.
    multiplied: usize,
    heads: bool,
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
                let sums = tile(&left[..self.multiplied], &right[..self.multiplied]);
                for ((sums, code), out) in sums.iter().zip(codes).zip(out.chunks_exact_mut(width)) {
                    let sum = if self.heads { code.head_sum } else { code.sum };
                    let (own, less) = (code.offset - self.square, 128 * sum);
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
    pub(super) fn estimate(block: Block<'_>) {
        block.estimate(|left, right| tile(left, right));
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    pub(super) fn tile(left: &[[i32; LEFT]], right: &[[Line; RIGHT / 16]]) -> Tile {
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
                // SAFETY: `available` has checked that this processor has them.
                let sums = unsafe { vnni::tile(&left, &lines[..left.len()]) };
                prop_assert_eq!(sums, expected);
            }
        }
    }
}
