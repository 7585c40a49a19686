//! Snapshots of repositories, and single files of any HTTPS address.

use std::path::{Path, PathBuf};

use reqwest::Url;
use reqwest::blocking::Response;
use serde::Deserialize;
use sluice_manifest::{Error, Result};

use crate::address::Address;
use crate::cache::{Repository, is_commit, lock};
use crate::download::{Expected, download, head, json, sha256_of, with_ending};
use crate::environment::Environment;
use crate::http::{Http, parse, shown};

/// Tries after the first, for what may pass: connections, 429, 5xx.
const RETRIES: u32 = 5;

/// A file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its path in the repository.
    pub path: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
    /// Whether the Hub stated this SHA-256. It does so for files in large file storage.
    pub stated: bool,
}

/// Files of a repository at one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The folder with the files, each under its path in the repository.
    pub folder: PathBuf,
    /// The commit.
    pub commit: String,
    /// The files, sorted by path.
    pub files: Vec<File>,
    /// The licence that the repository's card states.
    pub licence: Option<String>,
}

/// A Hugging Face Hub, or a server that speaks its paths.
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
    /// Returns the licence of the card, which the Hub repeats as a tag.
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
    /// `keep_going` is asked during downloads and fails when the program is to stop.
    ///
    /// # Errors
    /// Usage, when HTTPS cannot be set up.
    pub fn new(environment: Environment, keep_going: &'a dyn Fn() -> Result<()>) -> Result<Self> {
        let token = environment.token.as_deref();
        let http = Http::new(&environment.endpoint, token, RETRIES, keep_going)?;
        Ok(Self { environment, http })
    }

    /// Puts files of a repository into the cache: of all of its paths, sorted, those that `choose`
    /// returns. Files that are there already are not requested again.
    ///
    /// # Errors
    /// Usage, when the repository, the revision or a file is not there, gated, or (offline) not in
    /// the cache; data, when a file is not what the Hub states; transient, when the Hub cannot be
    /// reached or has no time.
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
        match is_commit(&listing.sha) {
            true => Ok(listing),
            false => Err(Error::data(format!(
                "{address}: the Hub states the commit {:?}",
                listing.sha
            ))),
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
        let (bytes, sha256) = match self.present(&blob, &stated.expected)? {
            Some(found) => found,
            None => {
                tracing::info!("downloading {path} of {address}");
                let found = download(&self.http, &url, &blob, &stated.expected)?;
                (found.bytes, found.sha256)
            }
        };
        repository.link(commit, &path, &stated.etag)?;
        Ok(File {
            path,
            bytes,
            sha256,
            stated: stated.expected.sha256.is_some(),
        })
    }

    /// The blob that is in the cache already, unless it is damaged.
    fn present(&self, blob: &Path, expected: &Expected) -> Result<Option<(u64, String)>> {
        if !blob.exists() {
            return Ok(None);
        }
        let (bytes, sha256) = sha256_of(blob)?;
        let sound = expected.bytes.is_none_or(|stated| stated == bytes)
            && expected
                .sha256
                .as_ref()
                .is_none_or(|stated| *stated == sha256);
        Ok(sound.then_some((bytes, sha256)))
    }

    /// Downloads the file at an `https://` or `http://` URL to `target`. `sha256` is its checksum, where
    /// it is known. Returns the file's length and SHA-256. With `SLUICE_MIRROR` set, that server is
    /// asked instead of the URL's own.
    ///
    /// # Errors
    /// As of [`snapshot`](Self::snapshot); usage, when requests are not allowed.
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
            sha256: sha256.map(str::to_owned),
        };
        if let Some(found) = self
            .present(target, &expected)?
            .filter(|_| sha256.is_some())
        {
            return Ok(found);
        }
        let found = download(&self.http, &url, target, &expected)?;
        Ok((found.bytes, found.sha256))
    }

    /// `https://HOST/PATH` as `SLUICE_MIRROR/HOST/PATH`.
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

/// What the Hub states about a file.
struct Stated {
    etag: String,
    expected: Expected,
}

impl Stated {
    /// Of large files the first answer is a redirect whose `X-Linked-` headers describe the file.
    fn of(answer: &Response) -> Option<Self> {
        let header = |name: &str| answer.headers().get(name)?.to_str().ok();
        let etag = header("X-Linked-Etag").or_else(|| header("ETag"))?;
        let etag = etag.trim_start_matches("W/").trim_matches('"').to_owned();
        let is_hex = etag.bytes().all(|b| b.is_ascii_hexdigit());
        if etag.is_empty() || !etag.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return None;
        }
        let length = header("X-Linked-Size").or_else(|| match answer.status().is_redirection() {
            true => None,
            false => header("Content-Length"),
        });
        Some(Self {
            expected: Expected {
                bytes: length.and_then(|text| text.parse().ok()),
                sha256: (is_hex && etag.len() == 64).then(|| etag.clone()),
            },
            etag,
        })
    }
}

/// A path as a part of a URL.
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
        let (bytes, sha256) = sha256_of(&folder.join(&path))?;
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
