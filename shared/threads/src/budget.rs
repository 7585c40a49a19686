//! A limit on the memory that all threads of a process use for decoding.
//!
//! A thread takes a share before it allocates, and waits until enough memory is free. A share
//! larger than the whole budget waits until no other share is taken, so large images are decoded
//! one at a time. A thread that has a share must not wait for a second one.

use std::sync::{Condvar, Mutex, MutexGuard};

/// A number of bytes that threads can take shares of.
#[derive(Debug)]
pub struct MemoryBudget {
    total: u64,
    taken: Mutex<u64>,
    freed: Condvar,
}

impl MemoryBudget {
    /// Creates a budget of `total` bytes.
    pub fn new(total: u64) -> Self {
        Self {
            total,
            taken: Mutex::new(0),
            freed: Condvar::new(),
        }
    }

    /// Returns the size of the budget in bytes.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Takes `bytes` of the budget until the returned share is dropped. Waits until they are free.
    pub fn take(&self, bytes: u64) -> MemoryShare<'_> {
        let has_no_room = |taken: &mut u64| *taken > 0 && *taken + bytes > self.total;
        let taken = self.freed.wait_while(self.lock(), has_no_room);
        *taken.unwrap_or_else(|e| e.into_inner()) += bytes;
        MemoryShare {
            budget: self,
            bytes,
        }
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.taken.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// A share of a [`MemoryBudget`], returned to it on drop.
#[must_use]
#[derive(Debug)]
pub struct MemoryShare<'a> {
    budget: &'a MemoryBudget,
    bytes: u64,
}

impl Drop for MemoryShare<'_> {
    fn drop(&mut self) {
        *self.budget.lock() -= self.bytes;
        self.budget.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::*;

    /// Takes shares of these sizes on as many threads. Returns the maximum bytes and the maximum
    /// number of shares that were taken at the same time.
    fn most(total: u64, sizes: &[u64]) -> (u64, u64) {
        let budget = MemoryBudget::new(total);
        let (bytes, shares) = (AtomicU64::new(0), AtomicU64::new(0));
        let (most_bytes, most_shares) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for &size in sizes {
                let (budget, bytes, shares) = (&budget, &bytes, &shares);
                let (most_bytes, most_shares) = (&most_bytes, &most_shares);
                scope.spawn(move || {
                    let _share = budget.take(size);
                    let now = bytes.fetch_add(size, Ordering::SeqCst) + size;
                    most_bytes.fetch_max(now, Ordering::SeqCst);
                    let now = shares.fetch_add(1, Ordering::SeqCst) + 1;
                    most_shares.fetch_max(now, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(2));
                    bytes.fetch_sub(size, Ordering::SeqCst);
                    shares.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        assert_eq!(*budget.lock(), 0);
        (most_bytes.into_inner(), most_shares.into_inner())
    }

    #[test]
    fn shares_stay_within_the_budget() {
        assert!(most(100, &[30; 12]).0 <= 100);
        assert!(most(100, &[60, 10, 50, 90, 20, 100, 5, 5]).0 <= 100);
    }

    #[test]
    fn what_is_larger_than_the_budget_goes_alone() {
        assert_eq!(most(100, &[300; 4]), (300, 1));
    }
}
