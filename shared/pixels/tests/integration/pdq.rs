//! Compares PDQ with Meta's own library, built by PyPI's pdqhash 0.2.8.

use sluice_pixels::{RgbImage, pdq};

/// Width, height, hash and quality of [`fine`] and of [`smooth`] images.
type Row = (u32, u32, &'static str, u8);

const FINE: &[Row] = &[
    (
        333,
        500,
        "ffead40108a89cff2aaaf00451fdc07f0ff83c20f07d1c7f31f8e380ce0fe380",
        100,
    ),
    (
        64,
        64,
        "a2bc3dc5547d6e44a2e8beab02ec3444535d3605e2e846aefc6c8bc5acad49f8",
        80,
    ),
    (
        5,
        7,
        "94a56b5a6b5a94a5685a4b5a358c94a5695a4b5a96a56b5acb72b5a594a56b5a",
        0,
    ),
    (
        1000,
        40,
        "26463555ed663eb3654c9b6ecaf581dac8e2f5769697dd4a934964d2254988c0",
        100,
    ),
    (
        1280,
        720,
        "fc80fffffea0ffffffff80000000ff7fab80fbffebc184001c2a84001c2a8400",
        100,
    ),
    (
        700,
        130,
        "bb1f93ec6d166969e15f57a5e815b0209e9ff2a61dd04de09fda62a01cd6e800",
        100,
    ),
];

const SMOOTH: &[Row] = &[
    (
        333,
        500,
        "a69a4d9bbb3bef3aae2a5aaad56a9fd6952632ec75aaf37cc6c001c0ff800000",
        100,
    ),
    (
        64,
        64,
        "b6da6c9b999be3bfae2a6aaa596a9bd29da63a6675aaf17cf26001c0ff800000",
        100,
    ),
    (
        5,
        7,
        "cb72c1f0398c3e0f64d9c4f16e5b6b5a398c94a5c67394a5318c3b4ecb72c1f0",
        100,
    ),
    (
        1000,
        40,
        "b2da6c9ab99aebbbae2a7aba516a9bd69da63a6675aaf17ce26001c0ff802000",
        100,
    ),
    (
        1280,
        720,
        "a49a4dbfbb3bef3a8a2a5abad56a9ed6b52632ec75aaf37cc6c001c0ff800000",
        100,
    ),
    (
        700,
        130,
        "a49a4dbfbb3eef3a8a2a52ead56a9fd6b52632ec75aae37cc6c001c0ff800001",
        100,
    ),
];

fn fine(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        [(x * 7 + y * 3) as u8, (x * x / 50 + y) as u8, (x ^ y) as u8]
    })
}

fn smooth(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let channel = |a: u32, b: u32, c: u32| {
            let area = u64::from(x * y * c) * 1024 / u64::from(width * height);
            ((x * a * 1024 / width + y * b * 1024 / height + area as u32) / 4) as u8
        };
        [channel(1, 2, 3), channel(3, 1, 2), channel(2, 3, 1)]
    })
}

/// Sums of floating-point numbers in another order change coefficients near the median.
const ROUNDING: u32 = 2;

fn distance(a: &[u8], b: &[u8]) -> u32 {
    a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum()
}

#[test]
fn hashes_are_those_of_the_reference() {
    let fine = FINE.iter().map(|row| (fine as fn(u32, u32) -> _, row));
    let smooth = SMOOTH.iter().map(|row| (smooth as fn(u32, u32) -> _, row));
    for (image, &(width, height, hash, quality)) in fine.chain(smooth) {
        let found = pdq(&image(width, height)).unwrap();
        let off = distance(&found.hash, &hex::decode(hash).unwrap());
        assert!(
            off <= ROUNDING,
            "{width}x{height}: {off} bits: {}",
            hex::encode(found.hash)
        );
        assert!(
            found.quality.abs_diff(quality) <= 1,
            "{width}x{height}: {}",
            found.quality
        );
    }
}

#[test]
fn tiny_images_have_no_hash_and_flat_ones_no_quality() {
    assert_eq!(pdq(&fine(4, 100)), None);
    assert_eq!(
        pdq(&RgbImage::filled(100, 100, [7, 8, 9])).unwrap().quality,
        0
    );
}
