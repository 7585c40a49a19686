//! With real processes: `cat` answers with what it is sent, `sh` plays every way to fail.

#![expect(
    clippy::disallowed_methods,
    reason = "files on local disk carry answers and process ids"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{
    ArrayRef, AsArray, BinaryArray, Float32Array, Float64Array, Int64Array, StringArray,
};
use arrow::datatypes::{DataType, Field, Float32Type, SchemaRef};
use tempfile::TempDir;

use super::*;

mod python;

/// What a run gave: the scores by image, in the order of the answers.
type Scores = Vec<(String, Vec<f32>)>;

fn command(command: &str) -> ScoreCommand {
    ScoreCommand {
        command: command.to_owned(),
        outputs: vec!["score".to_owned()],
        time_limit: Some(Duration::from_secs(20)),
        step: "quality".to_owned(),
    }
}

/// A batch of `image_id` and `score`, so that `cat` is a program that scores.
fn batch(ids: &[&str], scores: &[f32]) -> RecordBatch {
    let ids: ArrayRef = Arc::new(StringArray::from(ids.to_vec()));
    let scores: ArrayRef = Arc::new(Float32Array::from(scores.to_vec()));
    RecordBatch::try_from_iter([("image_id", ids), ("score", scores)]).unwrap()
}

fn three() -> RecordBatch {
    batch(&["a/0", "a/1", "a/2"], &[0.5, 1.5, 2.5])
}

/// Large batches, produced lazily: image ids, scores, and bytes that fill every pipe.
fn large(count: usize, bytes: usize) -> impl Iterator<Item = Result<RecordBatch>> + Send {
    (0..count).map(move |number| {
        let id = format!("a/{number}");
        let ids: ArrayRef = Arc::new(StringArray::from(vec![id]));
        let scores: ArrayRef = Arc::new(Float32Array::from(vec![number as f32]));
        let image: ArrayRef = Arc::new(BinaryArray::from(vec![vec![7_u8; bytes].as_slice()]));
        let columns = [("image_id", ids), ("score", scores), ("image", image)];
        Ok(RecordBatch::try_from_iter(columns).unwrap())
    })
}

fn schema_of(batches: impl Iterator<Item = Result<RecordBatch>>) -> SchemaRef {
    let mut batches = batches;
    batches.next().unwrap().unwrap().schema()
}

fn run_on(
    command: &ScoreCommand,
    schema: &Schema,
    batches: impl Iterator<Item = Result<RecordBatch>> + Send,
) -> Result<Scores> {
    let mut found = Scores::new();
    command.run("part-00003", schema, batches, &|| Ok(()), |batch| {
        assert_eq!(
            batch.schema().field(0),
            &Field::new("image_id", DataType::Utf8, false)
        );
        let ids = batch.column(0).as_string::<i32>();
        for (row, id) in ids.iter().enumerate() {
            let columns = batch.columns()[1..].iter();
            let scores = columns.map(|column| column.as_primitive::<Float32Type>().value(row));
            found.push((id.unwrap().to_owned(), scores.collect()));
        }
        Ok(())
    })?;
    Ok(found)
}

fn run(command: &ScoreCommand, batches: &[RecordBatch]) -> Result<Scores> {
    let schema = three().schema();
    run_on(command, &schema, batches.iter().cloned().map(Ok))
}

fn fail(text: &str) -> Error {
    run(&command(text), &[three()]).unwrap_err()
}

/// A folder with files that programs answer with.
struct Answers(TempDir);

impl Answers {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn bytes(batches: &[RecordBatch]) -> Vec<u8> {
        let mut writer = StreamWriter::try_new(Vec::new(), &batches[0].schema()).unwrap();
        for batch in batches {
            writer.write(batch).unwrap();
        }
        writer.into_inner().unwrap()
    }

