//! How long a step took.
//!
//! A receipt has the wall time and the CPU time of a unit and when it began. Units run side by side,
//! on one machine or on many, and a step may have been stopped for a night. So the wall time of a step
//! is the time in which at least one of its units was in work.

use sluice_manifest::Receipt;

/// How long the units of a step took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepTimes {
    /// Time in which a unit was in work; none where receipts do not say when.
    pub wall: Option<f64>,
    /// CPU time of all units; none where receipts do not have it.
    pub cpu: Option<f64>,
    /// Samples that came in.
    pub samples: u64,
}

impl StepTimes {
    /// Returns the times of some units of a step.
    pub fn of(units: &[Receipt]) -> Self {
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

    /// Returns the samples for each second of wall time.
    pub fn throughput(&self) -> Option<f64> {
        let wall = self.wall.filter(|wall| *wall > 0.0 && self.samples > 0)?;
        Some(self.samples as f64 / wall)
    }
}

/// Returns how much time some periods cover together.
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
