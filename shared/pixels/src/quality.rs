//! Measures of technical quality, each 0 (worst) to 1.
//!
//! Definitions are those of CleanVision 0.3.7, `cleanvision/issue_managers/image_property.py` with
//! the defaults of `image_property_issue_manager.py`, computed on the upright RGB picture:
//!
//! | field | formula | CleanVision calls it an issue below |
//! |---|---|---|
//! | `dark` | 99th percentile of the pixels' brightness | 0.32 |
//! | `light` | 1 - 5th percentile of the brightness | 0.05 |
//! | `blurry` | `min(1, 1 - exp(-0.01 e) + s)`, see below | 0.29 |
//! | `low_information` | `min(1, 0.1 H)`, H the entropy in bits of the 768-bin histogram | 0.3 |
//! | `odd_aspect` | `min(w / h, h / w)` | 0.35 |
//! | `odd_size` | **ours**: `min(1, sqrt(w h) / 512)` | - |
//!
//! Brightness of a pixel is `sqrt(0.241 r^2 + 0.691 g^2 + 0.068 b^2) / 255`; percentiles interpolate
//! between ranks as numpy's do.
//!
//! For `blurry` the picture is brought to 64 pixels on its long side (bicubic, never enlarged) and
//! made grey. e is the standard deviation of its edges (the 3x3 kernel with 8 in the middle and -1
//! around, cut to 0..255, the rim left as it is); s is `1 - exp(-0.01 d)` with d the standard
//! deviation of the 256 histogram counts, taken as 0 up to 0.18.
//!
//! Two deviations. CleanVision's `odd_size` compares a picture with the sizes of its data set, which
//! one image does not know; ours only says that small pictures are poor: 0.5 at 256x256, 1 from
//! 512x512 up. And CleanVision takes the entropy of a grey file over 256 bins; here every picture is
//! RGB, which gives a grey one 0.158 (a tenth of log2 3) more.

use crate::decode::RgbImage;
use crate::resize::{Filter, resize};
use crate::tally::{Tally, to_grey};

/// How good a picture is technically. Each measure is 0 (worst) to 1; the formulas
/// stand at the top of `quality.rs`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quality {
    /// Low when even the brightest parts are dark.
    pub dark: f32,
    /// Low when even the darkest parts are bright.
    pub light: f32,
    /// Low when there are no edges.
    pub blurry: f32,
    /// Low when few values carry the whole picture.
    pub low_information: f32,
    /// Low for long strips.
    pub odd_aspect: f32,
    /// Low for small pictures. Not CleanVision's measure of this name, which needs the data set.
    pub odd_size: f32,
}

/// Measures an upright picture.
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
    let tally = Tally::of(image);
    let [fifth, ninety_ninth] = tally.brightness_percentiles([0.05, 0.99]);
    Quality {
        dark: ninety_ninth as f32,
        light: (1.0 - fifth) as f32,
        blurry: blurry(image) as f32,
        low_information: (0.1 * entropy(&tally.channels)).min(1.0) as f32,
        odd_aspect: (width / height).min(height / width) as f32,
        odd_size: ((width * height).sqrt() / 512.0).min(1.0) as f32,
    }
}

/// One number, 0 to 1, from the measures. **Not a learned aesthetic**: it knows whether a picture is
/// sharp, well lit and large enough, and nothing of whether anyone would like it.
///
/// Each measure x with CleanVision's threshold t becomes `x / (x + t)`: 0.5 at the threshold. The
/// result is the lowest of them, for no measure can make up for another that failed. So a score
/// below 0.5 says that CleanVision would raise an issue. NaN where a measure is.
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

/// Bits of entropy of the three channels' histograms put side by side (Pillow's `Image.entropy`).
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

/// Pillow's `FIND_EDGES`: 8 times the pixel less its eight neighbours, cut to 0..255; the rim, and a
/// picture that is smaller than the kernel, stay as they are.
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
