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

use crate::bytes::{self, Code, Coder, LeftPanels, RIGHT, RightPanels};
use crate::products::{dot_products, squared_norm};

/// Vectors of the right side that are estimated at once: whole panels.
pub(crate) const COLUMNS: usize = 1024;

/// With more dimensions the sums of bytes could overflow.
const MOST_DIMENSIONS: usize = 1 << 16;

/// How products are estimated.
pub(crate) enum Estimator {
    Bytes(Coder),
    Floats { dim: usize },
}

/// Some vectors of the left side.
pub(crate) struct Left<'a> {
    /// The vectors themselves, one after the other.
    pub vectors: &'a [f32],
    codes: Vec<Code>,
    panels: LeftPanels,
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

/// The greatest error, length and offset among vectors.
#[derive(Clone, Copy, Default)]
struct Most {
    error: f32,
    length: f32,
    offset: f32,
}

/// Estimated products: a row for each left vector, a column for each right one.
#[derive(Default)]
pub(crate) struct Estimates {
    values: Vec<f32>,
    columns: usize,
    width: usize,
}

impl Estimates {
    /// The products of left vector `index`.
    pub fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.width..][..self.columns]
    }
}

impl Right {
    pub fn len(&self) -> usize {
        self.biases.len()
    }
}

impl Estimator {
    /// The best way on this processor. `origin` should lie amid the vectors.
    pub fn new(origin: Vec<f32>) -> Self {
        let dim = origin.len();
        if bytes::available() && dim < MOST_DIMENSIONS {
            Self::Bytes(Coder::new(origin))
        } else {
            Self::Floats { dim }
        }
    }

    pub fn dim(&self) -> usize {
        match self {
            Self::Bytes(coder) => coder.dim(),
            Self::Floats { dim } => *dim,
        }
    }

    /// Vectors that a [`Left`] should hold: a matrix product packs the right side again for each.
    pub fn rows(&self) -> usize {
        match self {
            Self::Bytes(_) => 64,
            Self::Floats { .. } => 512,
        }
    }

    /// Prepares `vectors` (n x dim) for the left side.
    pub fn left<'a>(&self, vectors: &'a [f32]) -> Left<'a> {
        let mut panels = LeftPanels::default();
        let rows = vectors.chunks_exact(self.dim());
        let codes = match self {
            Self::Bytes(coder) => {
                let mut words = vec![0; coder.words()];
                let coded = rows.enumerate().map(|(index, vector)| {
                    let code = coder.code(vector, &mut words);
                    panels.push(index, &words);
                    code
                });
                coded.collect()
            }
            Self::Floats { dim } => rows.map(|vector| of_floats(vector, *dim)).collect(),
        };
        Left {
            vectors,
            codes,
            panels,
        }
    }

    /// Adds vector `index` of `left` to the right side.
    pub fn push(&self, right: &mut Right, left: &Left<'_>, index: usize, bias: f32) {
        let code = left.codes[index];
        match self {
            Self::Bytes(coder) => {
                let words = left.panels.words(index, coder.words());
                right.panels.push(right.len(), words, code, bias);
            }
            Self::Floats { dim } => {
                let vector = &left.vectors[index * dim..][..*dim];
                right.vectors.extend_from_slice(vector);
            }
        }
        right.biases.push(bias);
        // Not-a-number is ignored: its products are none.
        let most = &mut right.most;
        most.error = most.error.max(code.error);
        most.length = most.length.max(code.length);
        most.offset = most.offset.max(code.offset.abs() + bias.abs());
    }

    /// The right side of all of `left`, with their biases.
    pub fn right(&self, left: &Left<'_>, bias: impl Fn(usize) -> f32) -> Right {
        let mut right = Right::default();
        for index in 0..left.codes.len() {
            self.push(&mut right, left, index, bias(index));
        }
        right
    }

    /// How far the estimates of left vector `index` may be off, at most.
    /// Not-a-number for a vector that is not finite: its products are, too.
    pub fn margin(&self, left: &Left<'_>, index: usize, right: &Right) -> f32 {
        let (own, most) = (left.codes[index], right.most);
        let rounding = match self {
            Self::Bytes(coder) => coder.rounding(own.offset, most.offset),
            Self::Floats { .. } => f32::EPSILON * most.offset,
        };
        own.error * most.length + own.length * most.error + rounding
    }

    /// Estimates all products of `left` with the vectors `columns` of `right`,
    /// which start at a multiple of [`COLUMNS`].
    pub fn estimate(
        &self,
        left: &Left<'_>,
        right: &Right,
        columns: Range<usize>,
        out: &mut Estimates,
    ) {
        debug_assert!(columns.start.is_multiple_of(COLUMNS));
        let rows = left.codes.len();
        out.columns = columns.len();
        match self {
            Self::Bytes(coder) => {
                let panels = columns.start / RIGHT..columns.end.div_ceil(RIGHT);
                out.width = panels.len() * RIGHT;
                out.values.resize(rows * out.width, 0.0);
                let (codes, out) = (&left.codes, &mut out.values);
                bytes::estimate(coder, codes, &left.panels, &right.panels, panels, out);
            }
            Self::Floats { dim } => {
                out.width = columns.len();
                out.values.resize(rows * out.width, 0.0);
                let vectors = &right.vectors[columns.start * dim..columns.end * dim];
                dot_products(left.vectors, vectors, *dim, &mut out.values);
                for row in out.values.chunks_exact_mut(out.width.max(1)) {
                    for (value, bias) in row.iter_mut().zip(&right.biases[columns.clone()]) {
                        *value += bias;
                    }
                }
            }
        }
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
    }
}
