//! Safetensors: a length of eight bytes, a JSON object of names, types, shapes and offsets, the numbers.

use std::collections::BTreeMap;

use half::{bf16, f16};
use serde::Deserialize;

use super::{Tensor, Tensors, elements, floats};

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

/// Returns the tensors of floating-point numbers, by name.
pub(super) fn read(content: &[u8]) -> Result<Tensors, String> {
    const BROKEN: &str = "it is not a whole safetensors file";
    let (length, rest) = content.split_first_chunk::<8>().ok_or(BROKEN)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| BROKEN)?;
    let header = rest.get(..length).ok_or(BROKEN)?;
    let mut header: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(header).map_err(|_| BROKEN)?;
    header.remove("__metadata__");
    let mut tensors = Tensors::new();
    for (name, entry) in header {
        let entry: Entry = serde_json::from_value(entry).map_err(|_| BROKEN)?;
        let [start, end] = entry.data_offsets;
        let bytes = rest[length..].get(start..end).ok_or(BROKEN)?;
        let values = match entry.dtype.as_str() {
            "F32" => floats(bytes),
            "F16" => pairs(bytes, |bits| f16::from_bits(bits).to_f32()),
            "BF16" => pairs(bytes, |bits| bf16::from_bits(bits).to_f32()),
            _ => continue,
        };
        if values.len() != elements(&entry.shape)? {
            return Err(format!(
                "its tensor {name:?} has another length than its shape"
            ));
        }
        let shape = entry.shape;
        tensors.insert(name, Tensor { shape, values });
    }
    Ok(tensors)
}

fn pairs(bytes: &[u8], number: impl Fn(u16) -> f32) -> Vec<f32> {
    let (pairs, _) = bytes.as_chunks::<2>();
    pairs
        .iter()
        .map(|pair| number(u16::from_le_bytes(*pair)))
        .collect()
}
