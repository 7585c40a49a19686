//! The arguments that all programs share.

use std::ffi::OsString;
use std::ops::RangeInclusive;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use sluice_manifest::text::masked_word;
use sluice_manifest::{Error, Result, Share, StepName, Unit};
use sluice_store::{Location, Storage};

use crate::logs::LogFormat;
use crate::machine::parse_bytes;

/// The maximum number of threads. Starting more takes longer than any work gains.
const MOST_JOBS: u64 = 1024;

/// Returns the parser of `--jobs`.
pub fn jobs() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=MOST_JOBS)
}

/// Arguments of every program.
#[derive(Debug, Clone, Default, Args)]
pub struct Common {
    /// The run: the URI prefix of its manifests and receipts
    #[arg(long, env = "SLUICE_RUN", value_name = "URI")]
    pub run: String,

    /// Do these units of work only, for example 3,8-15 (default: all)
    #[arg(
        long,
        env = "SLUICE_PARTITIONS",
        value_name = "LIST",
        conflicts_with = "task_index"
    )]
    pub partitions: Option<String>,

    /// This process's number among --task-count processes that share the units of work
    ///
    /// Kubernetes' JOB_COMPLETION_INDEX is read as well.
    #[arg(
        long,
        env = "SLUICE_TASK_INDEX",
        value_name = "I",
        requires = "task_count"
    )]
    pub task_index: Option<u32>,

    /// How many processes share the units of work
    #[arg(long, env = "SLUICE_TASK_COUNT", value_name = "N")]
    pub task_count: Option<u32>,

    /// Threads that work at once (default: the CPUs that the cgroup grants)
    #[arg(long, env = "SLUICE_JOBS", value_name = "N", value_parser = jobs())]
    pub jobs: Option<usize>,

    /// Memory for decoding, all threads together: bytes, or 768M, 2G (default: 96M for each thread)
    ///
    /// Images wait until there is room; one that is larger than this is decoded alone. The default is
    /// at least 768M, and at most half of what the cgroup grants.
    #[arg(long, env = "SLUICE_MEMORY", value_name = "BYTES", value_parser = parse_bytes)]
    pub memory: Option<u64>,

    /// Do the work again even where it is up to date
    #[arg(long, env = "SLUICE_FORCE")]
    pub force: bool,

    /// Write the JSON result to this file too
    #[arg(long, env = "SLUICE_RESULT", value_name = "FILE")]
    pub result: Option<std::path::PathBuf>,

    /// How logs are written (default: text on a terminal, json otherwise)
    #[arg(long, env = "SLUICE_LOG_FORMAT", value_name = "FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,
}

/// The additional arguments of the steps after `read`.
#[derive(Debug, Clone, Args)]
pub struct StepArgs {
    /// Arguments of every program.
    #[command(flatten)]
    pub common: Common,

    /// Name of the step: its directory in the run (default: the stage's name)
    #[arg(long, env = "SLUICE_STEP", value_name = "NAME")]
    pub step: Option<StepName>,

    /// Work on the samples that this deciding step keeps (default: all that read accepted)
    #[arg(long, env = "SLUICE_SURVIVORS_OF", value_name = "STEP")]
    pub survivors_of: Option<StepName>,
}

impl Common {
    /// Returns the arguments for a run, with defaults for everything else.
    pub fn on(run: impl Into<String>) -> Self {
        Self {
            run: run.into(),
            ..Self::default()
        }
    }

    /// Returns the units in the share of this process, in order.
    pub(crate) fn share(&self, units: Vec<Unit>) -> Result<Vec<Unit>> {
        if let Some(list) = &self.partitions {
            let ranges = numbers(list)?;
            let total = units.len();
            let last = ranges.iter().map(|range| *range.end()).max();
            if let Some(last) = last
                && last as usize >= total
            {
                return Err(
                    Error::usage(format!("--partitions {list}: there is no unit {last}"))
                        .hint(format!("the step has {total} units, counted from 0")),
                );
            }
            let mut chosen: Vec<usize> = ranges
                .into_iter()
                .flat_map(|range| *range.start() as usize..=*range.end() as usize)
                .collect();
            chosen.sort_unstable();
            chosen.dedup();
            return Ok(chosen.into_iter().map(|number| units[number]).collect());
        }
        let Some(Share { index, count }) = self.task_share()? else {
            return Ok(units);
        };
        let of_task = units.into_iter().skip(index as usize);
        Ok(of_task.step_by(count as usize).collect())
    }

