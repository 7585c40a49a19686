//! A Hugging Face Hub on this machine: the paths that clients use, files in memory, and faults on
//! request.
//!
//! It consists of two servers, each on its own port: the Hub, and the store that large files are
//! redirected to. The store also provides other files by their path.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

use sha1::{Digest as _, Sha1};
use sha2::{Digest, Sha256};

/// The commit of every repository.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// Longer files are redirected to the store, like files in large file storage.
const LARGE: usize = 10_000;

/// A header's name and value.
pub type HttpHeader = (&'static str, &'static str);

/// The faults to inject.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// The number of bytes of a file's body after which the connection ends, and how often.
    pub cut: Option<(usize, usize)>,
    /// Whether a byte of every large file is changed.
    pub tamper: bool,
    /// A byte of every file is changed.
    pub tamper_small: bool,
    /// The status of every request, so often, with a header.
    pub status: Option<(u16, usize, Option<HttpHeader>)>,
    /// The token that the Hub asks for.
    pub token: Option<&'static str>,
    /// Whether byte ranges are ignored.
    pub no_ranges: bool,
}

/// A received request.
#[derive(Debug, Clone)]
pub struct ReceivedRequest {
    /// The request line.
    pub line: String,
    /// The headers, with names in lower case.
    pub headers: HashMap<String, String>,
    /// Whether the store received it, rather than the Hub.
    pub elsewhere: bool,
}

#[derive(Debug, Default)]
struct HubState {
    files: BTreeMap<String, Vec<u8>>,
    faults: Faults,
    seen: Vec<ReceivedRequest>,
}

/// The Hub and its store for large files.
#[derive(Debug, Clone)]
pub struct HubServer {
    /// The Hub's address, for `HF_ENDPOINT`.
    pub endpoint: String,
    /// The store's address.
    pub store: String,
    state: Arc<Mutex<HubState>>,
}

/// The answer to a request.
struct HttpAnswer {
    status: u16,
    headers: String,
    body: Vec<u8>,
}

impl HttpAnswer {
    fn new(status: u16, headers: &str) -> Self {
        Self {
            status,
            headers: headers.to_owned(),
            body: Vec::new(),
        }
    }

    fn with(self, body: Vec<u8>) -> Self {
        Self { body, ..self }
    }
}

impl HubServer {
    /// Starts the servers. A file is `ORG/NAME/PATH` of a repository, or `HOST/PATH` of the store.
    ///
    /// # Panics
    ///
    /// Panics if no port is free.
    pub fn start(files: &[(&str, Vec<u8>)]) -> Self {
        let listen = || TcpListener::bind("127.0.0.1:0").expect("a free port");
        let (hub, store) = (listen(), listen());
        let address = |listener: &TcpListener| {
            format!("http://{}", listener.local_addr().expect("a bound port"))
        };
        let started = Self {
            endpoint: address(&hub),
            store: address(&store),
            state: Arc::default(),
        };
        for (path, bytes) in files {
            started.put(path, bytes.clone());
        }
        for (listener, elsewhere) in [(hub, false), (store, true)] {
            let server = started.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let server = server.clone();
                    std::thread::spawn(move || server.serve(stream, elsewhere));
                }
            });
        }
        started
    }

    fn state(&self) -> MutexGuard<'_, HubState> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Adds or replaces a file.
    pub fn put(&self, path: &str, bytes: Vec<u8>) {
        self.state().files.insert(path.to_owned(), bytes);
    }

    /// Sets the faults for the following requests.
    pub fn fail(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// Returns the requests since the last call.
    pub fn take_seen(&self) -> Vec<ReceivedRequest> {
        std::mem::take(&mut self.state().seen)
    }

    fn serve(&self, mut stream: TcpStream, elsewhere: bool) {
        let Ok(clone) = stream.try_clone() else {
            return;
        };
        let mut reader = BufReader::new(clone);
        while let Some(seen) = read_request(&mut reader, elsewhere) {
            let head = seen.line.starts_with("HEAD");
            let answer = self.answer(&seen);
            let cut = if head {
                None
            } else {
                self.cut(answer.body.len())
            };
            if reply(&mut stream, &answer, head, cut).is_none() {
                return;
            }
        }
    }

    /// Returns the number of bytes of a body that are sent before the connection ends, or `None`
    /// for all.
    fn cut(&self, length: usize) -> Option<usize> {
        let mut state = self.state();
        let cut = state.faults.cut.as_mut();
        let (bytes, left) = cut.filter(|(bytes, left)| *left > 0 && *bytes < length)?;
        *left -= 1;
        Some(*bytes)
    }

    fn answer(&self, seen: &ReceivedRequest) -> HttpAnswer {
        let mut state = self.state();
        state.seen.push(seen.clone());
        let path = seen
            .line
            .split([' ', '?'])
            .nth(1)
            .unwrap_or_default()
            .replace("%2B", "+");
        if let Some((status, left, header)) = &mut state.faults.status
            && *left > 0
        {
            *left -= 1;
            let header = header.map(|(name, value)| format!("{name}: {value}\r\n"));
            return HttpAnswer::new(*status, &header.unwrap_or_default());
        }
        if seen.elsewhere {
            return state.file(path.trim_start_matches('/'), seen);
        }
        let token = state.faults.token.map(|token| format!("Bearer {token}"));
        if token.is_some() && seen.headers.get("authorization") != token.as_ref() {
            return HttpAnswer::new(401, "X-Error-Code: GatedRepo\r\n");
        }
        match path.strip_prefix("/api/models/") {
            Some(rest) => state.listing(rest),
            None => state.resolve(&path, &self.store, seen),
        }
    }
}

