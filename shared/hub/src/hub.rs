//! Snapshots of repositories, and single files of any HTTPS address.

use std::path::{Path, PathBuf};

use reqwest::Url;
use reqwest::blocking::Response;
use serde::Deserialize;
use sluice_manifest::{Error, Result};

use crate::address::Address;
use crate::cache::{Repository, is_commit, lock};
use crate::download::{Checksum, Downloaded, Expected, download, examine, head, json, with_ending};
use crate::environment::Environment;
use crate::http::{Http, parse, shown};

/// The number of retries after transient failures: connections, 429, 5xx.
const RETRIES: u32 = 5;

/// A file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// The path in the repository.
    pub path: String,
    /// The length in bytes.
    pub bytes: u64,
    /// The SHA-256 in hexadecimal.
    pub sha256: String,
    /// Whether the Hub provided this SHA-256. It does for files in large file storage.
    pub stated: bool,
}

/// Files of a repository at one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The folder with the files, at their paths in the repository.
    pub folder: PathBuf,
    /// The commit.
    pub commit: String,
    /// The files, sorted by path.
    pub files: Vec<File>,
    /// The licence in the repository's model card.
    pub licence: Option<String>,
}

/// A Hugging Face Hub, or a server with the same interface.
pub struct Hub<'a> {
    environment: Environment,
    http: Http<'a>,
}

#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
    #[serde(default)]
    tags: Vec<String>,
}

impl Listing {
    /// Returns the licence from the model card, which the Hub repeats as a tag.
    fn licence(&self) -> Option<String> {
        let mut tags = self.tags.iter();
        tags.find_map(|tag| tag.strip_prefix("license:").map(str::to_owned))
    }
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

impl<'a> Hub<'a> {
    /// Creates a client. `keep_going` is called during downloads and returns an error once the
    /// program was stopped.
    ///
    /// # Errors
    ///
    /// Returns a usage error if HTTPS cannot be configured.
    pub fn new(environment: Environment, keep_going: &'a dyn Fn() -> Result<()>) -> Result<Self> {
        let token = environment.token.as_deref();
        let http = Http::new(&environment.endpoint, token, RETRIES, keep_going)?;
        Ok(Self { environment, http })
    }

    /// Downloads files of a repository into the cache. `choose` receives all paths, sorted, and
    /// returns those to download. Files already in the cache are not requested again.
    ///
    /// # Errors
    ///
    /// Returns a usage error if the repository, the revision or a file does not exist, is gated, or
    /// (offline) is not in the cache; a data error if a file does not match its checksum; a
    /// transient error if the Hub is unreachable or overloaded; and any error of `choose` or
    /// `keep_going`.
    pub fn snapshot(
        &self,
        address: &Address,
        choose: &dyn Fn(&[String]) -> Result<Vec<String>>,
    ) -> Result<Snapshot> {
        let repository = Repository::new(&self.environment.cache, &address.repository);
        if self.environment.offline {
            return offline(&repository, address, choose);
        }
        let listing = self.list(address)?;
        repository.record(&address.revision, &listing.sha)?;
        let licence = listing.licence();
        let siblings = listing.siblings.into_iter();
        let mut paths: Vec<String> = siblings.map(|file| file.rfilename).collect();
        paths.retain(|path| !path.split('/').any(|part| matches!(part, "" | "." | "..")));
        paths.sort();
        let files = choose(&paths)?
            .into_iter()
            .map(|path| self.file(&repository, address, &listing.sha, path));
        Ok(Snapshot {
            files: files.collect::<Result<_>>()?,
            folder: repository.snapshot(&listing.sha),
            commit: listing.sha,
            licence,
        })
    }

    fn list(&self, address: &Address) -> Result<Listing> {
        let Address {
            repository,
            revision,
            ..
        } = address;
        let revision = revision.replace('/', "%2F");
        let url = self.url(&format!("api/models/{repository}/revision/{revision}"))?;
        let listing: Listing = json(&self.http, &url)?;
        if is_commit(&listing.sha) {
            Ok(listing)
        } else {
            Err(Error::data(format!(
                "{address}: the Hub states the commit {:?}",
                listing.sha
            )))
        }
    }

    fn file(
        &self,
        repository: &Repository,
        address: &Address,
        commit: &str,
        path: String,
    ) -> Result<File> {
        let url = self.url(&format!(
            "{}/resolve/{commit}/{}",
            address.repository,
            escaped(&path)
        ))?;
        let stated = Stated::of(&head(&self.http, &url)?)
            .ok_or_else(|| Error::data(format!("{address}: the Hub states no ETag of {path}")))?;
        let blob = repository.blob(&stated.etag);
        let _lock = repository.lock(&stated.etag, self.http.keep_going)?;
        let Downloaded { bytes, sha256 } = match present(&blob, &stated.expected)? {
            Some(found) => found,
            None => {
                tracing::info!("downloading {path} of {address}");
                download(&self.http, &url, &blob, &stated.expected)?
            }
        };
        repository.link(commit, &path, &stated.etag)?;
        Ok(File {
            path,
            bytes,
            sha256,
            stated: matches!(stated.expected.checksum, Some(Checksum::Sha256(_))),
        })
    }

