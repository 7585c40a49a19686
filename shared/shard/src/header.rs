//! Parses 512-byte header blocks and extended (pax) records, as plain functions over bytes.
//!
//! The reader of the `tar` crate is not used: it reads long names and pax headers into memory
//! without a limit, stops at the first end of archive, expands sparse files, and reports damaged
//! data and a failed connection as the same `io::Error`. The `tar` crate writes our shards, and our
//! tests read them with it.
//!
//! Layout: POSIX.1-2017 `pax`, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format".

/// The size of a block. Everything in a tar is aligned to it.
pub(crate) const BLOCK: usize = 512;

/// The entry's type in a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    File,
    /// Old GNU sparse format. More of the map may follow in separate blocks.
    Sparse {
        map_goes_on: bool,
    },
    Directory,
    HardLink,
    Link,
    Device,
    LongName,
    LongLink,
    Pax,
    PaxGlobal,
    Other,
}

impl Type {
    /// Returns whether data follows the header. Links, folders and devices have none, whatever
    /// their size field says: some writers store the target's size there. Python's tarfile and GNU
    /// tar do the same.
    pub(crate) fn has_data(self) -> bool {
        !matches!(
            self,
            Self::Directory | Self::HardLink | Self::Link | Self::Device
        )
    }
}

/// A parsed header block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) name: Vec<u8>,
    pub(crate) size: u64,
    pub(crate) kind: Type,
    /// The target of a link.
    pub(crate) target: Vec<u8>,
}

/// The error for a block with a valid checksum and an invalid size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InvalidSize;

/// Returns whether the block's checksum matches, summed over unsigned bytes (POSIX) or signed ones
/// (some old tars).
pub(crate) fn checksum_holds(block: &[u8]) -> bool {
    let Some(stated) = octal(&block[148..156]) else {
        return false;
    };
    let field = |i: usize| (148..156).contains(&i);
    let (mut unsigned, mut signed) = (0_u64, 0_i64);
    for (i, &byte) in block.iter().enumerate() {
        let byte = if field(i) { b' ' } else { byte };
        unsigned += u64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    stated == unsigned || i64::try_from(stated) == Ok(signed)
}

/// Returns whether the block has the magic of ustar or GNU tar.
pub(crate) fn has_magic(block: &[u8]) -> bool {
    block.get(257..262) == Some(b"ustar")
}

/// Describes a file that starts with this block and is not a tar. Recognises what failed downloads
/// leave in place of a shard.
pub(crate) fn describe_foreign(block: &[u8]) -> &'static str {
    let text = String::from_utf8_lossy(block).to_lowercase();
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let begins = |words: &[&str]| words.iter().any(|word| text.starts_with(word));
    if begins(&["version https://git-lfs.github.com/spec/"]) {
        "this is a Git LFS pointer, not the shard itself: fetch it with git lfs pull"
    } else if begins(&["<!doctype html", "<html"]) || text.contains("<html") {
        "this is an HTML page, not a tar archive: the download failed"
    } else if begins(&["<?xml", "<error>"]) {
        "this is an XML document, not a tar archive: the download failed"
    } else if begins(&["{"]) && text.contains("\"") {
        "this is a JSON document, not a tar archive: the download failed"
    } else {
        "this is not a tar archive"
    }
}

/// Parses a block whose checksum matches.
pub(crate) fn parse(block: &[u8; BLOCK]) -> Result<Header, InvalidSize> {
    let mut name = until_nul(&block[..100]).to_vec();
    // Only POSIX headers have a prefix; GNU stores times there. star's prefix is shorter.
    if &block[257..263] == b"ustar\0" {
        let end = if &block[508..512] == b"tar\0" {
            476
        } else {
            500
        };
        let prefix = until_nul(&block[345..end]);
        if !prefix.is_empty() {
            name = [prefix, b"/", &name].concat();
        }
    }
    let kind = match block[156] {
        b'0' | 0 | b'7' => Type::File,
        b'1' => Type::HardLink,
        b'2' => Type::Link,
        b'3' | b'4' | b'6' => Type::Device,
        b'5' => Type::Directory,
        b'L' => Type::LongName,
        b'K' => Type::LongLink,
        b'x' | b'X' => Type::Pax,
        b'g' => Type::PaxGlobal,
        b'S' => Type::Sparse {
            map_goes_on: block[482] != 0,
        },
        _ => Type::Other,
    };
    let size = match number(&block[124..136]) {
        Some(size) => size,
        None if !kind.has_data() => 0,
        None => return Err(InvalidSize),
    };
    let target = until_nul(&block[157..257]).to_vec();
    Ok(Header {
        name,
        size,
        kind,
        target,
    })
}

