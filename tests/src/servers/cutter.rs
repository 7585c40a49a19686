//! A proxy that breaks connections in the middle of a response, which HAProxy cannot do.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::Site;

/// The maximum number of cuts. A request that is cut every time must succeed before its retries are
/// used up.
const MOST_CUTS: usize = 3;

/// Forwards connections to a server, and cuts some within a long response. Of the responses with at
/// least this many bytes, it cuts the first, the third and the fifth, on any connection.
pub struct Cutter {
    /// The server's bucket, accessed through the proxy.
    pub site: Site,
    state: Arc<CutterState>,
}

#[derive(Default)]
struct CutterState {
    /// The number of responses that have reached the length at which some are cut.
    long: AtomicUsize,
    cuts: AtomicUsize,
}

impl Cutter {
    /// Starts a proxy for a server. Its threads end with the process.
    ///
    /// # Panics
    /// When there is no free port.
    pub fn before(site: &Site, bytes: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("a local address").port();
        let state = Arc::<CutterState>::default();
        let (server, shared) = (site.port, state.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let state = shared.clone();
                std::thread::spawn(move || {
                    // A connection that breaks without a cut has the same effect.
                    let _ = pass(client, server, bytes, &state);
                });
            }
        });
        Self {
            site: site.through(port),
            state,
        }
    }

    /// Returns the number of cut connections.
    pub fn cuts(&self) -> usize {
        self.state.cuts.load(Ordering::Relaxed)
    }
}

impl CutterState {
    /// Whether the response that has just reached the length is cut.
    fn is_cut(&self) -> bool {
        let number = self.long.fetch_add(1, Ordering::Relaxed);
        let is_cut = number.is_multiple_of(2) && number < 2 * MOST_CUTS;
        self.cuts.fetch_add(usize::from(is_cut), Ordering::Relaxed);
        is_cut
    }
}

fn pass(client: TcpStream, server: u16, bytes: u64, state: &CutterState) -> io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", server))?;
    // A client sends its next request after the response to the previous one. The bytes since the
    // end of a request are therefore one response, also on a reused connection.
    let answered = Arc::<AtomicU64>::default();
    let (from, to, since) = (client.try_clone()?, server.try_clone()?, answered.clone());
    std::thread::spawn(move || {
        // It ends when either side closes.
        let _ = copy(&from, &to, |_| {
            since.store(0, Ordering::Relaxed);
            true
        });
        let _ = to.shutdown(Shutdown::Write);
    });
    copy(&server, &client, |length| {
        let before = answered.fetch_add(length, Ordering::Relaxed);
        let becomes_long = (before..before + length).contains(&bytes);
        !(becomes_long && state.is_cut())
    })?;
    client.shutdown(Shutdown::Both)?;
    server.shutdown(Shutdown::Both)
}

/// Copies piece by piece until the end, or until `goes_on` returns false for the length of the next
/// piece.
fn copy(
    mut from: &TcpStream,
    mut to: &TcpStream,
    mut goes_on: impl FnMut(u64) -> bool,
) -> io::Result<()> {
    let mut piece = vec![0; 16 << 10];
    loop {
        let length = from.read(&mut piece)?;
        if length == 0 || !goes_on(length as u64) {
            return Ok(());
        }
        to.write_all(&piece[..length])?;
    }
}
