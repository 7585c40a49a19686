use proptest::prelude::*;
use sluice_knn::matching::{self, Match, RemovalRule, nearest};

use super::data::{unit, vectors, with_threads};

fn matches(vectors: &[f32], dim: usize, threshold: f32, rule: RemovalRule) -> Vec<Option<Match>> {
    matching::matches(vectors, dim, threshold, rule, &|| Ok(())).unwrap()
}

const RULES: [RemovalRule; 2] = [RemovalRule::KeptOnly, RemovalRule::AnyEarlier];

fn similarity(vectors: &[f32], dim: usize, a: usize, b: usize) -> f64 {
    let (a, b) = (&vectors[a * dim..][..dim], &vectors[b * dim..][..dim]);
    a.iter()
        .zip(b)
        .map(|(x, y)| f64::from(*x) * f64::from(*y))
        .sum()
}

/// The definition, word for word.
fn brute_force(
    vectors: &[f32],
    dim: usize,
    threshold: f32,
    rule: RemovalRule,
) -> Vec<Option<Match>> {
    let mut result: Vec<Option<Match>> = Vec::new();
    for row in 0..vectors.len() / dim {
        let mut best: Option<Match> = None;
        for (of, earlier) in result.iter().enumerate() {
            if rule == RemovalRule::AnyEarlier || earlier.is_none() {
                let similarity = similarity(vectors, dim, of, row) as f32;
                if best.is_none_or(|best| similarity > best.similarity) {
                    best = Some(Match { of, similarity });
                }
            }
        }
        result.push(best.filter(|best| best.similarity >= threshold));
    }
    result
}

/// Equal but for rounding: where two earlier rows are equally similar within
/// 1e-6, either may be named, unless they are equal.
fn assert_same(found: &[Option<Match>], expected: &[Option<Match>], data: &[f32], dim: usize) {
    assert_eq!(found.len(), expected.len());
    for (row, (found, expected)) in found.iter().zip(expected).enumerate() {
        match (found, expected) {
            (None, None) => {}
            (Some(found), Some(expected)) => {
                let off = (found.similarity - expected.similarity).abs();
                assert!(off < 1e-6, "row {row}: {found:?} {expected:?}");
                let equal = data[found.of * dim..][..dim] == data[expected.of * dim..][..dim];
                assert!(
                    !equal || found.of == expected.of,
                    "row {row}: {found:?} {expected:?}"
                );
            }
            _ => panic!("row {row}: {found:?}, expected {expected:?}"),
        }
    }
}

/// The last bit of each similarity, too.
#[test]
fn parts_of_any_size_give_the_same_matches() {
    for (rows, dim) in [(900, 160), (700, 7)] {
        let data = vectors(rows, dim, 5, 11);
        let expected = matches(&data, dim, 0.9, RemovalRule::KeptOnly);
        assert!(expected.iter().flatten().count() > rows / 5);
        for at_once in [1, 33, 512, rows, 10 * rows] {
            let read = |part: std::ops::Range<usize>| {
                assert!(part.len() <= at_once);
                Ok(data[part.start * dim..part.end * dim].to_vec())
            };
            let found = matching::matches_in_parts(rows, at_once, read, dim, 0.9, &|| Ok(()));
            assert_eq!(found.unwrap(), expected, "{at_once} at once");
        }
    }
}

#[test]
fn a_chain_shows_how_the_rules_differ() {
    // In the plane: B is 10 degrees from A, C is 10 from B and 20 from A.
    let at = |degrees: f32| unit(&[degrees.to_radians().cos(), degrees.to_radians().sin()]);
    let chain = [at(0.0), at(10.0), at(20.0)].concat();
    let threshold = 15_f32.to_radians().cos();

    let any: Vec<_> = matches(&chain, 2, threshold, RemovalRule::AnyEarlier)
        .iter()
        .map(|found| found.map(|found| found.of))
        .collect();
    assert_eq!(
        any,
        [None, Some(0), Some(1)],
        "C goes, because of B, which goes"
    );

    let kept: Vec<_> = matches(&chain, 2, threshold, RemovalRule::KeptOnly)
        .iter()
        .map(|found| found.map(|found| found.of))
        .collect();
    assert_eq!(
        kept,
        [None, Some(0), None],
        "C stays: nothing that stays is near it"
    );
}

