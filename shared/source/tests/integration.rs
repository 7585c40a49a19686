//! What `read` finds in a shard, later readers of the shard get.

#[path = "integration/damaged.rs"]
mod damaged;
