//! Connections that break in the middle of an answer, which HAProxy cannot make.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::Site;

/// Cuts at most. A request that is cut every time must succeed before its tries are used up.
const MOST_CUTS: usize = 3;

/// Passes connections on to a server, and cuts some inside of a long answer: of the answers of at
/// least so many bytes the first, the third and the fifth, whichever connection they come on.
pub struct Cutter {
    /// The server's bucket, reached through it.
    pub site: Site,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Answers that reached the length at which some are cut.
    long: AtomicUsize,
    cuts: AtomicUsize,
}

impl Cutter {
    /// Starts one before a server. Its threads end with the process.
    ///
    /// # Panics
    /// Where no port is to be had.
    pub fn before(site: &Site, bytes: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("a local address").port();
        let state = Arc::<State>::default();
        let (server, shared) = (site.port, state.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let state = shared.clone();
                std::thread::spawn(move || {
                    // A connection that breaks by itself is as good.
                    let _ = pass(client, server, bytes, &state);
                });
            }
        });
        Self {
            site: site.through(port),
            state,
        }
    }

    /// Connections cut so far.
    pub fn cuts(&self) -> usize {
        self.state.cuts.load(Ordering::Relaxed)
    }
}

impl State {
    /// Whether the answer that has just become long is cut.
    fn is_cut(&self) -> bool {
        let number = self.long.fetch_add(1, Ordering::Relaxed);
        let is_cut = number.is_multiple_of(2) && number < 2 * MOST_CUTS;
        self.cuts.fetch_add(usize::from(is_cut), Ordering::Relaxed);
        is_cut
    }
}

fn pass(client: TcpStream, server: u16, bytes: u64, state: &State) -> io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", server))?;
    // A client sends its next request when it has the answer to the one before. So what came since
    // the last bytes of a request is one answer, also on a connection that is used again.
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

/// Copies piece by piece until the end, or until `goes_on` says no to the length of the next one.
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
