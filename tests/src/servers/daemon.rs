//! A server process that ends with its owner, even if the owner is killed.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::places;

/// The time limit for the start. On two busy cores the slowest server took four seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Kills the server when the other end of its standard input closes. No server therefore outlives a
/// killed test, in which no destructor runs.
const KEEPER: &str = r#""$@" >"$0" 2>&1 & server=$!; read -r _; kill -9 $server; wait"#;

/// A running server.
pub(super) struct Daemon {
    keeper: Child,
    folder: tempfile::TempDir,
}

impl Daemon {
    /// Starts a server in a temporary folder, which `arguments` receives.
    pub(super) fn start(
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
    pub(super) fn wait_until(&self, mut ready: impl FnMut() -> bool) {
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

    /// Returns the server's output to stdout and stderr.
    #[expect(
        clippy::disallowed_methods,
        reason = "a server's log lies on local disk"
    )]
    pub(super) fn log(&self) -> String {
        let bytes = std::fs::read(self.folder.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // This fails if the keeper has already exited.
        let _ = self.keeper.wait();
    }
}

/// Returns ports that were free a moment ago.
pub(super) fn free_ports<const N: usize>() -> [u16; N] {
    // All at once, so that no port is returned twice.
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    held.map(|listener| listener.local_addr().expect("a local address").port())
}

/// Returns a server's program, if it is installed.
pub(super) fn program(name: &str) -> Option<PathBuf> {
    places::server(name)
}
