//! Downloads a file: fetches byte ranges into an incomplete file, verifies it, and renames it.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use reqwest::blocking::{RequestBuilder, Response};
use reqwest::header::{CONTENT_RANGE, ETAG, IF_RANGE, RANGE};
use reqwest::{Method, StatusCode, Url};
use sha1::{Digest as _, Sha1};
use sha2::{Digest, Sha256};
use sluice_manifest::{Error, Result};

use crate::cache::{create_parent, failed};
use crate::http::{Failure, Http, accepted, shown, unreachable};

/// The suffix of the file with the entity tag of an incomplete file.
const TAG: &str = ".etag";

/// The interval at which the progress of a download is logged.
const REPORTS: Duration = Duration::from_secs(5);

/// What is known about a file before it is downloaded.
#[derive(Debug, Clone, Default)]
pub(crate) struct Expected {
    pub bytes: Option<u64>,
    pub checksum: Option<Checksum>,
}

/// A checksum that is stated of a file, in hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Checksum {
    /// Of files in large file storage.
    Sha256(String),
    /// Git's name of the file's content. Some mirrors state the SHA-1 of the content itself.
    Sha1(String),
}

impl Checksum {
    /// Returns the checksum that an entity tag is, by its length. The files of the Hub's cache have
    /// these names.
    pub(crate) fn of_etag(etag: &str) -> Option<Self> {
        let is_hex = etag.bytes().all(|b| b.is_ascii_hexdigit());
        match etag.len() {
            64 if is_hex => Some(Self::Sha256(etag.to_ascii_lowercase())),
            40 if is_hex => Some(Self::Sha1(etag.to_ascii_lowercase())),
            _ => None,
        }
    }

    /// Returns what is wrong with a file.
    fn wrong(&self, path: &Path, found: &Downloaded) -> Result<Option<String>> {
        let (found, stated) = match self {
            Self::Sha256(stated) => (format!("SHA-256 is {}", found.sha256), stated),
            Self::Sha1(stated) => {
                let sha1 = |start: &str| -> Result<String> {
                    let mut hasher = Sha1::new_with_prefix(start);
                    each_chunk(path, |chunk| hasher.update(chunk))?;
                    Ok(hex::encode(hasher.finalize()))
                };
                let git = sha1(&format!("blob {}\0", found.bytes))?;
                if git != *stated && sha1("")? == *stated {
                    return Ok(None);
                }
                (format!("SHA-1 is {git}"), stated)
            }
        };
        let is_sound = found.ends_with(stated.as_str());
        Ok((!is_sound).then(|| format!("{found}, {stated} is stated")))
    }
}

/// Returns the identity of a file on local disk, and how it differs from the expected one.
pub(crate) fn examine(path: &Path, expected: &Expected) -> Result<(Downloaded, Option<String>)> {
    let found = sha256_of(path)?;
    let wrong = match (expected.bytes, &expected.checksum) {
        (Some(stated), _) if stated != found.bytes => {
            Some(format!("{} bytes, {stated} are stated", found.bytes))
        }
        (_, Some(checksum)) => checksum.wrong(path, &found)?,
        _ => None,
    };
    Ok((found, wrong))
}

/// A downloaded file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Downloaded {
    pub bytes: u64,
    pub sha256: String,
}

/// Downloads `url` to `target`, and resumes an earlier attempt. If the program is stopped, the
/// incomplete file is kept for the next time.
///
/// # Errors
///
/// Returns a data error if the content does not match `expected`; the incomplete file is removed.
/// Otherwise the class depends on the server's answer.
pub(crate) fn download(
    http: &Http<'_>,
    url: &Url,
    target: &Path,
    expected: &Expected,
) -> Result<Downloaded> {
    let incomplete = with_ending(target, ".incomplete");
    create_parent(&incomplete)?;
    let transfer = Transfer {
        http,
        url,
        incomplete: &incomplete,
        expected,
    };
    http.retry(|| transfer.attempt())?;
    let checked = transfer.check();
    let _ = fs::remove_file(with_ending(&incomplete, TAG));
    let found = checked.inspect_err(|_| drop(fs::remove_file(&incomplete)))?;
    fs::rename(&incomplete, target).map_err(|e| failed(e, target))?;
    Ok(found)
}

/// Appends a suffix to a path's file name.
pub(crate) fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

struct Transfer<'a> {
    http: &'a Http<'a>,
    url: &'a Url,
    incomplete: &'a Path,
    expected: &'a Expected,
}

