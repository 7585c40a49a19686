//! k-means and nearest neighbours of vectors: functions on slices, without I/O.
//!
//! - [`kmeans`]: Lloyd's k-means after k-means++, and the nearest centroids of vectors.
//! - [`matching`]: duplicates among vectors in rank order.
//! - [`targets`]: vectors compared with others that pass by.
//! - [`products`]: exact dot products.
//!
//! Products are estimated first (`estimates.rs`), in bytes where the processor has instructions for
//! that (`codes.rs`, `bytes.rs`), else in `f32`. An estimate only nominates: what is returned and
//! compared is computed in `f64`. So results depend neither on the processor nor on the number of
//! threads.

mod bytes;
mod codes;
mod estimates;
pub mod kmeans;
pub mod matching;
mod members;
mod points;
pub mod products;
mod seeding;
pub mod targets;

/// Fails when the work is to stop. Long computations call it between their parts, on any thread.
pub type Check<'a> = &'a (dyn Fn() -> sluice_manifest::Result<()> + Sync);
