//! A running model: one session for all units of a process, and how long its device was idle.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use sluice_harness::{Context, DeviceUse, Task};
use sluice_manifest::{ABOUT_DEVICE, Result};
use sluice_model::{InputNumber, Model, Session};

/// Partitions in flight on a GPU: while one writes its last rows, others have batches ready.
const IN_FLIGHT_ON_GPU: usize = 4;
/// Batches that wait for a GPU, of each partition.
const AHEAD_ON_GPU: usize = 2;

/// A running model.
pub struct Runner<'a> {
    /// The model.
    pub model: &'a Model,
    context: &'a Context,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Loaded with the first batch.
    session: Option<Session>,
    started: Option<Instant>,
    busy: Duration,
    images: u64,
}

impl<'a> Runner<'a> {
    /// Returns a runner that has not loaded its model yet.
    pub fn new(model: &'a Model, context: &'a Context) -> Self {
        Self {
            model,
            context,
            state: Mutex::default(),
        }
    }

    /// Returns the number of partitions in flight; `on_cpu` is the number for a CPU.
    pub fn in_flight(&self, on_cpu: usize) -> usize {
        match self.model.placement.device.gpu() {
            Some(_) => IN_FLIGHT_ON_GPU,
            None => on_cpu,
        }
    }

    /// Returns the number of batches that may wait for the model, in addition to the one being filled.
    /// On a CPU, decoding ahead takes the cores from inference.
    pub fn ahead(&self) -> usize {
        match self.model.placement.device.gpu() {
            Some(_) => AHEAD_ON_GPU,
            None => 0,
        }
    }

    /// Runs the model on a batch, like [`Session::run`].
    ///
    /// # Errors
    /// Like [`Session::run`] and [`Model::session`].
    pub fn run<N: InputNumber>(&self, shape: &[usize], values: &[N]) -> Result<Vec<f32>> {
        let mut state = self.state.lock().unwrap_or_else(|e| e.into_inner());
        let State {
            session,
            started,
            busy,
            images,
        } = &mut *state;
        let session = match session {
            Some(session) => session,
            none => none.insert(self.model.session(self.context.jobs)?),
        };
        let begun = Instant::now();
        started.get_or_insert(begun);
        let output = session.run(shape, values)?;
        *busy += begun.elapsed();
        *images += shape.first().copied().unwrap_or(0) as u64;
        Ok(output)
    }

    /// Adds the device to a unit's receipt.
    pub fn describe(&self, task: &mut Task<'_>) {
        task.about(ABOUT_DEVICE, &self.model.placement.describe());
    }

    /// Reports the device and its idle share: in the log and in the result.
    pub fn report(&self) {
        let state = self.state.lock().unwrap_or_else(|e| e.into_inner());
        let placement = &self.model.placement;
        let seconds = state.started.map(|started| started.elapsed().as_secs_f64());
        let idle = seconds.map(|seconds| 1.0 - state.busy.as_secs_f64() / seconds.max(1e-9));
        self.context.report_device(DeviceUse {
            device: placement.device.to_string(),
            name: placement.name.clone(),
            batch_size: placement.batch_size as u64,
            idle: idle.map(|idle| (idle.max(0.0) * 1000.0).round() / 1000.0),
        });
    }
}