    /// Returns a script that reads all samples and answers with these bytes.
    fn script_of(&self, bytes: &[u8]) -> String {
        std::fs::write(self.path("answer"), bytes).unwrap();
        format!("cat >/dev/null; cat {}", self.path("answer").display())
    }

    fn script(&self, batches: &[RecordBatch]) -> String {
        self.script_of(&Self::bytes(batches))
    }
}

fn fail_with(batch: RecordBatch) -> String {
    let answers = Answers::new();
    let error = fail(&answers.script(&[batch]));
    assert_eq!(error.class(), Class::Data, "{error}");
    error.to_string()
}

fn exists(process: &str) -> bool {
    Path::new("/proc").join(process.trim()).exists()
}

// Answers.

#[test]
fn a_program_scores_images() {
    let other = batch(&["b/0"], &[9.0]);
    let scores = run(&command("exec cat"), &[three(), other]).unwrap();
    let ids: Vec<_> = scores.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids, ["a/0", "a/1", "a/2", "b/0"]);
    assert_eq!(scores[1].1, [1.5]);
}

#[test]
fn a_program_is_tried_with_no_samples() {
    let rehearse = |text: &str| command(text).rehearse(&three().schema(), &|| Ok(()));
    // The second opens its writer at the first batch.
    for script in [
        "cat",
        "cat >/dev/null",
        "true",
        "test $SLUICE_UNIT = check && cat",
    ] {
        rehearse(script).unwrap();
    }
    for (script, class, text) in [
        ("sluice-no-such-program", Class::Usage, "exit code 127"),
        ("sh /no/such/script.sh", Class::Usage, "stderr: "),
        (
            "echo no module >&2; exit 1",
            Class::Usage,
            "stderr: no module",
        ),
        ("cat >/dev/null; echo ready", Class::Usage, "\"ready\\n\""),
        ("exit 75", Class::Transient, "exit code 75"),
        ("kill -9 $$", Class::Transient, "signal 9"),
    ] {
        let error = rehearse(script).unwrap_err();
        assert_eq!(error.class(), class, "{script}: {error}");
        assert!(error.to_string().contains(text), "{script}: {error}");
    }
    let mut other = command("cat");
    other.outputs = vec!["sharpness".to_owned()];
    let error = other.rehearse(&three().schema(), &|| Ok(())).unwrap_err();
    let text = error.to_string();
    assert_eq!(error.class(), Class::Usage);
    assert!(text.contains("no column \"sharpness\""), "{text}");
    assert!(text.contains("\"image_id\", \"score\"") && text.contains("must end with 0"));
}

#[test]
fn answers_come_in_any_order_and_some_not_at_all() {
    let answers = Answers::new();
    let script = answers.script(&[batch(&["a/2"], &[2.0]), batch(&["a/0"], &[0.0])]);
    let scores = run(&command(&script), &[three()]).unwrap();
    assert_eq!(
        scores,
        [("a/2".into(), vec![2.0]), ("a/0".into(), vec![0.0])]
    );
}

#[test]
fn numbers_of_any_type_are_scores_and_other_columns_are_ignored() {
    let ids: ArrayRef = Arc::new(StringArray::from(vec!["a/0", "a/1", "a/2"]));
    let ids = arrow::compute::cast(
        &ids,
        &DataType::Dictionary(DataType::Int32.into(), DataType::Utf8.into()),
    );
    let wide: ArrayRef = Arc::new(Float64Array::from(vec![Some(0.25), None, Some(1e300)]));
    let whole: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    let columns = [
        ("other", whole.clone()),
        ("wide", wide),
        ("image_id", ids.unwrap()),
        ("whole", whole),
    ];
    let answers = Answers::new();
    let script = answers.script(&[RecordBatch::try_from_iter(columns).unwrap()]);
    let mut command = command(&script);
    command.outputs = vec!["whole".to_owned(), "wide".to_owned()];
    let scores = run(&command, &[three()]).unwrap();
    assert_eq!(scores[0], ("a/0".into(), vec![1.0, 0.25]));
    assert!(scores[1].1[1].is_nan() && scores[2].1[1].is_nan());
}

