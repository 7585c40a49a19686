//! Dot products, one at a time and many at once.
//!
//! Whatever ends up in a result or decides between vectors is computed with
//! [`dot`], in `f64` and in a fixed order. So results depend neither on the
//! processor nor on the number of threads, and equal vectors have exactly equal
//! similarities at any position. Estimates select the pairs that are worth the
//! effort (`estimates.rs`).

use multiversion::multiversion;

/// Lanes of partial sums in [`dot`]; wide enough for the compiler to use
/// vector registers.
const LANES: usize = 16;

/// Dot product of two vectors of equal length, summed in `f64` in an order
/// that depends on the length alone. (A product of two `f32` is exact in
/// `f64`, so fused multiply-add gives the same.)
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
pub fn dot(left: &[f32], right: &[f32]) -> f64 {
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

/// Adds `sign` times `vector` to `sums`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
pub(crate) fn add_to(sums: &mut [f64], vector: &[f32], sign: f64) {
    for (sum, value) in sums.iter_mut().zip(vector) {
        *sum += sign * f64::from(*value);
    }
}

/// The mean of up to 4096 of the rows of `vectors` (n x `dim`), evenly spread.
pub(crate) fn mean(vectors: &[f32], dim: usize) -> Vec<f32> {
    let rows = vectors.len() / dim;
    let taken = rows.min(4096);
    let mut sums = vec![0.0; dim];
    for index in 0..taken {
        add_to(
            &mut sums,
            &vectors[index * rows / taken * dim..][..dim],
            1.0,
        );
    }
    let share = 1.0 / taken.max(1) as f64;
    sums.iter().map(|sum| (sum * share) as f32).collect()
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
    // be within its slice: left[i * dim + k] and right[j * dim + k] for
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

/// The greatest of `values`; not-a-number is none.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
pub(crate) fn maximum(values: &[f32]) -> f32 {
    let greater = |a: f32, b: f32| if b > a { b } else { a };
    let (chunks, rest) = values.as_chunks::<64>();
    let mut lanes = [f32::NEG_INFINITY; 64];
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = greater(*lane, *value);
        }
    }
    let all = lanes.iter().chain(rest);
    all.copied().fold(f32::NEG_INFINITY, greater)
}

/// Adds the index of each of `values` that is at least `bound` to `found`, in
/// order.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
pub(crate) fn at_least(values: &[f32], bound: f32, found: &mut Vec<usize>) {
    for (number, chunk) in values.chunks(64).enumerate() {
        // Counting makes vector code; few chunks hold any.
        let count: u32 = chunk.iter().map(|&value| u32::from(value >= bound)).sum();
        if count > 0 {
            let indices = (0..chunk.len()).filter(|&index| chunk[index] >= bound);
            found.extend(indices.map(|index| number * 64 + index));
        }
    }
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
    fn maxima_and_what_reaches_a_bound() {
        for n in [1, 15, 64, 65, 200] {
            for at in 0..n {
                let mut values = vec![f32::NAN; n];
                values[at] = -2.0;
                values[n - 1] = -2.0;
                assert_eq!(maximum(&values), -2.0);
                let mut found = Vec::new();
                at_least(&values, -2.0, &mut found);
                found.dedup();
                assert_eq!((found[0], found[found.len() - 1]), (at, n - 1));
                assert!(found.len() <= 2);
            }
        }
        assert_eq!(maximum(&[]), f32::NEG_INFINITY);
        assert_eq!(maximum(&[f32::NAN; 20]), f32::NEG_INFINITY);
        let mut found = Vec::new();
        at_least(&[1.0], f32::NAN, &mut found);
        assert!(found.is_empty(), "nothing reaches it");
    }
}
