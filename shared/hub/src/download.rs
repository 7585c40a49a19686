//! One file: by byte ranges into an incomplete file, checked, renamed into place.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use reqwest::blocking::{RequestBuilder, Response};
use reqwest::header::{CONTENT_RANGE, ETAG, IF_RANGE, RANGE};
use reqwest::{Method, StatusCode, Url};
use sha2::{Digest, Sha256};
use sluice_manifest::{Error, Result};

use crate::cache::{create_parent, failed};
use crate::http::{Failure, Http, accepted, shown, unreachable};

/// What the file with the entity tag of an incomplete file has after its name.
const TAG: &str = ".etag";

/// How often the progress of a download is logged.
const REPORTS: Duration = Duration::from_secs(5);

/// What a file must be, as far as it is known before it is read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Expected {
    pub bytes: Option<u64>,
    /// In hexadecimal digits.
    pub sha256: Option<String>,
}

/// What was downloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Downloaded {
    pub bytes: u64,
    pub sha256: String,
}

/// Downloads `url` to `target`, from where an earlier attempt ended. When the program is to stop, the
/// incomplete file stays for the next time.
///
/// # Errors
/// Data, when the content is not what was stated: the incomplete file is removed. Otherwise by the
/// server's answer.
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

/// Returns the path with something after its name.
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
    /// One request for what is missing.
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
        if is_longer || (self.expected.sha256.is_none() && tag.is_none()) {
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
            // The incomplete file is not the start of this one: start over.
            file.set_len(0).map_err(|e| failed(e, self.incomplete))?;
            return Err(Error::transient(format!(
                "{}: byte range {have}- refused",
                shown(self.url)
            ))
            .into());
        }
        let answer = accepted(answer, &shown(self.url), self.http.has_token_for(self.url))?;
        let start = if resumes_at(&answer, have) { have } else { 0 };
        file.set_len(start)
            .and_then(|()| file.seek(SeekFrom::Start(start)))
            .map_err(|e| failed(e, self.incomplete))?;
        if start == 0 && self.expected.sha256.is_none() {
            self.put_tag(&answer)?;
        }
        Ok(self.receive(answer, &mut file, start)?)
    }

    /// Returns the entity tag of what the incomplete file is the beginning of. Without one, and
    /// without a SHA-256 to check by, a file that was replaced meanwhile would be a mix of two.
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
        let (bytes, sha256) = sha256_of(self.incomplete)?;
        let wrong = |what: String| {
            Err(Error::data(format!("{}: {what}", shown(self.url)))
            .hint("what was downloaded is removed; if this repeats, the server or a proxy changes the file"))
        };
        match (self.expected.bytes, &self.expected.sha256) {
            (Some(stated), _) if stated != bytes => {
                wrong(format!("{bytes} bytes, {stated} are stated"))
            }
            (_, Some(stated)) if *stated != sha256 => {
                wrong(format!("SHA-256 is {sha256}, {stated} is stated"))
            }
            _ => Ok(Downloaded { bytes, sha256 }),
        }
    }
}

/// Logs how far a download is.
fn report(url: &Url, have: u64, end: Option<u64>) {
    let megabytes = |bytes: u64| bytes / 1_000_000;
    let of = end.map_or(String::new(), |end| format!(" of {}", megabytes(end)));
    tracing::info!("{}: {}{of} MB", shown(url), megabytes(have));
}

/// Whether the server answered the byte range request. Otherwise it sends the whole file.
fn resumes_at(answer: &Response, have: u64) -> bool {
    let range = answer
        .headers()
        .get(CONTENT_RANGE)
        .and_then(|value| value.to_str().ok());
    answer.status() == StatusCode::PARTIAL_CONTENT
        && range.is_some_and(|range| range.starts_with(&format!("bytes {have}-")))
}

/// Returns a file's length and SHA-256.
pub(crate) fn sha256_of(path: &Path) -> Result<(u64, String)> {
    let mut file = File::open(path).map_err(|e| failed(e, path))?;
    let mut hasher = Sha256::new();
    let bytes = std::io::copy(&mut file, &mut hasher).map_err(|e| failed(e, path))?;
    Ok((bytes, hex::encode(hasher.finalize())))
}

/// What a server states before a transfer: [`unreachable`] and refusals as in [`accepted`].
pub(crate) fn head(http: &Http<'_>, url: &Url) -> Result<Response> {
    // A redirect to another host has the Hub's headers on it and the store's behind it: the former
    // state the hash. One inside of the host, for a repository that was renamed, is followed.
    let same = |next: &Url, answer: &Response| {
        next.host() == url.host() && !answer.headers().contains_key("X-Linked-Etag")
    };
    http.retry(|| {
        let answer = http.send(&Method::HEAD, url, &|request| request, &same)?;
        match answer.status().is_redirection() {
            true => Ok(answer),
            false => accepted(answer, &shown(url), http.has_token_for(url)),
        }
    })
}

/// The body of a small answer, as JSON.
pub(crate) fn json<T: serde::de::DeserializeOwned>(http: &Http<'_>, url: &Url) -> Result<T> {
    http.retry(|| {
        let answer = http.send(&Method::GET, url, &|request| request, &|_, _| true)?;
        let answer = accepted(answer, &shown(url), http.has_token_for(url))?;
        let body = answer.bytes().map_err(|e| unreachable(url, &e))?;
        serde_json::from_slice(&body)
            .map_err(|e| Error::data(format!("{}: not the Hub's answer: {e}", shown(url))).into())
    })
}
