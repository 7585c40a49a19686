//! Perceptual hashes of any number of bits: 64, or PDQ's 256.

/// A hash of `W` words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash<const W: usize>(pub [u64; W]);

impl<const W: usize> Hash<W> {
    /// Bits of a hash.
    pub const BITS: u32 = W as u32 * u64::BITS;

    /// Returns the hash of these words, or `None` for another number of words.
    pub(crate) fn of_words(words: &[u64]) -> Option<Self> {
        Some(Self(words.try_into().ok()?))
    }

    /// Returns the hash in which only so many of the lowest bits are set.
    pub(crate) fn low(bits: u32) -> Self {
        Self(std::array::from_fn(|word| {
            let set = bits.saturating_sub(word as u32 * u64::BITS);
            u64::MAX
                .checked_shr(u64::BITS.saturating_sub(set))
                .unwrap_or(0)
        }))
    }

    fn combine(self, other: Self, word: impl Fn(u64, u64) -> u64) -> Self {
        Self(std::array::from_fn(|i| word(self.0[i], other.0[i])))
    }

    pub(crate) fn and(self, other: Self) -> Self {
        self.combine(other, |a, b| a & b)
    }

    /// Returns the bits in which two hashes differ.
    pub(crate) fn xor(self, other: Self) -> Self {
        self.combine(other, |a, b| a ^ b)
    }

    pub(crate) fn is_zero(self) -> bool {
        self.0 == [0; W]
    }

    pub(crate) fn distance(self, other: Self) -> u32 {
        self.xor(other).0.iter().map(|word| word.count_ones()).sum()
    }

    /// Mixes all bits into 32 (the finalizer of MurmurHash3, word by word).
    pub(crate) fn spread(self) -> u32 {
        let mixed = self.0.iter().fold(0, |before, word| {
            let mix = |mixed: u64, factor: u64| (mixed ^ (mixed >> 33)).wrapping_mul(factor);
            let factors = [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53];
            factors.into_iter().fold(before ^ word, mix)
        });
        (mixed >> 32) as u32
    }

    /// Returns the range that a hash falls into, of `ranges` that have about equally many.
    pub(crate) fn range(self, ranges: u32) -> u32 {
        scaled(self.spread().into(), 1 << 32, ranges)
    }

    /// Returns 16 bits, by their number from the lowest.
    pub(crate) fn band(self, band: usize) -> u16 {
        (self.0[band / 4] >> (band % 4 * 16)) as u16
    }

    /// Whether the hash distinguishes images. All flat images have one 64-bit hash, whatever their colour:
    /// no bit but the mean's. They are not compared, or they would all be duplicates.
    pub(crate) fn is_informative(self) -> bool {
        self.0.iter().map(|word| word.count_ones()).sum::<u32>() > 1
    }

    /// Returns the similarity of hashes that differ in `distance` bits.
    pub(crate) fn similarity(distance: u32) -> f32 {
        1.0 - distance as f32 / Self::BITS as f32
    }
}

impl Hash<4> {
    /// Parses a PDQ hash of 64 hexadecimal digits.
    pub(crate) fn of_pdq(text: &str) -> Option<Self> {
        let bytes: [u8; 32] = decode(text)?;
        let (words, _) = bytes.as_chunks();
        Some(Self(std::array::from_fn(|word| {
            u64::from_be_bytes(words[3 - word])
        })))
    }
}

/// Parses a digest of `N` bytes in hexadecimal digits.
pub(crate) fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut digest = [0; N];
    hex::decode_to_slice(text, &mut digest).ok()?;
    Some(digest)
}

/// Returns the range, of `ranges` equal ones, that contains a position on a line of this length.
pub(crate) fn scaled(place: u128, length: u128, ranges: u32) -> u32 {
    (place * u128::from(ranges) / length) as u32
}

/// The hashes by which an image is compared with others' own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forms<const W: usize> {
    /// The image's own.
    pub own: Hash<W>,
    /// Those of its mirrored and rotated forms.
    pub others: Vec<Hash<W>>,
}

impl<const W: usize> From<Hash<W>> for Forms<W> {
    fn from(own: Hash<W>) -> Self {
        let others = Vec::new();
        Self { own, others }
    }
}

impl<const W: usize> Forms<W> {
    /// Returns all hashes, the own one first.
    pub(crate) fn all(&self) -> impl Iterator<Item = Hash<W>> {
        std::iter::once(self.own).chain(self.others.iter().copied())
    }
}
