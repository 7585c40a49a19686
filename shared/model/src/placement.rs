//! Where a model runs, and how many images at once.

use std::str::FromStr;

use sluice_manifest::Result;
use sluice_pixels::Preprocess;

use crate::device::{Device, Needs};
use crate::machine::Machine;
use crate::model::Model;
use crate::wiring;

/// Images at once on a CPU: more are no faster.
const ON_CPU: usize = 16;
/// Images at once on a GPU, at most: more are no faster on the largest ones.
const MOST_ON_GPU: usize = 256;
/// The same where the GPU's memory is not known.
const ON_UNKNOWN_GPU: usize = 32;
/// Approximate bytes of device memory for each pixel of the input. A ViT-L/14 in float32 takes half.
const BYTES_A_PIXEL: u64 = 1024;

/// `--batch-size`: images that go through a model at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BatchSize {
    /// 16 on a CPU, and on a GPU as many as its memory has room for, up to 256.
    #[default]
    Auto,
    /// So many.
    Images(usize),
}

impl FromStr for BatchSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "auto" => Ok(Self::Auto),
            Ok(images @ 1..=4096) => Ok(Self::Images(images)),
            _ => Err("expected auto or a number from 1 to 4096".to_owned()),
        }
    }
}

impl std::fmt::Display for BatchSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Images(images) => write!(f, "{images}"),
        }
    }
}

/// Where a model runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The device; never `auto`.
    pub device: Device,
    /// The device's name, if it has one in addition to its number.
    pub name: Option<String>,
    /// Images that go through the model at once.
    pub batch_size: usize,
}

impl Default for Placement {
    fn default() -> Self {
        Self {
            device: Device::Cpu,
            name: None,
            batch_size: ON_CPU,
        }
    }
}

impl Placement {
    /// Chooses where a model runs whose input has so many pixels.
    ///
    /// # Errors
    /// As of [`Device::resolve`].
    pub(crate) fn choose(
        device: Device,
        batch_size: BatchSize,
        needs: &Needs<'_>,
        pixels: u64,
        machine: &Machine,
    ) -> Result<Self> {
        let device = device.resolve(needs, machine)?;
        let gpu = device.gpu().and_then(|number| machine.gpu(number));
        let automatic = match (device.gpu(), gpu) {
            (None, _) => ON_CPU,
            (Some(_), None) => ON_UNKNOWN_GPU,
            (Some(_), Some(gpu)) => fitting(gpu.memory, pixels),
        };
        Ok(Self {
            device,
            name: gpu.map(|gpu| gpu.name.clone()),
            batch_size: match batch_size {
                BatchSize::Auto => automatic,
                BatchSize::Images(images) => images,
            },
        })
    }

    /// Returns the device with its name, for people.
    pub fn describe(&self) -> String {
        match &self.name {
            Some(name) => format!("{} ({name})", self.device),
            None => self.device.to_string(),
        }
    }
}

impl Model {
    /// Chooses where the model runs. Until then that is the CPU.
    ///
    /// # Errors
    /// Usage, when the machine lacks a part of the device, or the model does not run on it; the error
    /// names what is missing.
    pub fn place(mut self, device: Device, batch_size: BatchSize) -> Result<Self> {
        let Some(files) = &self.files else {
            return Ok(self);
        };
        let needs = Needs {
            kind: self.spec.kind,
            precision: self.precision,
            onnx: &files.onnx,
        };
        let size = self.spec.preprocess.as_ref().map(Preprocess::output_size);
        let pixels = size.map_or(1, |(width, height)| u64::from(width) * u64::from(height));
        let machine = Machine::this();
        self.placement = Placement::choose(device, batch_size, &needs, pixels, machine)?;
        Ok(self)
    }

    /// Whether its input is of bytes: pixels as they are.
    pub fn takes_bytes(&self) -> bool {
        let input = wiring::main_input(&self.spec, &self.graph).ok();
        input.is_some_and(wiring::is_of_bytes)
    }
}

/// Returns how many images half of a GPU's memory has room for. The other half is for weights, and
/// for what the allocator cannot use.
fn fitting(memory: u64, pixels: u64) -> usize {
    let images = memory / 2 / (pixels.max(1) * BYTES_A_PIXEL);
    let images = usize::try_from(images)
        .unwrap_or(MOST_ON_GPU)
        .clamp(1, MOST_ON_GPU);
    match images {
        0..=8 => images,
        // Sizes that tensor cores like.
        _ => images / 8 * 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_grow_with_the_memory_and_shrink_with_the_picture() {
        let images = |gigabytes: u64, side: u64| fitting(gigabytes << 30, side * side);
        assert_eq!(images(80, 224), 256);
        assert_eq!(images(16, 224), 160);
        assert_eq!(images(8, 224), 80);
        assert_eq!(images(8, 384), 24);
        assert_eq!(images(0, 384), 1);
    }

    #[test]
    fn sizes_are_numbers_or_auto() {
        assert_eq!("auto".parse(), Ok(BatchSize::Auto));
        assert_eq!("7".parse(), Ok(BatchSize::Images(7)));
        for wrong in ["", "0", "4097", "-1", "many", "1.5"] {
            assert!(wrong.parse::<BatchSize>().is_err(), "{wrong}");
        }
    }
}
