use proptest::prelude::*;
use sluice_dedup::hash::{Forms, Hash};
use sluice_dedup::perceptual;

use sluice_testkit::Numbers;

fn duplicates(hashes: &[u64], max_distance: u32) -> Vec<Option<(usize, u32)>> {
    let forms: Vec<Forms<1>> = hashes.iter().map(|hash| Hash([*hash]).into()).collect();
    perceptual::duplicates(&forms, max_distance, &|| Ok(())).unwrap()
}

/// The definition, word for word.
fn brute_force(hashes: &[u64], max_distance: u32) -> Vec<Option<(usize, u32)>> {
    let mut result: Vec<Option<(usize, u32)>> = Vec::new();
    for (row, &hash) in hashes.iter().enumerate() {
        let nearest = (0..row)
            .filter(|&earlier| result[earlier].is_none())
            .map(|earlier| (earlier, (hash ^ hashes[earlier]).count_ones()))
            .filter(|&(_, distance)| distance <= max_distance)
            .min_by_key(|&(_, distance)| distance);
        result.push(nearest);
    }
    result
}

/// Hashes around a few centres, so that there are neighbours at all distances.
fn hashes() -> impl Strategy<Value = Vec<u64>> {
    let hash = (0..6_u64, prop::collection::vec(0..64_u32, 0..9)).prop_map(|(centre, flips)| {
        let centre = centre.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        flips.iter().fold(centre, |hash, bit| hash ^ (1 << bit))
    });
    prop::collection::vec(hash, 0..300)
}

proptest! {
    #[test]
    fn equals_brute_force(hashes in hashes(), max_distance in 0..20_u32) {
        prop_assert_eq!(duplicates(&hashes, max_distance), brute_force(&hashes, max_distance));
    }
}

/// Enough kept hashes for the index to be used, not the plain comparison.
#[test]
fn equals_brute_force_on_many() {
    for max_distance in [0, 1, 2, 3, 4, 6, 10] {
        let mut numbers = Numbers::new(u64::from(max_distance));
        let mut hashes: Vec<u64> = Vec::new();
        for i in 0..4000 {
            let mut hash = numbers.next();
            if i % 3 == 2 {
                hash = hashes[numbers.below(i)];
                for _ in 0..numbers.below(2 * max_distance as usize + 2) {
                    hash ^= 1 << numbers.below(64);
                }
            }
            hashes.push(hash);
        }
        let found = duplicates(&hashes, max_distance);
        assert_eq!(found, brute_force(&hashes, max_distance), "{max_distance}");
        assert!(
            found.iter().flatten().count() > 400,
            "the test tests something"
        );
    }
}

/// The same where most bits never vary, so that the index has to choose.
#[test]
fn equals_brute_force_where_bands_are_constant() {
    for varying in [0xffff_u64, 0x3fff_ffff, 0x0fff_00ff_0000_00ff] {
        let mut numbers = Numbers::new(varying);
        let hashes: Vec<u64> = (0..4000).map(|_| numbers.next() & varying).collect();
        for max_distance in [1, 3, 5] {
            assert_eq!(
                duplicates(&hashes, max_distance),
                brute_force(&hashes, max_distance),
                "{varying:x} {max_distance}"
            );
        }
    }
}

#[test]
fn a_later_copy_of_a_removed_hash_finds_what_was_kept_since() {
    // 0b111 is removed for 0; then 0b11111 is kept, nearer to the copy.
    let hashes = [0, 0b111, 0b1_1111, 0b111];
    let expected = [None, Some((0, 3)), None, Some((2, 2))];
    assert_eq!(duplicates(&hashes, 3), expected);
}

#[test]
fn extremes() {
    assert_eq!(duplicates(&[], 4), []);
    assert_eq!(duplicates(&[0, u64::MAX], 63), [None, None]);
    assert_eq!(duplicates(&[0, u64::MAX], 64), [None, Some((0, 64))]);
    assert_eq!(duplicates(&[0, u64::MAX], u32::MAX), [None, Some((0, 64))]);
}

/// Quadratic work here would take minutes.
#[test]
fn degenerate_data_stays_fast() {
    const N: usize = 300_000;
    let mut numbers = Numbers::new(1);

    let blank = vec![0x8000_0000_0000_0000; N];
    assert_eq!(
        duplicates(&blank, 4).iter().filter(|d| d.is_none()).count(),
        1
    );

    // Copies of two removed hashes, in turn.
    let mut copies = vec![0_u64; N];
    for (i, hash) in copies.iter_mut().enumerate().skip(1) {
        *hash = 1 << (i % 2);
    }
    assert_eq!(
        duplicates(&copies, 4)
            .iter()
            .filter(|d| d.is_none())
            .count(),
        1
    );

    // One band value shared by all, then two, and hashes that are all kept.
    for varying in [u64::MAX << 16, u64::MAX << 32] {
        let shared: Vec<u64> = (0..N).map(|_| numbers.next() & varying).collect();
        let removed = duplicates(&shared, 4).iter().flatten().count();
        assert!(removed < N, "{removed}");
    }
}