impl Transfer<'_> {
    /// Sends one request for the missing bytes.
    fn attempt(&self) -> Result<(), Failure> {
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(self.incomplete)
            .map_err(|e| failed(e, self.incomplete))?;
        let mut have = file
            .seek(SeekFrom::End(0))
            .map_err(|e| failed(e, self.incomplete))?;
        let tag = self.tag();
        let is_longer = self.expected.bytes.is_some_and(|bytes| have > bytes);
        if is_longer || (self.expected.checksum.is_none() && tag.is_none()) {
            have = 0;
        }
        if have > 0 && self.expected.bytes == Some(have) {
            return Ok(());
        }
        let range = format!("bytes={have}-");
        let with = |request: RequestBuilder| match (have, &tag) {
            (0, _) => request,
            (_, None) => request.header(RANGE, range.as_str()),
            (_, Some(tag)) => request
                .header(RANGE, range.as_str())
                .header(IF_RANGE, tag.as_str()),
        };
        let answer = self
            .http
            .send(&Method::GET, self.url, &with, &|_, _| true)?;
        if answer.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            // The incomplete file is not a prefix of this one. Start over.
            file.set_len(0).map_err(|e| failed(e, self.incomplete))?;
            return Err(Error::transient(format!(
                "{}: byte range {have}- refused",
                shown(self.url)
            ))
            .into());
        }
        let answer = accepted(answer, &shown(self.url), self.http.access(self.url))?;
        let start = if resumes_at(&answer, have) { have } else { 0 };
        file.set_len(start)
            .and_then(|()| file.seek(SeekFrom::Start(start)))
            .map_err(|e| failed(e, self.incomplete))?;
        if start == 0 && self.expected.checksum.is_none() {
            self.put_tag(&answer)?;
        }
        Ok(self.receive(answer, &mut file, start)?)
    }

    /// Returns the entity tag of what the incomplete file is the beginning of. Without one, and
    /// without a checksum, a file that was replaced meanwhile would be a mix of two.
    fn tag(&self) -> Option<String> {
        fs::read_to_string(with_ending(self.incomplete, TAG)).ok()
    }

    fn put_tag(&self, answer: &Response) -> Result<()> {
        let path = with_ending(self.incomplete, TAG);
        let tag = answer.headers().get(ETAG).and_then(|tag| tag.to_str().ok());
        match tag.filter(|tag| !tag.starts_with("W/")) {
            Some(tag) => fs::write(&path, tag).map_err(|e| failed(e, &path)),
            None => {
                let _ = fs::remove_file(&path);
                Ok(())
            }
        }
    }

    fn receive(&self, mut answer: Response, file: &mut File, start: u64) -> Result<()> {
        let end = answer.content_length().map(|rest| start + rest);
        let mut have = start;
        let mut buffer = vec![0; 1 << 18];
        let mut reported = Instant::now();
        loop {
            (self.http.keep_going)()?;
            if reported.elapsed() > REPORTS {
                reported = Instant::now();
                report(self.url, have, end.or(self.expected.bytes));
            }
            let count = match answer.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(e) => {
                    return Err(Error::transient(format!(
                        "{}: cut after {have} bytes: {e}",
                        shown(self.url)
                    )));
                }
            };
            file.write_all(&buffer[..count])
                .map_err(|e| failed(e, self.incomplete))?;
            have += count as u64;
        }
        file.sync_data().map_err(|e| failed(e, self.incomplete))?;
        match end.or(self.expected.bytes) {
            Some(end) if have < end => Err(Error::transient(format!(
                "{}: cut after {have} of {end} bytes",
                shown(self.url)
            ))),
            _ => Ok(()),
        }
    }

    fn check(&self) -> Result<Downloaded> {
        match examine(self.incomplete, self.expected)? {
            (found, None) => Ok(found),
            (_, Some(wrong)) => Err(Error::data(format!("{}: {wrong}", shown(self.url)))
            .hint("what was downloaded is removed; if this repeats, the server or a proxy changes the file")),
        }
    }
}

/// Logs the progress of a download.
fn report(url: &Url, have: u64, end: Option<u64>) {
    let megabytes = |bytes: u64| bytes / 1_000_000;
    let of = end.map_or(String::new(), |end| format!(" of {}", megabytes(end)));
    tracing::info!("{}: {}{of} MB", shown(url), megabytes(have));
}

/// Returns whether the server honoured the byte range. Otherwise it sends the whole file.
fn resumes_at(answer: &Response, have: u64) -> bool {
    let range = answer
        .headers()
        .get(CONTENT_RANGE)
        .and_then(|value| value.to_str().ok());
    answer.status() == StatusCode::PARTIAL_CONTENT
        && range.is_some_and(|range| range.starts_with(&format!("bytes {have}-")))
}

/// Returns a file's length and SHA-256.
fn sha256_of(path: &Path) -> Result<Downloaded> {
    let mut hasher = Sha256::new();
    let bytes = each_chunk(path, |chunk| hasher.update(chunk))?;
    let sha256 = hex::encode(hasher.finalize());
    Ok(Downloaded { bytes, sha256 })
}

/// Hands out a file in chunks. Returns its length.
fn each_chunk(path: &Path, mut take: impl FnMut(&[u8])) -> Result<u64> {
    let mut file = File::open(path).map_err(|e| failed(e, path))?;
    let (mut buffer, mut bytes) = (vec![0; 1 << 18], 0);
    loop {
        match file.read(&mut buffer).map_err(|e| failed(e, path))? {
            0 => return Ok(bytes),
            count => {
                take(&buffer[..count]);
                bytes += count as u64;
            }
        }
    }
}

/// Requests the headers of a file. Fails like [`unreachable`] and [`accepted`].
pub(crate) fn head(http: &Http<'_>, url: &Url) -> Result<Response> {
    // A redirect to another host carries the Hub's own headers, which contain the hash, so it is
    // not followed. A redirect within the host, for a renamed repository, is followed.
    let same = |next: &Url, answer: &Response| {
        next.host() == url.host() && !answer.headers().contains_key("X-Linked-Etag")
    };
    http.retry(|| {
        let answer = http.send(&Method::HEAD, url, &|request| request, &same)?;
        if answer.status().is_redirection() {
            Ok(answer)
        } else {
            accepted(answer, &shown(url), http.access(url))
        }
    })
}

/// Requests a small JSON document.
pub(crate) fn json<T: serde::de::DeserializeOwned>(http: &Http<'_>, url: &Url) -> Result<T> {
    http.retry(|| {
        let answer = http.send(&Method::GET, url, &|request| request, &|_, _| true)?;
        let answer = accepted(answer, &shown(url), http.access(url))?;
        let body = answer.bytes().map_err(|e| unreachable(url, &e))?;
        serde_json::from_slice(&body)
            .map_err(|e| Error::data(format!("{}: not the Hub's answer: {e}", shown(url))).into())
    })
}
