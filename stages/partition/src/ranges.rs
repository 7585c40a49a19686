//! Names with wildcards and ranges.

use std::collections::{BTreeSet, HashSet};

use glob::{MatchOptions, Pattern};
use sluice_manifest::{Error, Result};
use sluice_store::ObjectInfo;

use crate::listing::list_first;

/// The maximum number of names that the ranges of a pattern may expand to, in all combinations.
const RANGE_LIMIT: u64 = 1_000_000;

/// A pattern without its folder.
pub(crate) struct NamePattern {
    /// The globs, one for each combination of numbers of the pattern's ranges.
    globs: Vec<Pattern>,
    names: BTreeSet<String>,
}

/// How globs match.
const OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

impl NamePattern {
    /// Parses the part `rest` of a pattern that matches names.
    ///
    /// # Errors
    ///
    /// Returns a usage error if a range or a glob is not valid.
    pub(crate) fn new(pattern: &str, rest: &str) -> Result<Self> {
        let mut wanted = Self {
            globs: Vec::new(),
            names: BTreeSet::new(),
        };
        for name in NameRanges::parse(pattern, rest)?.names() {
            if name.contains(['*', '?', '[']) {
                let glob = Pattern::new(&name);
                wanted
                    .globs
                    .push(glob.map_err(|e| Error::usage(format!("--input {pattern}: {e}")))?);
            } else {
                wanted.names.insert(name);
            }
        }
        Ok(wanted)
    }

    pub(crate) fn matches(&self, path: &str) -> bool {
        let matches = |glob: &Pattern| glob.matches_with(path, OPTIONS);
        self.names.contains(path) || self.globs.iter().any(matches)
    }

    /// Returns an error if shards of a range are missing. A pattern that matches nothing at all is
    /// reported by the caller.
    ///
    /// # Errors
    ///
    /// Returns a data error that names the missing shards.
    pub(crate) fn refuse_missing(&self, pattern: &str, objects: &[ObjectInfo]) -> Result<()> {
        let found: HashSet<&str> = objects.iter().map(|object| object.path.as_str()).collect();
        let names = self.names.iter().map(String::as_str);
        let names = names.filter(|name| !found.contains(name));
        let globs = self.globs.iter().filter(|glob| {
            let mut paths = found.iter();
            !paths.any(|path| glob.matches_with(path, OPTIONS))
        });
        let missing: Vec<&str> = names.chain(globs.map(Pattern::as_str)).collect();
        if missing.is_empty() || found.is_empty() {
            return Ok(());
        }
        let named = self.names.len() + self.globs.len();
        let count = missing.len();
        Err(Error::data(format!(
            "--input {pattern}: {count} of {named} shards are missing: {}",
            list_first(missing.into_iter())
        ))
        .hint("name only existing shards: a smaller range, several --input, or a glob such as '*.tar'"))
    }
}

/// A name with ranges, such as `a{08..11}.tar`.
struct NameRanges<'p> {
    parts: Vec<NamePart<'p>>,
    count: u64,
}

enum NamePart<'p> {
    Text(&'p str),
    Range { from: u64, count: u64, width: usize },
}

impl<'p> NameRanges<'p> {
    fn parse(pattern: &str, name: &'p str) -> Result<Self> {
        let wrong = || {
            Error::usage(format!("--input {pattern}: not a range of shards"))
                .hint("write ranges as train-{000..099}.tar; --literal uses names literally")
        };
        let (mut parts, mut count, mut rest) = (Vec::new(), 1_u64, name);
        while let Some((head, tail)) = rest.split_once('{') {
            let (range, tail) = tail.split_once('}').ok_or_else(wrong)?;
            let (first, last) = range.split_once("..").ok_or_else(wrong)?;
            let from: u64 = first.parse().map_err(|_| wrong())?;
            let to: u64 = last.parse().map_err(|_| wrong())?;
            let numbers = to.checked_sub(from).ok_or_else(wrong)?.saturating_add(1);
            count = count.saturating_mul(numbers);
            parts.push(NamePart::Text(head));
            parts.push(NamePart::Range {
                from,
                count: numbers,
                width: first.len(),
            });
            rest = tail;
        }
        parts.push(NamePart::Text(rest));
        if count > RANGE_LIMIT {
            return Err(Error::usage(format!(
                "--input {pattern}: expands to more than {RANGE_LIMIT} names"
            ))
            .hint("use smaller ranges, or a glob such as '*.tar'"));
        }
        Ok(Self { parts, count })
    }

    fn names(&self) -> impl Iterator<Item = String> {
        (0..self.count).map(|number| self.name(number))
    }

    /// Returns a combination of numbers. The last range varies fastest.
    fn name(&self, number: u64) -> String {
        let (mut name, mut left) = (String::new(), self.count);
        for part in &self.parts {
            match part {
                NamePart::Text(text) => name.push_str(text),
                NamePart::Range { from, count, width } => {
                    left /= count;
                    let value = from + number / left % count;
                    name.push_str(&format!("{value:0width$}"));
                }
            }
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_combined_and_bounded() {
        let names = |name: &str| -> Vec<String> {
            let ranges = NameRanges::parse(name, name).unwrap();
            ranges.names().collect()
        };
        assert_eq!(names("a.tar"), ["a.tar"]);
        assert_eq!(names("{08..10}"), ["08", "09", "10"]);
        assert_eq!(
            names("{0..1}/x{1..2}.tar"),
            ["0/x1.tar", "0/x2.tar", "1/x1.tar", "1/x2.tar"]
        );
        for (name, word) in [
            ("{2..1}", "not a range"),
            ("{a..b}", "not a range"),
            ("{1", "not a range"),
            ("{0..999999}{0..9}", "more than"),
            ("{0..18446744073709551615}{0..99}{0..99}", "more than"),
        ] {
            let error = NameRanges::parse(name, name).err().unwrap().to_string();
            assert!(error.contains(word), "{name}: {error}");
        }
    }
}
