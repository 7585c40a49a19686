//! Members of a zip archive in memory: stored or deflated, without encryption and without Zip64.

use std::io::Read;

use flate2::Crc;
use flate2::read::DeflateDecoder;

const END: &[u8] = b"PK\x05\x06";
const END_LENGTH: usize = 22;
const MEMBER: &[u8] = b"PK\x01\x02";
const LOCAL: &[u8] = b"PK\x03\x04";
/// Longest comment after the end record.
const COMMENT: usize = 1 << 16;
/// Largest member that is unpacked.
const LARGEST: usize = 4 << 30;

/// An entry of the central directory.
pub(super) struct Member<'a> {
    pub name: &'a str,
    method: usize,
    crc: usize,
    packed: usize,
    size: usize,
    local: usize,
}

/// Returns whether these bytes end as a zip archive does.
pub(super) fn is_zip(archive: &[u8]) -> bool {
    end(archive).is_some()
}

/// Returns the members, directories left out.
pub(super) fn members(archive: &[u8]) -> Result<Vec<Member<'_>>, String> {
    let end = end(archive).ok_or("it is not a zip archive")?;
    let count = u16_at(archive, end + 10).ok_or(BROKEN)?;
    let mut at = u32_at(archive, end + 16).ok_or(BROKEN)?;
    let mut members = Vec::with_capacity(count);
    for _ in 0..count {
        if archive.get(at..at + 4) != Some(MEMBER) {
            return Err(BROKEN.to_owned());
        }
        let half = |offset: usize| u16_at(archive, at + offset).ok_or(BROKEN);
        let word = |offset: usize| u32_at(archive, at + offset).ok_or(BROKEN);
        let (name, extra, comment) = (half(28)?, half(30)?, half(32)?);
        let start = at + 46;
        let bytes = archive.get(start..start + name).ok_or(BROKEN)?;
        let member = Member {
            name: std::str::from_utf8(bytes).map_err(|_| BROKEN)?,
            method: half(10)?,
            crc: word(16)?,
            packed: word(20)?,
            size: word(24)?,
            local: word(42)?,
        };
        if !member.name.ends_with('/') {
            members.push(member);
        }
        at = start + name + extra + comment;
    }
    Ok(members)
}

const BROKEN: &str = "it is a broken zip archive";

impl Member<'_> {
    /// Returns the member's content, after its length and CRC were checked.
    ///
    /// # Errors
    /// When the member is damaged or too large.
    pub(super) fn read(&self, archive: &[u8]) -> Result<Vec<u8>, String> {
        let broken = || format!("its member {:?} is broken", self.name);
        let local = self.local;
        if archive.get(local..local + 4) != Some(LOCAL) || self.size > LARGEST {
            return Err(broken());
        }
        let name = u16_at(archive, local + 26).ok_or_else(broken)?;
        let extra = u16_at(archive, local + 28).ok_or_else(broken)?;
        let start = local + 30 + name + extra;
        let packed = archive.get(start..start + self.packed).ok_or_else(broken)?;
        let content = match self.method {
            0 => packed.to_vec(),
            8 => {
                let mut content = Vec::new();
                let mut reader = DeflateDecoder::new(packed).take(self.size as u64 + 1);
                reader.read_to_end(&mut content).map_err(|_| broken())?;
                content
            }
            method => {
                return Err(format!(
                    "its member {:?} is packed by method {method}",
                    self.name
                ));
            }
        };
        let mut crc = Crc::new();
        crc.update(&content);
        if content.len() == self.size && crc.sum() as usize == self.crc {
            Ok(content)
        } else {
            Err(broken())
        }
    }
}

/// Returns the one member whose name ends so.
pub(super) fn only(archive: &[u8], ending: &str) -> Result<Vec<u8>, String> {
    let mut found = members(archive)?;
    found.retain(|member| member.name.ends_with(ending));
    match found.as_slice() {
        [member] => member.read(archive),
        found => Err(format!(
            "it has {} members that end in {ending:?}, expected one",
            found.len()
        )),
    }
}

fn end(archive: &[u8]) -> Option<usize> {
    let first = archive.len().saturating_sub(COMMENT + END_LENGTH);
    let found = archive[first..]
        .windows(4)
        .rposition(|bytes| bytes == END)?;
    Some(first + found).filter(|at| at + END_LENGTH <= archive.len())
}

fn u16_at(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(2)?)?;
    Some(usize::from(u16::from_le_bytes(bytes.try_into().ok()?)))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
}
