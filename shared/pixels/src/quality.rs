//! Measures of technical quality, each from 0 to 1. **The names are those of defects, and 1 is good**,
//! as in CleanVision: `dark = 1` is well lit, `dark = 0` is dark.
//!
//! The definitions are those of CleanVision 0.3.7, `cleanvision/issue_managers/image_property.py`
//! with the defaults of `image_property_issue_manager.py`, computed on the upright RGB image:
//!
//! | field | formula | CleanVision reports an issue below |
//! |---|---|---|
//! | `dark` | 99th percentile of the pixels' brightness | 0.32 |
//! | `light` | 1 - 5th percentile of the brightness | 0.05 |
//! | `blurry` | `min(1, 1 - exp(-0.01 e) + s)`, see below | 0.29 |
//! | `low_information` | `min(1, 0.1 H)`, H the entropy in bits of the 768-bin histogram | 0.3 |
//! | `odd_aspect` | `min(w / h, h / w)` | 0.35 |
//! | `odd_size` | **ours**: `min(1, sqrt(w h) / 512)` | - |
//!
//! The brightness of a pixel is `sqrt(0.241 r^2 + 0.691 g^2 + 0.068 b^2) / 255`. Percentiles
//! interpolate between ranks as numpy's do.
//!
//! For `blurry`, the image is resized to 64 pixels on its long side (bicubic, never enlarged) and
//! converted to grey. e is the standard deviation of its edges (the 3x3 kernel with 8 in the middle
//! and -1 around, clipped to 0..255, border unchanged); s is `1 - exp(-0.01 d)` with d the standard
//! deviation of the 256 histogram counts, and 0 if that is at most 0.18.
//!
//! There are two deviations. CleanVision's `odd_size` compares an image with the sizes in its
//! dataset, which are unknown for a single image; ours only means that small images are poor: 0.5
//! at 256x256, 1 from 512x512 on. And CleanVision computes the entropy of a grey file over 256
//! bins; here every image is RGB, which adds 0.158 (a tenth of log2 3) for a grey one.

use crate::counts::{PixelCounts, to_grey};
use crate::decode::RgbImage;
use crate::resize::{Filter, resize};

/// The technical quality of an image. Each measure has the name of a defect, and is from 0 (the image
/// has the defect) to 1 (it does not). The formulas are at the top of `quality.rs`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quality {
    /// 1 is well lit. Low if even the brightest parts are dark.
    pub dark: f32,
    /// 1 is normal exposure. Low if even the darkest parts are bright.
    pub light: f32,
    /// 1 is sharp. Low if there are no edges.
    pub blurry: f32,
    /// 1 is rich in detail. Low if the image consists of few values.
    pub low_information: f32,
    /// 1 is square. Low for elongated images.
    pub odd_aspect: f32,
    /// 1 is 512x512 pixels or more. Low for small images. Differs from CleanVision's measure of this name, which needs the
    /// dataset.
    pub odd_size: f32,
}

/// Returns the measures of an upright picture.
pub fn quality(image: &RgbImage) -> Quality {
    if image.width == 0 || image.height == 0 {
        return Quality {
            dark: 0.0,
            light: 0.0,
            blurry: 0.0,
            low_information: 0.0,
            odd_aspect: 0.0,
            odd_size: 0.0,
        };
    }
    let (width, height) = (f64::from(image.width), f64::from(image.height));
    let counts = PixelCounts::of(image);
    let [fifth, ninety_ninth] = counts.brightness_percentiles([0.05, 0.99]);
    Quality {
        dark: ninety_ninth as f32,
        light: (1.0 - fifth) as f32,
        blurry: blurry(image) as f32,
        low_information: (0.1 * entropy(&counts.channels)).min(1.0) as f32,
        odd_aspect: (width / height).min(height / width) as f32,
        odd_size: ((width * height).sqrt() / 512.0).min(1.0) as f32,
    }
}

