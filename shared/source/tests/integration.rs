//! Checks that later readers of a shard return what `read` found in it.

#[path = "integration/damaged.rs"]
mod damaged;
