//! Models as they are exported, from their files to their numbers.

#[path = "integration/devices.rs"]
mod devices;
#[path = "integration/exports.rs"]
mod exports;
#[path = "integration/graphs.rs"]
mod graphs;
#[path = "integration/half.rs"]
mod half;
#[path = "integration/place.rs"]
mod place;
#[path = "integration/quantize.rs"]
mod quantize;
