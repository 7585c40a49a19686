//! Whether a file is a whole ONNX model, from its outermost structure alone.
//!
//! An ONNX file is a Protocol Buffers message: fields of a key, a length and that many bytes. The
//! fields of the outermost message are walked by their lengths, so a cut file, a web page or a pointer
//! of Git LFS is found out by reading some bytes of it.

use std::ops::Range;

/// The field that holds the graph (`ModelProto.graph`).
const GRAPH: u64 = 7;
/// Most bytes of a field's key and length.
const HEAD: u64 = 20;
/// Fields of the outermost message, at most; models have some ten, and one for each metadata entry.
const FIELDS: usize = 10_000;

/// Checks a file of `bytes` bytes, of which `read` gives ranges in order. The inner error says what is
/// wrong with the file, the outer one is of `read`.
pub(crate) fn check<E>(
    bytes: u64,
    mut read: impl FnMut(Range<u64>) -> Result<Vec<u8>, E>,
) -> Result<Result<(), String>, E> {
    let mut position = 0;
    let mut has_graph = false;
    for _ in 0..FIELDS {
        if position == bytes {
            return Ok(match has_graph {
                true => Ok(()),
                false => Err("it has no graph".to_owned()),
            });
        }
        let head = read(position..bytes.min(position + HEAD))?;
        let Some((field, length)) = field(&head) else {
            return Ok(Err(format!("byte {position} is not the start of a field")));
        };
        has_graph |= field == GRAPH;
        match position.checked_add(length).filter(|end| *end <= bytes) {
            Some(end) => position = end,
            None => {
                return Ok(Err(format!(
                    "it has {bytes} bytes, and a field at byte {position} is longer"
                )));
            }
        }
    }
    Ok(Err("it has too many fields".to_owned()))
}

/// Returns a field's number and its length with its key; none where the bytes are no field of a model.
fn field(head: &[u8]) -> Option<(u64, u64)> {
    let (key, key_length) = varint(head)?;
    let rest = &head[key_length..];
    let length = match key & 7 {
        0 => varint(rest)?.1 as u64,
        2 => {
            let (length, digits) = varint(rest)?;
            length.checked_add(digits as u64)?
        }
        _ => return None,
    };
    let number = key >> 3;
    ((1..=100).contains(&number)).then_some((number, length.checked_add(key_length as u64)?))
}

/// Returns a number of seven bits a byte and its bytes.
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    for (index, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index as u32).min(63);
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(bytes: &[u8]) -> Result<(), String> {
        let read = |range: Range<u64>| -> Result<Vec<u8>, ()> {
            Ok(bytes[range.start as usize..range.end as usize].to_vec())
        };
        check(bytes.len() as u64, read).unwrap()
    }

    #[test]
    fn whole_models_pass_and_cut_ones_do_not() {
        // ir_version 8, producer "x", a graph of 300 bytes.
        let mut model = vec![0x08, 8, 0x12, 1, b'x', 0x3a, 0xac, 0x02];
        model.extend([7; 300]);
        checked(&model).unwrap();
        for length in [0, 1, 5, 8, 307] {
            assert!(checked(&model[..length]).is_err(), "{length}");
        }
        assert!(checked(b"version https://git-lfs.github.com/spec/v1").is_err());
        assert!(checked(b"<!doctype html><html></html>").is_err());
    }
}
