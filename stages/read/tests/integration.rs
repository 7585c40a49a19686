//! Tests the rows that `read` writes for samples, and when it rejects a dataset.
//!
//! They fail if a sample's row has another status, reason or detail than expected, or if a share of
//! bad samples is accepted or rejected incorrectly.

mod integration {
    mod bad_fraction;
    mod examine;
}
