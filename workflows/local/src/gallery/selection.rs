//! The selection of samples that a gallery shows.

use std::collections::HashSet;
use std::str::FromStr;

use anyhow::Result;
use sluice_manifest::{Error, ImageId, Reason, ScoreName, StepName};
use sluice_run::steps;
use sluice_run::walk::Walked;
use sluice_store::{Location, Storage};

use super::{GalleryArgs, Pictured};

/// `SCORE=FROM..TO`. Either end may be left out.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreRange {
    /// The score.
    pub score: ScoreName,
    /// The lower bound.
    pub from: f32,
    /// The upper bound.
    pub to: f32,
}

impl FromStr for ScoreRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected SCORE=FROM..TO, got {text:?}");
        let (name, range) = text.split_once('=').ok_or_else(wrong)?;
        let (from, to) = range.split_once("..").ok_or_else(wrong)?;
        let end = |text: &str, open: f32| match text.trim() {
            "" => Ok(open),
            text => text
                .parse::<f32>()
                .ok()
                .filter(|n| !n.is_nan())
                .ok_or_else(wrong),
        };
        Ok(Self {
            score: name.trim().parse().map_err(|e: Error| e.to_string())?,
            from: end(from, f32::NEG_INFINITY)?,
            to: end(to, f32::INFINITY)?,
        })
    }
}

/// The selected samples.
pub(super) struct SampleSelection {
    /// A description for the page's title.
    pub title: String,
    /// Indices of scores, with the ranges that they must be in.
    pub scores: Vec<(usize, ScoreRange)>,
    step: Option<StepName>,
    reason: Option<String>,
    is_kept: bool,
    names: Option<HashSet<ImageId>>,
}

impl SampleSelection {
    /// Returns the selection that the arguments describe.
    ///
    /// # Errors
    /// Usage, when the run has no such step, reason or score.
    pub(super) fn new(args: &GalleryArgs, run: &Pictured<'_>, storage: &Storage) -> Result<Self> {
        if let Some(step) = &args.dropped_by {
            check_step(step, run)?;
        }
        if let Some(rule) = &args.rule {
            check_rule(rule, run)?;
        }
        let scores = args.score.iter().map(|range| {
            let place = run.walk.scoring.required(&range.score)?;
            Ok((place, range.clone()))
        });
        Ok(Self {
            scores: scores.collect::<Result<_, Error>>()?,
            title: title(args),
            step: args.dropped_by.clone(),
            reason: args.rule.clone(),
            is_kept: args.kept,
            names: args
                .ids
                .as_ref()
                .map(|file| names(storage, file))
                .transpose()?,
        })
    }

    /// Whether a sample is selected.
    pub(super) fn selects(&self, walked: &Walked) -> bool {
        let verdict = &walked.verdict;
        let dropped = verdict.dropped.as_ref();
        let is_in_ranges = self.scores.iter().all(|(place, range)| {
            let score = walked.scores[*place];
            score >= range.from && score <= range.to
        });
        let by_step = |step: &StepName| dropped.is_some_and(|dropped| dropped.step == *step);
        let for_reason = |rule: &String| dropped.is_some_and(|d| is_about(&d.reason, rule));
        is_in_ranges
            && self.step.as_ref().is_none_or(by_step)
            && self.reason.as_ref().is_none_or(for_reason)
            && (!self.is_kept || dropped.is_none())
            && self
                .names
                .as_ref()
                .is_none_or(|names| names.contains(&verdict.sample.image_id))
    }

    /// Whether samples that this step dropped are selected.
    pub(super) fn selects_step(&self, step: &StepName) -> bool {
        self.step.as_ref().is_none_or(|wanted| wanted == step)
    }
}

/// Whether a name refers to a reason: by its rule or score, by its kind, or by its full text.
fn is_about(reason: &Reason, name: &str) -> bool {
    let is_subject = reason.subject.as_deref() == Some(name);
    is_subject || reason.kind.as_str() == name || reason.to_string() == name
}

