//! The arguments of the stages that run a model.

use clap::Args;
use sluice_manifest::Result;
use sluice_model::{Model, Precision, default_cache};
use sluice_pixels::Fidelity;
use sluice_store::{Location, Storage};

/// Where models are found and how they run.
#[derive(Debug, Clone, Args)]
pub struct ModelArgs {
    /// The folder of models (default: sluice/models in the user's cache folder)
    #[arg(long, env = "SLUICE_MODELS", value_name = "URI")]
    pub models: Option<String>,

    /// Images that go through the model at once
    #[arg(long, env = "SLUICE_BATCH_SIZE", value_name = "N", default_value_t = 16,
        value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub batch_size: u32,

    /// Decode large JPEGs in full size, however small the model wants them
    #[arg(long, env = "SLUICE_EXACT_DECODING", value_name = "true", num_args = 0..=1,
        require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub exact_decoding: bool,
}

/// How a model is fed with images.
#[derive(Debug, Clone, Copy)]
pub struct Feed {
    /// Images that go through it at once.
    pub batch_size: usize,
    /// How near its pixels are to those of a full decode.
    pub fidelity: Fidelity,
}

impl ModelArgs {
    /// How the model is fed.
    pub fn feed(&self) -> Feed {
        Feed {
            batch_size: self.batch_size as usize,
            fidelity: match self.exact_decoding {
                true => Fidelity::Exact,
                false => Fidelity::Near,
            },
        }
    }

    /// Finds what `--model` names.
    pub fn find(&self, storage: &Storage, model: &str) -> Result<Model> {
        self.find_at(storage, model, Precision::default())
    }

    /// Finds what `--model` names, for a precision.
    pub fn find_at(&self, storage: &Storage, model: &str, precision: Precision) -> Result<Model> {
        let cache = self.models.clone().unwrap_or_else(default_cache);
        Model::find(storage, model, &Location::parse(&cache)?, precision)
    }
}
