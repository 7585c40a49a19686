//! Hash and quality measures of images whose answer is known by construction.

use proptest::prelude::*;
use sluice_pixels::{
    Filter, Limits, Quality, RgbImage, decode, hamming, phash, phash_transformed, quality, resize,
    technical_quality,
};

/// Returns a deterministic scene with edges, gradients and texture.
fn scene(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let (u, v) = (
            f64::from(x) / f64::from(width),
            f64::from(y) / f64::from(height),
        );
        let hill = v > 0.55 + 0.15 * (u * 9.0).sin();
        let sun = (u - 0.75).hypot(v - 0.25) < 0.12;
        let house = (0.1..0.35).contains(&u) && (0.4..0.8).contains(&v);
        let texture = 25.0 * ((u * 61.0).sin() * (v * 47.0).cos());
        let [r, g, b] = match (house, sun, hill) {
            (true, _, _) => [170.0, 60.0, 40.0],
            (_, true, _) => [250.0, 230.0, 120.0],
            (_, _, true) => [40.0, 120.0 - 60.0 * v, 30.0],
            _ => [90.0 + 80.0 * v, 150.0 + 40.0 * v, 230.0],
        };
        [r, g, b].map(|c| (c + texture).clamp(0.0, 255.0) as u8)
    })
}

fn map(image: &RgbImage, f: impl Fn(u8) -> u8) -> RgbImage {
    let data = image.data.iter().map(|&v| f(v)).collect();
    RgbImage {
        data,
        ..image.clone()
    }
}

fn mirrored(image: &RgbImage) -> RgbImage {
    let stride = image.width as usize * 3;
    RgbImage::from_fn(image.width, image.height, |x, y| {
        let at = y as usize * stride + (image.width - 1 - x) as usize * 3;
        [image.data[at], image.data[at + 1], image.data[at + 2]]
    })
}

fn jpeg(image: &RgbImage, quality: i32) -> RgbImage {
    let source = turbojpeg::Image {
        pixels: image.data.as_slice(),
        width: image.width as usize,
        pitch: image.width as usize * 3,
        height: image.height as usize,
        format: turbojpeg::PixelFormat::RGB,
    };
    let bytes = turbojpeg::compress(source, quality, turbojpeg::Subsamp::Sub2x2).unwrap();
    decode(&bytes, &Limits::default()).unwrap().upright()
}

#[test]
fn hashes_of_near_and_far_pictures() {
    let image = scene(320, 240);
    let hash = phash(&image);
    assert_eq!(hash, phash(&image.clone()));
    let near = |other: &RgbImage| hamming(hash, phash(other));
    assert!(near(&jpeg(&image, 50)) <= 2);
    assert!(near(&resize(&image, 160, 120, Filter::Bicubic)) <= 2);
    assert!(near(&map(&image, |v| v.saturating_add(10))) <= 4);
    assert!(near(&mirrored(&image)) >= 16);
}

#[test]
fn a_flat_picture_has_one_hash_at_every_size() {
    let hash = phash(&RgbImage::filled(10, 10, [77; 3]));
    assert_eq!(hash, 1 << 63); // only the mean stands out
    for (width, height) in [(1, 1), (640, 480), (1000, 3)] {
        assert_eq!(phash(&RgbImage::filled(width, height, [200, 10, 90])), hash);
    }
    assert_eq!(phash(&RgbImage::filled(64, 64, [0; 3])), 0);
}

/// Returns the measures of the scene and of a degraded copy.
fn spoil(f: impl Fn(&RgbImage) -> RgbImage) -> (Quality, Quality) {
    let image = scene(640, 480);
    let spoiled = f(&image);
    (quality(&image), quality(&spoiled))
}

#[test]
fn a_good_picture_passes_every_threshold() {
    let good = quality(&scene(640, 480));
    assert!(
        good.dark > 0.8 && good.light > 0.5 && good.blurry > 0.29,
        "{good:?}"
    );
    assert!(
        good.low_information > 0.7 && good.odd_size == 1.0,
        "{good:?}"
    );
    assert!((good.odd_aspect - 0.75).abs() < 1e-6);
    assert!(
        technical_quality(&good) > 0.5,
        "{}",
        technical_quality(&good)
    );
}

#[test]
fn dark_and_bright_pictures() {
    let (good, dark) = spoil(|image| map(image, |v| v / 6));
    assert!(dark.dark < 0.2 && dark.light > good.light, "{dark:?}");
    assert!(technical_quality(&dark) < technical_quality(&good));

    let (good, bright) = spoil(|image| map(image, |v| 248 + v / 40));
    assert!(bright.light < 0.05 && bright.dark > good.dark, "{bright:?}");
    assert!(technical_quality(&bright) < technical_quality(&good));
}