impl HubState {
    /// Answers `ORG/NAME/revision/REV`.
    fn listing(&self, path: &str) -> HttpAnswer {
        let repository: String = path.split('/').take(2).collect::<Vec<_>>().join("/");
        let inside = self
            .files
            .keys()
            .filter_map(|file| file.strip_prefix(&format!("{repository}/")));
        let siblings: Vec<String> = inside
            .map(|file| format!(r#"{{"rfilename": "{file}"}}"#))
            .collect();
        if siblings.is_empty() {
            return HttpAnswer::new(404, "X-Error-Code: RepoNotFound\r\n");
        }
        let siblings = siblings.join(", ");
        let body = format!(
            r#"{{"sha": "{COMMIT}", "tags": ["onnx", "license:mit"], "siblings": [{siblings}]}}"#
        );
        HttpAnswer::new(200, "").with(body.into_bytes())
    }

    /// Answers `/ORG/NAME/resolve/REV/PATH`.
    fn resolve(&self, path: &str, store: &str, seen: &ReceivedRequest) -> HttpAnswer {
        let parts: Vec<&str> = path.trim_start_matches('/').splitn(5, '/').collect();
        let &[organisation, name, "resolve", _, file] = &parts[..] else {
            return HttpAnswer::new(404, "");
        };
        let path = format!("{organisation}/{name}/{file}");
        match self.files.get(&path) {
            Some(bytes) if bytes.len() > LARGE => {
                let hash = hex::encode(Sha256::digest(bytes));
                let length = bytes.len();
                let headers = format!(
                    "Location: {store}/{path}?sig=secret\r\nX-Linked-Etag: \"{hash}\"\r\n\
                    X-Linked-Size: {length}\r\n"
                );
                HttpAnswer::new(302, &headers)
            }
            _ => self.file(&path, seen),
        }
    }

    /// Answers with a file, or a part of it.
    fn file(&self, path: &str, seen: &ReceivedRequest) -> HttpAnswer {
        let Some(mut bytes) = self.files.get(path).cloned() else {
            return HttpAnswer::new(404, "X-Error-Code: EntryNotFound\r\n");
        };
        // The Hub states what Git calls the file.
        let blob = Sha1::new()
            .chain_update(format!("blob {}\0", bytes.len()))
            .chain_update(&bytes);
        let etag = format!("ETag: \"{}\"\r\n", hex::encode(blob.finalize()));
        if (self.faults.tamper && bytes.len() > LARGE) || self.faults.tamper_small {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        let range = seen.headers.get("range").filter(|_| !self.faults.no_ranges);
        let start = range.and_then(|range| {
            range
                .strip_prefix("bytes=")?
                .strip_suffix('-')?
                .parse()
                .ok()
        });
        let Some(start) = start.filter(|_| range.is_some()) else {
            return HttpAnswer::new(200, &etag).with(bytes);
        };
        let total = bytes.len();
        if start >= total {
            return HttpAnswer::new(416, "");
        }
        let headers = format!(
            "Content-Range: bytes {start}-{}/{total}\r\n{etag}",
            total - 1
        );
        HttpAnswer::new(206, &headers).with(bytes.split_off(start))
    }
}

fn read_request(reader: &mut BufReader<TcpStream>, elsewhere: bool) -> Option<ReceivedRequest> {
    let mut line = String::new();
    let read = reader.read_line(&mut line).ok();
    read.filter(|count| *count > 0)?;
    let mut headers = HashMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(": ") else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    Some(ReceivedRequest {
        line: line.trim_end().to_owned(),
        headers,
        elsewhere,
    })
}

/// Sends an answer, or only `cut` bytes of its body. Returns `None` if the connection ends.
fn reply(
    stream: &mut TcpStream,
    answer: &HttpAnswer,
    head: bool,
    cut: Option<usize>,
) -> Option<()> {
    let HttpAnswer {
        status,
        headers,
        body,
    } = answer;
    let length = body.len();
    let text = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n{headers}\r\n");
    stream.write_all(text.as_bytes()).ok()?;
    if head {
        return Some(());
    }
    let sent = cut.unwrap_or(length).min(length);
    stream.write_all(&body[..sent]).ok()?;
    if sent < length {
        let _ = stream.shutdown(Shutdown::Both);
        return None;
    }
    Some(())
}
