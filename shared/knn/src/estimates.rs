//! Many dot products at once, each within a known margin of the truth.
//!
//! Nearly all the time of semantic deduplication goes into products of which
//! hardly any decides something: a vector has one nearest centroid out of
//! thousands, an image one near-duplicate or none. So all are estimated, fast,
//! and those that the margin leaves open are computed with
//! [`dot`](crate::products::dot). Nothing is missed, whatever the data.
//!
//! Two ways to estimate, with the same results in the end:
//!
//! - *Bytes* (`bytes.rs`), where the processor has AVX-512 VNNI.
//! - *Floats*: matrix products by the `gemm` crate, everywhere else.

use std::ops::Range;

use rayon::prelude::*;

use crate::bytes::{self, LeftPanels, RIGHT, RightPanels};
use crate::codes::{Code, Coder};
use crate::products::{dot_products, squared_norm};

/// Vectors of the right side that are estimated at once: whole panels.
pub(crate) const COLUMNS: usize = 1024;

/// With more dimensions the sums of bytes could overflow.
const MOST_DIMENSIONS: usize = 1 << 16;

/// With fewer dimensions an estimate from a quarter of the values is too coarse.
const LEAST_FOR_HEADS: usize = 128;

/// How products are estimated.
pub(crate) enum Estimator {
    Bytes(Coder),
    Floats { dim: usize },
}

/// Vectors, prepared for estimates.
pub(crate) struct Prepared<'a> {
    /// The vectors themselves, one after the other.
    pub vectors: &'a [f32],
    codes: Vec<Code>,
    /// Of each vector its words; none for floats.
    words: Vec<i32>,
}

/// The vectors of the right side, each with a bias that is added to its
/// products.
#[derive(Default)]
pub(crate) struct Right {
    panels: RightPanels,
    vectors: Vec<f32>,
    biases: Vec<f32>,
    most: Most,
}

/// The greatest error, length, offset and rest among vectors.
#[derive(Clone, Copy, Default)]
struct Most {
    error: f32,
    length: f32,
    offset: f32,
    rest: f32,
}

/// Estimated products: a row for each left vector, a column for each right one.
/// Also has the left vectors, and reuses its memory.
#[derive(Default)]
pub(crate) struct Estimates {
    codes: Vec<Code>,
    panels: LeftPanels,
    vectors: Vec<f32>,
    values: Vec<f32>,
    columns: usize,
    width: usize,
}

impl Right {
    pub(crate) fn len(&self) -> usize {
        self.biases.len()
    }

    /// The columns in parts of [`COLUMNS`].
    pub(crate) fn parts(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let len = self.len();
        let firsts = (0..len).step_by(COLUMNS);
        firsts.map(move |first| first..len.min(first + COLUMNS))
    }
}

impl Estimator {
    /// Returns the best way on this processor. `origin` should be near the mean of the vectors.
    pub(crate) fn new(origin: Vec<f32>) -> Self {
        let dim = origin.len();
        let are_bytes = bytes::available() && !cfg!(feature = "floats");
        if are_bytes && dim < MOST_DIMENSIONS {
            Self::Bytes(Coder::new(origin))
        } else {
            Self::Floats { dim }
        }
    }

    pub(crate) fn dim(&self) -> usize {
        match self {
            Self::Bytes(coder) => coder.dim(),
            Self::Floats { dim } => *dim,
        }
    }

    /// Vectors of the left side that are best estimated at once: matrix products
    /// copy the right side each time.
    pub(crate) fn rows(&self) -> usize {
        match self {
            Self::Bytes(_) => 64,
            Self::Floats { .. } => 512,
        }
    }

