//! The conditions of a filter: as they are given, and with the thresholds that their models state.

use std::collections::BTreeSet;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sluice_harness::Context;
use sluice_manifest::{Error, Keep, Result, ScoreColumn, ScoreName, StepName, Unit, UnitKind};
use sluice_run::Upstream;

use crate::Args;
use crate::columns::{self, is_column, refuse_reserved};
use crate::rules::{RuleError, RuleSet, names};
use crate::sample::Sampling;

/// `SCORE` or `SCORE=VALUE`.
#[derive(Debug, Clone, PartialEq)]
pub struct ThresholdArg {
    /// The score.
    pub score: ScoreName,
    /// The threshold; none: the model's own.
    pub value: Option<f32>,
}

impl FromStr for ThresholdArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        let score = name.trim().parse().map_err(|e: Error| e.to_string())?;
        let value = match value.trim() {
            "" => None,
            text => Some(finite(text)?),
        };
        Ok(Self { score, value })
    }
}

/// `SCORE=30%` or `SCORE=0.3`.
#[derive(Debug, Clone, PartialEq)]
pub struct Top {
    /// The score.
    pub score: ScoreName,
    /// The fraction that stays, above 0 and at most 1.
    pub fraction: f64,
}

impl FromStr for Top {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("expected SCORE=PERCENT")?;
        let score = name.trim().parse().map_err(|e: Error| e.to_string())?;
        let value = value.trim();
        let fraction: f64 = match value.strip_suffix('%') {
            Some(percent) => finite::<f64>(percent.trim())? / 100.0,
            None => finite(value)?,
        };
        if !(fraction > 0.0 && fraction <= 1.0) {
            return Err(format!(
                "expected a fraction above 0% and at most 100%, got {value:?}"
            ));
        }
        Ok(Self { score, fraction })
    }
}

fn finite<N: FromStr + Copy + Into<f64>>(text: &str) -> Result<N, String> {
    let number = text
        .parse()
        .ok()
        .filter(|&number: &N| number.into().is_finite());
    number.ok_or_else(|| format!("expected a finite number, got {text:?}"))
}

/// `NAME=EXPRESSION`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedRule {
    /// The rule's name.
    pub name: String,
    /// The CEL expression.
    pub expression: String,
}

impl FromStr for NamedRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, expression) = text.split_once('=').ok_or("expected NAME=EXPRESSION")?;
        Ok(Self {
            name: name.trim().to_owned(),
            expression: expression.trim().to_owned(),
        })
    }
}

/// A condition that every image that stays has to meet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// The score is at least the threshold.
    Min {
        /// The score.
        score: ScoreName,
        /// The threshold.
        threshold: f32,
    },
    /// The score is below the threshold.
    Max {
        /// The score.
        score: ScoreName,
        /// The threshold.
        threshold: f32,
    },
    /// The score is at least the threshold that keeps this fraction.
    Top {
        /// The score.
        score: ScoreName,
        /// The fraction.
        fraction: f64,
        /// The threshold, once the histograms are known.
        threshold: Option<f32>,
        /// How exact it is: the width of the histogram's bins, as a fraction of the threshold.
        resolution: Option<f64>,
    },
    /// The expression is true.
    Rule {
        /// The rule's name.
        name: String,
        /// The expression.
        expression: String,
    },
    /// The image is among those that stay of its cluster.
    Sample(Sampling),
}

impl Condition {
    /// Returns the score that a threshold is about.
    pub fn score(&self) -> Option<&ScoreName> {
        match self {
            Self::Min { score, .. } | Self::Max { score, .. } | Self::Top { score, .. } => {
                Some(score)
            }
            Self::Rule { .. } | Self::Sample(_) => None,
        }
    }
}

/// The settings that shape the decisions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The conditions, in the order in which they are tested.
    pub conditions: Vec<Condition>,
}

/// Returns the scorers that the conditions read.
///
/// # Errors
/// Usage, when a rule is not CEL.
pub(crate) fn needed_scores(args: &Args) -> Result<BTreeSet<StepName>> {
    let thresholds = args.min.iter().chain(&args.max).map(|given| &given.score);
    let tops = args.top.iter().map(|top| &top.score);
    let named = thresholds.chain(tops).chain(&args.scores);
    let mut needed: BTreeSet<StepName> = named.map(|score| score.step.clone()).collect();
    for rule in &args.rule {
        needed.extend(scorers_of_rule(&rule.name, &rule.expression)?);
    }
    Ok(needed)
}

