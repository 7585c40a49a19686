//! `--device`: what models run on.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use sluice_manifest::{Error, Result};

use crate::layout::ONNX_BFLOAT16;
use crate::machine::{Machine, MissingPart};
use crate::placement::Placement;
use crate::precision::Precision;
use crate::session::refusal;
use crate::spec::Kind;

/// What a model is to run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(into = "String")]
pub enum Device {
    /// The first GPU where there is one and nothing is missing for it, else the CPU.
    #[default]
    Auto,
    /// ONNX Runtime's own kernels.
    Cpu,
    /// A GPU of NVIDIA, by its number.
    Cuda(u32),
    /// The same; TensorRT compiles the graph first.
    TensorRt(u32),
    /// OpenVINO, on the CPU.
    OpenVino,
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, number) = match text.split_once(':') {
            Some((name, number)) => (name, Some(number)),
            None => (text, None),
        };
        let on_gpu = |device: fn(u32) -> Self| {
            let number = number.unwrap_or("0").parse();
            number
                .map(device)
                .map_err(|_| format!("expected {name}:N, with the number of a GPU"))
        };
        match (name, number) {
            ("cuda", _) => on_gpu(Self::Cuda),
            ("tensorrt", _) => on_gpu(Self::TensorRt),
            ("auto", None) => Ok(Self::Auto),
            ("cpu", None) => Ok(Self::Cpu),
            ("openvino", None) => Ok(Self::OpenVino),
            _ => {
                Err("expected auto, cpu, cuda, cuda:N, tensorrt, tensorrt:N or openvino".to_owned())
            }
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
            Self::TensorRt(number) => write!(f, "tensorrt:{number}"),
            Self::OpenVino => f.write_str("openvino"),
        }
    }
}

impl From<Device> for String {
    fn from(device: Device) -> Self {
        device.to_string()
    }
}

/// The properties of a model that decide where it can run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Needs<'a> {
    pub kind: Kind,
    pub precision: Precision,
    /// The ONNX file's name.
    pub onnx: &'a str,
}

impl Needs<'_> {
    /// Whether its numbers are bfloat16, for which the CPU has no kernels.
    fn is_bfloat16_file(&self) -> bool {
        self.onnx == ONNX_BFLOAT16
    }
}

impl Device {
    /// Returns the GPU's number.
    pub fn gpu(self) -> Option<u32> {
        match self {
            Self::Cuda(number) | Self::TensorRt(number) => Some(number),
            Self::Auto | Self::Cpu | Self::OpenVino => None,
        }
    }

    /// Returns the device that a model runs on: for `auto` the one that is chosen, else this one.
    ///
    /// # Errors
    /// Usage, when the machine lacks a part of the device, or the model cannot run there.
    pub(crate) fn resolve(self, needs: &Needs<'_>, machine: &Machine) -> Result<Self> {
        self.check_precision(needs)?;
        let device = match self {
            Self::Auto => automatic(needs, machine),
            device => device,
        };
        let missing = device.missing(machine);
        let Some(first) = missing.first() else {
            return Ok(device);
        };
        let parts = parts_of(&missing);
        let asked = match self {
            Self::Auto => format!("precision {} runs on {device}", needs.precision),
            _ => format!("--device {device}"),
        };
        Err(Error::usage(format!("{asked}: missing {parts}")).hint(first.hint.clone()))
    }

    fn check_precision(self, needs: &Needs<'_>) -> Result<()> {
        let Needs { precision, .. } = needs;
        let refused = |hint: &str| {
            let error = format!("--device {self}: precision {precision} does not run on it");
            Err(Error::usage(error).hint(hint))
        };
        match (self, precision) {
            (Self::Cuda(_) | Self::TensorRt(_), Precision::Int8) => {
                refused("int8 is for CPUs; float16 is as small and runs on GPUs")
            }
            (Self::Cuda(_) | Self::TensorRt(_), Precision::Bfloat16)
                if !needs.is_bfloat16_file() =>
            {
                refused(
                    "`sluice models quantize MODEL --precision bfloat16` makes model.bfloat16.onnx, which runs on GPUs",
                )
            }
            (Self::Cpu, Precision::Bfloat16) => {
                refused("bfloat16 runs on GPUs and by OpenVINO: --device openvino")
            }
            (Self::OpenVino, Precision::Bfloat16) if needs.is_bfloat16_file() => refused(
                "model.bfloat16.onnx runs on GPUs; without that file OpenVINO runs model.onnx in bfloat16",
            ),
            _ => Ok(()),
        }
    }

