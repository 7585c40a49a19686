//! Files of the Hugging Face Hub, and of any HTTPS address, on local disk.
//!
//! [`Hub::snapshot`] puts the wanted files of a repository at one commit into the Hub's own cache,
//! whose layout Python's `huggingface_hub` reads and writes too:
//!
//! ```text
//! $HF_HUB_CACHE/models--ORG--NAME/
//!   refs/REVISION            the commit that a branch or tag named last
//!   blobs/ETAG               contents; ETAG is the SHA-256 of files in large file storage
//!   blobs/ETAG.incomplete    a download under way, resumed by a byte range
//!   snapshots/COMMIT/PATH    a relative link to the blob
//! $HF_HUB_CACHE/.locks/models--ORG--NAME/ETAG.lock    held by `flock` while a blob is downloaded
//! ```
//!
//! A blob is renamed into place after its length and, where the Hub states one, its SHA-256 were
//! checked. A token goes to the Hub's own host only: redirects are followed here, and a request to
//! another host carries none.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the Hub's cache is a folder on local disk that other programs share"
)]

mod address;
mod cache;
mod download;
mod environment;
mod http;
mod hub;

pub use address::Address;
pub use environment::Environment;
pub use hub::{File, Hub, Snapshot};
