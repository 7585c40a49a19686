//! The CPU time of units of work.
//!
//! The system measures CPU time by process and by thread. Several units are in progress
//! concurrently and share the threads of a pool. Therefore, the CPU time of the process between two
//! events (the start or the end of a unit) is divided equally between the units in progress. The
//! sum over all units is the CPU time of the process while at least one unit was in progress.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::context::lock;

/// Divides the CPU time of the process between the units in progress. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct CpuClock {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// The CPU time of the process at the last event.
    last: f64,
    next: u64,
    in_work: HashMap<u64, f64>,
}

/// A unit in progress. Ends when it is dropped.
#[derive(Debug)]
pub struct CpuShare {
    clock: CpuClock,
    number: u64,
}

impl CpuClock {
    /// Starts to measure a unit of work.
    pub fn begin(&self) -> CpuShare {
        let mut state = lock(&self.state);
        state.divide(process_seconds());
        let number = state.next;
        state.next += 1;
        state.in_work.insert(number, 0.0);
        CpuShare {
            clock: self.clone(),
            number,
        }
    }
}

impl CpuShare {
    /// Returns the CPU time of the unit so far, in seconds.
    pub fn seconds(&self) -> f64 {
        let mut state = lock(&self.clock.state);
        state.divide(process_seconds());
        state.in_work.get(&self.number).copied().unwrap_or(0.0)
    }
}

impl Drop for CpuShare {
    fn drop(&mut self) {
        let mut state = lock(&self.clock.state);
        state.divide(process_seconds());
        state.in_work.remove(&self.number);
    }
}

impl State {
    fn divide(&mut self, now: f64) {
        let part = (now - self.last).max(0.0) / self.in_work.len().max(1) as f64;
        self.in_work.values_mut().for_each(|sum| *sum += part);
        self.last = now;
    }
}

/// Returns the CPU time of this process, in seconds.
#[expect(unsafe_code, reason = "getrusage has no safe counterpart")]
fn process_seconds() -> f64 {
    // SAFETY: all fields are numbers, and getrusage writes only to the struct.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_in_work_divide_the_time_equally() {
        let mut state = State::default();
        state.in_work.insert(0, 0.0);
        state.divide(2.0);
        state.in_work.insert(1, 0.0);
        state.divide(5.0);
        assert_eq!((state.in_work[&0], state.in_work[&1]), (3.5, 1.5));
        state.in_work.remove(&0);
        state.divide(6.0);
        assert_eq!(state.in_work[&1], 2.5);
    }
}
