//! Images: decoded within limits, oriented, resized, hashed and measured.

use sluice_pixels::{
    Channels, Crop, DecodeError, Fidelity, Filter, Layout, Limits, Measure, Preprocess, Resize,
    decode, phash, quality, technical_quality,
};

/// Small, so that a decompression bomb is rejected quickly.
const LIMITS: Limits = Limits {
    max_pixels: 1 << 18,
    max_bytes: 1 << 18,
    max_memory: 16 << 20,
};

const FILTERS: [Filter; 3] = [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos];

fn preprocess(choice: usize) -> Preprocess {
    let resize = match choice & 1 {
        0 => Resize::ShortestEdge(8),
        _ => Resize::Exact {
            width: 9,
            height: 7,
        },
    };
    Preprocess {
        crop: (choice & 8 != 0).then(|| Crop::square(5)),
        jpeg_round_trip: (choice & 16 != 0).then_some(80),
        rescale: 1.0 / 255.0,
        mean: [0.5; 3],
        std: [0.25; 3],
        layout: if choice & 32 == 0 {
            Layout::Nchw
        } else {
            Layout::Nhwc
        },
        channels: if choice & 64 == 0 {
            Channels::Rgb
        } else {
            Channels::Bgr
        },
        ..Preprocess::new(resize, FILTERS[choice / 2 % FILTERS.len()])
    }
}

pub(super) fn run(data: &[u8]) {
    let (choice, data) = super::choice(data);
    let decoded = match decode(data, &LIMITS) {
        Ok(decoded) => decoded,
        Err(e) => return check_refusal(&e, data),
    };
    let (width, height) = decoded.upright_size();
    assert!(u64::from(width) * u64::from(height) <= LIMITS.max_pixels);
    let image = decoded.upright();
    assert_eq!((image.width, image.height), (width, height));
    let quality = quality(&image);
    assert!(technical_quality(&quality).is_finite());
    let hash = phash(&image);
    let preprocess = preprocess(choice);
    preprocess.validate().expect("a valid spec");
    let mut exact = vec![0.0; preprocess.tensor_len()];
    let mut near = exact.clone();
    for (fidelity, tensor) in [
        (Fidelity::Exact, &mut exact),
        (Fidelity::Approximate, &mut near),
    ] {
        let outcome = preprocess.tensor_of_file(data, &LIMITS, &mut |_| {}, fidelity, tensor);
        outcome.expect("it was decoded before");
        assert!(tensor.iter().all(|value| value.is_finite()));
    }
    let mut of_pixels = vec![0.0; preprocess.tensor_len()];
    preprocess.tensor(&image, &mut of_pixels);
    assert_eq!(
        of_pixels, exact,
        "the tensor of a file is that of its pixels"
    );
    assert_eq!(phash(&image), hash);
}

fn check_refusal(error: &DecodeError, data: &[u8]) {
    assert!(!error.to_string().is_empty() && !error.kind().is_empty());
    if let DecodeError::TooLarge { what, found, limit } = error {
        assert!(found > limit);
        let by_bytes = *what == Measure::Bytes;
        assert_eq!(by_bytes, data.len() as u64 > LIMITS.max_bytes);
    }
}