    /// Returns the share of the units that this process works on, or `None` for all units.
    ///
    /// The share of a pod beyond the last task is empty, because a Job may have more completions
    /// than tasks.
    pub(crate) fn task_share(&self) -> Result<Option<Share>> {
        let Some(count) = self.task_count.filter(|_| self.partitions.is_none()) else {
            return Ok(None);
        };
        let of_job = std::env::var("JOB_COMPLETION_INDEX").unwrap_or_default();
        let index = match (self.task_index, of_job.as_str()) {
            (Some(index), _) => index,
            (None, "") => {
                return Err(Error::usage("--task-count needs --task-index")
                    .hint("or SLUICE_TASK_INDEX, or Kubernetes' JOB_COMPLETION_INDEX"));
            }
            (None, index) => index.parse().map_err(|_| {
                Error::usage(format!(
                    "JOB_COMPLETION_INDEX: expected a number, got {index:?}"
                ))
            })?,
        };
        if index >= count && (self.task_index.is_some() || count == 0) {
            return Err(Error::usage(format!(
                "--task-index {index} is not below --task-count {count}"
            ))
            .hint("tasks are counted from 0"));
        }
        Ok(Some(Share { index, count }))
    }
}

/// Parses a list of numbers and ranges, such as `3,8-15`.
fn numbers(list: &str) -> Result<Vec<RangeInclusive<u32>>> {
    let wrong = || {
        Error::usage(format!(
            "--partitions: expected a list of numbers, got {list:?}"
        ))
        .hint("write numbers and ranges, for example 3,8-15")
    };
    let mut ranges = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: u32 = first.trim().parse().map_err(|_| wrong())?;
        let last: u32 = last.trim().parse().map_err(|_| wrong())?;
        if first > last {
            return Err(wrong());
        }
        ranges.push(first..=last);
    }
    Ok(ranges)
}

/// The maximum size of a file of arguments in a store. It is enough for some hundred thousand
/// names.
const LONGEST_FILE: u64 = 64 << 20;

/// Expands a command line for [`parse`].
///
/// Replaces an argument `@FILE` or `@URI` with the lines of the file. This avoids the kernel's
/// limit of 128 KiB for one argument, and the limits of workflow engines. A line of a local file
/// may be a `@URI` itself. An option with an empty value (`--eps=`) is removed, because a workflow
/// template cannot omit an argument.
///
/// # Errors
///
/// Returns a usage error if a file does not exist or is too long, and otherwise a storage error.
pub fn arguments(line: impl Iterator<Item = OsString>, storage: &Storage) -> Result<Vec<OsString>> {
    let mut arguments = Vec::new();
    for (position, argument) in line.enumerate() {
        let text = argument.to_str().filter(|_| position > 0);
        match text.map(|text| text.strip_prefix(INPUT_FILE).unwrap_or(text)) {
            Some(word) if word.starts_with('@') => {
                if text != Some(word) {
                    arguments.push("--input".into());
                }
                arguments.extend(lines_of(word, storage)?);
            }
            _ => arguments.push(argument),
        }
    }
    let is_empty = |argument: &OsString| {
        let flag = argument.to_str().and_then(|text| text.strip_suffix('='));
        flag.is_some_and(|flag| flag.starts_with("--") && !flag.contains('='))
    };
    arguments.retain(|argument| !is_empty(argument));
    Ok(arguments)
}

/// The option whose value may be the name of a file.
const INPUT_FILE: &str = "--input=";

/// Returns the lines of `@FILE` or `@URI`. A local file may contain URIs of further files.
fn lines_of(word: &str, storage: &Storage) -> Result<Vec<OsString>> {
    if let Some(text) = text_at(word, storage)? {
        return Ok(names_in(&text).map(OsString::from).collect());
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "argument files lie on local disk"
    )]
    let text = std::fs::read_to_string(&word[1..])
        .map_err(|e| Error::usage(format!("{word}: cannot be read: {e}")))?;
    let mut lines = Vec::new();
    for line in names_in(&text) {
        match text_at(line, storage)? {
            Some(text) => lines.extend(names_in(&text).map(OsString::from)),
            None => lines.push(line.into()),
        }
    }
    Ok(lines)
}

fn names_in(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.is_empty())
}

/// Returns the text of the file at `@URI`, or `None` for any other word.
fn text_at(word: &str, storage: &Storage) -> Result<Option<String>> {
    let uri = word.strip_prefix('@').filter(|uri| uri.contains("://"));
    let Some(uri) = uri else {
        return Ok(None);
    };
    let word = masked_word(word);
    let missing = || Error::usage(format!("{word}: no such file"));
    let (folder, name) = Location::parse(uri)?.split().ok_or_else(missing)?;
    let store = storage.open_if_there(&folder)?.ok_or_else(missing)?;
    let found = store.stat(&name)?.ok_or_else(missing)?;
    if found.bytes > LONGEST_FILE {
        let text = format!("{word}: {} bytes are too many for a list", found.bytes);
        return Err(Error::usage(text).hint("at most 64 MiB; name folders or patterns"));
    }
    let text = String::from_utf8(store.get(&name)?.to_vec());
    let text = text.map_err(|_| Error::usage(format!("{word}: is not UTF-8 text")))?;
    Ok(Some(text))
}

