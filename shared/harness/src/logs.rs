//! Logs on stderr: plain lines with progress bars on a terminal, JSON lines otherwise, or as
//! `--log-format` asks. Colours are off where `NO_COLOR` is set.
//!
//! Credentials are hidden, and what would steer a terminal is escaped, whoever logs it.

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

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging. `SLUICE_LOG` takes the usual directives (`debug`, `sluice_store=trace`).
///
/// `quiet` is for a program whose steps are not what it is about: what the program itself says, but of
/// the stages warnings alone, besides progress bars.
pub(crate) fn start(quiet: bool, format: Option<LogFormat>) {
    let is_terminal = io::stderr().is_terminal();
    let is_text = format.map_or(is_terminal, |format| format == LogFormat::Text);
    let default = match quiet {
        true => "warn,sluice::=info,sluice_harness::progress=info,sluice_harness::tool=info",
        false => "info",
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
    // Within one process (tests) the first caller has set it up.
    drop(started);
}

/// Libraries that log no word for people: each of their failures reaches us as an error too.
const SILENT: [&str; 2] = ["opendal", "reqsign"];

/// Writes a field of a log line for people.
fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> std::fmt::Result {
    let value = shown(&format!("{value:?}"));
    match field.name() {
        "message" => write!(writer, "{value}"),
        // What the crate `log` says about itself.
        name if name.starts_with("log.") => Ok(()),
        name => write!(writer, "{name}={value}"),
    }
}

/// Of what libraries say, warnings alone, whatever `SLUICE_LOG` asks for: at the levels below they
/// tell of requests and credentials.
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

    /// What a layer writes about one event.
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
