//! What a receipt records about a model.

use serde::{Deserialize, Serialize};
use sluice_model::ModelSettings;
use sluice_pixels::Fidelity;

/// The settings that shape the numbers of a model.
#[derive(Debug, Serialize, Deserialize)]
pub struct Settings {
    /// The model.
    pub model: ModelSettings,
    /// How exactly large JPEGs are decoded, for models that run on images.
    pub decoding: Option<Fidelity>,
}
