//! Models as they are exported, from their files to their numbers.

#[path = "integration/exports.rs"]
mod exports;
#[path = "integration/graphs.rs"]
mod graphs;
#[path = "integration/place.rs"]
mod place;
#[path = "integration/quantize.rs"]
mod quantize;
