//! The page about a run. Partition and read are real; the manifests of the other stages are
//! synthetic.
//!
//! The tests fail if the page lacks something that was done, shows something that was not, or
//! passes a name of the dataset through as markup.

#[path = "integration/page.rs"]
mod page;
#[path = "integration/support.rs"]
mod support;
