//! The checks by name, and their results.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sluice_manifest::{Class, Error, Result};

/// The maximum number of failures that a check lists. Further ones are counted.
pub(super) const NAMED: usize = 20;

macro_rules! checks {
    ($($variant:ident, $name:literal, $about:literal;)*) => {
        /// A check of `sluice verify`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) enum Check {
            $(#[doc = $about] $variant,)*
        }

        impl Check {
            /// Every check, in the order in which they are printed.
            pub(super) const ALL: &'static [Check] = &[$(Check::$variant,)*];

            /// Returns its name in the output.
            pub(super) fn name(self) -> &'static str {
                match self { $(Check::$variant => $name,)* }
            }

            /// Returns its description, as in the README.
            pub(super) fn about(self) -> &'static str {
                match self { $(Check::$variant => $about,)* }
            }
        }
    };
}

checks! {
    Plan, "plan", "run.json and the plan can be read";
    Source, "source", "the shards are those that the plan was made from";
    Receipts, "receipts", "receipts are unchanged, and every step has all its units, with the same settings";
    Inputs, "inputs", "the inputs of every unit are unchanged since it ran";
    Outputs, "outputs", "every output exists, with its size and BLAKE3";
    Schemas, "schemas", "every manifest has its schema's columns";
    Shards, "shards", "members of each shard = in samples + skipped + torn";
    Samples, "samples", "every sample found has one row, under its own name";
    Scores, "scores", "scores and embeddings are of samples that their step saw, each once";
    Duplicates, "duplicates", "duplicates and what they duplicate are samples that their step saw; the output has their groups";
    Decisions, "decisions", "each decision follows from the scores, or from the results of the deciding steps";
    Conservation, "conservation", "samples in = kept + dropped for a reason";
    Packing, "packing", "each output shard's rows are the kept samples in planned order";
    Members, "members", "each output shard's members have their source's bytes";
    Index, "index", "index.json lists the shards with their samples and sizes";
    Extra, "extra", "the output contains no other files";
}

/// The result of a check.
#[derive(Debug, Default, Clone)]
pub(super) struct Finding {
    /// The number of items that passed.
    pub passed: u64,
    /// The number of items that failed.
    pub failed: u64,
    /// The first failures, as text.
    pub failures: Vec<String>,
}

/// The results of all checks.
#[derive(Debug, Default)]
pub(super) struct CheckResults(BTreeMap<Check, Finding>);

impl CheckResults {
    /// Counts one passed item.
    pub(super) fn pass(&mut self, check: Check) {
        self.0.entry(check).or_default().passed += 1;
    }

    /// Counts a failure, and records its message.
    pub(super) fn fail(&mut self, check: Check, failure: impl Into<String>) {
        let found = self.0.entry(check).or_default();
        found.failed += 1;
        if found.failures.len() < NAMED {
            found.failures.push(failure.into());
        }
    }

    /// Counts a passed item, or records a failure. Returns `passed`.
    pub(super) fn expect(
        &mut self,
        check: Check,
        passed: bool,
        failure: impl FnOnce() -> String,
    ) -> bool {
        if passed {
            self.pass(check);
        } else {
            self.fail(check, failure());
        }
        passed
    }

    /// Returns the value of a result. Broken data counts as a failure.
    ///
    /// # Errors
    /// A storage error or a signal, which end the verification.
    pub(super) fn take<T>(&mut self, check: Check, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => {
                self.pass(check);
                Ok(Some(value))
            }
            Err(e) => self.note(check, e).map(|()| None),
        }
    }

    /// Records broken data as a failure.
    ///
    /// # Errors
    /// The errors of [`take`](Self::take).
    pub(super) fn note(&mut self, check: Check, e: Error) -> Result<()> {
        match e.class() {
            Class::Transient | Class::Stopped => Err(e),
            Class::Data | Class::Usage | Class::Bug => {
                self.fail(check, e.to_string());
                Ok(())
            }
        }
    }

    /// Adds the results of another thread.
    pub(super) fn merge(&mut self, other: CheckResults) {
        for (check, found) in other.0 {
            let mine = self.0.entry(check).or_default();
            mine.passed += found.passed;
            mine.failed += found.failed;
            let room = NAMED - mine.failures.len();
            mine.failures.extend(found.failures.into_iter().take(room));
        }
    }

    /// Returns the results of all checks, including those that had nothing to check.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Check, Finding)> {
        Check::ALL.iter().map(|&check| {
            let found = self.0.get(&check).cloned().unwrap_or_default();
            (check, found)
        })
    }

    /// Returns the checks that failed.
    pub(super) fn failed(&self) -> Vec<Check> {
        let failed = self.iter().filter(|(_, found)| found.failed > 0);
        failed.map(|(check, _)| check).collect()
    }

    /// Returns the findings for `--json`.
    pub(super) fn as_json(&self) -> Value {
        let checks = self.iter().map(|(check, found)| {
            json!({
                "check": check.name(),
                "about": check.about(),
                "passed": found.passed,
                "failed": found.failed,
                "failures": found.failures,
            })
        });
        checks.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_beyond_what_is_named() {
        let mut findings = CheckResults::default();
        for number in 0..30 {
            findings.expect(Check::Scores, number % 2 == 0, || number.to_string());
        }
        let mut other = CheckResults::default();
        (0..30).for_each(|_| other.fail(Check::Scores, "x"));
        findings.merge(other);
        let (_, found) = findings.iter().find(|(c, _)| *c == Check::Scores).unwrap();
        assert_eq!(
            (found.passed, found.failed, found.failures.len()),
            (15, 45, 20)
        );
        assert_eq!(findings.failed(), [Check::Scores]);
    }

    #[test]
    fn storage_errors_are_no_findings() {
        let mut findings = CheckResults::default();
        let lost = findings.take::<()>(Check::Plan, Err(Error::transient("network")));
        assert!(lost.is_err());
        let broken = findings.take::<()>(Check::Plan, Err(Error::data("broken")));
        assert!(broken.unwrap().is_none());
    }
}
