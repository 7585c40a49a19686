//! A server's process, which ends with its owner, however that one ends.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::places;

/// A server that takes longer to start is stuck: on two busy cores the slowest took four seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ends the server once nobody holds the other end of its standard input. So no server outlives a
/// test that was killed, which no destructor could see to.
const KEEPER: &str = r#""$@" >"$0" 2>&1 & server=$!; read -r _; kill -9 $server; wait"#;

/// A running server.
pub(super) struct Daemon {
    keeper: Child,
    folder: tempfile::TempDir,
}

impl Daemon {
    /// Starts a server in a temporary folder. `arguments` gets the folder.
    pub fn start(
        program: &Path,
        arguments: impl FnOnce(&Path) -> Vec<String>,
        variables: &[(&str, &str)],
    ) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let keeper = Command::new("sh")
            .args(["-c", KEEPER])
            .arg(folder.path().join("log"))
            .arg(program)
            .args(arguments(folder.path()))
            .envs(variables.iter().copied())
            .current_dir(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}", program.display()));
        Self { keeper, folder }
    }

    /// Waits until the server is ready.
    ///
    /// # Panics
    /// When it does not become ready.
    pub fn wait_until(&self, mut ready: impl FnMut() -> bool) {
        let started = Instant::now();
        while !ready() {
            let words = || self.log().chars().rev().take(2000).collect::<Vec<_>>();
            assert!(
                started.elapsed() < PATIENCE,
                "the server does not start: {}",
                words().into_iter().rev().collect::<String>()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What the server wrote to stdout and stderr.
    #[expect(
        clippy::disallowed_methods,
        reason = "a server's log lies on local disk"
    )]
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.folder.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // Nothing can be done about a keeper that is gone already.
        let _ = self.keeper.wait();
    }
}

/// Ports that were free a moment ago.
pub(super) fn free_ports<const N: usize>() -> [u16; N] {
    // All at once, or else the same one could come twice.
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    held.map(|listener| listener.local_addr().expect("a local address").port())
}

/// A server's program, where it is installed.
pub(super) fn program(name: &str) -> Option<PathBuf> {
    places::server(name)
}
