//! The duration of a step.
//!
//! A receipt has the wall time, the CPU time and the start of a unit. Units run concurrently, on
//! one machine or many, and a step may have been interrupted. So the wall time of a step is the
//! time during which at least one of its units was running.

use sluice_manifest::Receipt;

/// The times of a step's units.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct StepTimes {
    /// The time during which a unit was running. `None` if receipts do not record the start.
    pub wall: Option<f64>,
    /// The CPU time of all units. `None` if receipts do not record it.
    pub cpu: Option<f64>,
    /// The number of samples that entered the step.
    pub samples: u64,
}

impl StepTimes {
    /// Returns the times of some units of a step.
    pub(crate) fn of(units: &[Receipt]) -> Self {
        let times: Option<Vec<(f64, f64, f64)>> = units
            .iter()
            .map(|receipt| {
                let times = receipt.times?;
                let end = times.started + receipt.seconds;
                Some((times.started, end, times.cpu_seconds))
            })
            .collect();
        let cpu = times
            .as_ref()
            .map(|times| times.iter().map(|(_, _, cpu)| cpu).sum());
        Self {
            wall: times
                .map(|times| union(times.iter().map(|(from, to, _)| (*from, *to)).collect())),
            cpu,
            samples: units.iter().map(|receipt| receipt.counts.input).sum(),
        }
    }

    /// Returns the number of samples per second of wall time.
    pub(crate) fn throughput(&self) -> Option<f64> {
        let wall = self.wall.filter(|wall| *wall > 0.0 && self.samples > 0)?;
        Some(self.samples as f64 / wall)
    }
}

/// Returns the total time covered by some periods.
fn union(mut periods: Vec<(f64, f64)>) -> f64 {
    periods.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut covered, mut until) = (0.0, f64::NEG_INFINITY);
    for (from, to) in periods {
        covered += (to - from.max(until)).max(0.0);
        until = until.max(to);
    }
    covered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_that_two_units_share_counts_once() {
        let periods = vec![(10.0, 12.0), (0.0, 3.0), (1.0, 2.0), (2.5, 4.0)];
        assert_eq!(union(periods), 6.0);
        assert_eq!(union(Vec::new()), 0.0);
    }
}
