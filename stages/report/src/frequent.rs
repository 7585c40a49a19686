//! The most frequent of many names, in bounded memory.
//!
//! Misra and Gries, "Finding repeated elements" (1982): with `room` counters, every name that
//! occurs in more than one of `room` of all items is among the candidates. Names that do not fit
//! take one from every counter. A second pass over the items counts the candidates exactly.

use std::collections::HashMap;

/// Candidates for the most frequent names.
#[derive(Debug)]
pub struct Frequent {
    room: usize,
    counters: HashMap<String, u64>,
}

impl Frequent {
    /// Counts with this many counters.
    pub fn new(room: usize) -> Self {
        Self {
            room,
            counters: HashMap::new(),
        }
    }

    /// Takes an item up.
    pub fn add(&mut self, name: &str) {
        if let Some(count) = self.counters.get_mut(name) {
            *count += 1;
        } else if self.counters.len() < self.room {
            self.counters.insert(name.to_owned(), 1);
        } else {
            self.counters.retain(|_, count| {
                *count -= 1;
                *count > 0
            });
        }
    }

    /// The `n` best candidates, by count and then by name.
    pub fn top(self, n: usize) -> Vec<String> {
        let mut all: Vec<_> = self.counters.into_iter().collect();
        all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        all.truncate(n);
        all.into_iter().map(|(name, _)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frequent_stay_whatever_comes_between() {
        let mut frequent = Frequent::new(8);
        for i in 0..1000 {
            frequent.add(&format!("rare-{i}"));
            if i % 3 == 0 {
                frequent.add("often");
            }
            if i % 5 == 0 {
                frequent.add("sometimes");
            }
        }
        assert_eq!(frequent.top(1), ["often"]);
    }

    #[test]
    fn with_room_for_all_it_is_exact() {
        let mut frequent = Frequent::new(8);
        for name in ["a", "b", "b", "c", "c"] {
            frequent.add(name);
        }
        assert_eq!(frequent.top(3), ["b", "c", "a"]);
    }
}
