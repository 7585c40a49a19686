//! Counting over all pixels of a picture: brightness and the three channels' values in one pass.
//!
//! Neighbouring pixels are alike, and an increment that waits for the one before it on the same
//! counter takes several times as long. So pixels in turn count into tables of their own, which are
//! added up at the end.

use multiversion::multiversion;

use crate::decode::RgbImage;

/// ITU-R 601 luma with Pillow's rounding (`convert("L")`).
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

/// Square of the brightness in thousandths: a whole number up to 65,025,000.
#[inline(always)]
fn brightness_key(&[r, g, b]: &[u8; 3]) -> u32 {
    let square = |value: u8| u32::from(value) * u32::from(value);
    241 * square(r) + 691 * square(g) + 68 * square(b)
}

fn brightness(key: u32) -> f64 {
    (f64::from(key) / 1000.0).sqrt() / 255.0
}

/// Low bits of a brightness key that the first histogram leaves out.
const LOW_BITS: u32 = 13;
/// Bins of the first histogram; the last of them stay empty.
const HIGH: usize = 1 << 13;
const LOW: usize = 1 << LOW_BITS;
/// Pixels whose keys are made at a time.
const PIECE: usize = 64;

/// The high bits of the keys of some pixels.
#[inline(always)]
fn high_keys(pixels: &[[u8; 3]; PIECE]) -> [u16; PIECE] {
    let mut keys = [0; PIECE];
    for (key, pixel) in keys.iter_mut().zip(pixels) {
        *key = (brightness_key(pixel) >> LOW_BITS) as u16;
    }
    keys
}

/// The counts of one picture, which has pixels.
pub(crate) struct Tally<'a> {
    pixels: &'a [[u8; 3]],
    /// How often each value of each channel occurs.
    pub channels: [[u32; 256]; 3],
    /// How many pixels have these high bits in their brightness key.
    high: Vec<u32>,
}

impl<'a> Tally<'a> {
    pub(crate) fn of(image: &'a RgbImage) -> Self {
        let pixels = image.data.as_chunks::<3>().0;
        let mut channels = [[[0; 256]; 3]; 4];
        let (mut even, mut odd) = (vec![0; HIGH], vec![0; HIGH]);
        // Some kilobytes at a time, which stay in the cache for the second count.
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
            high: even,
        }
    }

    /// Exact percentiles (as fractions) of the pixels' brightness without sorting or storing them: a
    /// histogram over the keys' high bits finds the bin of each rank, a second one orders that bin.
    /// Between ranks it is interpolated, as numpy does.
    pub(crate) fn brightness_percentiles<const N: usize>(&self, fractions: [f64; N]) -> [f64; N] {
        let last = self.pixels.len() as u64 - 1;
        let places = fractions.map(|fraction| fraction * last as f64);
        // For each place the rank below and the one above, as bin and rank in the bin.
        let found = places.map(|place| {
            let below = place.floor() as u64;
            [below, (below + 1).min(last)].map(|rank| rank_in(&self.high, rank))
        });
        let mut bins: Vec<usize> = found.as_flattened().iter().map(|&(bin, _)| bin).collect();
        bins.sort_unstable();
        bins.dedup();
        let low: Vec<Vec<u32>> = bins.chunks(2).flat_map(|two| self.low(two)).collect();
        let brightness_at = |(bin, rank)| {
            // Unwrap safety: all bins of `found` are there.
            let (low, _) = rank_in(&low[bins.binary_search(&bin).unwrap()], rank);
            brightness(((bin << LOW_BITS) | low) as u32)
        };
        std::array::from_fn(|n| {
            let [a, b] = found[n].map(brightness_at);
            a + (b - a) * (places[n] - places[n].floor())
        })
    }

    /// The second histograms, of one or two bins.
    fn low(&self, bins: &[usize]) -> Vec<Vec<u32>> {
        let mut counts = vec![vec![0; LOW]; 2];
        let (first, last) = (bins[0] as u16, bins[bins.len() - 1] as u16);
        count_low(self.pixels, [first, last], &mut counts);
        counts.truncate(bins.len());
        counts
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
fn count_high(pixels: &[[u8; 3]], even: &mut [u32], odd: &mut [u32]) {
    let (pieces, rest) = pixels.as_chunks();
    for piece in pieces {
        for [a, b] in high_keys(piece).as_chunks().0 {
            even[usize::from(*a) % HIGH] += 1;
            odd[usize::from(*b) % HIGH] += 1;
        }
    }
    for pixel in rest {
        even[(brightness_key(pixel) >> LOW_BITS) as usize] += 1;
    }
}

/// Counts the low bits of the keys that have one of two high bits.
#[multiversion(targets = "simd")]
fn count_low(pixels: &[[u8; 3]], [first, second]: [u16; 2], counts: &mut [Vec<u32>]) {
    let mut count = |pixel: &[u8; 3]| {
        let key = brightness_key(pixel);
        let low = key as usize % LOW;
        match (key >> LOW_BITS) as u16 {
            high if high == first => counts[0][low] += 1,
            high if high == second => counts[1][low] += 1,
            _ => {}
        }
    };
    let (pieces, rest) = pixels.as_chunks();
    for piece in pieces {
        let wanted = |any, key: &u16| any | (*key == first) | (*key == second);
        // Most pieces have none, which is told for all of one at once.
        if high_keys(piece).iter().fold(false, wanted) {
            piece.iter().for_each(&mut count);
        }
    }
    rest.iter().for_each(count);
}

/// The bin that holds the element of this rank, and its rank within the bin.
fn rank_in(counts: &[u32], mut rank: u64) -> (usize, u64) {
    for (bin, &count) in counts.iter().enumerate() {
        if rank < u64::from(count) {
            return (bin, rank);
        }
        rank -= u64::from(count);
    }
    (counts.len() - 1, rank)
}
