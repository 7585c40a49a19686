//! The variables of a TensorFlow 2 checkpoint: `PREFIX.index`, a sorted table of names, and
//! `PREFIX.data-00000-of-00001`, the numbers.

use super::{Tensor, Tensors, elements, floats};
use crate::onnx::{fields, varint};

const MAGIC: &[u8] = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb";
const FOOTER: usize = 48;
const BROKEN: &str = "its table of variables is broken";
/// `DT_FLOAT`.
const FLOAT: u64 = 1;

/// Returns the variables of float32 numbers, by name.
pub(super) fn read(index: &[u8], numbers: &[u8]) -> Result<Tensors, String> {
    let footer = index.len().checked_sub(FOOTER).ok_or(BROKEN)?;
    let footer = &index[footer..];
    if !footer.ends_with(MAGIC) {
        return Err(BROKEN.to_owned());
    }
    let (_, rest) = handle(footer)?; // the metaindex, which is empty
    let (root, _) = handle(rest)?;
    let mut tensors = Tensors::new();
    for (_, pointer) in block(index, root)? {
        for (key, entry) in block(index, handle(&pointer)?.0)? {
            if key.is_empty() {
                continue; // the header
            }
            if let Some(tensor) = variable(&entry, numbers)? {
                tensors.insert(String::from_utf8_lossy(&key).into_owned(), tensor);
            }
        }
    }
    Ok(tensors)
}

/// An offset and a length.
type Handle = (usize, usize);
/// A key and its value.
type Entry = (Vec<u8>, Vec<u8>);

fn handle(bytes: &[u8]) -> Result<(Handle, &[u8]), String> {
    let (offset, rest) = number(bytes)?;
    let (size, rest) = number(rest)?;
    Ok(((offset, size), rest))
}

fn number(bytes: &[u8]) -> Result<(usize, &[u8]), String> {
    let (value, length) = varint(bytes).ok_or(BROKEN)?;
    let value = usize::try_from(value).map_err(|_| BROKEN)?;
    Ok((value, &bytes[length..]))
}

/// Returns keys and values of a block. Keys share their beginning with the key before them.
fn block(table: &[u8], (offset, size): Handle) -> Result<Vec<Entry>, String> {
    let end = offset.checked_add(size).ok_or(BROKEN)?;
    if table.get(end) != Some(&0) {
        return Err("its table of variables is compressed".to_owned());
    }
    let block = table.get(offset..end).ok_or(BROKEN)?;
    // At the end: the restart points of four bytes each, and their number.
    let last = block.last_chunk::<4>().ok_or(BROKEN)?;
    let restarts = 4 + 4 * u32::from_le_bytes(*last) as usize;
    let mut rest = &block[..block.len().checked_sub(restarts).ok_or(BROKEN)?];
    let mut entries = Vec::new();
    let mut key = Vec::new();
    while !rest.is_empty() {
        let (shared, after) = number(rest)?;
        let (fresh, after) = number(after)?;
        let (length, after) = number(after)?;
        let whole = fresh.checked_add(length).ok_or(BROKEN)?;
        let content = after.get(..whole).ok_or(BROKEN)?;
        key.truncate(shared);
        key.extend_from_slice(&content[..fresh]);
        entries.push((key.clone(), content[fresh..].to_vec()));
        rest = &after[whole..];
    }
    Ok(entries)
}

/// `BundleEntryProto`: type, shape, offset and size.
fn variable(entry: &[u8], numbers: &[u8]) -> Result<Option<Tensor>, String> {
    let whole = |number: u64| {
        let found = fields(entry).find(|(found, _)| *found == number);
        found
            .and_then(|(_, value)| Some(varint(value)?.0))
            .unwrap_or(0)
    };
    if whole(1) != FLOAT {
        return Ok(None);
    }
    let shape = fields(entry)
        .find(|(number, _)| *number == 2)
        .map_or(&[][..], |(_, shape)| shape);
    let sizes = fields(shape)
        .filter(|(number, _)| *number == 2)
        .map(|(_, dimension)| {
            let size = fields(dimension).find(|(number, _)| *number == 1);
            size.and_then(|(_, digits)| Some(varint(digits)?.0))
                .unwrap_or(0) as usize
        });
    let shape: Vec<usize> = sizes.collect();
    let (start, size) = (whole(4) as usize, whole(5) as usize);
    let bytes = start
        .checked_add(size)
        .and_then(|end| numbers.get(start..end));
    let values = floats(bytes.ok_or("it is cut")?);
    if values.len() == elements(&shape)? {
        Ok(Some(Tensor { shape, values }))
    } else {
        Err(BROKEN.to_owned())
    }
}
