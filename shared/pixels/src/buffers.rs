//! Buffers that a thread uses again.
//!
//! A fresh buffer of half a megabyte comes from the system page by page, which costs a tenth of the
//! time that decoding into it takes. So each thread lays a few aside. Large ones go back to the
//! system, that a single photograph of a hundred megapixels is not paid for until the end.

use std::cell::RefCell;
use std::collections::VecDeque;

/// Bytes that a thread lays aside at most.
const KEPT: usize = 3 << 20;

thread_local! {
    static SPARE: RefCell<VecDeque<Vec<u8>>> = const { RefCell::new(VecDeque::new()) };
}

/// A buffer of this length. Its content is arbitrary.
pub(crate) fn take(length: usize) -> Vec<u8> {
    let mut buffer = SPARE.with_borrow_mut(|spare| {
        let fitting = (0..spare.len()).filter(|&i| spare[i].capacity() >= length);
        let tightest = fitting.min_by_key(|&i| spare[i].capacity());
        tightest.and_then(|i| spare.remove(i)).unwrap_or_default()
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
    if buffer.capacity() == 0 || buffer.capacity() > KEPT {
        return;
    }
    SPARE.with_borrow_mut(|spare| {
        spare.push_back(buffer);
        while spare.iter().map(Vec::capacity).sum::<usize>() > KEPT {
            spare.pop_front();
        }
    });
}
