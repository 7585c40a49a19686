//! How large the values of a graph become, and whether float16 can hold them.
//!
//! ONNX Runtime's kernels for CPUs compute float16 in float32, so a value that overflows on a GPU does not
//! overflow there. The graph of float32 is run instead, with further outputs for the largest magnitude of
//! each value that is to be in float16.

use std::collections::{BTreeMap, BTreeSet};

use half::f16;
use sluice_manifest::Result;

use crate::convert::half::{HalfValue, largest_of, with_largest};
use crate::model::Model;
use crate::session::{InputNumber, Session};

/// Room for images with larger values than those that were measured.
const MARGIN: f32 = 2.0;

/// The largest magnitudes of a graph's values, on the images that it was run on.
pub struct Ranges {
    session: Session,
    largest: BTreeMap<String, f32>,
}

impl Ranges {
    /// Returns the ranges of a model's values on one picture.
    ///
    /// # Errors
    /// Usage, when the graph does not run; of storage.
    pub(crate) fn of(model: &Model, onnx: &[u8], values: &[HalfValue]) -> Result<Self> {
        let measured = with_largest(onnx, values)?;
        let names = values.iter().map(|value| (value.name.clone(), 0.0));
        let mut ranges = Self {
            session: model.load_graph(&measured)?,
            largest: names.collect(),
        };
        if let Some((shape, picture)) = model.sample() {
            ranges.feed(&shape, &picture)?;
        }
        Ok(ranges)
    }

    /// Runs a batch, like [`Session::run`], and notes how large the values become.
    ///
    /// # Errors
    /// Usage, when the graph does not run. Transient, when there is no memory for the batch.
    pub fn feed<N: InputNumber>(&mut self, shape: &[usize], values: &[N]) -> Result<()> {
        let outputs: Vec<String> = self.largest.keys().map(|name| largest_of(name)).collect();
        let rows = shape.first().copied().unwrap_or(0);
        let length = values.len() / rows.max(1);
        // One by one: a graph whose values all are outputs takes more memory.
        for row in values.chunks(length.max(1)).take(rows) {
            let found = self.session.run_scalars(&shape[1..], row, &outputs)?;
            for (largest, found) in self.largest.values_mut().zip(found) {
                *largest = largest.max(found);
            }
        }
        Ok(())
    }

    /// Returns the values that float16 cannot hold.
    pub(crate) fn too_large(&self) -> BTreeSet<String> {
        let most = f16::MAX.to_f32() / MARGIN;
        let values = self.largest.iter();
        let too_large = values.filter(|(_, largest)| **largest > most);
        too_large.map(|(name, _)| name.clone()).collect()
    }
}