/// Returns whether another block of an old GNU sparse map follows.
pub(crate) fn sparse_map_goes_on(block: &[u8; BLOCK]) -> bool {
    block[504] != 0
}

/// Returns the bytes before the first NUL.
pub(crate) fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or(field)
}

/// Parses a number field: octal, or base 256 if the first bit is set. Returns `None` if it is
/// malformed, negative or needs more than 63 bits.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 == 0 {
        return octal(field);
    }
    if field[0] & 0x40 != 0 {
        return None; // negative
    }
    let mut value = u64::from(field[0] & 0x3f);
    for &byte in &field[1..] {
        if value >> 55 != 0 {
            return None;
        }
        value = value << 8 | u64::from(byte);
    }
    Some(value)
}

/// Parses octal digits surrounded by spaces and NULs. An empty field is 0.
fn octal(field: &[u8]) -> Option<u64> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !is_blank(byte));
    let digits = &field[start.unwrap_or(field.len())..];
    let end = digits.iter().position(is_blank);
    digits[..end.unwrap_or(digits.len())]
        .iter()
        .try_fold(0_u64, |value, &byte| match byte {
            b'0'..=b'7' => value.checked_mul(8)?.checked_add(u64::from(byte - b'0')),
            _ => None,
        })
}

/// The supported records of an extended (pax) header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pax {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) target: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    pub(crate) sparse: bool,
}

/// Parses records of the form `LENGTH KEY=VALUE\n`. Returns `None` if one of them is malformed.
pub(crate) fn parse_pax(mut records: &[u8]) -> Option<Pax> {
    let mut pax = Pax::default();
    let mut sparse_name = None;
    // Some writers pad the records with NULs.
    while !matches!(records.first(), None | Some(0)) {
        let space = records.iter().take(20).position(|&byte| byte == b' ')?;
        let length: usize = std::str::from_utf8(&records[..space]).ok()?.parse().ok()?;
        let record = records.get(space + 1..length)?;
        records = &records[length..];
        let record = record.strip_suffix(b"\n")?;
        let equals = record.iter().position(|&byte| byte == b'=')?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        match key {
            b"path" if !value.is_empty() => pax.path = Some(value.to_vec()),
            b"linkpath" if !value.is_empty() => pax.target = Some(value.to_vec()),
            b"size" if !value.is_empty() => {
                let size: u64 = std::str::from_utf8(value).ok()?.parse().ok()?;
                if size > i64::MAX.cast_unsigned() {
                    return None;
                }
                pax.size = Some(size);
            }
            b"GNU.sparse.name" => {
                pax.sparse = true;
                sparse_name = Some(value.to_vec());
            }
            _ => pax.sparse |= key.starts_with(b"GNU.sparse."),
        }
    }
    if sparse_name.is_some() {
        pax.path = sparse_name;
    }
    Some(pax)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_numbers() {
        assert_eq!(octal(b"00000007434\0"), Some(0o7434));
        assert_eq!(octal(b"       7434 "), Some(0o7434));
        assert_eq!(octal(b"\0\0\0"), Some(0));
        assert_eq!(octal(b"12x4"), None);
        assert_eq!(octal(b"7777777777777777777777777"), None);
    }

    #[test]
    fn base_256_numbers() {
        let mut field = [0_u8; 12];
        field[0] = 0x80;
        field[11] = 5;
        assert_eq!(number(&field), Some(5));
        field[4] = 0x40;
        assert_eq!(number(&field), Some((1 << 62) + 5));
        field[4] = 0x80;
        assert_eq!(number(&field), None, "beyond 63 bits");
        assert_eq!(number(&[0xff; 12]), None, "negative");
    }

    #[test]
    fn targets_of_links() {
        let pax = parse_pax(b"16 linkpath=a.b\n").unwrap();
        assert_eq!(pax.target.as_deref(), Some(b"a.b".as_slice()));
    }

    #[test]
    fn pax_records() {
        let pax = parse_pax(b"12 path=a.b\n10 size=7\n9 x.y=zz\n").unwrap();
        assert_eq!(pax.path.as_deref(), Some(b"a.b".as_slice()));
        assert_eq!(pax.size, Some(7));
        assert!(!pax.sparse);
        assert!(parse_pax(b"22 GNU.sparse.major=1\n").unwrap().sparse);
        for lie in [
            b"99 path=a.b\n".as_slice(),
            b"2 path=a.b\n",
            b"0 path=a.b\n",
            b"path=a.b\n",
            b"12 path=a.bX",
            b"18446744073709551615 a=b\n",
            b"10 size=x\n",
            b"11 size=-1\n",
        ] {
            assert_eq!(parse_pax(lie), None, "{}", lie.escape_ascii());
        }
    }
}
