//! Counts brightness and the three channels' values over all pixels of an image in one pass.
//!
//! Adjacent pixels are similar, and an increment that waits for the previous one on the same
//! counter takes several times as long. So successive pixels use different tables, which are summed
//! at the end.

use multiversion::multiversion;

use crate::decode::RgbImage;

/// Returns the ITU-R 601 luma with Pillow's rounding (`convert("L")`).
#[inline(always)]
pub(crate) fn luma(&[r, g, b]: &[u8; 3]) -> u8 {
    ((u32::from(r) * 19595 + u32::from(g) * 38470 + u32::from(b) * 7471 + 0x8000) >> 16) as u8
}

#[multiversion(targets = "simd")]
pub(crate) fn to_grey(rgb: &[u8], grey: &mut [u8]) {
    for (grey, pixel) in grey.iter_mut().zip(rgb.as_chunks::<3>().0) {
        *grey = luma(pixel);
    }
}

/// Returns the square of the brightness in thousandths: an integer up to 65,025,000.
#[inline(always)]
fn brightness_key(&[r, g, b]: &[u8; 3]) -> u32 {
    let square = |value: u8| u32::from(value) * u32::from(value);
    241 * square(r) + 691 * square(g) + 68 * square(b)
}

fn brightness(key: u32) -> f64 {
    (f64::from(key) / 1000.0).sqrt() / 255.0
}

/// The number of low bits of a brightness key that the first histogram ignores.
const LOW_BITS: u32 = 14;
/// The number of bins of the first histogram. The last ones stay empty.
const HIGH: usize = 1 << 12;
const LOW: usize = 1 << LOW_BITS;
/// The number of pixels whose keys are computed at a time.
const PIECE: usize = 64;

#[inline(always)]
fn brightness_keys(pixels: &[[u8; 3]; PIECE]) -> [u32; PIECE] {
    let mut keys = [0; PIECE];
    for (key, pixel) in keys.iter_mut().zip(pixels) {
        *key = brightness_key(pixel);
    }
    keys
}

/// The counts of an image with at least one pixel.
pub(crate) struct PixelCounts<'a> {
    pixels: &'a [[u8; 3]],
    /// The number of occurrences of each value in each channel.
    pub channels: [[u32; 256]; 3],
    /// The number of pixels by the high bits of their brightness key.
    high: Vec<u32>,
}

impl<'a> PixelCounts<'a> {
    pub(crate) fn of(image: &'a RgbImage) -> Self {
        let pixels = image.data.as_chunks::<3>().0;
        let mut channels = [[[0; 256]; 3]; 4];
        let (mut even, mut odd) = ([0; HIGH], [0; HIGH]);
        // Processes some kilobytes at a time, which stay in the cache for the second count.
        for some in pixels.chunks(64 * PIECE) {
            count_channels(some, &mut channels);
            count_high(some, &mut even, &mut odd);
        }
        let [first, rest @ ..] = &mut channels;
        for other in rest {
            add(first.as_flattened_mut(), other.as_flattened());
        }
        add(&mut even, &odd);
        Self {
            pixels,
            channels: channels[0],
            high: even.to_vec(),
        }
    }

    /// Returns exact percentiles (as fractions) of the pixels' brightness without sorting or
    /// storing them: a histogram over the keys' high bits finds the bin of each rank, and a second
    /// one orders that bin. Interpolates between ranks like numpy.
    pub(crate) fn brightness_percentiles<const N: usize>(&self, fractions: [f64; N]) -> [f64; N] {
        let last = self.pixels.len() as u64 - 1;
        let places = fractions.map(|fraction| fraction * last as f64);
        // For each position, the ranks below and above, as bin and rank in the bin.
        let ranks = places.map(|place| {
            let below = place.floor() as u64;
            [below, (below + 1).min(last)].map(|rank| rank_in(&self.high, rank))
        });
        let mut bins: Vec<usize> = ranks.as_flattened().iter().map(|&(bin, _)| bin).collect();
        bins.sort_unstable();
        bins.dedup();
        let mut keys = [[0; 2]; N];
        for bins in bins.chunks(2) {
            let mut counts = [[0; LOW]; 2];
            let ends = [bins[0], bins[bins.len() - 1]].map(|bin| bin as u32);
            count_low(self.pixels, ends, &mut counts);
            let ranks = ranks.as_flattened().iter();
            for (key, &(bin, rank)) in keys.as_flattened_mut().iter_mut().zip(ranks) {
                if let Some(n) = bins.iter().position(|&b| b == bin) {
                    *key = (bin << LOW_BITS) | rank_in(&counts[n], rank).0;
                }
            }
        }
        std::array::from_fn(|n| {
            let [a, b] = keys[n].map(|key| brightness(key as u32));
            a + (b - a) * (places[n] - places[n].floor())
        })
    }
}

