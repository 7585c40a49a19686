//! Builds shards member by member.

use tar::{EntryType, Header};

/// A tar under construction. It uses the `tar` crate's writer, not the one being tested.
#[derive(Debug, Clone, Default)]
pub struct Shard {
    bytes: Vec<u8>,
}

impl Shard {
    /// Creates a shard without members.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a member.
    ///
    /// # Panics
    ///
    /// Panics if the name does not fit into a header.
    #[must_use]
    pub fn with(self, name: &str, data: impl AsRef<[u8]>) -> Self {
        self.with_entry(name, data.as_ref(), EntryType::Regular)
    }

    /// Adds a member marked as an old GNU sparse file.
    ///
    /// # Panics
    ///
    /// Panics if the name does not fit into a header.
    #[must_use]
    pub fn with_sparse(self, name: &str, data: impl AsRef<[u8]>) -> Self {
        self.with_entry(name, data.as_ref(), EntryType::GNUSparse)
    }

    fn with_entry(mut self, name: &str, data: &[u8], kind: EntryType) -> Self {
        let mut header = match kind {
            EntryType::GNUSparse => Header::new_gnu(),
            _ => Header::new_ustar(),
        };
        // Unwrap safety: tests choose names that fit a header.
        header.set_path(name).unwrap();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_entry_type(kind);
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    /// Returns the bytes of the complete shard.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }

    /// Returns the shard, truncated `less` bytes before the end of its last member.
    pub fn cut(mut self, less: usize) -> Vec<u8> {
        self.bytes.truncate(self.bytes.len().saturating_sub(less));
        self.bytes
    }
}