#[test]
fn unknown_and_repeated_images_are_errors() {
    let unknown = fail_with(batch(&["a/0", "z/9"], &[0.0, 1.0]));
    assert!(
        unknown.contains("image_id \"z/9\" of its output was not sent"),
        "{unknown}"
    );
    let twice = fail_with(batch(&["a/0", "a/0"], &[0.0, 1.0]));
    assert!(
        twice.contains("\"a/0\" of its output is answered twice"),
        "{twice}"
    );
}

#[test]
fn columns_of_another_type_are_errors() {
    let text: ArrayRef = Arc::new(StringArray::from(vec!["a/0"]));
    let number: ArrayRef = Arc::new(Int64Array::from(vec![7]));
    let null: ArrayRef = Arc::new(StringArray::from(vec![None::<&str>]));
    let batch = |columns: [(&str, &ArrayRef); 2]| {
        let columns = columns.map(|(name, column)| (name, column.clone(), true));
        RecordBatch::try_from_iter_with_nullable(columns).unwrap()
    };
    let error = fail_with(batch([("image_id", &text), ("score", &text)]));
    assert!(
        error.contains("column \"score\" of its output is Utf8, expected numbers"),
        "{error}"
    );
    let error = fail_with(batch([("image_id", &number), ("score", &number)]));
    assert!(
        error.contains("column \"image_id\" of its output is Int64, expected text"),
        "{error}"
    );
    let error = fail_with(batch([("id", &text), ("score", &number)]));
    assert!(error.contains("no column \"image_id\""), "{error}");
    let error = fail_with(batch([("image_id", &null), ("score", &number)]));
    assert!(error.contains("has nulls"), "{error}");
}

// Streams that are not what they should be.

#[test]
fn streams_that_break_off_are_errors() {
    let answers = Answers::new();
    let whole = Answers::bytes(&[three()]);
    // Without the end-of-stream marker, within the batch, within the schema, within the first word.
    for length in [whole.len() - 8, whole.len() - 20, 100, 2] {
        let error = fail(&answers.script_of(&whole[..length]));
        assert_eq!(error.class(), Class::Data);
        let text = error.to_string();
        let expected = match length {
            2 => "not an Arrow IPC stream",
            _ => "ends before the end of the Arrow stream",
        };
        assert!(text.contains(expected), "{length}: {text}");
    }
}

#[test]
fn other_output_is_shown() {
    let error = fail("cat >/dev/null; echo loading model").to_string();
    assert!(
        error.contains("it starts with \"loading model\\n\""),
        "{error}"
    );
    assert!(error.contains("print to stderr"), "{error}");
    let error = fail("cat >/dev/null").to_string();
    assert!(error.contains("no output"), "{error}");
}

#[test]
fn output_after_the_stream_is_an_error() {
    let error = fail("cat; echo done");
    assert_eq!(error.class(), Class::Data);
    assert!(
        error.to_string().contains("5 bytes of output follow"),
        "{error}"
    );
}

#[test]
fn damaged_streams_are_errors_and_no_panics() {
    let answers = Answers::new();
    let whole = Answers::bytes(&[three()]);
    for position in (8..whole.len() - 8).step_by(7) {
        let mut damaged = whole.clone();
        damaged[position] ^= 0xff;
        // Some damage only changes a score.
        if let Err(error) = run(&command(&answers.script_of(&damaged)), &[three()]) {
            assert_eq!(error.class(), Class::Data, "{position}: {error}");
        }
    }
}

// Exit codes.

