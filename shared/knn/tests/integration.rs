//! k-means and matching against independent restatements of their definitions.
//!
//! What counts as failure: any difference in clusters or matches; a similarity or distance off by more
//! than 1e-5; a result that depends on the number of threads.

mod integration {
    mod data;
    mod kmeans;
    mod matching;
    mod stopped;
}
