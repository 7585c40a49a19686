//! `RUN/run.json`: what a run curates. Written by `partition` and read by all later steps.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The input of a run, and its number of partitions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunInfo {
    /// The version of the run's layout.
    pub layout: u32,
    /// The run's identity, which it keeps when it is moved; empty in runs of older versions.
    #[serde(default)]
    pub id: String,
    /// Root of the input, as a URI without credentials. Shard paths are relative to it.
    pub input: String,
    /// The patterns requested by `--input`, in order.
    pub patterns: Vec<String>,
    /// The folders of the input that were listed with everything below them, as URIs.
    #[serde(default)]
    pub listed: Vec<String>,
    /// Number of partitions.
    pub partitions: u32,
    /// Number of shards.
    pub shards: u64,
    /// The total size of the shards in bytes.
    pub bytes: u64,
}

/// The one field that exists in all layouts.
#[derive(Deserialize)]
struct Layout {
    layout: u32,
}

impl RunInfo {
    /// The layout that this version writes and reads. Layout 1 had one directory for each stage,
    /// and stored decisions with the scores.
    pub const LAYOUT: u32 = 2;

    /// Parses `run.json`. `uri` names it in errors.
    ///
    /// # Errors
    ///
    /// Returns a data error if the JSON is malformed or the run has another layout.
    pub fn parse(json: &[u8], uri: &str) -> Result<Self> {
        Self::check_layout(json, uri)?;
        serde_json::from_slice(json).map_err(|e| {
            Error::data(format!("{uri}: cannot parse it: {e}"))
                .hint("run sluice-partition again to rewrite it")
        })
    }

    /// Checks that the run has the layout of this version. Malformed JSON passes: `partition`
    /// rewrites it.
    ///
    /// # Errors
    ///
    /// Returns a data error if the run has another layout.
    pub fn check_layout(json: &[u8], uri: &str) -> Result<()> {
        let layout = match serde_json::from_slice(json) {
            Ok(Layout { layout }) if layout != Self::LAYOUT => layout,
            _ => return Ok(()),
        };
        let expected = Self::LAYOUT;
        let error = Error::data(format!(
            "{uri}: the run has layout {layout}, this version of Sluice reads layout {expected}"
        ));
        Err(error.hint(if layout < expected {
            "an older version made this run: choose another --run and curate again"
        } else {
            "a newer version made this run: use that version, or choose another --run; \
                      a run.json that is damaged can be deleted"
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
        for broken in [&b"{}"[..], b"", b"{\"layout\": 2, \"inp"] {
            RunInfo::check_layout(broken, "r/run.json").unwrap();
            let error = RunInfo::parse(broken, "r/run.json")
                .unwrap_err()
                .to_string();
            assert!(error.contains("run sluice-partition again"), "{error}");
        }
    }
}