    /// Prepares `vectors` (n x dim) for either side.
    pub(crate) fn prepare<'a>(&self, vectors: &'a [f32]) -> Prepared<'a> {
        let rows = vectors.par_chunks_exact(self.dim()).with_min_len(256);
        let mut words = Vec::new();
        let codes = match self {
            Self::Bytes(coder) => {
                words.resize(rows.len() * coder.words(), 0);
                rows.zip(words.par_chunks_exact_mut(coder.words()))
                    .map(|(vector, words)| coder.code(vector, words))
                    .collect()
            }
            Self::Floats { dim } => rows.map(|vector| of_floats(vector, *dim)).collect(),
        };
        Prepared {
            vectors,
            codes,
            words,
        }
    }

    /// Adds vector `index` of `prepared` to the right side.
    pub(crate) fn push(&self, right: &mut Right, prepared: &Prepared<'_>, index: usize, bias: f32) {
        let code = prepared.codes[index];
        match self {
            Self::Bytes(_) => {
                let words = self.words_of(prepared, index);
                right.panels.push(right.len(), words, code, bias);
            }
            Self::Floats { dim } => {
                let vector = &prepared.vectors[index * dim..][..*dim];
                right.vectors.extend_from_slice(vector);
            }
        }
        right.biases.push(bias);
        // Not-a-number is ignored: its products are none.
        let most = &mut right.most;
        most.error = most.error.max(code.error);
        most.length = most.length.max(code.length);
        most.rest = most.rest.max(code.rest);
        most.offset = most.offset.max(code.offset.abs() + bias.abs());
    }

    /// A right side of vectors of `prepared`, given their indices and biases.
    pub(crate) fn right(
        &self,
        prepared: &Prepared<'_>,
        vectors: impl Iterator<Item = (usize, f32)>,
    ) -> Right {
        let mut right = Right::default();
        vectors.for_each(|(index, bias)| self.push(&mut right, prepared, index, bias));
        right
    }

    /// Makes the vectors `rows` of `prepared` the left side of `estimates`.
    pub(crate) fn load(
        &self,
        estimates: &mut Estimates,
        prepared: &Prepared<'_>,
        rows: impl Iterator<Item = usize> + Clone,
    ) {
        estimates.codes.clear();
        let codes = rows.clone().map(|row| prepared.codes[row]);
        estimates.codes.extend(codes);
        match self {
            Self::Bytes(_) => {
                let words = rows.map(|row| self.words_of(prepared, row));
                estimates.panels.load(words);
            }
            Self::Floats { dim } => {
                estimates.vectors.clear();
                for row in rows {
                    let vector = &prepared.vectors[row * dim..][..*dim];
                    estimates.vectors.extend_from_slice(vector);
                }
            }
        }
    }

    fn words_of<'a>(&self, prepared: &'a Prepared<'_>, index: usize) -> &'a [i32] {
        let words = prepared.words.len() / prepared.codes.len();
        &prepared.words[index * words..][..words]
    }

    /// Estimates all products of the left side with the vectors `columns` of
    /// `right`, one of its parts.
    pub(crate) fn estimate(&self, estimates: &mut Estimates, right: &Right, columns: Range<usize>) {
        self.estimate_by(estimates, right, columns, false);
    }

    /// As [`Self::estimate`], in a quarter of the time, within [`Self::heads_margin`]. Only where [`Self::has_heads`].
    pub(crate) fn estimate_heads(
        &self,
        estimates: &mut Estimates,
        right: &Right,
        columns: Range<usize>,
    ) {
        self.estimate_by(estimates, right, columns, true);
    }

    /// Whether there are coarser and faster estimates.
    pub(crate) fn has_heads(&self) -> bool {
        matches!(self, Self::Bytes(coder) if coder.dim() >= LEAST_FOR_HEADS)
    }

    fn estimate_by(
        &self,
        estimates: &mut Estimates,
        right: &Right,
        columns: Range<usize>,
        heads: bool,
    ) {
        let Estimates { codes, values, .. } = estimates;
        estimates.columns = columns.len();
        match self {
            Self::Bytes(coder) => {
                let panels = columns.start / RIGHT..columns.end.div_ceil(RIGHT);
                estimates.width = panels.len() * RIGHT;
                values.resize(codes.len() * estimates.width, 0.0);
                let left = &estimates.panels;
                bytes::estimate(coder, codes, left, &right.panels, panels, heads, values);
            }
            Self::Floats { dim } => {
                estimates.width = columns.len();
                values.resize(codes.len() * estimates.width, 0.0);
                let vectors = &right.vectors[columns.start * dim..columns.end * dim];
                dot_products(&estimates.vectors, vectors, *dim, values);
                for row in values.chunks_exact_mut(columns.len()) {
                    for (value, bias) in row.iter_mut().zip(&right.biases[columns.clone()]) {
                        *value += bias;
                    }
                }
            }
        }
    }

    /// How far the estimates of left vector `index` may be off, at most.
    /// Not-a-number for a vector that is not finite: its products are, too.
    pub(crate) fn margin(&self, estimates: &Estimates, index: usize, right: &Right) -> f32 {
        let (own, most) = (estimates.codes[index], right.most);
        let rounding = match self {
            Self::Bytes(coder) => coder.rounding(own.offset, most.offset),
            Self::Floats { .. } => f32::EPSILON * most.offset,
        };
        own.error * most.length + own.length * most.error + rounding
    }
}

