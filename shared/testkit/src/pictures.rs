//! Images computed from formulas: the same on every machine, in as many kinds as a test needs.

use std::io::Cursor;

use image::{ImageFormat, Rgb, RgbImage};

/// Returns an image of soft waves. Images of different seeds are not similar.
pub fn waves(seed: u64, width: u32, height: u32) -> RgbImage {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut waves = [[[0.0; 4]; 4]; 3];
    for wave in waves.as_flattened_mut() {
        let amplitude = 20.0 + 25.0 * random.unit();
        let (x, y) = (6.0 * random.unit() - 3.0, 6.0 * random.unit() - 3.0);
        *wave = [amplitude, x, y, std::f64::consts::TAU * random.unit()];
    }
    RgbImage::from_fn(width, height, |x, y| {
        let (x, y) = (
            f64::from(x) / f64::from(width),
            f64::from(y) / f64::from(height),
        );
        Rgb(waves.each_ref().map(|waves| {
            let sum: f64 = waves
                .iter()
                .map(|[a, fx, fy, phase]| {
                    a * (std::f64::consts::TAU * (fx * x + fy * y) + phase).sin()
                })
                .sum();
            (128.0 + sum).clamp(0.0, 255.0) as u8
        }))
    })
}

/// Adds noise to an image, at most `amplitude` to each value.
pub fn noisy(mut picture: RgbImage, seed: u64, amplitude: u8) -> RgbImage {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    for value in picture.iter_mut() {
        let noise = (random.unit() * 2.0 - 1.0) * f64::from(amplitude);
        *value = (f64::from(*value) + noise).round().clamp(0.0, 255.0) as u8;
    }
    picture
}

/// Adds `by` to each value of an image.
pub fn brighter(mut picture: RgbImage, by: u8) -> RgbImage {
    for value in picture.iter_mut() {
        *value = value.saturating_add(by);
    }
    picture
}

/// Returns an image of one colour.
pub fn flat(colour: [u8; 3], width: u32, height: u32) -> RgbImage {
    RgbImage::from_pixel(width, height, Rgb(colour))
}

/// Encodes an image as PNG.
///
/// # Panics
///
/// Panics if the image has no pixels.
pub fn png(picture: &RgbImage) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    // Unwrap safety: memory takes every image that has a size.
    picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// Xorshift: sufficient to make images differ.
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}
