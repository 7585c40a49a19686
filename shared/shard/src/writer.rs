//! Writes shards. The same members in the same order give the same bytes.

use std::io::{self, BufRead, Write};

use crate::header::BLOCK;

const NAME: usize = 100;
const PREFIX: usize = 155;

/// Writes a tar: ustar headers with mode 0644, no times and no owners, and two zero blocks at the
/// end.
///
/// A name over 100 bytes is split at a slash into ustar's prefix and name fields if it fits, and is
/// otherwise written as a GNU long name entry. Python's tarfile, GNU tar and the `tar` crate read
/// both, in any encoding.
#[derive(Debug)]
pub struct ShardWriter<W: Write> {
    inner: W,
    position: u64,
    broken: bool,
}

impl<W: Write> ShardWriter<W> {
    /// Creates a writer that starts a shard at the current position of `inner`.
    pub fn new(inner: W) -> Self {
        Self {
            inner,
            position: 0,
            broken: false,
        }
    }

    /// Returns the number of bytes written so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Appends a member and returns the offset of its data.
    ///
    /// # Errors
    ///
    /// Returns the writer's error if writing fails, an error if an earlier member failed, and
    /// `InvalidInput` for a name that a tar cannot represent: empty, with a NUL, or with a trailing
    /// slash (which marks a folder). Nothing is written then.
    pub fn append(&mut self, name: impl AsRef<[u8]>, data: &[u8]) -> io::Result<u64> {
        self.append_from(name, data.len() as u64, data)
    }

    /// Appends a member of `size` bytes from a reader and returns the offset of its data.
    ///
    /// # Errors
    ///
    /// Fails like [`append`](Self::append), with the reader's error if reading fails, and with
    /// `UnexpectedEof` if the reader has fewer bytes than `size`. After a failure inside a member,
    /// the shard cannot be finished.
    pub fn append_from(
        &mut self,
        name: impl AsRef<[u8]>,
        size: u64,
        mut reader: impl BufRead,
    ) -> io::Result<u64> {
        self.check_whole()?;
        let name = name.as_ref();
        if name.is_empty() || name.contains(&0) || name.ends_with(b"/") {
            let text = name.escape_ascii();
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("'{text}' cannot be the name of a member"),
            ));
        }
        self.broken = true;
        self.write_headers(name, size)?;
        let offset = self.position;
        let end = offset + size;
        while self.position < end {
            // Writes directly from the reader's buffer, which avoids copying images through another
            // one.
            let bytes = reader.fill_buf()?;
            let wanted = usize::try_from(end - self.position).unwrap_or(usize::MAX);
            let length = bytes.len().min(wanted);
            if length == 0 {
                let (text, copied) = (name.escape_ascii(), self.position - offset);
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("'{text}' has {copied} bytes instead of {size}"),
                ));
            }
            self.inner.write_all(&bytes[..length])?;
            self.position += length as u64;
            reader.consume(length);
        }
        self.pad()?;
        self.broken = false;
        Ok(offset)
    }

    /// Writes the end of the archive and returns the flushed writer.
    ///
    /// # Errors
    ///
    /// Returns the writer's error if writing fails, and an error if an earlier member failed.
    pub fn finish(mut self) -> io::Result<W> {
        self.check_whole()?;
        self.put(&[0; 2 * BLOCK])?;
        self.inner.flush()?;
        Ok(self.inner)
    }

    fn check_whole(&self) -> io::Result<()> {
        if self.broken {
            Err(io::Error::other("an earlier member of this shard failed"))
        } else {
            Ok(())
        }
    }

    fn write_headers(&mut self, name: &[u8], size: u64) -> io::Result<()> {
        let mut header = tar::Header::new_ustar();
        let fields = header.as_ustar_mut();
        if let Some((prefix, rest)) = split_prefix(name) {
            if let Some(fields) = fields {
                fields.prefix[..prefix.len()].copy_from_slice(prefix);
                fields.name[..rest.len()].copy_from_slice(rest);
            }
        } else {
            if let Some(fields) = fields {
                let mut head = &name[..name.len().min(NAME)];
                // The shortened form of a long name must not look like a folder.
                while let Some(shorter) = head.strip_suffix(b"/") {
                    head = shorter;
                }
                fields.name[..head.len()].copy_from_slice(head);
            }
            if name.len() > NAME {
                self.write_long_name(name)?;
            }
        }
        self.write_header(header, size, tar::EntryType::Regular)
    }

    fn write_long_name(&mut self, name: &[u8]) -> io::Result<()> {
        const LONG_LINK: &[u8] = b"././@LongLink";
        let mut header = tar::Header::new_gnu();
        if let Some(fields) = header.as_gnu_mut() {
            fields.name[..LONG_LINK.len()].copy_from_slice(LONG_LINK);
        }
        let size = name.len() as u64 + 1;
        self.write_header(header, size, tar::EntryType::GNULongName)?;
        self.put(name)?;
        self.put(&[0])?;
        self.pad()
    }

    fn write_header(
        &mut self,
        mut header: tar::Header,
        size: u64,
        kind: tar::EntryType,
    ) -> io::Result<()> {
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        self.put(header.as_bytes())
    }

    fn pad(&mut self) -> io::Result<()> {
        let block = BLOCK as u64;
        let padding = (block - self.position % block) % block;
        let zeros = [0; BLOCK];
        // A remainder of a block fits a usize.
        self.put(&zeros[..padding as usize])
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.inner.write_all(bytes)?;
        self.position += bytes.len() as u64;
        Ok(())
    }
}

/// Splits a long name between ustar's two fields: at the last slash that leaves both short enough
/// and neither empty.
fn split_prefix(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= NAME || name.len() > PREFIX + 1 + NAME {
        return None;
    }
    let first = name.len() - NAME - 1;
    let slash = (first.max(1)..=PREFIX).find(|&at| name.get(at) == Some(&b'/'))?;
    let (prefix, rest) = (&name[..slash], &name[slash + 1..]);
    (!rest.is_empty()).then_some((prefix, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_split_at_a_slash() {
        let name = [vec![b'a'; 60], vec![b'/'], vec![b'b'; 90]].concat();
        let (prefix, rest) = split_prefix(&name).unwrap();
        assert_eq!((prefix.len(), rest.len()), (60, 90));
        assert_eq!(split_prefix(&[b'a'; 100]), None, "fits as it is");
        assert_eq!(split_prefix(&[b'a'; 120]), None, "no slash");
        let late = [vec![b'a'; 160], vec![b'/'], vec![b'b'; 10]].concat();
        assert_eq!(split_prefix(&late), None, "prefix too long");
    }

    #[test]
    fn what_no_tar_can_hold_is_refused() {
        let mut writer = ShardWriter::new(Vec::new());
        for name in ["", "a\0b", "folder/"] {
            let error = writer.append(name, b"x").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
        assert_eq!(writer.append("a.jpg", b"x").unwrap(), 512);
        assert_eq!(writer.finish().unwrap().len(), 2048);
    }

    #[test]
    fn a_short_reader_spoils_the_shard() {
        let mut writer = ShardWriter::new(Vec::new());
        let error = writer.append_from("a.jpg", 5, &b"abc"[..]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(writer.append("b.jpg", b"x").is_err());
        assert!(writer.finish().is_err());
    }
}
