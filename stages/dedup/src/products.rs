//! Dot products of many vectors at once.
//!
//! Nearly all the time of semantic deduplication goes into matrix products,
//! so they go through the `gemm` crate (AVX-512 where the machine has it).
//! Two things follow, and the callers rely on both:
//!
//! - The order of summation inside [`dot_products`] depends on the shape of
//!   the blocks and on the processor, so its values may differ in the last
//!   bits. Callers keep their block sizes fixed, so that the number of threads
//!   cannot change a result.
//! - Whatever ends up in a result or decides against a threshold is computed
//!   again with [`dot`], whose order of summation is fixed. Equal vectors then
//!   have exactly equal similarities, wherever in the data they stand.

/// Lanes of partial sums in [`dot`]; wide enough for the compiler to use
/// vector registers.
const LANES: usize = 16;

/// Dot product of two vectors of equal length, summed in `f64` in an order
/// that depends on the length alone.
pub(crate) fn dot(left: &[f32], right: &[f32]) -> f64 {
    assert_eq!(left.len(), right.len(), "vectors of one length");
    let (left, left_rest) = left.as_chunks::<LANES>();
    let (right, right_rest) = right.as_chunks::<LANES>();
    let mut sums = [0.0_f64; LANES];
    for (l, r) in left.iter().zip(right) {
        for lane in 0..LANES {
            sums[lane] += f64::from(l[lane]) * f64::from(r[lane]);
        }
    }
    let rest: f64 = left_rest
        .iter()
        .zip(right_rest)
        .map(|(l, r)| f64::from(*l) * f64::from(*r))
        .sum();
    sums.iter().sum::<f64>() + rest
}

/// Squared Euclidean length of a vector.
pub(crate) fn squared_norm(vector: &[f32]) -> f64 {
    dot(vector, vector)
}

/// All dot products of the rows of `left` (m x dim) with the rows of `right`
/// (n x dim), written to `out` (m x n); all three row after row. One thread.
pub(crate) fn dot_products(left: &[f32], right: &[f32], dim: usize, out: &mut [f32]) {
    assert!(dim > 0, "vectors have at least one dimension");
    let (m, n) = (left.len() / dim, right.len() / dim);
    assert_eq!(left.len(), m * dim, "left holds whole rows");
    assert_eq!(right.len(), n * dim, "right holds whole rows");
    assert_eq!(out.len(), m * n, "out holds m x n products");
    #[expect(unsafe_code, reason = "the gemm crate takes raw pointers and strides")]
    // SAFETY: the assertions above make every index that the strides describe
    // lie within its slice: left[i * dim + k] and right[j * dim + k] for
    // i < m, j < n, k < dim, and out[i * n + j]. `out` is borrowed mutably, so
    // it overlaps neither input. With read_dst false, out is only written.
    unsafe {
        gemm::gemm(
            m,
            n,
            dim,
            out.as_mut_ptr(),
            1,
            n as isize,
            false,
            left.as_ptr(),
            1,
            dim as isize,
            right.as_ptr(),
            dim as isize,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Index and value of the greatest of `values`, the first of equal ones.
/// Not-a-number is none; neither is negative infinity.
pub(crate) fn first_maximum(values: &[f32]) -> Option<(usize, f32)> {
    // Two passes, as the compiler makes vector code of the first, and the
    // second ends early. One pass that carries the index along is slower than
    // the matrix product when there are few dimensions.
    let greater = |a: f32, b: f32| if b > a { b } else { a };
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = greater(lanes[lane], chunk[lane]);
        }
    }
    let maximum = lanes
        .iter()
        .chain(rest)
        .copied()
        .fold(f32::NEG_INFINITY, greater);
    if maximum == f32::NEG_INFINITY {
        return None;
    }
    let index = values.iter().position(|&value| value == maximum)?;
    Some((index, maximum))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_equal_dots_for_all_shapes() {
        for (m, n, dim) in [
            (1, 1, 1),
            (1, 7, 2),
            (5, 1, 3),
            (3, 4, 17),
            (70, 65, 600),
            (0, 3, 4),
            (3, 0, 4),
        ] {
            let left: Vec<f32> = (0..m * dim).map(|i| ((i * 37) % 11) as f32 - 5.0).collect();
            let right: Vec<f32> = (0..n * dim).map(|i| ((i * 23) % 13) as f32 - 6.0).collect();
            let mut out = vec![f32::NAN; m * n];
            dot_products(&left, &right, dim, &mut out);
            for i in 0..m {
                for j in 0..n {
                    let exact = dot(&left[i * dim..][..dim], &right[j * dim..][..dim]);
                    assert_eq!(
                        f64::from(out[i * n + j]),
                        exact,
                        "{m} x {n} x {dim} at {i}, {j}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_first_of_equal_maxima() {
        for n in [1, 15, 16, 17, 40] {
            for at in 0..n {
                let mut values = vec![f32::NAN; n];
                values[at] = -2.0;
                values[n - 1] = -2.0;
                assert_eq!(first_maximum(&values), Some((at, -2.0)));
            }
        }
        assert_eq!(first_maximum(&[]), None);
        assert_eq!(first_maximum(&[f32::NAN; 20]), None);
        assert_eq!(first_maximum(&[f32::NEG_INFINITY; 20]), None);
    }
}