impl Estimator {
    /// [`Self::margin`] of estimates from heads.
    pub(crate) fn heads_margin(&self, estimates: &Estimates, index: usize, right: &Right) -> f32 {
        self.margin(estimates, index, right) + estimates.codes[index].rest * right.most.rest
    }
}

impl Estimates {
    /// The products of left vector `index`.
    pub(crate) fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.width..][..self.columns]
    }
}

/// Rounding moves a sum of `dim` products by at most dim 2^-24 |x| |y|, in
/// whatever order they are added (Higham, "Accuracy and Stability of Numerical
/// Algorithms", 2002, section 3.1); twice that leaves room for the rest.
fn of_floats(vector: &[f32], dim: usize) -> Code {
    let length = squared_norm(vector).sqrt() as f32;
    Code {
        scale: 1.0,
        error: (dim + 8) as f32 * f32::EPSILON * length,
        length,
        offset: 0.0,
        sum: 0,
        head_sum: 0,
        rest: length,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::products::dot;

    /// Vectors of very different lengths, some zero, some not finite.
    fn vectors(dim: usize) -> impl Strategy<Value = Vec<Vec<f32>>> {
        let size = prop_oneof![
            Just(0.0_f32),
            Just(1e-4),
            Just(1.0),
            Just(300.0),
            Just(f32::NAN)
        ];
        let vector = (prop::collection::vec(-1.0_f32..1.0, dim), size)
            .prop_map(|(vector, size)| vector.into_iter().map(|value| value * size).collect());
        prop::collection::vec(vector, 0..70)
    }

    fn cases() -> impl Strategy<Value = (Vec<f32>, Vec<Vec<f32>>, Vec<Vec<f32>>)> {
        (1..70_usize).prop_flat_map(|dim| {
            let origin = prop::collection::vec(-1.0_f32..1.0, dim);
            (origin, vectors(dim), vectors(dim))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn estimates_stay_within_their_margins((origin, left, right) in cases()) {
            let dim = origin.len();
            for estimator in [Estimator::Bytes(Coder::new(origin)), Estimator::Floats { dim }] {
                let (left_data, right_data) = (left.concat(), right.concat());
                let (prepared, others) = (estimator.prepare(&left_data), estimator.prepare(&right_data));
                let bias = |index: usize| index as f32 * 0.37 - 3.0;
                let right_side = estimator.right(&others, (0..right.len()).map(|i| (i, bias(i))));
                let mut estimates = Estimates::default();
                estimator.load(&mut estimates, &prepared, 0..left.len());
                let heads = [false, true].into_iter().filter(|heads| !heads || matches!(estimator, Estimator::Bytes(_)));
                for (heads, part) in heads.flat_map(|heads| right_side.parts().map(move |part| (heads, part))) {
                    estimator.estimate_by(&mut estimates, &right_side, part.clone(), heads);
                    for (i, x) in left.iter().enumerate() {
                        let margin = if heads {
                            estimator.heads_margin(&estimates, i, &right_side)
                        } else {
                            estimator.margin(&estimates, i, &right_side)
                        };
                        let margin = f64::from(margin);
                        for (j, y) in right[part.clone()].iter().enumerate() {
                            let exact = dot(x, y) + f64::from(bias(part.start + j));
                            let estimate = f64::from(estimates.row(i)[j]);
                            if exact.is_nan() {
                                prop_assert!(estimate.is_nan());
                            } else {
                                let off = (estimate - exact).abs();
                                prop_assert!(off <= margin, "{exact} {estimate} {margin}");
                            }
                        }
                    }
                }
            }
        }
    }
}
