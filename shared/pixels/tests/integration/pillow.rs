//! Checksums of the output of Pillow 13.0.0 (libjpeg-turbo 3.2.0) and ImageHash 4.3.2 for one
//! computed image, so that equality is tested without fixtures. FNV-1a over the RGB bytes.

use sluice_pixels::{Filter, Preprocess, RgbImage, phash, resize};

/// Returns a 333x500 image: `[(7x + 3y) % 256, (x * x / 50 + y) % 256, (x ^ y) % 256]`.
fn pattern() -> RgbImage {
    RgbImage::from_fn(333, 500, |x, y| {
        [(x * 7 + y * 3) as u8, (x * x / 50 + y) as u8, (x ^ y) as u8]
    })
}

fn checksum(image: &RgbImage) -> u64 {
    image
        .data
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        })
}

#[test]
fn every_filter_resizes_as_pillow_does() {
    // The second size is resized columns first, the others rows first.
    let sizes = [(100, 77), (400, 40), (400, 600)];
    let expected: [(Filter, [u64; 3]); 4] = [
        (
            Filter::Box,
            [0x851acece1be1899f, 0x78daaaddf25b9fd2, 0xf9bac137624744ad],
        ),
        (
            Filter::Bilinear,
            [0xd49e3ce027decfaa, 0x463edea81689421b, 0x45836c645cc08f57],
        ),
        (
            Filter::Bicubic,
            [0xaace6f21414f284a, 0x23d0483d91e201e3, 0xfa8c054fb15bf711],
        ),
        (
            Filter::Lanczos,
            [0x3c3c3817bcb42c52, 0xfcb586d38b378d14, 0x234aee5dc3e63b92],
        ),
    ];
    for (filter, checksums) in expected {
        for ((width, height), expected) in sizes.into_iter().zip(checksums) {
            let got = checksum(&resize(&pattern(), width, height, filter));
            assert_eq!(got, expected, "{filter:?} to {width}x{height}");
        }
    }
}

/// OpenNSFW's preprocessing: stretch, crop, and a JPEG round trip with Pillow's defaults.
#[test]
fn opennsfw_pixels_with_and_without_the_jpeg() {
    let mut spec: Preprocess = toml::from_str(
        r#"
        resize = { exact = { width = 256, height = 256 } }
        filter = "bilinear"
        crop = { width = 224, height = 224 }
        jpeg-round-trip = 75
        rescale = 1.0
        mean = [104.0, 117.0, 123.0]
        layout = "nhwc"
        channels = "bgr"
        "#,
    )
    .unwrap();
    assert_eq!(spec.validate(), Ok(()));
    let pixels = spec.pixels(&pattern());
    assert_eq!(checksum(&pixels), 0x3675cb66d463a86a);
    let mut tensor = vec![0.0; spec.tensor_len()];
    spec.write_tensor(&pixels, &mut tensor);
    assert_eq!(tensor[0], f32::from(pixels.data[2]) - 104.0);
    assert_eq!(tensor[2], f32::from(pixels.data[0]) - 123.0);

    spec.jpeg_round_trip = None;
    assert_eq!(checksum(&spec.pixels(&pattern())), 0xbe47ed884a5d3906);
}

#[test]
fn the_hash_is_imagehashs() {
    assert_eq!(phash(&pattern()), 0xfc00f8000fffff02);
}

/// Checks that the spec in the README parses.
#[test]
fn the_readmes_spec_parses() {
    let readme = include_str!("../../README.md");
    let spec = readme.split("```toml").nth(1).unwrap();
    let spec: Preprocess = toml::from_str(spec.split("```").next().unwrap()).unwrap();
    assert_eq!(spec.validate(), Ok(()));
}