#[test]
fn exit_codes_decide_who_tries_again() {
    let cases = [
        ("exit 1", Class::Data, "exit code 1"),
        ("exit 2", Class::Data, "exit code 2"),
        ("exit 255", Class::Data, "exit code 255"),
        ("exit 75", Class::Transient, "exit code 75"),
        ("exit 127", Class::Usage, "exit code 127"),
        ("exit 137", Class::Transient, "killed by signal 9"),
        ("kill -9 $$", Class::Transient, "lack of memory"),
        ("kill -SEGV $$", Class::Transient, "killed by signal 11"),
        (
            "sh -c 'kill -TERM $$'; exit $?",
            Class::Transient,
            "killed by signal 15",
        ),
    ];
    for (script, class, text) in cases {
        // After a complete stream, after half of one, and with other output.
        for before in ["cat", "head -c 300", "cat >/dev/null; echo usage:"] {
            let error = fail(&format!("{before}; {script}"));
            assert_eq!(error.class(), class, "{script}: {error}");
            assert!(error.to_string().contains(text), "{script}: {error}");
        }
    }
}

#[test]
fn the_last_lines_of_stderr_are_part_of_the_error() {
    let script = "cat; for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo line $i >&2; done; exit 3";
    let error = fail(script).to_string();
    assert!(error.starts_with("command \"cat; for i in"), "{error}");
    assert!(error.contains("exit code 3\n  stderr: line 3\n"), "{error}");
    assert!(error.ends_with("\n  stderr: line 12"), "{error}");
}

#[test]
fn a_command_that_is_not_found_is_usage() {
    let error = fail("sluice-no-such-program --flag");
    assert_eq!(error.class(), Class::Usage);
    assert!(error.to_string().contains("stderr: ") && error.to_string().contains("PATH"));
}

#[test]
fn a_program_that_exits_without_reading_tells_why() {
    let schema = schema_of(large(1, 1));
    let failing = command("echo no model >&2; exit 4");
    let error = run_on(&failing, &schema, large(20, 1 << 20)).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("exit code 4\n  stderr: no model"),
        "{error}"
    );
    let answers = Answers::new();
    let file = answers
        .script(&[three().slice(0, 0)])
        .replace("cat >/dev/null; ", "");
    let scores = run_on(&command(&file), &schema, large(20, 1 << 20)).unwrap();
    assert!(scores.is_empty());
}

// Deadlocks.

#[test]
fn neither_side_blocks_the_other() {
    let schema = schema_of(large(1, 1));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("all");
    let all = format!("cat >{0}; cat {0}", file.display());
    for script in ["cat", "sleep 0.3; exec cat", &all] {
        let scores = run_on(&command(script), &schema, large(40, 1 << 20)).unwrap();
        assert_eq!(scores.len(), 40, "{script}");
    }
}

#[test]
fn samples_are_produced_as_the_program_takes_them() {
    let produced = AtomicUsize::new(0);
    let counted = large(1000, 1 << 20).inspect(|_| {
        produced.fetch_add(1, Ordering::Relaxed);
    });
    let schema = schema_of(large(1, 1));
    let mut slow = command("sleep 1000");
    slow.time_limit = Some(Duration::from_millis(300));
    run_on(&slow, &schema, counted).unwrap_err();
    assert_eq!(produced.into_inner(), 1);
}

// Time, stopping, and what is left.

#[test]
fn silence_is_limited() {
    let folder = tempfile::tempdir().unwrap();
    let pids = folder.path().join("pids");
    let script = format!(
        "sleep 1000 & echo $$ $! >{}; echo loading >&2; sleep 1000",
        pids.display()
    );
    let mut silent = command(&script);
    silent.time_limit = Some(Duration::from_millis(1500));
    let started = Instant::now();
    let error = run(&silent, &[three()]).unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(15));
    assert_eq!(error.class(), Class::Transient);
    let text = error.to_string();
    assert!(
        text.contains("silent for 1.5 s") && text.contains("stderr: loading"),
        "{text}"
    );
    let pids = std::fs::read_to_string(pids).unwrap();
    for pid in pids.split_whitespace() {
        assert!(gone(pid), "{pid}");
    }
}

