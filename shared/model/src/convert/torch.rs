//! PyTorch's state dicts: the zip form, and the older stream form.

use std::collections::HashMap;
use std::rc::Rc;

use super::pickle::{self, Storage, Value, View};
use super::zip;
use super::{Tensor, Tensors, elements};

/// Returns the tensors of floating-point numbers of a state dict, by name.
pub(super) fn read(file: &[u8]) -> Result<Tensors, String> {
    if zip::is_zip(file) {
        read_zip(file)
    } else {
        read_stream(file)
    }
}

type Dictionary = Vec<(Rc<str>, View)>;

fn state(value: Value) -> Result<Dictionary, String> {
    match value {
        Value::Dictionary(state) => Ok(state),
        _ => Err("it is not a state dict".to_owned()),
    }
}

fn read_zip(file: &[u8]) -> Result<Tensors, String> {
    let members = zip::members(file)?;
    let pickled = members
        .iter()
        .find(|member| member.name.ends_with("/data.pkl"));
    let pickled = pickled.ok_or("it is a zip archive without data.pkl")?;
    let root = pickled.name.trim_end_matches("data.pkl");
    let state = state(pickle::load(&pickled.read(file)?)?.0)?;
    tensors(&state, |storage| {
        let name = format!("{root}data/{}", storage.key);
        let member = members.iter().find(|member| member.name == name);
        member
            .ok_or_else(|| format!("it has no member {name:?}"))?
            .read(file)
    })
}

/// Five pickles (a magic number, the version, the machine, the state dict, the keys of its storages),
/// then for each key a count of eight bytes and the numbers.
fn read_stream(file: &[u8]) -> Result<Tensors, String> {
    const MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    if !file.starts_with(MAGIC) {
        return Err("it is neither a zip archive nor a PyTorch file".to_owned());
    }
    let mut at = MAGIC.len();
    let mut next = || {
        let (value, length) = pickle::load(&file[at..])?;
        at += length;
        Ok::<_, String>(value)
    };
    let (_version, _machine) = (next()?, next()?);
    let state = state(next()?)?;
    let Value::List(keys) = next()? else {
        return Err("it has no list of storages".to_owned());
    };
    let kinds: HashMap<&str, &Storage> = state
        .iter()
        .map(|(_, view)| (&*view.storage.key, &view.storage))
        .collect();
    let mut contents = HashMap::new();
    for key in &keys {
        let storage = kinds
            .get(&**key)
            .ok_or("it has a storage that no tensor uses")?;
        let start = at + 8;
        let end = start.checked_add(storage.count.saturating_mul(width(&storage.kind)?));
        let content = end
            .and_then(|end| file.get(start..end))
            .ok_or("it is cut")?;
        at = start + content.len();
        contents.insert(&**key, content);
    }
    tensors(&state, |storage| {
        let content = contents
            .get(&*storage.key)
            .ok_or("it has a tensor without a storage")?;
        Ok(content.to_vec())
    })
}

/// Bytes of a number.
fn width(kind: &str) -> Result<usize, String> {
    match kind {
        "DoubleStorage" | "LongStorage" => Ok(8),
        "FloatStorage" | "IntStorage" => Ok(4),
        "HalfStorage" | "BFloat16Storage" | "ShortStorage" => Ok(2),
        "CharStorage" | "ByteStorage" | "BoolStorage" => Ok(1),
        kind => Err(format!("it has numbers of the kind {kind}")),
    }
}

/// Returns the tensors whose numbers `content` gives. Those of integers are counters and are left out.
fn tensors(
    state: &Dictionary,
    content: impl Fn(&Storage) -> Result<Vec<u8>, String>,
) -> Result<Tensors, String> {
    let mut tensors = Tensors::new();
    for (name, view) in state {
        let values = match &*view.storage.kind {
            "FloatStorage" => super::floats(&content(&view.storage)?),
            "DoubleStorage" => doubles(&content(&view.storage)?),
            _ => continue,
        };
        let values =
            strided(view, &values).map_err(|wrong| format!("its tensor {name:?} {wrong}"))?;
        let shape = view.shape.clone();
        tensors.insert(name.to_string(), Tensor { shape, values });
    }
    Ok(tensors)
}

fn doubles(bytes: &[u8]) -> Vec<f32> {
    let (numbers, _) = bytes.as_chunks::<8>();
    numbers
        .iter()
        .map(|bytes| f64::from_le_bytes(*bytes) as f32)
        .collect()
}

/// Returns the numbers of a view, its last axis contiguous.
fn strided(view: &View, storage: &[f32]) -> Result<Vec<f32>, String> {
    if view.shape.len() != view.strides.len() {
        return Err("has another number of strides than of axes".to_owned());
    }
    let count = elements(&view.shape)?;
    let mut values = Vec::with_capacity(count.min(storage.len()));
    let mut index = vec![0; view.shape.len()];
    for _ in 0..count {
        let steps = index.iter().zip(&view.strides);
        let position = steps.fold(view.offset, |sum, (i, stride)| {
            sum.saturating_add(stride.saturating_mul(*i))
        });
        let value = storage.get(position).ok_or("is longer than its storage")?;
        values.push(*value);
        for axis in (0..index.len()).rev() {
            index[axis] += 1;
            if index[axis] < view.shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    Ok(values)
}
