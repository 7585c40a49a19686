//! The checks by name, and what they found.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sluice_manifest::{Class, Error, Result};

/// Failures that a check names; it counts the others.
pub const NAMED: usize = 20;

macro_rules! checks {
    ($($variant:ident, $name:literal, $about:literal;)*) => {
        /// What is checked.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Check {
            $(#[doc = $about] $variant,)*
        }

        impl Check {
            /// Every check, in the order in which they are printed.
            pub const ALL: &'static [Check] = &[$(Check::$variant,)*];

            /// Returns its name.
            pub fn name(self) -> &'static str {
                match self { $(Check::$variant => $name,)* }
            }

            /// Returns what it says.
            pub fn about(self) -> &'static str {
                match self { $(Check::$variant => $about,)* }
            }
        }
    };
}

checks! {
    Plan, "plan", "run.json and the plan can be read";
    Source, "source", "the shards are those that the plan was made from";
    Receipts, "receipts", "receipts are as written, and every step was done for all of its units in one way";
    Inputs, "inputs", "every unit was made from what its inputs are now";
    Outputs, "outputs", "everything written is there, with its size and BLAKE3";
    Schemas, "schemas", "every manifest has its schema's columns";
    Shards, "shards", "members of each shard = in samples + skipped + torn";
    Samples, "samples", "every sample found has one row, under its own name";
    Scores, "scores", "scores and embeddings are of samples that their step saw, each once";
    Duplicates, "duplicates", "duplicates and what they duplicate are samples that their step saw";
    Decisions, "decisions", "each decision follows from the scores, or from what the deciding steps said";
    Conservation, "conservation", "samples in = kept + dropped for a reason";
    Packing, "packing", "each output shard's rows are the kept samples in planned order";
    Members, "members", "each output shard's members have their source's bytes";
    Index, "index", "index.json lists the shards as they are";
    Extra, "extra", "the output holds nothing else";
}

/// What a check found.
#[derive(Debug, Default, Clone)]
pub struct Found {
    /// Things that were as they should be.
    pub passed: u64,
    /// Things that were not.
    pub failed: u64,
    /// The first of these, in words.
    pub failures: Vec<String>,
}

/// What the checks found.
#[derive(Debug, Default)]
pub struct Findings(BTreeMap<Check, Found>);

impl Findings {
    /// Counts what was as it should be.
    pub fn pass(&mut self, check: Check) {
        self.0.entry(check).or_default().passed += 1;
    }

    /// Notes what was not.
    pub fn fail(&mut self, check: Check, failure: impl Into<String>) {
        let found = self.0.entry(check).or_default();
        found.failed += 1;
        if found.failures.len() < NAMED {
            found.failures.push(failure.into());
        }
    }

    /// Counts what is as it should be, or notes what is not. Returns `holds`.
    pub fn expect(&mut self, check: Check, holds: bool, failure: impl FnOnce() -> String) -> bool {
        match holds {
            true => self.pass(check),
            false => self.fail(check, failure()),
        }
        holds
    }

    /// Returns the value of a result. Broken data fails the check.
    ///
    /// # Errors
    /// Of storage, and after a signal: these end the verification.
    pub fn take<T>(&mut self, check: Check, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => {
                self.pass(check);
                Ok(Some(value))
            }
            Err(e) => self.note(check, e).map(|()| None),
        }
    }

    /// Notes broken data.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub fn note(&mut self, check: Check, e: Error) -> Result<()> {
        match e.class() {
            Class::Transient | Class::Stopped => Err(e),
            Class::Data | Class::Usage | Class::Bug => {
                self.fail(check, e.to_string());
                Ok(())
            }
        }
    }

    /// Adds other findings.
    pub fn merge(&mut self, other: Findings) {
        for (check, found) in other.0 {
            let mine = self.0.entry(check).or_default();
            mine.passed += found.passed;
            mine.failed += found.failed;
            let room = NAMED - mine.failures.len();
            mine.failures.extend(found.failures.into_iter().take(room));
        }
    }

    /// Returns all checks, also those that had nothing to look at.
    pub fn iter(&self) -> impl Iterator<Item = (Check, Found)> {
        Check::ALL.iter().map(|&check| {
            let found = self.0.get(&check).cloned().unwrap_or_default();
            (check, found)
        })
    }

    /// Returns the checks that failed.
    pub fn failed(&self) -> Vec<Check> {
        let failed = self.iter().filter(|(_, found)| found.failed > 0);
        failed.map(|(check, _)| check).collect()
    }

    /// Returns the findings for `--json`.
    pub fn as_json(&self) -> Value {
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
        let mut findings = Findings::default();
        for number in 0..30 {
            findings.expect(Check::Scores, number % 2 == 0, || number.to_string());
        }
        let mut other = Findings::default();
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
        let mut findings = Findings::default();
        let lost = findings.take::<()>(Check::Plan, Err(Error::transient("network")));
        assert!(lost.is_err());
        let broken = findings.take::<()>(Check::Plan, Err(Error::data("broken")));
        assert!(broken.unwrap().is_none());
    }
}