#[test]
fn of_exact_copies_the_earliest_is_named_in_whatever_block_it_lies() {
    // 1500 rows make three blocks. Row 100 is copied into the second block and
    // the third; its near-duplicate ends the data.
    for dim in [3, 64, 768] {
        let n = 1500;
        let mut data = vectors(n, dim, n, 5);
        let original = data[100 * dim..][..dim].to_vec();
        for copy in [700, 701, 1100, 1498] {
            data[copy * dim..][..dim].copy_from_slice(&original);
        }
        let mut near = original;
        near[0] += 1e-3;
        data[(n - 1) * dim..].copy_from_slice(&unit(&near));
        for rule in RULES {
            let found = matches(&data, dim, 0.9999, rule);
            for row in [700, 701, 1100, 1498] {
                let of = found[row].expect("an exact copy").of;
                let equal = data[of * dim..][..dim] == data[100 * dim..][..dim];
                assert!(equal && of <= 100, "row {row} of {of}, dim {dim}");
            }
            // In three dimensions something else may be nearer still.
            if dim > 3 {
                assert_eq!(
                    found[n - 1].map(|found| found.of),
                    found[700].map(|found| found.of)
                );
            }
        }
    }
}

#[test]
fn many_blocks_equal_brute_force_for_any_number_of_threads() {
    for (n, dim, topics, threshold) in
        [(1700, 24, 40, 0.95), (1025, 7, 300, 0.99), (512, 3, 9, 0.9)]
    {
        let data = vectors(n, dim, topics, n as u64);
        for rule in RULES {
            let one = with_threads(1, || matches(&data, dim, threshold, rule));
            let two = with_threads(2, || matches(&data, dim, threshold, rule));
            let three = with_threads(3, || matches(&data, dim, threshold, rule));
            assert_eq!(one, two);
            assert_eq!(one, three);
            assert_same(&one, &brute_force(&data, dim, threshold, rule), &data, dim);
            let removed = one.iter().flatten().count();
            assert!(removed > n / 10 && removed < n, "{removed} of {n}");
        }
    }
}

#[test]
fn nearest_has_no_threshold() {
    let data = vectors(700, 16, 20, 3);
    let found = nearest(&data, 16);
    assert_eq!(found[0], None);
    assert!(found[1..].iter().all(Option::is_some));
    assert_same(
        &found,
        &brute_force(&data, 16, -2.0, RemovalRule::AnyEarlier),
        &data,
        16,
    );
    assert_eq!(nearest(&[], 16), []);
    assert_eq!(nearest(&[1.0, 0.0], 2), [None]);
}

#[test]
fn a_vector_that_is_not_a_number_matches_nothing() {
    let data = [[1.0, 0.0], [f32::NAN, 0.0], [1.0, 0.0], [f32::NAN, 0.0]].concat();
    for rule in RULES {
        let found = matches(&data, 2, 0.5, rule);
        let of: Vec<_> = found
            .iter()
            .map(|found| found.map(|found| found.of))
            .collect();
        assert_eq!(of, [None, None, Some(0), None]);
    }
}

/// All rows equal: under our rule only one row ever counts.
#[test]
fn one_group_of_many_copies_is_linear() {
    let n = 100_000;
    let data: Vec<f32> = unit(&[1.0; 16]).repeat(n);
    let found = matches(&data, 16, 0.99, RemovalRule::KeptOnly);
    assert_eq!(found[0], None);
    assert!(found[1..].iter().flatten().all(|found| found.of == 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn equals_brute_force(n in 0..70_usize, dim in 1..40_usize, topics in 1..30_usize, seed: u64, threshold in 0.5..0.999_f32) {
        let data = vectors(n, dim, topics, seed);
        // Similarities that close to the threshold may fall on either side.
        let close = (0..n).any(|a| (0..a).any(|b| {
            (similarity(&data, dim, a, b) - f64::from(threshold)).abs() < 1e-6
        }));
        prop_assume!(!close);
        for rule in RULES {
            let expected = brute_force(&data, dim, threshold, rule);
            assert_same(&matches(&data, dim, threshold, rule), &expected, &data, dim);
        }
    }
}
