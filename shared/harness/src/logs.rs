//! Logs and progress on stderr: bars and plain lines on a terminal, JSON lines otherwise.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use indicatif::ProgressStyle;
use tracing::{Level, Span};
use tracing_indicatif::IndicatifLayer;
use tracing_indicatif::span_ext::IndicatifSpanExt;
use tracing_subscriber::filter::{EnvFilter, FilterFn, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts logging. `SLUICE_LOG` takes the usual directives (`debug`, `sluice_store=trace`).
///
/// `quiet` is for a program that runs many units for a person to watch: progress bars and what
/// the program itself says, but of the stages warnings alone.
pub(crate) fn start(quiet: bool) {
    let default = match quiet {
        true => "warn,sluice::=info,sluice_harness::logs=info,sluice_harness::tool=info",
        false => "info",
    };
    let directives = std::env::var("SLUICE_LOG").unwrap_or_default();
    let directives = match directives.trim() {
        "" => default,
        given => given,
    };
    let filter = EnvFilter::builder().parse_lossy(directives);
    let registry = tracing_subscriber::registry().with(ours()).with(filter);
    let started = if std::io::stderr().is_terminal() {
        let bars = IndicatifLayer::new().with_progress_style(style());
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(bars.get_stderr_writer())
            .without_time()
            .with_target(false);
        registry.with(lines).with(bars).try_init()
    } else {
        let lines = tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .with_target(false)
            .with_writer(std::io::stderr);
        registry.with(lines).try_init()
    };
    // Within one process (tests) the first caller has set it up.
    drop(started);
}

/// Of what libraries say, warnings alone, whatever `SLUICE_LOG` asks for: at the levels below they
/// tell of requests and credentials.
fn ours() -> FilterFn {
    filter_fn(|about| about.target().starts_with("sluice") || *about.level() <= Level::WARN)
}

fn style() -> ProgressStyle {
    let template = "{span_name:>18} {wide_bar:.cyan/dim} {pos}/{len} {msg} {elapsed}";
    // Unwrap safety: the template is a constant, and the tests parse it.
    ProgressStyle::with_template(template).expect("the template is well-formed")
}

/// Argo Workflows shows what a program writes here.
const PROGRESS_FILE: &str = "ARGO_PROGRESS_FILE";

/// A step's progress: its units, and the samples that went through.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    span: Span,
    units: usize,
    done: Arc<AtomicUsize>,
}

impl Progress {
    pub(crate) fn new(step: &str, units: usize) -> Self {
        let span = tracing::info_span!("step", step);
        span.pb_set_style(&style_for(step));
        span.pb_set_length(units as u64);
        span.pb_start();
        Self {
            span,
            units,
            done: Arc::default(),
        }
    }

    pub(crate) fn unit_done(&self) {
        self.span.pb_inc(1);
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(file) = std::env::var_os(PROGRESS_FILE) {
            #[expect(
                clippy::disallowed_methods,
                reason = "Argo's executor reads a file of the container"
            )]
            // Progress that nobody sees is no reason to fail.
            let _ = std::fs::write(file, format!("{done}/{}", self.units));
        }
    }

    pub(crate) fn samples(&self, total: u64) {
        self.span.pb_set_message(&format!("{total} samples"));
    }
}

fn style_for(step: &str) -> ProgressStyle {
    let template = format!("{step:>18} {{wide_bar:.cyan/dim}} {{pos}}/{{len}} {{msg}} {{elapsed}}");
    ProgressStyle::with_template(&template).unwrap_or_else(|_| style())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_template_parses() {
        super::style();
        super::style_for("dedup-match");
    }
}
