//! Logs on stderr: lines with progress bars on a terminal, JSON lines otherwise, or the format of
//! `--log-format`. No colours if `NO_COLOR` is set.
//!
//! Credentials are masked and control characters are escaped in every log line.

use std::fmt::Debug;
use std::io::{self, IsTerminal};

use clap::ValueEnum;
use sluice_manifest::text::shown;
use tracing::Level;
use tracing::field::Field;
use tracing_indicatif::IndicatifLayer;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::{EnvFilter, FilterFn, filter_fn};
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::output::{BestEffort, SafeWriter};

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Plain lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts logging. `SLUICE_LOG` takes the usual directives (`debug`, `sluice_store=trace`).
///
/// With `quiet`, only progress bars, warnings of the stages and messages of the program itself are
/// shown.
pub(crate) fn start(quiet: bool, format: Option<LogFormat>) {
    let is_terminal = io::stderr().is_terminal();
    let is_text = format.map_or(is_terminal, |format| format == LogFormat::Text);
    let default = if quiet {
        "warn,sluice::=info,sluice_harness::progress=info,sluice_harness::tool=info"
    } else {
        "info"
    };
    let directives = std::env::var("SLUICE_LOG").unwrap_or_default();
    let directives = match directives.trim() {
        "" => default,
        given => given,
    };
    let filter = EnvFilter::builder().parse_lossy(directives);
    let registry = tracing_subscriber::registry().with(ours()).with(filter);
    let started = if is_text && is_terminal {
        let bars = IndicatifLayer::new();
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(bars.get_stderr_writer())
            .fmt_fields(debug_fn(write_field).delimited(" "))
            .without_time()
            .with_target(false);
        registry.with(lines).with(bars).try_init()
    } else if is_text {
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(|| SafeWriter::words(BestEffort(io::stderr())))
            .fmt_fields(debug_fn(write_field).delimited(" "))
            .with_ansi(false)
            .with_target(false);
        registry.with(lines).try_init()
    } else {
        let lines = tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .with_target(false)
            .with_writer(|| SafeWriter::words(BestEffort(io::stderr())));
        registry.with(lines).try_init()
    };
    // In tests, an earlier call in the same process has set the logger.
    drop(started);
}

/// Libraries whose log lines are dropped, because all of their failures are also returned as
/// errors.
const SILENT: [&str; 2] = ["opendal", "reqsign"];

/// Writes a field of a plain log line.
fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> std::fmt::Result {
    let value = shown(&format!("{value:?}"));
    match field.name() {
        "message" => write!(writer, "{value}"),
        // Fields that the crate `log` adds.
        name if name.starts_with("log.") => Ok(()),
        name => write!(writer, "{name}={value}"),
    }
}

/// Lets only warnings of libraries pass, whatever `SLUICE_LOG` is. Below that level they log
/// requests and credentials.
fn ours() -> FilterFn {
    filter_fn(|about| {
        let is_silent = SILENT.iter().any(|name| about.target().starts_with(name));
        about.target().starts_with("sluice") || (*about.level() <= Level::WARN && !is_silent)
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Returns what a layer writes about one event.
    fn logged<L>(layer: impl FnOnce(Arc<Mutex<Vec<u8>>>) -> L) -> String
    where
        L: tracing_subscriber::Layer<tracing_subscriber::Registry> + Send + Sync + 'static,
    {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let registry = tracing_subscriber::registry().with(layer(lines.clone()));
        tracing::subscriber::with_default(registry, || {
            let shard = "\x1b]0;x\x07a\u{202e}.tar\n{";
            tracing::warn!(shard, at = %"http://h/?x=HUSH", "{shard}: S3://u:HUSH@b is gone");
        });
        let lines = lines.lock().unwrap().clone();
        String::from_utf8(lines).unwrap()
    }

    fn check(text: &str) {
        let line = text.trim_end();
        assert!(
            !text.contains("HUSH") && text.contains("S3://…@b is gone"),
            "{text}"
        );
        assert!(!line.contains(['\x1b', '\x07', '\u{202e}']), "{text:?}");
        assert!(
            line.split('\n').skip(1).all(|line| line.starts_with("  ")),
            "{text}"
        );
    }

    #[test]
    fn lines_for_people_are_safe() {
        check(&logged(|lines| {
            tracing_subscriber::fmt::layer()
                .with_writer(move || Shared(lines.clone()))
                .fmt_fields(debug_fn(write_field).delimited(" "))
                .with_ansi(false)
        }));
    }

    #[test]
    fn json_lines_are_safe_and_stay_json() {
        let text = logged(|lines| {
            tracing_subscriber::fmt::layer()
                .json()
                .flatten_event(true)
                .with_writer(move || SafeWriter::words(Shared(lines.clone())))
        });
        check(&text);
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["shard"], "\x1b]0;x\x07a\u{202e}.tar\n{");
    }

    /// A buffer that a layer writes to.
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(text)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
