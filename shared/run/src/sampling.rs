//! Samples of a stream that have a fixed size and depend only on the content of the stream, not on
//! its order: the items with the lowest keys. Samples of parts can be merged into the sample of the
//! whole.

use std::collections::{BTreeMap, BTreeSet};

/// The items with the lowest keys. Ties are broken by name.
#[derive(Debug, Clone)]
pub struct Best<T> {
    room: usize,
    found: BTreeMap<(u64, String), T>,
}

impl<T> Best<T> {
    /// Creates a sample of at most this many items.
    pub fn new(room: usize) -> Self {
        Self {
            room,
            found: BTreeMap::new(),
        }
    }

    /// Offers an item. It is created only if it is kept.
    pub fn offer(&mut self, key: u64, name: &str, make: impl FnOnce() -> T) {
        if self.has_room_for(key, name) {
            self.found.insert((key, name.to_owned()), make());
            if self.found.len() > self.room {
                self.found.pop_last();
            }
        }
    }

    fn has_room_for(&self, key: u64, name: &str) -> bool {
        let last = self.found.last_key_value();
        self.found.len() < self.room
            || last.is_some_and(|((worst, other), _)| (key, name) < (*worst, other.as_str()))
    }

    /// Adds the sample of another part.
    pub fn merge(&mut self, other: Self) {
        self.found.extend(other.found);
        while self.found.len() > self.room {
            self.found.pop_last();
        }
    }

    /// Returns the items in ascending order of their keys.
    pub fn items(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.found.values()
    }
}

/// Returns a pseudo-random number that depends only on the name.
pub fn hash(name: &str) -> u64 {
    let hash = blake3::hash(name.as_bytes());
    // Unwrap safety: a hash has 32 bytes.
    u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("eight bytes"))
}

/// Returns a key with the order of the numbers. Negate the number for descending order.
pub fn ascending(number: f64) -> u64 {
    let bits = number.to_bits();
    if number.is_sign_negative() {
        !bits
    } else {
        bits | 1 << 63
    }
}

/// Estimates the number of distinct texts: "k minimum values" (Bar-Yossef and others, 2002). Exact
/// below [`Distinct::ROOM`]; above it the standard error is 1.6 %.
#[derive(Debug, Clone, Default)]
pub struct Distinct {
    least: BTreeSet<u64>,
}

impl Distinct {
    /// The number of hashes that are kept.
    const ROOM: usize = 4096;

    /// Adds a text to the count.
    pub fn add(&mut self, text: &str) {
        self.insert(hash(text));
    }

    fn insert(&mut self, hash: u64) {
        let is_less = self.least.last().is_none_or(|last| hash < *last);
        if self.least.len() < Self::ROOM || is_less {
            self.least.insert(hash);
            if self.least.len() > Self::ROOM {
                self.least.pop_last();
            }
        }
    }

    /// Adds the texts of another part.
    pub fn merge(&mut self, other: Self) {
        other.least.into_iter().for_each(|hash| self.insert(hash));
    }

    /// Returns whether the count is exact.
    pub fn is_exact(&self) -> bool {
        self.least.len() < Self::ROOM
    }

    /// Returns the number of distinct texts.
    pub fn count(&self) -> u64 {
        match self.least.last() {
            Some(&last) if !self.is_exact() => {
                let density = (last as f64 + 1.0) / 2_f64.powi(64);
                ((Self::ROOM - 1) as f64 / density).round() as u64
            }
            _ => self.least.len() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(names: impl Iterator<Item = u32>) -> Best<u32> {
        let mut best = Best::new(10);
        for name in names {
            let text = format!("image-{name}");
            best.offer(hash(&text), &text, || name);
        }
        best
    }

    #[test]
    fn a_sample_depends_on_the_content_alone() {
        let forward = sample(0..1000);
        let mut parts = sample((500..1000).rev());
        parts.merge(sample(0..500));
        let items = |best: &Best<u32>| best.items().copied().collect::<Vec<_>>();
        assert_eq!(items(&forward), items(&parts));
        assert_eq!(items(&forward).len(), 10);
        assert!(
            items(&forward).iter().any(|name| *name > 100),
            "not the first"
        );
    }

    #[test]
    fn keys_are_in_the_order_of_numbers() {
        let numbers = [f64::NEG_INFINITY, -2.0, -0.5, 0.0, 1e-9, 3.0, f64::INFINITY];
        assert!(numbers.map(ascending).is_sorted());
    }

    #[test]
    fn different_texts_are_counted() {
        let count = |texts: u32| {
            let mut distinct = Distinct::default();
            for text in 0..texts {
                (0..2).for_each(|_| distinct.add(&text.to_string()));
            }
            (distinct.count(), distinct.is_exact())
        };
        assert_eq!(count(4000), (4000, true));
        let (about, is_exact) = count(50_000);
        assert!(!is_exact && about.abs_diff(50_000) < 2500, "{about}");
    }
}