    /// Returns why ONNX Runtime refuses this device, for which nothing is missing: its provider does not
    /// load, or is of another version. `None` if it takes the device.
    ///
    /// # Errors
    /// Usage, when ONNX Runtime's library does not load.
    pub fn refusal(self) -> Result<Option<String>> {
        refusal(&Placement {
            device: self,
            ..Placement::default()
        })
    }

    /// Returns what a machine lacks for this device.
    pub fn missing(self, machine: &Machine) -> Vec<MissingPart> {
        match self {
            Self::Auto | Self::Cpu => Vec::new(),
            Self::Cuda(number) => machine.missing_for_cuda(number),
            Self::TensorRt(number) => machine.missing_for_tensorrt(number),
            Self::OpenVino => machine.missing_for_openvino(),
        }
    }
}

/// Returns the device that `auto` takes. Heads are too small for a GPU to pay.
fn automatic(needs: &Needs<'_>, machine: &Machine) -> Device {
    match needs.precision {
        _ if needs.kind == Kind::Head => Device::Cpu,
        Precision::Int8 => Device::Cpu,
        Precision::Bfloat16 if needs.is_bfloat16_file() => Device::Cuda(0),
        Precision::Bfloat16 => Device::OpenVino,
        Precision::Float32 | Precision::Float16 => machine.first_gpu().unwrap_or(Device::Cpu),
    }
}

/// Returns the names of missing parts.
pub(crate) fn parts_of(missing: &[MissingPart]) -> String {
    let parts: Vec<&str> = missing
        .iter()
        .map(|missing| missing.part.as_str())
        .collect();
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{Driver, Gpu, NoDriver};

    /// A machine that has this many GPUs, and no library for them.
    fn machine(gpus: u32) -> Machine {
        let gpu = |number| Gpu {
            number,
            name: "a GPU".to_owned(),
            memory: 16 << 30,
        };
        let driver = Driver {
            cuda: "13.0".to_owned(),
            gpus: (0..gpus).map(gpu).collect(),
        };
        let driver = match gpus {
            0 => Err(NoDriver::Missing),
            _ => Ok(driver),
        };
        Machine::new("/nowhere/libonnxruntime.so".into(), driver, Vec::new())
    }

    fn needs(precision: Precision) -> Needs<'static> {
        Needs {
            kind: Kind::Embedder,
            precision,
            onnx: "model.onnx",
        }
    }

    #[test]
    fn devices_have_names() {
        for (text, device) in [
            ("auto", Device::Auto),
            ("cpu", Device::Cpu),
            ("cuda", Device::Cuda(0)),
            ("cuda:3", Device::Cuda(3)),
            ("tensorrt:1", Device::TensorRt(1)),
            ("openvino", Device::OpenVino),
        ] {
            assert_eq!(text.parse(), Ok(device));
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        for wrong in [
            "", "gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "auto:1", "CUDA",
        ] {
            assert!(wrong.parse::<Device>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_gpu_is_taken_where_there_is_one_and_its_library() {
        let auto = |machine: &Machine, precision| {
            Device::Auto.resolve(&needs(precision), machine).unwrap()
        };
        let usable = machine(2);
        usable.first_gpu.set(Some(Device::Cuda(0))).unwrap();
        assert_eq!(auto(&machine(0), Precision::Float16), Device::Cpu);
        assert_eq!(auto(&machine(2), Precision::Float32), Device::Cpu);
        assert_eq!(auto(&usable, Precision::Int8), Device::Cpu);
        assert_eq!(
            automatic(&needs(Precision::Float16), &usable),
            Device::Cuda(0)
        );
    }

    #[test]
    fn what_cannot_run_is_refused_with_a_hint() {
        let machine = machine(1);
        for (device, precision, word) in [
            (
                Device::Cuda(0),
                Precision::Float16,
                "libonnxruntime_providers_cuda.so",
            ),
            (
                Device::Cuda(1),
                Precision::Float32,
                "GPU 1 (this process sees cuda:0)",
            ),
            (
                Device::TensorRt(0),
                Precision::Float16,
                "libonnxruntime_providers_tensorrt.so",
            ),
            (
                Device::OpenVino,
                Precision::Float32,
                "libonnxruntime_providers_openvino.so",
            ),
            (Device::Cuda(0), Precision::Int8, "int8 is for CPUs"),
            (Device::Cuda(0), Precision::Bfloat16, "models quantize"),
            (Device::Cpu, Precision::Bfloat16, "--device openvino"),
            (
                Device::Auto,
                Precision::Bfloat16,
                "libonnxruntime_providers_openvino.so",
            ),
        ] {
            let error = device.resolve(&needs(precision), &machine).unwrap_err();
            assert_eq!(error.class(), sluice_manifest::Class::Usage);
            let error = error.to_string();
            assert!(
                error.contains(word) && error.contains("hint"),
                "{device}: {error}"
            );
        }
    }
}
