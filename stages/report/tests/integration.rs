//! The page about a run: partition and read are done for real, the other stages' manifests are made up.
//!
//! A test fails when the page lacks something that was done, shows what was not, or lets a name of
//! the dataset through as markup.

#[path = "integration/page.rs"]
mod page;
#[path = "integration/support.rs"]
mod support;