fn add(sums: &mut [u32], counts: &[u32]) {
    for (sum, count) in sums.iter_mut().zip(counts) {
        *sum += count;
    }
}

fn count_channels(pixels: &[[u8; 3]], counts: &mut [[[u32; 256]; 3]; 4]) {
    let (fours, rest) = pixels.as_chunks::<4>();
    for four in fours {
        for (pixel, counts) in four.iter().zip(&mut *counts) {
            for (&value, counts) in pixel.iter().zip(counts) {
                counts[usize::from(value)] += 1;
            }
        }
    }
    for pixel in rest {
        for (&value, counts) in pixel.iter().zip(&mut counts[0]) {
            counts[usize::from(value)] += 1;
        }
    }
}

#[multiversion(targets = "simd")]
fn count_high(pixels: &[[u8; 3]], even: &mut [u32; HIGH], odd: &mut [u32; HIGH]) {
    let (pieces, rest) = pixels.as_chunks();
    for piece in pieces {
        for [a, b] in brightness_keys(piece).as_chunks().0 {
            even[(a >> LOW_BITS) as usize % HIGH] += 1;
            odd[(b >> LOW_BITS) as usize % HIGH] += 1;
        }
    }
    for pixel in rest {
        even[(brightness_key(pixel) >> LOW_BITS) as usize] += 1;
    }
}

/// Counts the low bits of the keys that have one of two high bits.
#[multiversion(targets = "simd")]
fn count_low(pixels: &[[u8; 3]], [first, second]: [u32; 2], counts: &mut [[u32; LOW]; 2]) {
    let mut count = |key: u32| {
        let low = key as usize % LOW;
        match key >> LOW_BITS {
            high if high == first => counts[0][low] += 1,
            high if high == second => counts[1][low] += 1,
            _ => {}
        }
    };
    let (pieces, rest) = pixels.as_chunks();
    for piece in pieces {
        let keys = brightness_keys(piece);
        let wanted = |any, key: &u32| {
            let high = key >> LOW_BITS;
            any | (high == first) | (high == second)
        };
        // Most pieces have no such key. This is checked for a whole piece at once.
        if keys.iter().fold(false, wanted) {
            keys.into_iter().for_each(&mut count);
        }
    }
    rest.iter().map(brightness_key).for_each(count);
}

/// Returns the bin that contains the element of this rank, and its rank within the bin.
fn rank_in(counts: &[u32], mut rank: u64) -> (usize, u64) {
    for (bin, &count) in counts.iter().enumerate() {
        if rank < u64::from(count) {
            return (bin, rank);
        }
        rank -= u64::from(count);
    }
    (counts.len() - 1, rank)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn counts_and_percentiles_are_those_of_the_sorted_pixels(
            data in proptest::collection::vec(any::<u8>(), 3..3000), dark in 0u8..8,
            fractions in [0.0..=1.0f64, 0.0..=1.0f64, 0.0..=1.0f64],
        ) {
            let width = data.len() / 3;
            let data: Vec<u8> = data[..3 * width].iter().map(|value| value >> dark).collect();
            let image = RgbImage { width: width as u32, height: 1, data };
            let counts = PixelCounts::of(&image);
            let pixels = image.data.as_chunks::<3>().0;
            for channel in 0..3 {
                for value in 0..256 {
                    let count = pixels.iter().filter(|p| usize::from(p[channel]) == value).count();
                    prop_assert_eq!(counts.channels[channel][value] as usize, count);
                }
            }
            let mut keys: Vec<u32> = pixels.iter().map(brightness_key).collect();
            keys.sort_unstable();
            let want = fractions.map(|fraction| {
                let place = fraction * (width - 1) as f64;
                let below = place.floor() as usize;
                let (a, b) = (brightness(keys[below]), brightness(keys[(below + 1).min(width - 1)]));
                a + (b - a) * (place - place.floor())
            });
            prop_assert_eq!(counts.brightness_percentiles(fractions), want);
        }
    }
}