/// Combines the measures into one number from 0 to 1. **Not a learned aesthetic score**: it
/// measures whether an image is sharp, well lit and large enough, not whether people like it.
///
/// Each measure x with CleanVision's threshold t becomes `x / (x + t)`, which is 0.5 at the
/// threshold. The result is the lowest, because no measure can compensate for another. So a score
/// below 0.5 means that CleanVision would report an issue. Returns NaN if a measure is NaN.
pub fn technical_quality(quality: &Quality) -> f32 {
    let parts = [
        (quality.dark, 0.32),
        (quality.light, 0.05),
        (quality.blurry, 0.29),
        (quality.low_information, 0.3),
        (quality.odd_aspect, 0.35),
        (quality.odd_size, 0.25),
    ];
    let scores = parts.map(|(x, threshold): (f32, f32)| x / (x + threshold));
    if scores.iter().any(|score| score.is_nan()) {
        return f32::NAN;
    }
    scores.into_iter().fold(1.0, f32::min)
}

/// Returns the entropy, in bits, of the concatenated histograms of the three channels (Pillow's
/// `Image.entropy`).
fn entropy(channels: &[[u32; 256]; 3]) -> f64 {
    let counts = channels.as_flattened();
    let total = counts.iter().map(|&count| u64::from(count)).sum::<u64>() as f64;
    let sum: f64 = counts
        .iter()
        .filter(|&&count| count > 0)
        .map(|&count| f64::from(count) / total)
        .map(|share| share * share.log2())
        .sum();
    0.0 - sum
}

fn blurry(image: &RgbImage) -> f64 {
    const LONG_SIDE: u64 = 64;
    let long = u64::from(image.width.max(image.height));
    let grey_of = |image: &RgbImage| {
        let mut grey = vec![0; image.data.len() / 3];
        to_grey(&image.data, &mut grey);
        grey
    };
    let side = |length: u32| {
        if long > LONG_SIDE {
            ((u64::from(length) * LONG_SIDE / long) as u32).max(1)
        } else {
            length
        }
    };
    let (width, height) = (side(image.width), side(image.height));
    let grey = if long > LONG_SIDE {
        let small = resize(image, width, height, Filter::Bicubic);
        let grey = grey_of(&small);
        small.recycle();
        grey
    } else {
        grey_of(image)
    };
    let edges = edges(&grey, width as usize, height as usize);
    let mut histogram = [0.0; 256];
    for &value in &grey {
        histogram[usize::from(value)] += 1.0;
    }
    let score = |deviation: f64| 1.0 - (-0.01 * deviation).exp();
    let edge_score = score(standard_deviation(edges.iter().map(|&e| f64::from(e))));
    let spread = score(standard_deviation(histogram.iter().copied()));
    let spread = if spread <= 0.18 { 0.0 } else { spread };
    (edge_score + spread).min(1.0)
}

/// Applies Pillow's `FIND_EDGES`: 8 times the pixel minus its eight neighbours, clipped to 0..255.
/// The border, and an image smaller than the kernel, are unchanged.
fn edges(grey: &[u8], width: usize, height: usize) -> Vec<u8> {
    let mut out = grey.to_vec();
    if width < 3 || height < 3 {
        return out;
    }
    for y in 1..height - 1 {
        for x in 1..width - 1 {
            let around: i32 = (y - 1..=y + 1)
                .flat_map(|row| &grey[row * width + x - 1..=row * width + x + 1])
                .map(|&value| i32::from(value))
                .sum();
            let value = 9 * i32::from(grey[y * width + x]) - around;
            out[y * width + x] = value.clamp(0, 255) as u8;
        }
    }
    out
}

fn standard_deviation(values: impl ExactSizeIterator<Item = f64> + Clone) -> f64 {
    let count = values.len() as f64;
    let mean = values.clone().sum::<f64>() / count;
    (values.map(|v| (v - mean) * (v - mean)).sum::<f64>() / count).sqrt()
}
