//! What the measured programs share: arrays in files, and what the process has used so far.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a benchmark reads local files and /proc"
)]

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};

/// An array of 4-byte values in a NumPy file, rows one after the other. One dimension counts as rows of one value.
pub(crate) struct Rows {
    file: File,
    first: u64,
    pub len: usize,
    pub dim: usize,
}

impl Rows {
    pub(crate) fn open(path: &str) -> Result<Self> {
        let file = File::open(path).with_context(|| path.to_owned())?;
        let (header, first) = header(&file)?;
        ensure!(header.contains("4'"), "{path}: not of 4 bytes: {header}");
        let shape = header.split(['(', ')']).nth(1).context("no shape")?;
        let sizes: Vec<usize> = shape
            .split(',')
            .filter_map(|size| size.trim().parse().ok())
            .collect();
        Ok(Self {
            file,
            first,
            len: *sizes.first().context("no rows")?,
            dim: sizes.get(1).copied().unwrap_or(1),
        })
    }

    /// Appends `count` rows from `row` on to `values`, each made of its 4 bytes by `value`.
    pub(crate) fn read<T>(
        &self,
        row: usize,
        count: usize,
        values: &mut Vec<T>,
        value: fn([u8; 4]) -> T,
    ) -> Result<()> {
        let mut bytes = vec![0; count.min(256) * self.dim * 4];
        for part in (row..row + count).step_by(256) {
            let rows = (row + count - part).min(256);
            let bytes = &mut bytes[..rows * self.dim * 4];
            let at = self.first + (part * self.dim * 4) as u64;
            self.file.read_exact_at(bytes, at)?;
            let (parts, _) = bytes.as_chunks();
            values.extend(parts.iter().map(|bytes| value(*bytes)));
        }
        Ok(())
    }
}

/// The header of a NumPy file, and where the values start.
fn header(file: &File) -> Result<(String, u64)> {
    let mut head = [0; 10];
    file.read_exact_at(&mut head, 0)?;
    ensure!(head.starts_with(b"\x93NUMPY\x01"), "no NumPy file");
    let mut text = vec![0; usize::from(u16::from_le_bytes([head[8], head[9]]))];
    file.read_exact_at(&mut text, 10)?;
    let first = 10 + text.len() as u64;
    Ok((String::from_utf8(text)?, first))
}

/// CPU seconds that all threads of this process have used.
pub(crate) fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // utime and stime, the 14th and 15th field, in hundredths; the second may hold spaces.
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: Vec<f64> = after_name
        .split_whitespace()
        .filter_map(|field| field.parse().ok())
        .skip(10)
        .take(2)
        .collect();
    ticks.iter().sum::<f64>() / 100.0
}

/// The most memory that this process has held, in MB.
pub(crate) fn peak_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next())
        .and_then(|kb| kb.parse::<f64>().ok())
        .map_or(0.0, |kb| kb / 1024.0)
}
