//! Buffers that a thread uses again.
//!
//! A fresh buffer of half a megabyte comes from the system page by page, which costs a tenth of the
//! time that decoding into it takes. So each thread lays a few aside. Large ones go back to the
//! system, that a single photograph of a hundred megapixels is not paid for until the end.

use std::cell::RefCell;

/// Buffers that a thread keeps, and the capacity of the largest that it keeps.
const KEPT: usize = 4;
const LARGEST: usize = 4 << 20;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of this length. Its content is arbitrary.
pub(crate) fn take(length: usize) -> Vec<u8> {
    let mut buffer = SPARE.with_borrow_mut(|spare| {
        let fitting = (0..spare.len()).filter(|&i| spare[i].capacity() >= length);
        let tightest = fitting.min_by_key(|&i| spare[i].capacity());
        tightest.map_or_else(Vec::new, |i| spare.swap_remove(i))
    });
    if buffer.capacity() == 0 {
        // Zeroed by the system, where it is large.
        return vec![0; length];
    }
    buffer.resize(length, 0);
    buffer
}

/// Lays a buffer aside for this thread's next [`take`].
pub(crate) fn give(buffer: Vec<u8>) {
    if buffer.capacity() == 0 || buffer.capacity() > LARGEST {
        return;
    }
    SPARE.with_borrow_mut(|spare| {
        spare.push(buffer);
        if spare.len() > KEPT {
            // The smallest is the cheapest to make again.
            let smallest = (0..spare.len()).min_by_key(|&i| spare[i].capacity());
            smallest.map(|i| spare.swap_remove(i));
        }
    });
}
