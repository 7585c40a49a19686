//! `sluice try`: shows the funnel with other thresholds.
//!
//! The deciding steps of the run run again, with their own code, in a scratch copy of the run. The
//! copy is a folder of links to the run's manifests, or of copies if the run is in an object store.
//! The conditions and settings are those of the receipts, with the requested changes. Work that is
//! up to date is not repeated. The result therefore equals that of a real run, and the run itself
//! is only read.

mod changes;
mod deciders;
mod lists;
mod scratch;

use anyhow::Result;
use clap::Args;
use serde_json::json;
use sluice_filter::{NamedRule, ThresholdArg, Top};
use sluice_harness::ToolContext;
use sluice_manifest::numbers::thousands;
use sluice_manifest::{Error, StepName};
use sluice_run::funnel::{Funnel, Level};
use sluice_run::{Receipts, Run, counted, steps};
use sluice_store::Location;

use self::changes::TrialChanges;
use crate::taken::refuse_taken;
use crate::text::columns;

/// Show what other thresholds would keep, without changing the run
///
/// Thresholds and rules replace those of the run's filters; new ones are added to the last filter.
/// --eps, --keep and --max-distance change every dedup step that has the method.
///
/// Example: sluice try --run runs/a --min aesthetic=5.5 --eps 0.02
#[derive(Debug, Args)]
pub struct TryArgs {
    /// The run: a URI prefix, on local disk or in object storage
    #[arg(long, env = "SLUICE_RUN", value_name = "URI")]
    pub run: String,

    /// Keep images whose score is at least VALUE
    #[arg(long, value_name = "SCORE=VALUE")]
    pub min: Vec<ThresholdArg>,

    /// Keep images whose score is below VALUE
    #[arg(long, value_name = "SCORE=VALUE")]
    pub max: Vec<ThresholdArg>,

    /// Keep this fraction of the scored images, those with the highest scores
    #[arg(long, value_name = "SCORE=PERCENT")]
    pub top: Vec<Top>,

    /// Choose the threshold that keeps this fraction of the scored images, on the side that is kept
    #[arg(long, value_name = "SCORE=FRACTION")]
    pub keep_fraction: Vec<Top>,

    /// Keep images for which this CEL expression is true
    #[arg(long, value_name = "NAME=EXPRESSION")]
    pub rule: Vec<NamedRule>,

    /// The filter that new conditions are added to (default: the last one)
    #[arg(long, value_name = "STEP")]
    pub filter: Option<StepName>,

    /// Semantic duplicates have a cosine similarity of at least 1 - EPS
    #[arg(long, value_name = "EPS")]
    pub eps: Option<sluice_dedup::Eps>,

    /// Which image of a group of semantic duplicates is kept
    #[arg(long, value_name = "RULE", value_enum)]
    pub keep: Option<sluice_dedup::ranking::KeepRule>,

    /// Maximum number of differing bits between the hashes of perceptual duplicates
    #[arg(long, value_name = "BITS", value_parser = clap::value_parser!(u32).range(0..=16))]
    pub max_distance: Option<u32>,

