//! Hostile shards. Each runs in a process of its own, so that its time and peak memory can be
//! measured.
//!
//! The child process is this test program, run with only the test `child`. An environment variable
//! names the shard.

use sluice_testkit::{Need, fixtures};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::read;

const SHARD: &str = "SLUICE_SHARD_TEST_CHILD";
const TIME: Duration = Duration::from_secs(30);
const MEMORY_KB: u64 = 64 << 10;

#[test]
#[expect(clippy::print_stdout, reason = "the parent reads it")]
fn child() {
    let Some(path) = std::env::var_os(SHARD) else {
        return;
    };
    let bytes = std::fs::read(path).expect("a shard");
    let before = peak_kb();
    drop(read(&bytes));
    println!("peak {} {}", before.unwrap_or(0), peak_kb().unwrap_or(0));
}

fn peak_kb() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[test]
fn hostile_shards_cost_little() {
    let Some(fixtures) = fixtures() else { return };
    let proc = || peak_kb().is_some().then_some(());
    if Need::Programs
        .found("/proc", "peak memory is known on Linux only", proc)
        .is_none()
    {
        return;
    }
    for shard in [
        "tar-gz-bomb.tar.gz",
        "tar-huge-size.tar",
        "tar-huge-size64.tar",
        "tar-negative-size.tar",
        "tar-huge-longname.tar",
        "tar-bad-pax.tar",
        "tar-sparse-gnu.tar",
        "broken-00000.tar",
    ] {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "hostile::child", "--nocapture"])
            .env(SHARD, fixtures.join("hard").join(shard))
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child");
        let start = Instant::now();
        while child.try_wait().expect("a child").is_none() {
            if start.elapsed() > TIME {
                child.kill().expect("a child");
                panic!("{shard} takes more than {TIME:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let output = child.wait_with_output().expect("a child");
        assert!(output.status.success(), "{shard}");
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().find_map(|line| line.split_once("peak "));
        let (_, numbers) = line.expect("a peak");
        let numbers: Vec<u64> = numbers
            .split_whitespace()
            .filter_map(|n| n.parse().ok())
            .collect();
        let [before, after] = numbers[..] else {
            panic!("{text}");
        };
        assert!(
            after - before < MEMORY_KB,
            "{shard}: {before} to {after} kB"
        );
    }
}
