//! HAProxy in front of a server: it causes faults, and counts requests.

use std::fmt::Write as _;

use super::Site;
use super::daemon::{Daemon, free_ports, program};

/// The faults of the proxy, in thousandths of the requests.
#[derive(Debug, Clone, Copy)]
pub struct ProxyFaults {
    /// Answered with 503, like S3's rate limit.
    pub unavailable: u32,
    /// Connections closed without a response.
    pub closed: u32,
    /// Forwarded with a delay of 0.2 to 0.8 s.
    pub delayed: u32,
    /// Forwarded and processed, but answered with 503.
    pub lost: u32,
}

impl ProxyFaults {
    /// No faults: requests are counted and forwarded.
    pub const NONE: Self = Self {
        unavailable: 0,
        closed: 0,
        delayed: 0,
        lost: 0,
    };
    /// A store with many faults. Each fault costs the program a few tenths of a second.
    pub const MANY: Self = Self {
        unavailable: 40,
        closed: 20,
        delayed: 20,
        lost: 0,
    };
    /// An unreachable store.
    pub const AWAY: Self = Self {
        unavailable: 1000,
        closed: 0,
        delayed: 0,
        lost: 0,
    };
    /// A store that processes requests, but whose responses are lost.
    pub const MUTE: Self = Self {
        unavailable: 0,
        closed: 0,
        delayed: 0,
        lost: 120,
    };
    /// A slow store.
    pub const SLOW: Self = Self {
        unavailable: 0,
        closed: 0,
        delayed: 1000,
        lost: 0,
    };
}

/// A request that the proxy received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenRequest {
    /// `GET`, `PUT` and so on.
    pub method: String,
    /// The status of the response; -1 without one.
    pub status: i32,
    /// The size of the response with its headers, in bytes.
    pub bytes: u64,
    /// The path, without the query.
    pub path: String,
}

/// HAProxy in front of a server.
pub struct HaProxy {
    /// The server's bucket, accessed through the proxy.
    pub site: Site,
    daemon: Daemon,
}

const DELAY: &str = r#"core.register_action("delay", {"http-req"}, function(txn) core.msleep(math.random(200, 800)) end)
"#;

impl HaProxy {
    /// Starts a proxy for a server.
    #[expect(
        clippy::disallowed_methods,
        reason = "a server's configuration lies on local disk"
    )]
    pub fn before(site: &Site, faults: ProxyFaults) -> Option<Self> {
        let program = program("haproxy")?;
        let [port] = free_ports();
        let arguments = |folder: &std::path::Path| {
            let file = folder.join("haproxy.cfg");
            let lua = folder.join("delay.lua");
            let text = configuration(port, site.port, faults, &lua.display().to_string());
            std::fs::write(&lua, DELAY)
                .and_then(|()| std::fs::write(&file, text))
                .expect("a temporary folder can be written to");
            vec![
                "-db".to_owned(),
                "-f".to_owned(),
                file.display().to_string(),
            ]
        };
        let daemon = Daemon::start(&program, arguments, &[]);
        daemon.wait_until(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        Some(Self {
            site: site.through(port),
            daemon,
        })
    }

    /// Returns the requests so far, in the order in which they ended.
    pub fn seen(&self) -> Vec<SeenRequest> {
        let log = self.daemon.log();
        let lines = log.lines().filter_map(|line| line.split_once("seen "));
        let seen = lines.filter_map(|(_, line)| {
            let mut words = line.splitn(4, ' ');
            Some(SeenRequest {
                method: words.next()?.to_owned(),
                status: words.next()?.parse().ok()?,
                bytes: words.next()?.parse().ok()?,
                path: words.next()?.to_owned(),
            })
        });
        // The probe for readiness is not a request.
        seen.filter(|seen| seen.method != "<BADREQ>").collect()
    }
}

fn configuration(port: u16, server: u16, faults: ProxyFaults, lua: &str) -> String {
    let unavailable = faults.unavailable;
    let closed = unavailable + faults.closed;
    let delayed = closed + faults.delayed;
    let mut text = format!(
        r#"global
  lua-load {lua}
  log stdout format raw local0
defaults
  mode http
  log global
  log-format "seen %HM %ST %B %HP"
  option dontlognull
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend store
  bind 127.0.0.1:{port}
  http-request set-var(txn.r) rand(1000)
"#
    );
    let below = |limit: u32| format!("{{ var(txn.r),sub({limit}) lt 0 }}");
    let body =
        "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
    let unavailable_answer = format!(
        r#"return status 503 content-type application/xml hdr Retry-After 1 string "{body}""#
    );
    let rules = [
        format!("request {unavailable_answer} if {}", below(unavailable)),
        format!("request reject if {}", below(closed)),
        format!("request lua.delay if {}", below(delayed)),
        format!("response {unavailable_answer} if {}", below(faults.lost)),
    ];
    for rule in rules {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  http-{rule}");
    }
    text + &format!("  default_backend store\nbackend store\n  server s 127.0.0.1:{server}\n")
}
