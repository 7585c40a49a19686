//! Progress on stderr: a bar for each step that counts images, with total, rate and time left.
//!
//! The number of images in a unit is known once the unit is done. Before that, it is estimated from
//! the images that `read` accepted in it, and for `read` itself from its bytes. The estimate is
//! corrected by every unit that is done.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use indicatif::{ProgressState, ProgressStyle};
use sluice_manifest::Unit;
use tracing::Span;
use tracing_indicatif::span_ext::IndicatifSpanExt;

use crate::context::lock;

/// The variable with the file from which Argo Workflows reads the progress.
const PROGRESS_FILE: &str = "ARGO_PROGRESS_FILE";

/// The amounts of work in the units of a step.
#[derive(Debug, Clone, Default)]
pub(crate) struct Weights {
    /// The weight of each unit.
    pub units: BTreeMap<Unit, u64>,
    /// Whether the weights are numbers of images.
    pub are_images: bool,
}

impl Weights {
    /// Returns equal weights, for units about which nothing is known.
    pub(crate) fn equal(units: &[Unit]) -> Self {
        Self {
            units: units.iter().map(|unit| (*unit, 1)).collect(),
            are_images: false,
        }
    }
}

/// An estimate of the number of images of a step.
#[derive(Debug)]
struct Estimate {
    weights: Weights,
    total_weight: u64,
    /// The weight and the number of images of the units that are done.
    done: (u64, u64),
    units_done: u64,
    /// The numbers of processed images of the units in progress.
    at_work: BTreeMap<Unit, u64>,
}

impl Estimate {
    fn new(weights: Weights) -> Self {
        Self {
            total_weight: weights.units.values().sum(),
            weights,
            done: (0, 0),
            units_done: 0,
            at_work: BTreeMap::new(),
        }
    }

    fn images(&self) -> u64 {
        self.done.1 + self.at_work.values().sum::<u64>()
    }

    /// Returns the estimated number of images, or `None` if nothing is known or the step has no
    /// images.
    fn total(&self) -> Option<u64> {
        let (weight, images) = self.done;
        let left = self.total_weight.saturating_sub(weight) as f64;
        let per_weight = match weight {
            0 if self.weights.are_images => 1.0,
            0 => return None,
            weight => images as f64 / weight as f64,
        };
        let total = images + (left * per_weight).round() as u64;
        Some(total.max(self.images())).filter(|total| *total > 0)
    }

    fn finish(&mut self, unit: Unit, images: u64) {
        self.at_work.remove(&unit);
        self.done.0 += self.weights.units.get(&unit).copied().unwrap_or(0);
        self.done.1 += images;
    }
}

/// The progress of a step: its units and its images.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    span: Span,
    step: String,
    estimate: Arc<Mutex<Estimate>>,
}

impl Progress {
    pub(crate) fn new(step: &str, weights: Weights) -> Self {
        let span = tracing::info_span!("step", step);
        let progress = Self {
            span,
            step: step.to_owned(),
            estimate: Arc::new(Mutex::new(Estimate::new(weights))),
        };
        let estimate = lock(&progress.estimate);
        let style = if estimate.total().is_some() {
            by_images
        } else {
            by_units
        };
        progress.span.pb_set_style(&style(step));
        progress.draw(&estimate);
        drop(estimate);
        progress.span.pb_start();
        progress
    }

    /// Adds processed images of a unit in progress.
    pub(crate) fn advance(&self, unit: Unit, images: u64) {
        let mut estimate = lock(&self.estimate);
        *estimate.at_work.entry(unit).or_default() += images;
        self.draw(&estimate);
    }

    /// Sets the number of images of a unit that is done or up to date.
    pub(crate) fn counted(&self, unit: Unit, images: u64) {
        let mut estimate = lock(&self.estimate);
        let was_known = estimate.total().is_some();
        estimate.finish(unit, images);
        if !was_known && estimate.total().is_some() {
            self.span.pb_set_style(&by_images(&self.step));
        }
        self.draw(&estimate);
    }

    pub(crate) fn unit_done(&self) {
        let mut estimate = lock(&self.estimate);
        estimate.units_done += 1;
        self.draw(&estimate);
        if let Some(file) = std::env::var_os(PROGRESS_FILE) {
            let (done, units) = (estimate.units_done, estimate.weights.units.len());
            #[expect(
                clippy::disallowed_methods,
                reason = "Argo's executor reads a file of the container"
            )]
            // A progress file that cannot be written is not a reason to fail.
            let _ = std::fs::write(file, format!("{done}/{units}"));
        }
    }

    fn draw(&self, estimate: &Estimate) {
        match estimate.total() {
            Some(total) => {
                self.span.pb_set_length(total);
                self.span.pb_set_position(estimate.images());
            }
            None => {
                self.span.pb_set_length(estimate.weights.units.len() as u64);
                self.span.pb_set_position(estimate.units_done);
                self.span
                    .pb_set_message(&format!("{} images", estimate.images()));
            }
        }
    }
}