/// An orphan is reaped by init, which may take a moment.
fn gone(pid: &str) -> bool {
    let deadline = Instant::now() + Duration::from_secs(2);
    while exists(pid) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
    }
    let state = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat"));
    // Where nobody reaps orphans, a zombie of init's is what is left.
    state.map_or(true, |state| state.contains(") Z 1 "))
}

#[test]
fn a_program_that_works_is_not_silent() {
    let mut busy =
        command("cat >/dev/null; for i in 1 2 3 4 5 6; do sleep 0.5; echo $i >&2; done; exit 9");
    busy.time_limit = Some(Duration::from_secs(2));
    assert!(
        run(&busy, &[three()])
            .unwrap_err()
            .to_string()
            .contains("exit code 9")
    );
}

#[test]
fn a_program_that_waits_for_samples_or_for_us_is_not_silent() {
    let mut cat = command("cat");
    cat.time_limit = Some(Duration::from_secs(1));
    let slow = [three()].into_iter().map(|batch| {
        thread::sleep(Duration::from_secs(2));
        Ok(batch)
    });
    assert_eq!(run_on(&cat, &three().schema(), slow).unwrap().len(), 3);
    let mut taken = 0;
    let slow = |batch: RecordBatch| {
        thread::sleep(Duration::from_secs(2));
        taken += batch.num_rows();
        Ok(())
    };
    let batches = [Ok(three()), Ok(batch(&["b/0"], &[1.0]))];
    let schema = three().schema();
    cat.run("unit", &schema, batches.into_iter(), &|| Ok(()), slow)
        .unwrap();
    assert_eq!(taken, 4);
}

#[test]
fn a_signal_ends_the_program() {
    let started = Instant::now();
    let stop = || {
        if started.elapsed() > Duration::from_millis(200) {
            Err(Error::stopped())
        } else {
            Ok(())
        }
    };
    let batches = [Ok(three())].into_iter();
    let sleep = command("sleep 1000");
    let error = sleep.run("unit", &three().schema(), batches, &stop, |_| Ok(()));
    assert_eq!(error.unwrap_err().class(), Class::Stopped);
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn our_own_errors_win_and_the_program_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    let script = format!("echo $$ >{}; exec cat", pid.display());
    let check = |error: Error, text: &str| {
        assert_eq!(error.class(), Class::Transient, "{error}");
        assert_eq!(error.to_string(), text);
        let pid = std::fs::read_to_string(&pid).unwrap();
        assert!(!exists(&pid), "{pid}");
    };
    let mut sent = 0;
    let failing = std::iter::from_fn(|| {
        sent += 1;
        match sent {
            1 => Some(Ok(three())),
            _ => {
                thread::sleep(Duration::from_secs(1));
                Some(Err(Error::transient("the store is down")))
            }
        }
    });
    let error = run_on(&command(&script), &three().schema(), failing);
    check(error.unwrap_err(), "the store is down");
    let full = |_| Err(Error::transient("no room"));
    let batches = std::iter::repeat_with(|| Ok(three())).take(1);
    let cat = command(&script);
    let error = cat.run("unit", &three().schema(), batches, &|| Ok(()), full);
    check(error.unwrap_err(), "no room");
}

#[test]
fn a_producers_error_counts_even_after_the_program_ended_well() {
    let answers = Answers::new();
    let script = answers.script(&[three().slice(0, 0)]);
    let failing = (0..2).map(|number| {
        thread::sleep(Duration::from_millis(500 * number));
        match number {
            0 => Ok(three()),
            _ => Err(Error::transient("the store is down")),
        }
    });
    let early = command(&script.replace("cat >/dev/null", "head -c 100 >/dev/null"));
    let error = run_on(&early, &three().schema(), failing);
    assert_eq!(error.unwrap_err().to_string(), "the store is down");
}

#[test]
fn a_producers_panic_is_not_hidden() {
    let panicking = std::iter::from_fn(|| -> Option<Result<RecordBatch>> { panic!("a bug") });
    let run = AssertUnwindSafe(|| run_on(&command("cat"), &three().schema(), panicking));
    assert!(panic::catch_unwind(run).is_err());
}

