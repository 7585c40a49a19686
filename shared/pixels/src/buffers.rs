//! Buffers that each thread reuses.
//!
//! The system provides a fresh buffer of half a megabyte page by page, which costs a tenth of the
//! time that decoding into it takes. So each thread keeps a few. Large buffers are returned to the
//! system, so that one photograph of a hundred megapixels does not occupy memory until the end.

use std::cell::RefCell;
use std::collections::VecDeque;

/// The maximum number of bytes that a thread keeps.
const KEPT: usize = 3 << 20;

thread_local! {
    static SPARE: RefCell<VecDeque<Vec<u8>>> = const { RefCell::new(VecDeque::new()) };
}

/// Returns a buffer of this length with arbitrary content.
pub(crate) fn take(length: usize) -> Vec<u8> {
    let mut buffer = SPARE.with_borrow_mut(|spare| {
        let fitting = (0..spare.len()).filter(|&i| spare[i].capacity() >= length);
        let tightest = fitting.min_by_key(|&i| spare[i].capacity());
        tightest.and_then(|i| spare.remove(i)).unwrap_or_default()
    });
    if buffer.capacity() == 0 {
        // The system provides large buffers already zeroed.
        return vec![0; length];
    }
    buffer.resize(length, 0);
    buffer
}

/// Keeps a buffer for this thread's next [`take`].
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
