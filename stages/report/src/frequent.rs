//! Finds the most frequent of many names in bounded memory.
//!
//! Misra and Gries, "Finding repeated elements" (1982): with `room` counters, every name with more
//! than a fraction 1/`room` of all items is among the candidates. A name without a free counter
//! decrements all counters, so a counter may be too low. Summaries of parts are merged as in
//! "Mergeable summaries" (Agarwal and others, 2012).

use std::collections::HashMap;

/// Candidates for the most frequent names.
#[derive(Debug, Clone)]
pub struct Frequent {
    room: usize,
    counters: HashMap<String, u64>,
    /// The maximum error of a counter, which may be too low.
    missed: u64,
}

impl Frequent {
    /// Creates a summary with this many counters.
    pub fn new(room: usize) -> Self {
        Self {
            room,
            counters: HashMap::new(),
            missed: 0,
        }
    }

    /// Adds an item to the counts.
    pub fn add(&mut self, name: &str) {
        if let Some(count) = self.counters.get_mut(name) {
            *count += 1;
        } else if self.counters.len() < self.room {
            self.counters.insert(name.to_owned(), 1);
        } else {
            self.lower(1);
        }
    }

    /// Subtracts this from every counter.
    fn lower(&mut self, by: u64) {
        self.missed += by;
        self.counters.retain(|_, count| {
            *count = count.saturating_sub(by);
            *count > 0
        });
    }

    /// Adds the counts of another part.
    pub fn merge(&mut self, other: Self) {
        self.missed += other.missed;
        for (name, count) in other.counters {
            *self.counters.entry(name).or_default() += count;
        }
        if self.counters.len() > self.room {
            let mut counts: Vec<u64> = self.counters.values().copied().collect();
            counts.sort_unstable_by(|a, b| b.cmp(a));
            self.lower(counts[self.room]);
        }
    }

    /// Returns whether all counts are exact.
    pub fn is_exact(&self) -> bool {
        self.missed == 0
    }

    /// Returns the `n` most frequent candidates with their counts, sorted by count and then by
    /// name.
    pub fn top(&self, n: usize) -> Vec<(String, u64)> {
        let counters = self.counters.iter();
        let mut all: Vec<_> = counters
            .map(|(name, count)| (name.clone(), *count))
            .collect();
        all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        all.truncate(n);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(top: Vec<(String, u64)>) -> Vec<String> {
        top.into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn the_frequent_stay_whatever_comes_between() {
        let mut parts = [Frequent::new(8), Frequent::new(8)];
        for i in 0..1000 {
            let frequent = &mut parts[i % 2];
            frequent.add(&format!("rare-{i}"));
            if i % 3 == 0 {
                frequent.add("often");
            }
            if i % 5 == 0 {
                frequent.add("sometimes");
            }
        }
        let [mut whole, other] = parts;
        whole.merge(other);
        assert_eq!(names(whole.top(1)), ["often"]);
        assert!(!whole.is_exact());
    }

    #[test]
    fn with_room_for_all_it_is_exact() {
        let mut frequent = Frequent::new(8);
        for name in ["a", "b", "b", "c", "c"] {
            frequent.add(name);
        }
        assert_eq!(names(frequent.top(3)), ["b", "c", "a"]);
        assert!(frequent.is_exact());
    }
}
