//! A minimal HTTP client to set up a server and to inspect it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A server's response.
#[derive(Debug)]
pub(super) struct HttpResponse {
    pub status: u16,
    pub body: String,
}

/// Sends a request to a port of this machine.
pub(super) fn request(
    port: u16,
    method: &str,
    target: &str,
    headers: &[&str],
    body: &str,
) -> io::Result<HttpResponse> {
    let patience = Duration::from_secs(10);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    let mut head = format!("{method} {target} HTTP/1.0\r\nHost: {address}\r\n");
    for header in headers {
        head += &format!("{header}\r\n");
    }
    head += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(head.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    Ok(HttpResponse {
        status: status.ok_or_else(|| io::Error::other(format!("no HTTP answer: {head}")))?,
        body: body.to_owned(),
    })
}

/// Whether a port answers a GET with 200.
pub(super) fn answers(port: u16, target: &str) -> bool {
    request(port, "GET", target, &[], "").is_ok_and(|answer| answer.status == 200)
}

/// Returns a text escaped for a path or a query.
pub(super) fn escaped(text: &str) -> String {
    let escape = |byte: &u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
            char::from(*byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    };
    text.as_bytes().iter().map(escape).collect()
}
