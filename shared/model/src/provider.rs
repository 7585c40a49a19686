//! ONNX Runtime's execution providers: registered for a device, and what their errors mean.

use ort::ep::{self, ArbitrarilyConfigurableExecutionProvider, ExecutionProviderDispatch};
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::Session;

use crate::device::Device;
use crate::placement::Placement;
use crate::precision::Precision;

/// Where TensorRT keeps the engines that it compiles.
const ENGINES: &str = "SLUICE_TENSORRT_CACHE";

/// The input of pixels: its name, and the sizes of one row.
pub(crate) type Input<'a> = (&'a str, &'a [usize]);

/// Returns the providers that a session on a device registers, best first. Each fails where it cannot
/// be loaded; ONNX Runtime would go on without it.
pub(crate) fn providers(
    placement: &Placement,
    precision: Precision,
    threads: usize,
    input: Option<Input<'_>>,
) -> Vec<ExecutionProviderDispatch> {
    let providers = match placement.device {
        Device::Auto | Device::Cpu => Vec::new(),
        Device::Cuda(number) => vec![cuda(number)],
        Device::TensorRt(number) => {
            vec![
                tensorrt(number, precision, placement.batch_size, input),
                cuda(number),
            ]
        }
        Device::OpenVino => vec![openvino(precision, threads)],
    };
    let providers = providers.into_iter();
    providers
        .map(ExecutionProviderDispatch::error_on_failure)
        .collect()
}

fn cuda(number: u32) -> ExecutionProviderDispatch {
    ep::CUDA::default()
        .with_device_id(number as i32)
        // The exhaustive search is done again for each size of a batch.
        .with_conv_algorithm_search(ep::cuda::ConvAlgorithmSearch::Heuristic)
        .with_arena_extend_strategy(ep::ArenaExtendStrategy::SameAsRequested)
        // float32 means float32: TensorFloat-32 has 10 bits of mantissa, and is ONNX Runtime's default.
        .with_tf32(false)
        // Sums of normalisations in float32.
        .with_skip_layer_norm_strict_mode(true)
        .build()
}

fn tensorrt(
    number: u32,
    precision: Precision,
    batch_size: usize,
    input: Option<Input<'_>>,
) -> ExecutionProviderDispatch {
    let mut provider = ep::TensorRT::default()
        .with_device_id(number as i32)
        .with_fp16(precision == Precision::Float16)
        .with_bf16(precision == Precision::Bfloat16)
        .with_layer_norm_fp32_fallback(true);
    if let Some((name, sizes)) = input {
        // One engine for all sizes of a batch. Without it each new size compiles another one.
        let shape = |rows: usize| {
            let sizes: Vec<String> = sizes.iter().map(usize::to_string).collect();
            format!("{name}:{rows}x{}", sizes.join("x"))
        };
        provider = provider
            .with_profile_min_shapes(shape(1))
            .with_profile_opt_shapes(shape(batch_size))
            .with_profile_max_shapes(shape(batch_size));
    }
    if let Ok(folder) = std::env::var(ENGINES) {
        provider = provider
            .with_engine_cache(true)
            .with_engine_cache_path(&folder)
            .with_timing_cache(true)
            .with_timing_cache_path(&folder);
    }
    provider.build()
}

/// OpenVINO's kernels on the CPU. By itself it takes bfloat16 where the processor has it.
fn openvino(precision: Precision, threads: usize) -> ExecutionProviderDispatch {
    let hint = match precision {
        Precision::Bfloat16 => "bf16",
        Precision::Float32 | Precision::Float16 | Precision::Int8 => "f32",
    };
    let properties = serde_json::json!({
        "CPU": {
            "INFERENCE_PRECISION_HINT": hint,
            "INFERENCE_NUM_THREADS": threads.to_string(),
            "NUM_STREAMS": "1",
        }
    });
    ep::OpenVINO::default()
        .with_device_type("CPU")
        .with_arbitrary_config("load_config", properties.to_string())
        .build()
}

/// Returns whether a session has the memory of its device: a session without the provider has none.
pub(crate) fn is_on(session: &Session, device: Device) -> ort::Result<()> {
    let Some(number) = device.gpu() else {
        return Ok(());
    };
    let memory = MemoryInfo::new(
        AllocationDevice::CUDA,
        number as i32,
        AllocatorType::Device,
        MemoryType::Default,
    )?;
    Allocator::new(session, memory).map(drop)
}

/// What an error of ONNX Runtime means for the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The device has no memory for so many rows.
    NoMemory,
    /// The device does not answer as it should. Another process may find it well.
    Device,
    /// The model, or what it was given.
    Model,
}

impl Failure {
    pub(crate) fn of(error: &ort::Error) -> Self {
        Self::of_text(error.message())
    }

    /// CUDA's, cuBLAS's, cuDNN's and ONNX Runtime's own words.
    fn of_text(text: &str) -> Self {
        const NO_MEMORY: [&str; 6] = [
            "out of memory",
            "Failed to allocate memory",
            "ALLOC_FAILED",
            "smaller than requested bytes",
            "OutOfMemory",
            "bad allocation",
        ];
        const DEVICE: [&str; 6] = [
            "CUDA failure",
            "CUDA error",
            "CUBLAS failure",
            "CUDNN failure",
            "cudaError",
            "device lost",
        ];
        let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
        match (has(&NO_MEMORY), has(&DEVICE)) {
            (true, _) => Self::NoMemory,
            (false, true) => Self::Device,
            (false, false) => Self::Model,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_memory_and_of_the_device_are_told_from_those_of_the_model() {
        for (text, failure) in [
            (
                "CUDA failure 2: out of memory ; GPU=0 ; hostname=a ; file=b",
                Failure::NoMemory,
            ),
            (
                "Failed to allocate memory for requested buffer of size 4503599627370496",
                Failure::NoMemory,
            ),
            (
                "Available memory of 1024 is smaller than requested bytes of 4096",
                Failure::NoMemory,
            ),
            (
                "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0",
                Failure::NoMemory,
            ),
            (
                "CUDA failure 719: unspecified launch failure ; GPU=0",
                Failure::Device,
            ),
            ("CUDA failure 999: unknown error", Failure::Device),
            (
                "CUDNN failure 5000: CUDNN_STATUS_EXECUTION_FAILED",
                Failure::Device,
            ),
            (
                "Invalid rank for input: x Got: 2 Expected: 4",
                Failure::Model,
            ),
        ] {
            assert_eq!(Failure::of_text(text), failure, "{text}");
        }
    }
}
