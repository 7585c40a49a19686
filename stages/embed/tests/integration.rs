//! `embed` on a run in memory, and the image files that it reads.
//!
//! A failure is a survivor whose embedding is missing or another's, an image that cannot be embedded
//! and has a row all the same, and bytes that are not the member's.

mod integration {
    mod feeding;
    mod files;
    mod stage;
    mod support;
}