/// Formats a command line for a shell, without the credentials in URIs.
pub fn shell<S: AsRef<str>>(command: &[S]) -> String {
    let words: Vec<String> = command.iter().map(|word| quoted(word.as_ref())).collect();
    words.join(" ")
}

fn quoted(word: &str) -> String {
    let word = masked_word(word);
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use sluice_manifest::UnitKind;

    use super::*;

    fn common() -> Common {
        Common::on("memory://x")
    }

    fn units() -> Vec<Unit> {
        Unit::all(UnitKind::Partition, 7)
    }

    #[test]
    fn tasks_share_all_units_without_overlap() {
        let mut shares = Vec::new();
        for index in 0..3 {
            let task = Common {
                task_index: Some(index),
                task_count: Some(3),
                ..common()
            };
            shares.extend(task.share(units()).unwrap());
        }
        shares.sort();
        assert_eq!(shares, units());
        let late = Common {
            task_index: Some(9),
            task_count: Some(10),
            ..common()
        };
        assert!(late.share(units()).unwrap().is_empty());
    }

    #[test]
    fn an_option_without_a_value_is_left_out() {
        let line = [
            "sluice-x",
            "--min-score=",
            "--eps=1",
            "--min=a=",
            "--scores",
            "",
        ];
        let kept = arguments(line.iter().map(OsString::from), &Storage::default()).unwrap();
        assert_eq!(kept, ["sluice-x", "--eps=1", "--min=a=", "--scores", ""]);
    }

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "argument files lie on local disk"
    )]
    fn files_of_a_store_stand_for_their_lines() {
        let storage = Storage::default();
        let store = storage
            .create(&Location::parse("memory://lists").unwrap())
            .unwrap();
        store
            .put("in.txt", "s3://b/x y.tar\n\n@s3://b/kept\n")
            .unwrap();
        let uri = "@memory://lists/in.txt";
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("input");
        std::fs::write(&file, format!("s3://b/first.tar\n{uri}\n")).unwrap();
        let file = format!("@{}", file.display());
        let given = |words: &[&str]| {
            let line = ["sluice-x"].iter().chain(words).map(OsString::from);
            arguments(line, &storage).map(|line| line[1..].to_vec())
        };
        let lines = ["s3://b/x y.tar", "@s3://b/kept"];
        assert_eq!(given(&["--input", uri]).unwrap()[1..], lines);
        assert_eq!(given(&[&format!("--input={uri}")]).unwrap()[1..], lines);
        assert_eq!(
            given(&["--input", &file]).unwrap()[1..],
            ["s3://b/first.tar", lines[0], lines[1]]
        );
        for wrong in [
            "@memory://lists/no.txt",
            "@memory://none/no.txt",
            "@/no/such/file",
        ] {
            let error = given(&["--input", wrong]).unwrap_err();
            assert_eq!(error.class(), sluice_manifest::Class::Usage);
            assert!(error.to_string().starts_with(wrong), "{error}");
        }
    }

    #[test]
    fn lists_choose_and_wrong_ones_are_refused() {
        let some = |list: &str| Common {
            partitions: Some(list.into()),
            ..common()
        };
        let chosen = some("1,4-5").share(units()).unwrap();
        assert_eq!(chosen, [1, 4, 5].map(|i| Unit::new(UnitKind::Partition, i)));
        for wrong in ["", "x", "3-1", "7", "0-4294967295"] {
            assert!(some(wrong).share(units()).is_err(), "{wrong}");
        }
        let many = some("0-6,0-6,3");
        assert_eq!(many.share(units()).unwrap(), units());
        let beyond = Common {
            task_index: Some(3),
            task_count: Some(3),
            ..common()
        };
        assert!(beyond.share(units()).is_err());
    }

    #[test]
    fn counts_out_of_range_are_refused_before_any_work() {
        #[derive(Debug, Parser)]
        struct Line {
            #[command(flatten)]
            common: Common,
        }
        let jobs = |count: &str| {
            let line = ["x", "--run=memory://x", &format!("--jobs={count}")];
            Line::try_parse_from(line).map(|line| line.common.jobs)
        };
        for (count, expected) in [("1", 1), ("1024", 1024)] {
            assert_eq!(jobs(count).unwrap(), Some(expected));
        }
        for count in ["0", "1025", "100000", "18446744073709551616", "-1", "two"] {
            let refused = jobs(count).unwrap_err().to_string();
            assert!(refused.contains("--jobs"), "{refused}");
        }
    }

    #[test]
    fn a_shell_gets_back_what_was_meant() {
        let words = ["a b", "it's", "", "x-1"];
        assert_eq!(shell(&words), r"'a b' 'it'\''s' '' x-1");
        assert_eq!(shell(&["--run=s3://me:hush@b/x"]), "'--run=s3://…@b/x'");
        assert_eq!(shell(&["--run=s3://me:hu sh@b/x"]), "'--run=s3://…@b/x'");
    }
}