fn check_step(step: &StepName, run: &Pictured<'_>) -> Result<(), Error> {
    let read = StepName::read();
    let mut deciders = vec![&read];
    deciders.extend(steps::chain(run.receipts));
    if deciders.contains(&step) {
        return Ok(());
    }
    let names: Vec<&str> = deciders.iter().map(|step| step.as_str()).collect();
    let wrong = if run.receipts.of(step).is_empty() {
        "the run has no such step"
    } else {
        "the step drops nothing"
    };
    Err(
        Error::usage(format!("--dropped-by {step}: {wrong}")).hint(format!(
            "the steps that drop images are {}; --rule takes a score",
            names.join(", ")
        )),
    )
}

fn check_rule(rule: &str, run: &Pictured<'_>) -> Result<(), Error> {
    let receipts = run
        .receipts
        .steps()
        .into_iter()
        .flat_map(|step| run.receipts.of(step));
    let reasons = receipts.flat_map(|receipt| receipt.counts.dropped.keys());
    let mut reasons: Vec<&Reason> = reasons.map(|dropped| &dropped.reason).collect();
    if reasons.iter().any(|reason| is_about(reason, rule)) {
        return Ok(());
    }
    reasons.sort();
    reasons.dedup();
    let names: Vec<String> = reasons.iter().map(|reason| reason.to_string()).collect();
    Err(Error::usage(format!(
        "--rule {rule}: nothing was dropped for this reason"
    ))
    .hint(format!("the reasons are {}", names.join(", "))))
}

fn names(storage: &Storage, file: &str) -> Result<HashSet<ImageId>> {
    let location = Location::parse(file)?;
    let none = || Error::usage(format!("--ids {file}: no such file"));
    let (folder, name) = location.split().ok_or_else(none)?;
    let content = storage
        .open(&folder)?
        .get_if_there(&name)?
        .ok_or_else(none)?;
    let text = String::from_utf8_lossy(&content);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    Ok(lines.map(ImageId::from_text).collect())
}

fn title(args: &GalleryArgs) -> String {
    let mut parts = Vec::new();
    if args.kept {
        parts.push("kept".to_owned());
    }
    parts.extend(
        args.dropped_by
            .as_ref()
            .map(|step| format!("dropped by {step}")),
    );
    parts.extend(args.rule.as_ref().map(|rule| format!("dropped for {rule}")));
    if args.duplicates {
        parts.push("duplicates".to_owned());
    }
    let ranges = args.score.iter();
    parts
        .extend(ranges.map(|range| format!("{} from {} to {}", range.score, range.from, range.to)));
    parts.extend(args.ids.as_ref().map(|file| format!("named in {file}")));
    if parts.is_empty() {
        "Random samples".to_owned()
    } else {
        format!("Pictures: {}", parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use sluice_manifest::ReasonKind;

    use super::*;

    #[test]
    fn ranges_parse() {
        let parse = |text: &str| text.parse::<ScoreRange>();
        let range = parse("nsfw.porn=0.2..0.75").unwrap();
        assert_eq!(
            (range.score.to_string().as_str(), range.from, range.to),
            ("nsfw.porn", 0.2, 0.75)
        );
        assert_eq!(parse("a=..5").unwrap().from, f32::NEG_INFINITY);
        assert_eq!(parse("a=5..").unwrap().to, f32::INFINITY);
        for wrong in ["a", "a=5", "a=x..5", "a=nan..1", "A=1..2"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn reasons_have_several_names() {
        let rule = Reason::about(ReasonKind::Rule, "large");
        let below = Reason::about(ReasonKind::BelowMin, "aesthetic");
        assert!(
            ["large", "rule:large", "rule"]
                .iter()
                .all(|name| is_about(&rule, name))
        );
        assert!(
            ["below-min", "aesthetic", "below-min:aesthetic"]
                .iter()
                .all(|name| is_about(&below, name))
        );
        assert!(!is_about(&below, "large") && !is_about(&rule, "aesthetic"));
    }
}
