//! The arguments of the stages that run a model.

use clap::Args;
use sluice_manifest::Result;
use sluice_model::{BatchSize, Device, Model, Precision, default_cache};
use sluice_pixels::Fidelity;
use sluice_store::{Location, Storage};

/// What models run on.
#[derive(Debug, Clone, Copy, Args)]
pub struct DeviceArgs {
    /// What the model runs on: auto, cpu, cuda[:N], tensorrt[:N] or openvino
    #[arg(
        long,
        env = "SLUICE_DEVICE",
        value_name = "DEVICE",
        default_value = "auto"
    )]
    pub device: Device,
}

/// The folder of models, and how they run.
#[derive(Debug, Clone, Args)]
pub struct ModelArgs {
    /// The folder of models (default: sluice/models in the user's cache folder)
    #[arg(long, env = "SLUICE_MODELS", value_name = "URI")]
    pub models: Option<String>,

    /// What they run on.
    #[command(flatten)]
    pub device: DeviceArgs,

    /// Images that go through the model at once; auto is 16 on a CPU, and follows a GPU's memory
    #[arg(
        long,
        env = "SLUICE_BATCH_SIZE",
        value_name = "N",
        default_value = "auto"
    )]
    pub batch_size: BatchSize,

    /// Decode large JPEGs in full size, even for a model with a small input
    #[arg(long, env = "SLUICE_EXACT_DECODING", value_name = "true", num_args = 0..=1,
        require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub exact_decoding: bool,
}

impl ModelArgs {
    /// Returns how closely a model's pixels must match those of a full decode.
    pub fn fidelity(&self) -> Fidelity {
        if self.exact_decoding {
            Fidelity::Exact
        } else {
            Fidelity::Approximate
        }
    }

    /// Finds what `--model` names.
    ///
    /// # Errors
    /// Like [`ModelArgs::find_at`].
    pub fn find(&self, storage: &Storage, model: &str) -> Result<Model> {
        self.find_at(storage, model, Precision::default())
    }

    /// Finds what `--model` names, for a precision, and chooses the device.
    ///
    /// # Errors
    /// Usage, when the model does not exist or the device is not available; of storage.
    pub fn find_at(&self, storage: &Storage, model: &str, precision: Precision) -> Result<Model> {
        let cache = self.models.clone().unwrap_or_else(default_cache);
        let model = Model::find(storage, model, &Location::parse(&cache)?, precision)?;
        model.place(self.device.device, self.batch_size)
    }
}