/// Returns the scorers that conditions read.
///
/// # Errors
/// Usage, when a rule is not CEL.
pub fn scorers_of(conditions: &[Condition]) -> Result<BTreeSet<StepName>> {
    let mut needed = BTreeSet::new();
    for condition in conditions {
        needed.extend(condition.score().map(|score| score.step.clone()));
        if let Condition::Rule { name, expression } = condition {
            needed.extend(scorers_of_rule(name, expression)?);
        }
    }
    Ok(needed)
}

fn scorers_of_rule(rule: &str, expression: &str) -> Result<Vec<StepName>> {
    let names = names(rule, expression).map_err(refused)?.into_iter();
    let names = names.filter(|name| !is_column(name));
    Ok(names
        .filter_map(|name| StepName::new(&name.replace('_', "-")).ok())
        .collect())
}

/// Checks conditions whose thresholds are known, and compiles their rules.
///
/// # Errors
/// Usage, when a rule does not compile, a threshold is outside of the scores' range, or there is no
/// such score.
pub(crate) fn compiled(conditions: &[Condition], upstream: &Upstream) -> Result<RuleSet> {
    let mut rules = Vec::new();
    for condition in conditions {
        match condition {
            Condition::Min { score, threshold } => {
                check_range(score, *threshold, upstream.score(score)?, "--min")?;
            }
            Condition::Max { score, threshold } => {
                check_range(score, *threshold, upstream.score(score)?, "--max")?;
            }
            Condition::Top { score, .. } => {
                upstream.score(score)?;
            }
            Condition::Rule { name, expression } => rules.push((name.clone(), expression.clone())),
            Condition::Sample(_) => {}
        }
    }
    RuleSet::compile(&rules, &columns::variables(upstream)).map_err(refused)
}

/// Refuses rules that read a column where the run has a score of the same name: it is not clear which
/// of the two was meant.
///
/// # Errors
/// Usage, when there is such a score; of storage.
pub(crate) fn refuse_hidden_scores(args: &Args, context: &Context) -> Result<()> {
    for rule in &args.rule {
        let names = names(&rule.name, &rule.expression).map_err(refused)?;
        for name in names.into_iter().filter(|name| is_column(name)) {
            let Ok(step) = StepName::new(&name.replace('_', "-")) else {
                continue;
            };
            let receipt = context.receipt(&step, Unit::once(UnitKind::Partition))?;
            if receipt.is_some_and(|receipt| !receipt.scores.is_empty()) {
                refuse_reserved(&step)?;
            }
        }
    }
    Ok(())
}

/// Returns the conditions with their thresholds, and the compiled rules.
///
/// # Errors
/// Usage: no condition at all, a score that no step gives, a threshold outside of the model's range or
/// none where the model states none, a rule that does not compile.
pub(crate) fn resolve(args: &Args, upstream: &Upstream) -> Result<(Vec<Condition>, RuleSet)> {
    for (step, _) in upstream.scorers() {
        refuse_reserved(step)?;
    }
    let mut conditions = Vec::new();
    for score in &args.scores {
        let column = upstream.score(score)?;
        let threshold = own_threshold(score, column)?;
        let score = score.clone();
        conditions.push(match column.keep {
            Keep::AtLeast => Condition::Min { score, threshold },
            Keep::Below => Condition::Max { score, threshold },
        });
    }
    for given in &args.min {
        let (score, threshold) = (given.score.clone(), threshold(given, upstream, "--min")?);
        conditions.push(Condition::Min { score, threshold });
    }
    for given in &args.max {
        let (score, threshold) = (given.score.clone(), threshold(given, upstream, "--max")?);
        conditions.push(Condition::Max { score, threshold });
    }
    for Top { score, fraction } in &args.top {
        upstream.score(score)?;
        conditions.push(Condition::Top {
            score: score.clone(),
            fraction: *fraction,
            threshold: None,
            resolution: None,
        });
    }
    let rules: Vec<(String, String)> = args
        .rule
        .iter()
        .map(|rule| (rule.name.clone(), rule.expression.clone()))
        .collect();
    let compiled = RuleSet::compile(&rules, &columns::variables(upstream)).map_err(refused)?;
    let rules = rules.into_iter();
    conditions.extend(rules.map(|(name, expression)| Condition::Rule { name, expression }));
    if let Some(sampling) = args.sample.sampling() {
        if !conditions.is_empty() {
            return Err(
                Error::usage("--sample-per-cluster: the filter has other conditions too")
                    .hint("sample in a filter step of its own, after the other one"),
            );
        }
        conditions.push(Condition::Sample(sampling));
    }
    if conditions.is_empty() {
        return Err(Error::usage("the filter has no condition")
            .hint("give --min, --max, --top, --scores, --rule or --sample-per-cluster"));
    }
    Ok((conditions, compiled))
}