#[test]
fn blurred_and_noisy_pictures() {
    // By CleanVision's definition, an image of few grey levels is not blurry. These two have all
    // levels: a smooth ramp, and the same ramp with stripes.
    let ramp = |x: u32, y: u32| (x * 160 / 640 + y * 95 / 480) as u8;
    let smooth = RgbImage::from_fn(640, 480, |x, y| [ramp(x, y); 3]);
    let striped = RgbImage::from_fn(640, 480, |x, y| {
        [ramp(x, y).wrapping_add(if x / 20 % 2 == 0 { 0 } else { 80 }); 3]
    });
    let (smooth, striped) = (quality(&smooth), quality(&striped));
    assert!(
        smooth.blurry < 0.6 * striped.blurry,
        "{smooth:?} {striped:?}"
    );
    assert!(technical_quality(&smooth) < technical_quality(&striped));

    let mut state = 1u32;
    let noise = RgbImage::from_fn(128, 128, |_, _| {
        [(); 3].map(|()| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
    });
    let noise = quality(&noise);
    assert!(
        noise.low_information > 0.9 && noise.blurry > 0.5,
        "{noise:?}"
    );
}

#[test]
fn flat_small_and_long_pictures() {
    let flat = quality(&RgbImage::filled(256, 256, [128; 3]));
    assert!(flat.low_information < 0.2, "{flat:?}");
    let black = quality(&RgbImage::filled(256, 256, [0; 3]));
    assert_eq!((black.dark, black.light), (0.0, 1.0));
    assert_eq!(technical_quality(&black), 0.0);
    let white = quality(&RgbImage::filled(256, 256, [255; 3]));
    assert!((white.dark - 1.0).abs() < 1e-6 && white.light.abs() < 1e-6);
    assert!((quality(&scene(256, 256)).odd_size - 0.5).abs() < 1e-6);
    assert!((quality(&scene(1000, 10)).odd_aspect - 0.01).abs() < 1e-6);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_picture_has_finite_measures(w in 1u32..80, h in 1u32..80, seed: u32) {
        let image = RgbImage::from_fn(w, h, |x, y| {
            let v = (x ^ y).wrapping_mul(seed);
            [v as u8, (v >> 8) as u8, (v >> 16) as u8]
        });
        let q = quality(&image);
        for value in [q.dark, q.light, q.blurry, q.low_information, q.odd_aspect, q.odd_size] {
            prop_assert!((0.0..=1.0).contains(&value), "{:?}", q);
        }
        prop_assert!((0.0..=1.0).contains(&technical_quality(&q)));
        phash(&image);
    }

    #[test]
    fn any_bytes_decode_or_not_without_a_panic(
        magic in 0usize..7, body in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        let magics: [&[u8]; 7] = [
            b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"GIF89a", b"II*\0",
            b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0",
        ];
        let mut bytes = magics[magic].to_vec();
        bytes.extend_from_slice(&body);
        if let Ok(decoded) = decode(&bytes, &Limits::default()) {
            decoded.upright();
        }
    }
}

#[test]
fn hashes_of_transformed_images_need_no_transformed_image() {
    let image = RgbImage::from_fn(300, 200, |x, y| {
        [(x * x / 300) as u8, (y * 2) as u8, (x * y / 200) as u8]
    });
    let (w, h) = (image.width, image.height);
    let at = |x: u32, y: u32| {
        let start = 3 * (y as usize * image.width as usize + x as usize);
        [
            image.data[start],
            image.data[start + 1],
            image.data[start + 2],
        ]
    };
    let transformed = [
        RgbImage::from_fn(w, h, |x, y| at(w - 1 - x, y)),
        RgbImage::from_fn(w, h, |x, y| at(x, h - 1 - y)),
        RgbImage::from_fn(h, w, |x, y| at(w - 1 - y, x)),
        RgbImage::from_fn(w, h, |x, y| at(w - 1 - x, h - 1 - y)),
        RgbImage::from_fn(h, w, |x, y| at(y, h - 1 - x)),
        RgbImage::from_fn(h, w, |x, y| at(y, x)),
        RgbImage::from_fn(h, w, |x, y| at(w - 1 - y, h - 1 - x)),
    ];
    let hashes = phash_transformed(&image);
    for (number, (image, hash)) in transformed.iter().zip(hashes).enumerate() {
        // Rounding to bytes in another order turns a bit or two.
        assert!(hamming(phash(image), hash) <= 2, "form {number}");
    }
    assert!(hashes.iter().any(|&hash| hamming(hash, phash(&image)) > 8));
}
