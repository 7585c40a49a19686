//! The libraries that a library names as needed: `DT_NEEDED` of its ELF file.
//!
//! The system's loader names only the first one that it does not find. With the list, all that a
//! machine lacks is named at once, whatever version of CUDA a provider was built for.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Program headers of these types are read.
const LOAD: u64 = 1;
const DYNAMIC: u64 = 2;
/// Tags of the dynamic section.
const NEEDED: u64 = 1;
const STRINGS: u64 = 5;
const STRINGS_BYTES: u64 = 10;
/// Most bytes of a table; libraries have some kilobytes.
const MOST_BYTES: u64 = 16 << 20;

/// Returns the names of the libraries that a 64-bit little-endian ELF file needs, in its order. None:
/// it is no such file.
#[expect(
    clippy::disallowed_types,
    reason = "libraries that the system's loader opens are on local disk"
)]
pub(crate) fn needed(library: &Path) -> Option<Vec<String>> {
    names(&mut std::fs::File::open(library).ok()?)
}

fn names(file: &mut (impl Read + Seek)) -> Option<Vec<String>> {
    let header = bytes(file, 0, 64)?;
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (at, size, count) = (
        number(&header, 32, 8),
        number(&header, 54, 2),
        number(&header, 56, 2),
    );
    let headers = bytes(file, at, size * count)?;
    let headers: Vec<&[u8]> = headers.chunks_exact((size as usize).max(56)).collect();
    let of_type = |kind| {
        headers
            .iter()
            .filter(move |header| number(header, 0, 4) == kind)
    };
    let dynamic = of_type(DYNAMIC).next()?;
    let dynamic = bytes(file, number(dynamic, 8, 8), number(dynamic, 32, 8))?;
    let entries = dynamic.chunks_exact(16);
    let entries: Vec<(u64, u64)> = entries
        .map(|it| (number(it, 0, 8), number(it, 8, 8)))
        .collect();
    let value = |tag| {
        entries
            .iter()
            .find(|entry| entry.0 == tag)
            .map(|entry| entry.1)
    };
    let address = value(STRINGS)?;
    // Addresses of the dynamic section are those of the loaded library.
    let offset = of_type(LOAD).find_map(|header| {
        let inside = address.checked_sub(number(header, 16, 8))?;
        (inside < number(header, 32, 8)).then(|| number(header, 8, 8) + inside)
    })?;
    let strings = bytes(file, offset, value(STRINGS_BYTES)?)?;
    let name = |at: u64| {
        let text = strings.get(usize::try_from(at).ok()?..)?;
        let text = text.split(|byte| *byte == 0).next()?;
        Some(String::from_utf8_lossy(text).into_owned())
    };
    let needed = entries.iter().filter(|entry| entry.0 == NEEDED);
    needed.map(|entry| name(entry.1)).collect()
}

fn bytes(file: &mut (impl Read + Seek), at: u64, count: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(count.min(MOST_BYTES)).ok()?];
    file.seek(SeekFrom::Start(at)).ok()?;
    file.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

/// Returns a little-endian number; 0 where the bytes end before it.
fn number(bytes: &[u8], at: usize, size: usize) -> u64 {
    let digits = bytes.get(at..at + size).unwrap_or_default().iter().rev();
    digits.fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn a_program_needs_the_c_library() {
        let program = std::env::current_exe().unwrap();
        let names = needed(&program).unwrap();
        assert!(
            names.iter().any(|name| name.starts_with("libc.so")),
            "{names:?}"
        );
    }

    #[test]
    fn what_is_no_library_has_no_names() {
        for content in [&b"#!/bin/sh\n"[..], b"\x7fELF\x02\x01", &[0; 100]] {
            assert_eq!(names(&mut Cursor::new(content)), None);
        }
        let mut cut = b"\x7fELF\x02\x01".to_vec();
        cut.resize(64, 0xff);
        assert_eq!(names(&mut Cursor::new(cut)), None);
    }
}
