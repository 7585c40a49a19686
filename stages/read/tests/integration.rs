//! What `read` says about samples, and when it refuses a dataset.
//!
//! A failure is a sample whose row has another status, reason or detail than the table says, and a
//! share of bad samples that is let through or refused by mistake.

mod integration {
    mod bad_fraction;
    mod examine;
}
