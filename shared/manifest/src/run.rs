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
        Self::check_layout(json, uri)?;
        serde_json::from_slice(json).map_err(|e| {
            Error::data(format!("{uri}: cannot parse it: {e}"))
                .hint("run sluice-partition again: it writes it anew")
        })
    }

    /// Checks that the run has the layout of this version. What cannot be parsed passes:
    /// `partition` writes it anew.
    ///
    /// # Errors
    /// Data, when the run has another layout.
    pub fn check_layout(json: &[u8], uri: &str) -> Result<()> {
        let layout = match serde_json::from_slice(json) {
            Ok(Layout { layout }) if layout != Self::LAYOUT => layout,
            _ => return Ok(()),
        };
        let expected = Self::LAYOUT;
        let error = Error::data(format!(
            "{uri}: the run has layout {layout}, this version of Sluice reads layout {expected}"
        ));
        Err(error.hint(match layout < expected {
            true => "an older version made this run: choose another --run and curate again",
            false => {
                "a newer version made this run: use that version, or choose another --run; \
                      a run.json that is damaged can be deleted"
            }
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
