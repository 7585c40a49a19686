//! Downloads files of the Hugging Face Hub, and of any HTTPS address, to local disk.
//!
//! [`Hub::snapshot`] downloads files of a repository at one commit into the Hub's own cache, whose
//! layout Python's `huggingface_hub` also reads and writes:
//!
//! ```text
//! $HF_HUB_CACHE/models--ORG--NAME/
//!   refs/REVISION            the commit that a branch or tag last referred to
//!   blobs/ETAG               contents; ETAG is the SHA-256 of files in large file storage
//!   blobs/ETAG.incomplete    a download in progress, resumed by a byte range
//!   snapshots/COMMIT/PATH    a relative link to the blob
//! $HF_HUB_CACHE/.locks/models--ORG--NAME/ETAG.lock    locked by `flock` while a blob is downloaded
//! ```
//!
//! A blob is renamed to its path after its length and, if the Hub provides one, its SHA-256 were
//! verified. The token is sent only to the Hub's own host: redirects are followed here, and a
//! request to another host carries no token.

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
pub use http::public_url;
pub use hub::{File, Hub, Snapshot};
