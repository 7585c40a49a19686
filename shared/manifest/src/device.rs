//! The device that a model ran on, as a result reports it.

use serde::Serialize;

/// The device that the model of a step ran on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeviceUse {
    /// The device, in the form of `--device`.
    pub device: String,
    /// The name of the hardware, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The number of images in a batch.
    pub batch_size: u64,
    /// The share of the time since the first batch in which the model did not run. `None` if it
    /// never ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<f64>,
}