fn refused(e: RuleError) -> Error {
    let error = Error::new(e.class, e.message);
    match e.hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

fn own_threshold(score: &ScoreName, column: &ScoreColumn) -> Result<f32> {
    column.threshold.ok_or_else(|| {
        Error::usage(format!("{score} has no threshold of its own")).hint(format!(
            "give one: --min {score}=VALUE or --max {score}=VALUE"
        ))
    })
}

fn threshold(given: &ThresholdArg, upstream: &Upstream, flag: &str) -> Result<f32> {
    let column = upstream.score(&given.score)?;
    let Some(value) = given.value else {
        return own_threshold(&given.score, column);
    };
    check_range(&given.score, value, column, flag)?;
    Ok(value)
}

fn check_range(score: &ScoreName, value: f32, column: &ScoreColumn, flag: &str) -> Result<()> {
    match column.range {
        Some([low, high]) if !(low..=high).contains(&value) => Err(Error::usage(format!(
            "{flag} {score}={value}: the scores are from {low} to {high}"
        ))
        .hint("choose a threshold in this range")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use sluice_run::StepOutputs;

    use super::*;

    fn upstream() -> Upstream {
        let mut upstream = Upstream::default();
        let column = |name: &str, keep| ScoreColumn {
            range: Some([0.0, 1.0]),
            threshold: Some(0.5),
            keep,
            ..ScoreColumn::named(name)
        };
        let mut give = |step: &str, scores| {
            let gives = StepOutputs {
                scores,
                ..StepOutputs::default()
            };
            upstream.insert(StepName::new(step).unwrap(), gives);
        };
        give("aesthetic", vec![column("score", Keep::AtLeast)]);
        give("nsfw-2", vec![column("score", Keep::Below)]);
        give("mine", vec![ScoreColumn::named("score")]);
        give("x", vec![ScoreColumn::named("score")]);
        give(
            "kinds",
            vec![column("porn", Keep::Below), column("art", Keep::AtLeast)],
        );
        upstream
    }

    fn resolved(words: &[&str]) -> Result<Vec<Condition>, String> {
        let line = ["sluice-filter", "--run", "r"];
        let args = Args::try_parse_from(line.iter().chain(words)).map_err(|e| e.to_string())?;
        needed_scores(&args).map_err(|e| e.to_string())?;
        let resolved = resolve(&args, &upstream());
        Ok(resolved.map_err(|e| e.to_string())?.0)
    }

    #[test]
    fn models_give_thresholds_and_directions() {
        let conditions = resolved(&["--scores", "nsfw-2,kinds.art", "--min", "aesthetic="]);
        let name = |text: &str| text.parse().unwrap();
        let threshold = 0.5;
        let max = |score| Condition::Max {
            score: name(score),
            threshold,
        };
        let min = |score| Condition::Min {
            score: name(score),
            threshold,
        };
        assert_eq!(
            conditions.unwrap(),
            [max("nsfw-2"), min("kinds.art"), min("aesthetic")]
        );
    }

    #[test]
    fn wrong_conditions_are_refused() {
        let cases: &[(&[&str], &str)] = &[
            (&[], "no condition"),
            (&["--min", "aesthetic=12"], "from 0 to 1"),
            (&["--min", "aesthetic=nan"], "finite"),
            (&["--max", "nsfw-2=inf"], "finite"),
            (&["--max", "nsfw-2=x"], "finite"),
            (
                &["--min", "beauty=1"],
                "no earlier step gives the score beauty",
            ),
            (&["--min", "Aesthetic=1"], "invalid step name"),
            (&["--min", "mine"], "no threshold of its own"),
            (&["--min", "kinds=0.5"], "several outputs"),
            (&["--min", "kinds.dog=0.5"], "no output"),
            (&["--top", "aesthetic"], "SCORE=PERCENT"),
            (&["--top", "aesthetic=0%"], "above 0%"),
            (&["--top", "aesthetic=130%"], "at most 100%"),
            (&["--sample-per-cluster", "0"], "not in 1"),
            (
                &["--sample-per-cluster", "9", "--min", "aesthetic"],
                "other conditions",
            ),
            (&["--rule", "width > 3"], "NAME=EXPRESSION"),
            (&["--rule", "a=width >"], "rule a"),
            (&["--rule", "a=widht > 3"], "widht"),
            (&["--rule", "a=width"], "rule a"),
            (&["--rule", "A=true"], "rule name"),
        ];
        for (words, part) in cases {
            let error = resolved(words).unwrap_err();
            assert!(error.contains(part), "{words:?}: {error}");
        }
    }

    fn needed(rule: &str) -> Vec<String> {
        let args = Args::try_parse_from(["sluice-filter", "--run=r", &format!("--rule=a={rule}")]);
        let needed = needed_scores(&args.unwrap()).unwrap();
        needed.iter().map(StepName::to_string).collect()
    }

    #[test]
    fn rules_name_the_scorers_that_they_read() {
        let cases: &[(&str, &[&str])] = &[
            ("nsfw_2 < 0.5 && has(metadata.x) && width > 3", &["nsfw-2"]),
            ("type(metadata.year) == int", &[]),
            ("metadata.tags.exists(t, t == 'a')", &[]),
            ("metadata.tags.all(t, t > mine)", &["mine"]),
            ("metadata.tags.exists_one(t, t == 'a')", &[]),
            ("size(metadata.tags.filter(t, t > 1)) > 0", &[]),
            ("metadata.tags.map(t, t + x) == [mine]", &["mine", "x"]),
            ("metadata.tags.map(t, t > 1, t * 2) == [2]", &[]),
            // The variable of the loop around is read in the inner one, and hidden by it.
            ("metadata.a.all(t, metadata.b.exists(u, u == t))", &[]),
            ("metadata.a.all(t, metadata.b.exists(t, t == 1))", &[]),
            ("metadata.a.all(x, x > 1) && x > 2", &["x"]),
            ("x > 2 && metadata.a.all(x, x > 1)", &["x"]),
            ("[x].all(x, x > 1)", &["x"]),
            ("metadata.a.map(x, [x].map(y, x + y)) != [y]", &["y"]),
            ("metadata.a.all(width, width > 3)", &[]),
            ("kinds.porn < 0.5 || mine > 1", &["kinds", "mine"]),
        ];
        for (rule, expected) in cases {
            assert_eq!(needed(rule), *expected, "{rule}");
        }
    }

    #[test]
    fn variables_of_loops_are_no_scores() {
        let rule = "r=metadata.tags.exists(t, t == 'a') && [1].all(t, t < metadata.n)";
        resolved(&["--rule", rule]).unwrap();
    }

    #[test]
    fn a_score_cannot_have_the_name_of_something_else() {
        let all = ["pixels", "aspect", "blurry", "metadata", "low-information"];
        let words = ["in", "int", "string", "true", "null", "package"];
        for name in all.iter().chain(&words) {
            let mut upstream = upstream();
            let scores = vec![ScoreColumn::named("score")];
            let step = StepName::new(name).unwrap();
            let gives = StepOutputs {
                scores,
                ..StepOutputs::default()
            };
            upstream.insert(step, gives);
            let args = Args::try_parse_from(["sluice-filter", "--run=r", "--min=mine=1"]).unwrap();
            let error = resolve(&args, &upstream).map(|_| ()).unwrap_err();
            assert!(error.to_string().contains(name), "{name}: {error}");
        }
        for name in ["aesthetic", "size", "max", "x", "types"] {
            refuse_reserved(&StepName::new(name).unwrap()).unwrap();
        }
    }
}
