//! `RUN/run.json`: what a run is. Written by `partition`, read by everything after it.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// What a run curates and how it is cut into partitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunInfo {
    /// Version of the run's layout.
    pub layout: u32,
    /// Root of the input, as a URI without credentials. Shard paths are relative to it.
    pub input: String,
    /// What was asked for under `--input`, in order.
    pub patterns: Vec<String>,
    /// Number of partitions.
    pub partitions: u32,
    /// Number of shards.
    pub shards: u64,
    /// Their size in bytes.
    pub bytes: u64,
}

/// The one field that all layouts have.
#[derive(Deserialize)]
struct Layout {
    layout: u32,
}

impl RunInfo {
    /// The layout that this version writes and reads. Layout 1 had one directory for each stage and
    /// decisions beside the scores.
    pub const LAYOUT: u32 = 2;

    /// Parses `run.json`; `uri` names it in errors.
    ///
    /// # Errors
    /// Data, when the JSON is not a run's or the run has another layout.
    pub fn parse(json: &[u8], uri: &str) -> Result<Self> {
        let wrong = |e: serde_json::Error| Error::data(format!("{uri}: cannot parse it: {e}"));
        let Layout { layout } = serde_json::from_slice(json).map_err(wrong)?;
        if layout == Self::LAYOUT {
            return serde_json::from_slice(json).map_err(wrong);
        }
        let expected = Self::LAYOUT;
        let error = Error::data(format!(
            "{uri}: the run has layout {layout}, this version of Sluice reads layout {expected}"
        ));
        Err(error.hint(match layout < expected {
            true => "an older version made this run: choose another --run and curate again",
            false => "a newer version made this run: use that version, or choose another --run",
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_other_versions_are_refused_with_a_hint() {
        let first = br#"{"layout": 1, "input": "in", "patterns": [], "partitions": 1, "shards": 1, "bytes": 1}"#;
        let error = RunInfo::parse(first, "r/run.json").unwrap_err().to_string();
        assert!(
            error.contains("layout 1") && error.contains("older"),
            "{error}"
        );
        let later = br#"{"layout": 9}"#;
        let error = RunInfo::parse(later, "r/run.json").unwrap_err().to_string();
        assert!(error.contains("newer"), "{error}");
        assert!(RunInfo::parse(b"{}", "r/run.json").is_err());
    }
}
