//! The algorithms of deduplication against independent restatements of their
//! definitions, and the stage on made-up runs in memory.
//!
//! What counts as failure: any difference in which image is kept, which is removed,
//! and because of which one; a similarity or distance off by more than 1e-5; a result that
//! depends on the number of threads. The inputs that look like stress tests
//! finish in a second or two; when one does not, an algorithm has gone quadratic.
//!
//! To update the goldens (after a change of definition only):
//! `python3 tests/golden/make_golden.py`, which needs numpy.

mod integration {
    mod arguments;
    mod distance;
    mod embeddings;
    mod exact;
    mod golden;
    mod methods;
    mod pairs;
    mod perceptual;
    mod probes;
    mod rank_by;
    mod ranking;
    mod references;
    mod repetition;
    mod requested;
    mod sampling;
    mod stopped;
    mod support;
}
