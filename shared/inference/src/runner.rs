//! A running model: one session for all units of a process, and how long its device was idle.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use sluice_manifest::{DeviceUse, Result};
use sluice_model::{InputNumber, Model, Session};

/// Partitions in flight on a GPU: while one writes its last rows, others have batches ready.
const IN_FLIGHT_ON_GPU: usize = 4;
/// Batches that wait for a GPU, of each partition.
const AHEAD_ON_GPU: usize = 2;

/// Between the devices of a unit's rows.
const AND: &str = " and ";

/// A running model.
pub struct Runner<'a> {
    /// The model.
    pub model: &'a Model,
    jobs: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Loaded with the first batch.
    session: Option<Session>,
    started: Option<Instant>,
    busy: Duration,
}

impl<'a> Runner<'a> {
    /// Returns a runner that has not loaded its model yet. The session has `jobs` threads.
    pub fn new(model: &'a Model, jobs: usize) -> Self {
        Self {
            model,
            jobs,
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
        } = &mut *state;
        let session = match session {
            Some(session) => session,
            none => none.insert(self.model.session(self.jobs)?),
        };
        let begun = Instant::now();
        started.get_or_insert(begun);
        let output = session.run(shape, values)?;
        *busy += begun.elapsed();
        Ok(output)
    }

    /// Returns the devices of a unit's rows, for its receipt: `before`, the devices of the rows that were
    /// taken over, and the device that computed this many rows.
    pub fn describe(&self, before: Option<&str>, computed: u64) -> String {
        let mut devices: Vec<String> = before
            .into_iter()
            .flat_map(|devices| devices.split(AND).map(str::to_owned))
            .collect();
        let this = self.model.placement.describe();
        if computed > 0 && !devices.contains(&this) {
            devices.push(this);
        }
        devices.join(AND)
    }

    /// Returns the device, the batch size at the end and the idle share. Returns `None` if the model did
    /// not run.
    pub fn device_use(&self) -> Option<DeviceUse> {
        let state = self.state.lock().unwrap_or_else(|e| e.into_inner());
        let (session, started) = (state.session.as_ref()?, state.started?);
        let placement = &self.model.placement;
        let seconds = started.elapsed().as_secs_f64();
        let idle = 1.0 - state.busy.as_secs_f64() / seconds.max(1e-9);
        Some(DeviceUse {
            device: placement.device.to_string(),
            name: placement.name.clone(),
            batch_size: session.batch_size(placement.batch_size) as u64,
            idle: Some((idle.max(0.0) * 1000.0).round() / 1000.0),
        })
    }
}
