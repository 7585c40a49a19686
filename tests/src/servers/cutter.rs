//! Connections that break in the middle of an answer, which HAProxy cannot make.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Site;

/// Passes connections on to a server, and cuts each once it has carried so many bytes of answers.
pub struct Cutter {
    /// The server's bucket, reached through it.
    pub site: Site,
    cuts: Arc<AtomicUsize>,
}

impl Cutter {
    /// Starts one before a server. Its threads end with the process.
    ///
    /// # Panics
    /// Where no port is to be had.
    pub fn before(site: &Site, bytes: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("a local address").port();
        let cuts = Arc::<AtomicUsize>::default();
        let (server, counter) = (site.port, cuts.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let counter = counter.clone();
                std::thread::spawn(move || {
                    // A connection that breaks by itself is as good.
                    let _ = pass(client, server, bytes, &counter);
                });
            }
        });
        Self {
            site: site.through(port),
            cuts,
        }
    }

    /// Connections cut so far.
    pub fn cuts(&self) -> usize {
        self.cuts.load(Ordering::Relaxed)
    }
}

fn pass(client: TcpStream, server: u16, bytes: u64, cuts: &AtomicUsize) -> io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", server))?;
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || {
        // It ends when either side closes.
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let mut to = &client;
    let passed = io::copy(&mut Read::take(&server, bytes), &mut to)?;
    to.flush()?;
    if passed == bytes {
        cuts.fetch_add(1, Ordering::Relaxed);
    }
    client.shutdown(Shutdown::Both)?;
    server.shutdown(Shutdown::Both)
}