    /// Downloads the file at an `https://` or `http://` URL to `target`. `sha256` is its checksum, where
    /// it is known. Returns the file's length and SHA-256. With `SLUICE_MIRROR` set, that server is
    /// asked instead of the URL's own.
    ///
    /// # Errors
    ///
    /// Fails like [`snapshot`](Self::snapshot), and with a usage error if the URL is malformed or
    /// requests are not allowed.
    pub fn file_at(&self, url: &str, target: &Path, sha256: Option<&str>) -> Result<(u64, String)> {
        let url = self.mirrored(parse(url)?)?;
        if self.environment.offline {
            return Err(Error::usage(format!(
                "{}: HF_HUB_OFFLINE is set, nothing is requested",
                shown(&url)
            )));
        }
        let _lock = lock(&with_ending(target, ".lock"), self.http.keep_going)?;
        let expected = Expected {
            bytes: None,
            checksum: sha256.map(|sha256| Checksum::Sha256(sha256.to_owned())),
        };
        if sha256.is_some()
            && let Some(found) = present(target, &expected)?
        {
            return Ok((found.bytes, found.sha256));
        }
        let found = download(&self.http, &url, target, &expected)?;
        Ok((found.bytes, found.sha256))
    }

    /// Rewrites `https://HOST/PATH` to `SLUICE_MIRROR/HOST/PATH`.
    fn mirrored(&self, url: Url) -> Result<Url> {
        let Some(mirror) = &self.environment.mirror else {
            return Ok(url);
        };
        let (host, path) = (url.host_str().unwrap_or_default(), url.path());
        let mut mirrored = parse(&format!("{mirror}/{host}{path}"))?;
        mirrored.set_query(url.query());
        Ok(mirrored)
    }

    fn url(&self, path: &str) -> Result<Url> {
        parse(&format!("{}/{path}", self.environment.endpoint))
    }
}

/// Returns what a file of the cache is, unless it is missing or damaged.
fn present(blob: &Path, expected: &Expected) -> Result<Option<Downloaded>> {
    if !blob.exists() {
        return Ok(None);
    }
    let (found, wrong) = examine(blob, expected)?;
    Ok(wrong.is_none().then_some(found))
}

/// What the Hub states about a file.
struct Stated {
    etag: String,
    expected: Expected,
}

impl Stated {
    /// For large files the first answer is a redirect whose `X-Linked-` headers describe the file.
    fn of(answer: &Response) -> Option<Self> {
        let header = |name: &str| answer.headers().get(name)?.to_str().ok();
        let etag = header("X-Linked-Etag").or_else(|| header("ETag"))?;
        let etag = etag.trim_start_matches("W/").trim_matches('"').to_owned();
        if etag.is_empty() || !etag.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return None;
        }
        let length = header("X-Linked-Size").or_else(|| {
            if answer.status().is_redirection() {
                None
            } else {
                header("Content-Length")
            }
        });
        Some(Self {
            expected: Expected {
                bytes: length.and_then(|text| text.parse().ok()),
                checksum: Checksum::of_etag(&etag),
            },
            etag,
        })
    }
}

/// Escapes a path for a URL.
fn escaped(path: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~/".contains(&b);
    path.bytes()
        .map(|b| {
            if plain(b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}

fn offline(
    repository: &Repository,
    address: &Address,
    choose: &dyn Fn(&[String]) -> Result<Vec<String>>,
) -> Result<Snapshot> {
    let missing = || {
        Error::usage(format!(
            "{address}: not in the Hub's cache, and HF_HUB_OFFLINE is set"
        ))
        .hint("pull it once without HF_HUB_OFFLINE")
    };
    let commit = repository.commit(&address.revision).ok_or_else(missing)?;
    let paths = repository.files(&commit)?;
    if paths.is_empty() {
        return Err(missing());
    }
    let folder = repository.snapshot(&commit);
    let files = choose(&paths)?.into_iter().map(|path| {
        let file = folder.join(&path);
        // A link to the blob, which has the checksum as its name.
        let blob = std::fs::read_link(&file).unwrap_or_default();
        let name = blob.file_name().and_then(|name| name.to_str());
        let expected = Expected {
            bytes: None,
            checksum: name.and_then(Checksum::of_etag),
        };
        let (Downloaded { bytes, sha256 }, wrong) = examine(&file, &expected)?;
        if let Some(wrong) = wrong {
            return Err(Error::data(format!("{}: {wrong}", file.display()))
                .hint("the file in the Hub's cache is damaged: pull without HF_HUB_OFFLINE"));
        }
        Ok(File {
            path,
            bytes,
            sha256,
            stated: false,
        })
    });
    Ok(Snapshot {
        files: files.collect::<Result<_>>()?,
        folder,
        commit,
        licence: None,
    })
}