fn by_images(step: &str) -> ProgressStyle {
    let of = "{human_pos}/{human_len} images  {rate}  {eta} left";
    style(&format!("{step:>18} {{wide_bar:.cyan/dim}} {of}"))
}

fn by_units(step: &str) -> ProgressStyle {
    let of = "{pos}/{len} units  {msg}  {elapsed}";
    style(&format!("{step:>18} {{wide_bar:.cyan/dim}} {of}"))
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template);
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    style.with_key(
        "rate",
        |state: &ProgressState, text: &mut dyn std::fmt::Write| {
            let rate = state.per_sec();
            // Writing to a string does not fail.
            let _ = match rate {
                ..10.0 => write!(text, "{rate:.1}/s"),
                _ => write!(text, "{rate:.0}/s"),
            };
        },
    )
}

/// The line above the bars of a program that runs several steps: `step 3 of 15: embed`.
#[derive(Debug)]
pub struct StepCount {
    span: Span,
    total: usize,
    at_work: Mutex<(usize, Vec<String>)>,
}

impl StepCount {
    /// Creates a line for `total` steps.
    pub fn new(total: usize) -> Self {
        let span = tracing::info_span!("steps");
        span.pb_set_style(&style("{msg}"));
        Self {
            span,
            total,
            at_work: Mutex::default(),
        }
    }

    /// Adds a step that has started.
    pub fn begin(&self, step: &str) {
        let mut at_work = lock(&self.at_work);
        at_work.0 += 1;
        at_work.1.push(step.to_owned());
        self.draw(&at_work);
        self.span.pb_start();
    }

    /// Removes a step that has ended.
    pub fn end(&self, step: &str) {
        let mut at_work = lock(&self.at_work);
        at_work.1.retain(|other| other != step);
        self.draw(&at_work);
    }

    fn draw(&self, (begun, names): &(usize, Vec<String>)) {
        let mut line = format!("step {begun} of {}", self.total);
        if !names.is_empty() {
            // Writing to a string does not fail.
            let _ = write!(line, ": {}", names.join(", "));
        }
        self.span.pb_set_message(&line);
    }
}

#[cfg(test)]
mod tests {
    use sluice_manifest::UnitKind;

    use super::*;

    fn estimate(weights: &[u64], are_images: bool) -> (Vec<Unit>, Estimate) {
        let units = Unit::all(UnitKind::Partition, weights.len() as u32);
        let pairs = units.iter().copied().zip(weights.iter().copied());
        let units_by_weight = pairs.collect();
        let weights = Weights {
            units: units_by_weight,
            are_images,
        };
        (units, Estimate::new(weights))
    }

    #[test]
    fn the_total_is_corrected_by_units_that_are_done() {
        let (units, mut of_images) = estimate(&[100, 300], true);
        assert_eq!(of_images.total(), Some(400));
        of_images.at_work.insert(units[0], 30);
        assert_eq!(of_images.images(), 30);
        // A filter before the step dropped half of what `read` accepted.
        of_images.finish(units[0], 50);
        assert_eq!((of_images.images(), of_images.total()), (50, Some(200)));
        of_images.finish(units[1], 170);
        assert_eq!((of_images.images(), of_images.total()), (220, Some(220)));
    }

    #[test]
    fn bytes_and_units_tell_the_total_once_one_is_done() {
        let (units, mut of_bytes) = estimate(&[1000, 3000], false);
        of_bytes.at_work.insert(units[0], 7);
        assert_eq!(of_bytes.total(), None);
        of_bytes.finish(units[0], 10);
        assert_eq!(of_bytes.total(), Some(40));
        let (units, mut without) = estimate(&[1], false);
        without.finish(units[0], 0);
        assert_eq!(without.total(), None);
    }

    #[test]
    fn the_templates_parse() {
        for of in [
            "{human_pos}/{human_len} {rate} {eta}",
            "{pos}/{len} {msg} {elapsed}",
        ] {
            assert!(ProgressStyle::with_template(of).is_ok());
        }
        by_images("dedup-match");
        by_units("dedup-match");
    }
}