    /// Write the names of images into this folder: kept.txt, gained.txt and lost.txt, compared with
    /// the run
    ///
    /// `sluice gallery --ids` shows the pictures of such a list.
    #[arg(long, value_name = "FOLDER")]
    pub ids: Option<String>,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// The funnel of a run, and the funnel of the trial.
struct Comparison {
    /// A description of the changes.
    changes: Vec<String>,
    now: Funnel,
    then: Funnel,
    /// Differences from a real run that the numbers do not show.
    notes: Vec<String>,
}

/// Prints the funnel of the trial next to the funnel of the run.
///
/// # Errors
/// Usage, when the run does not have a score, a rule or a step; data, when the run is unfinished.
pub fn try_out(args: &TryArgs, tool: &mut ToolContext<'_>) -> Result<()> {
    let recorded = Run::open_read_only(&tool.shared.storage, &args.run)?;
    let receipts = counted::receipts(&recorded)?;
    let chain = steps::chain(&receipts);
    let undecided = chain
        .iter()
        .find(|step| !steps::has_decided(&receipts, step));
    if let Some(step) = undecided {
        return Err(
            Error::data(format!("step {step} has not decided on everything"))
                .hint("finish the run first")
                .into(),
        );
    }
    let changes = TrialChanges::new(args, &receipts, &chain)?;
    if let Some(folder) = &args.ids {
        let place = Location::parse(folder)?;
        refuse_taken("--ids", &place, &recorded, &recorded.plan()?, &receipts)?;
    }
    let scratch = scratch::Scratch::new(&recorded, &receipts)?;
    for step in &chain {
        recorded.check_stop()?;
        deciders::decide(step, &receipts, &changes, scratch.uri(), &tool.shared)?;
    }
    let tried_run = Run::open_read_only(&tool.shared.storage, scratch.uri())?;
    let tried = tried_run.receipts()?;
    if let Some(folder) = &args.ids {
        lists::write(folder, &recorded, &tried_run, chain.last().copied())?;
    }
    let comparison = Comparison {
        now: Funnel::of_chain(&receipts, &chain),
        then: Funnel::of_chain(&tried, &chain),
        notes: notes(&receipts, &tried, &chain),
        changes: changes.words,
    };
    if args.json {
        writeln!(tool.out, "{}", comparison.json())?
    } else {
        write!(tool.out, "{}", comparison.words())?
    }
    Ok(())
}

/// Returns the additional work of a real run: scores and embeddings of images that reached no
/// scorer yet.
fn notes(receipts: &Receipts, tried: &Receipts, chain: &[&StepName]) -> Vec<String> {
    let mut notes = Vec::new();
    for step in chain {
        let unknown = |receipts: &Receipts| {
            let units = receipts.of(step).iter();
            let sums = units.map(|receipt| {
                let dropped = receipt.counts.dropped.iter();
                let not_scored = dropped.filter(|(dropped, _)| {
                    dropped.reason.kind == sluice_manifest::ReasonKind::NotScored
                });
                not_scored.map(|(_, count)| count).sum::<u64>() + receipt.sums.not_embedded
            });
            sums.sum::<u64>()
        };
        let more = unknown(tried).saturating_sub(unknown(receipts));
        if more > 0 {
            notes.push(format!(
                "{} more images reach {step} without a score or an embedding, which a real run would \
                 compute",
                thousands(more)
            ));
        }
    }
    notes
}

impl Comparison {
    fn json(&self) -> serde_json::Value {
        json!({
            "changes": self.changes,
            "now": self.now,
            "then": self.then,
            "notes": self.notes,
        })
    }

    fn words(&self) -> String {
        let mut rows = vec![row("", "", "now", "then", "change")];
        rows.push(counts("came in", "", self.now.input, self.then.input));
        for (now, then) in self.now.steps.iter().zip(&self.then.steps) {
            let mut reasons: Vec<_> = now.reasons.iter().map(|found| &found.reason).collect();
            reasons.extend(then.reasons.iter().map(|found| &found.reason));
            reasons.sort();
            reasons.dedup();
            for (number, reason) in reasons.into_iter().enumerate() {
                let dropped = |level: &Level| {
                    let mut found = level.reasons.iter();
                    found
                        .find(|found| found.reason == *reason)
                        .map_or(0, |found| found.count)
                };
                let step = if number == 0 { now.step.as_str() } else { "" };
                let step = format!("  {step}");
                rows.push(counts(
                    &step,
                    &reason.to_string(),
                    dropped(now),
                    dropped(then),
                ));
            }
        }
        rows.push(counts("kept", "", self.now.kept, self.then.kept));
        let mut text = String::new();
        for change in &self.changes {
            text.push_str(&format!("{change}\n"));
        }
        text.push('\n');
        text.push_str(&columns(&rows, &[2, 3, 4], ""));
        for note in &self.notes {
            text.push_str(&format!("\nnote: {note}\n"));
        }
        text
    }
}

fn row(step: &str, reason: &str, now: &str, then: &str, change: &str) -> Vec<String> {
    [step, reason, now, then, change].map(str::to_owned).into()
}

fn counts(step: &str, reason: &str, now: u64, then: u64) -> Vec<String> {
    let change = match then.cmp(&now) {
        std::cmp::Ordering::Equal => String::new(),
        std::cmp::Ordering::Greater => format!("+{}", thousands(then - now)),
        std::cmp::Ordering::Less => format!("-{}", thousands(now - then)),
    };
    row(step, reason, &thousands(now), &thousands(then), &change)
}