#[test]
fn a_producers_error_comes_before_what_the_program_says_to_it() {
    let failing = [Ok(three()), Err(Error::transient("the store is down"))];
    let error = run_on(
        &command("cat >/dev/null; echo broken stream >&2; exit 1"),
        &three().schema(),
        failing.into_iter(),
    );
    assert_eq!(error.unwrap_err().to_string(), "the store is down");
}

#[test]
fn no_zombies_are_left() {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    for script in [
        "cat",
        "exit 3",
        "kill -9 $$",
        "sleep 1000 & cat",
        "echo x",
        "sleep 1000",
    ] {
        let mut program = command(&format!("echo $$ >{}; {script}", pid.display()));
        program.time_limit = Some(Duration::from_millis(1500));
        let _ = run(&program, &[three()]);
        let pid = std::fs::read_to_string(&pid).unwrap();
        assert!(!exists(&pid), "{script}");
    }
}

#[test]
fn processes_left_behind_are_killed() {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    let script = format!("cat; sleep 1000 & echo $! >{}", pid.display());
    let started = Instant::now();
    assert_eq!(run(&command(&script), &[three()]).unwrap().len(), 3);
    assert!(started.elapsed() < Duration::from_secs(15));
    assert!(gone(std::fs::read_to_string(&pid).unwrap().trim()));
}

#[test]
fn a_process_that_escaped_does_not_hold_us() {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    let script = format!(
        "cat; setsid sleep 60 & echo $! >{}; sleep 0.2",
        pid.display()
    );
    let started = Instant::now();
    assert_eq!(run(&command(&script), &[three()]).unwrap().len(), 3);
    assert!(started.elapsed() < Duration::from_secs(30));
    let pid = std::fs::read_to_string(&pid).unwrap();
    Command::new("kill").arg(pid.trim()).status().unwrap();
}

// Surroundings.

#[test]
fn programs_know_their_step_and_unit_and_keep_directory_and_environment() {
    let here = std::env::current_dir().unwrap();
    let script = format!(
        "test \"$SLUICE_STEP $SLUICE_UNIT\" = 'quality part-00003' && test -n \"$PATH\" && \
         test \"$(pwd -P)\" = '{}' && exec cat",
        here.display()
    );
    assert_eq!(run(&command(&script), &[three()]).unwrap().len(), 3);
}

#[test]
fn sigpipe_has_its_default_action() {
    // Ignored, `yes` would complain about a broken pipe.
    let script = "yes 2>&1 >/dev/full | head -c 0; yes | head -c 1 >/dev/null; cat";
    assert_eq!(run(&command(script), &[three()]).unwrap().len(), 3);
    let script = "(yes; echo $? >&2) | head -c 1 >/dev/null; cat; exit 5";
    let error = fail(script).to_string();
    assert!(error.contains("stderr: 141"), "{error}");
}

#[test]
fn commands_are_checked_before_the_work() {
    for fine in [
        "cat",
        "/bin/cat x",
        "exec cat",
        "cd /tmp && ./score",
        "MODEL=x ./no-such-script",
        "$PYTHON score.py",
        "(no-such-program)",
    ] {
        command(fine).check().unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("score.py");
    std::fs::write(&script, "print()").unwrap();
    for wrong in [
        "",
        "  ",
        "sluice-no-such-program x",
        "./no/such",
        &*script.to_string_lossy(),
        "/tmp",
    ] {
        let error = command(wrong).check().unwrap_err();
        assert_eq!(error.class(), Class::Usage, "{wrong}");
    }
    for outputs in [["a", "a"], ["a", "image_id"]] {
        let mut command = command("cat");
        command.outputs = outputs.map(str::to_owned).to_vec();
        assert!(command.check().unwrap_err().to_string().contains("twice"));
    }
}
