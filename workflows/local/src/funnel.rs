//! The summary at the end of `sluice run`: the funnel, and the time of each step.

use std::collections::BTreeSet;
use std::io::{self, Write};

use serde_json::{Value, json};
use sluice_harness::{StepDone, add_choices, add_device, add_reported, add_rows};
use sluice_manifest::numbers::{bytes, plural, thousands};
use sluice_run::funnel::Funnel;

use crate::text::columns;

/// The maximum number of reasons and of steps that are listed, so that the summary fits a screen of
/// 24 lines. The remaining reasons share one line, and so do the fastest steps.
const REASONS: usize = 8;
const STEPS: usize = 5;

/// The results of a run.
#[derive(Debug, Clone)]
pub struct Summary {
    /// The URI of the run.
    pub run: String,
    /// The URI of the curated dataset.
    pub output: String,
    /// The URI of the report.
    pub report: String,
    /// The funnel, once the export has decided.
    pub funnel: Option<Funnel>,
    /// Shards of the curated dataset.
    pub output_shards: u64,
    /// Their size in bytes.
    pub output_bytes: u64,
    /// The steps that ran.
    pub steps: Vec<StepSummary>,
}

/// One step of the summary.
#[derive(Debug, Clone)]
pub struct StepSummary {
    /// The step, with the subcommand if the step has several.
    pub step: String,
    /// Its command line.
    pub command: String,
    /// The steps that it shared a pass over the images with.
    pub shared_with: Vec<String>,
    /// Its result.
    pub done: StepDone,
}

impl StepSummary {
    /// Whether no work was left to do. This includes a step that has no units at all.
    pub fn is_up_to_date(&self) -> bool {
        self.done.units == self.done.up_to_date
    }
}

impl Summary {
    /// Returns the summary as the program's result.
    pub fn as_json(&self) -> Value {
        let steps = self.steps.iter().map(|line| {
            let mut step = json!({
                "step": line.step,
                "status": if line.is_up_to_date() { "up-to-date" } else { "done" },
                "units": {
                    "total": line.done.units,
                    "done": line.done.units - line.done.up_to_date,
                    "up_to_date": line.done.up_to_date,
                },
                "seconds": (line.done.seconds * 1000.0).round() / 1000.0,
                "command": line.command,
            });
            if !line.shared_with.is_empty() {
                step["shared_pass_with"] = json!(line.shared_with);
            }
            add_choices(&mut step, &line.done.choices);
            add_reported(&mut step, &line.done.reported);
            add_device(&mut step, line.done.device.as_ref());
            add_rows(&mut step, line.done.rows);
            step
        });
        json!({
            "run": self.run,
            "output": self.output,
            "report": self.report,
            "funnel": self.funnel,
            "outputs": { "shards": self.output_shards, "bytes": self.output_bytes },
            "steps": steps.collect::<Vec<_>>(),
        })
    }
}

/// Writes the summary for people.
///
/// # Errors
/// Fails when `out` cannot be written.
pub fn write(summary: &Summary, up_to_date: bool, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out)?;
    if let Some(funnel) = &summary.funnel {
        write!(out, "{}", funnel_text(funnel, summary))?;
        writeln!(out)?;
    }
    if up_to_date {
        writeln!(out, "everything was up to date")?
    } else {
        write!(out, "{}", steps_text(&summary.steps))?
    }
    writeln!(out)?;
    let places = [
        ("dataset", &summary.output),
        ("run", &summary.run),
        ("report", &summary.report),
    ];
    let rows = places.map(|(name, place)| vec![name.to_owned(), place.clone()]);
    write!(out, "{}", columns(&rows, &[], ""))
}

fn funnel_text(funnel: &Funnel, summary: &Summary) -> String {
    let mut rows = vec![vec![
        "came in".to_owned(),
        String::new(),
        thousands(funnel.input),
    ]];
    let reasons = || {
        let levels = funnel.steps.iter();
        levels.flat_map(|level| {
            level
                .reasons
                .iter()
                .map(move |reason| (&level.step, reason))
        })
    };
    let listed = largest(reasons().map(|(_, reason)| reason.count as f64), REASONS);
    let (mut others, mut sum, mut last) = (0, 0, None);
    for (place, (step, dropped)) in reasons().enumerate() {
        if !listed.contains(&place) {
            (others, sum) = (others + 1, sum + dropped.count);
            continue;
        }
        let name = if last == Some(step) {
            ""
        } else {
            step.as_str()
        };
        last = Some(step);
        rows.push(vec![
            format!("  {name}"),
            dropped.reason.to_string(),
            format!("-{}", thousands(dropped.count)),
            dropped.text.to_owned(),
        ]);
    }
    if others > 0 {
        let sum = format!("-{}", thousands(sum));
        let reasons = plural(others, "other reason");
        rows.push(vec![
            String::new(),
            reasons,
            sum,
            "in the report".to_owned(),
        ]);
    }
    let share = funnel.kept as f64 * 100.0 / funnel.input.max(1) as f64;
    let mut kept = format!("{share:.1}%");
    if summary.output_shards > 0 {
        let shards = plural(summary.output_shards, "shard");
        kept.push_str(&format!(", in {shards} of {}", bytes(summary.output_bytes)));
    }
    rows.push(vec![
        "kept".to_owned(),
        String::new(),
        thousands(funnel.kept),
        kept,
    ]);
    columns(&rows, &[2], "")
}

/// Returns a row for each step that has units. The fastest steps share one row.
fn steps_text(steps: &[StepSummary]) -> String {
    let steps: Vec<&StepSummary> = steps.iter().filter(|line| line.done.units > 0).collect();
    let listed = largest(steps.iter().map(|line| line.done.seconds), STEPS);
    let (rows, others): (Vec<usize>, Vec<usize>) =
        (0..steps.len()).partition(|place| listed.contains(place));
    let mut rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|place| step_row(steps[place]))
        .collect();
    if !others.is_empty() {
        let others = others.iter().map(|place| steps[*place]);
        let old = others.clone().filter(|line| line.is_up_to_date()).count() as u64;
        let seconds: f64 = others.clone().map(|line| line.done.seconds).sum();
        rows.push(vec![
            plural(others.len() as u64, "other step"),
            if old > 0 {
                format!("{old} up to date")
            } else {
                String::new()
            },
            format!("{seconds:.1} s"),
        ]);
    }
    columns(&rows, &[2], "")
}

/// Returns the indices of the `most` largest numbers, or of all numbers if there is only one more.
fn largest(numbers: impl Iterator<Item = f64>, most: usize) -> BTreeSet<usize> {
    let mut numbers: Vec<(usize, f64)> = numbers.enumerate().collect();
    if numbers.len() > most + 1 {
        numbers.sort_by(|a, b| b.1.total_cmp(&a.1));
        numbers.truncate(most);
    }
    numbers.into_iter().map(|(place, _)| place).collect()
}

fn step_row(line: &StepSummary) -> Vec<String> {
    let (units, old) = (line.done.units, line.done.up_to_date);
    let did = match (units, old) {
        (units, old) if units == old => "up to date".to_owned(),
        (units, 0) => plural(units, "unit"),
        (units, old) => format!("{} of {}", units - old, plural(units, "unit")),
    };
    let rows = match line.done.rows {
        Some((computed, reused)) if units > old => format!(
            "{} computed, {} taken over",
            thousands(computed),
            thousands(reused)
        ),
        _ => String::new(),
    };
    let seconds = format!("{:.1} s", line.done.seconds);
    vec![line.step.clone(), did, seconds, rows]
}

#[cfg(test)]
mod tests {

    use sluice_manifest::{Counts, Dropped, Reason, ReasonKind, StepName};

    use super::*;

    fn summary() -> Summary {
        let [read, usable, filter, dedup] =
            ["read", "usable", "filter", "dedup"].map(StepName::fixed);
        let dropped = |step: &StepName, reason: Reason| Dropped {
            step: step.clone(),
            reason,
        };
        let large = Reason::about(ReasonKind::Rule, "large");
        let beauty = Reason::about(ReasonKind::BelowMin, "aesthetic");
        let counts = Counts {
            input: 12_345,
            kept: 8_990,
            dropped: [
                (dropped(&read, ReasonKind::Truncated.into()), 1),
                (dropped(&read, ReasonKind::NotAnImage.into()), 44),
                (dropped(&usable, large), 10),
                (dropped(&filter, beauty), 3_000),
                (dropped(&dedup, ReasonKind::ExactDuplicate.into()), 200),
                (dropped(&dedup, ReasonKind::SemanticDuplicate.into()), 100),
            ]
            .into(),
        };
        let line = |step: &str, units, up_to_date, seconds, rows| StepSummary {
            step: step.to_owned(),
            command: format!("sluice-{step} --run runs/a"),
            shared_with: Vec::new(),
            done: StepDone {
                units,
                up_to_date,
                counts: Counts::default(),
                rows,
                seconds,
                ..StepDone::default()
            },
        };
        Summary {
            run: "runs/a".into(),
            output: "out".into(),
            report: "runs/a/report/index.html".into(),
            funnel: Some(Funnel::of(&counts, &[&usable, &filter, &dedup])),
            output_shards: 9,
            output_bytes: 1_234_567_890,
            steps: vec![
                line("partition", 1, 1, 0.01, None),
                line("read", 4, 3, 12.34, None),
                line("embed", 4, 0, 100.0, Some((1_240, 11_000))),
                line("nsfw", 4, 4, 0.02, Some((0, 0))),
            ],
        }
    }

    #[test]
    fn the_funnel_reads_well() {
        let mut text = Vec::new();
        write(&summary(), false, &mut text).unwrap();
        insta::assert_snapshot!(String::from_utf8(text).unwrap(), @r"

        came in                        12,345
          read    not-an-image            -44  the bytes are not in a known image format
                  truncated-image          -1  the image ends before its last pixel
          usable  rule:large              -10  the rule does not hold
          filter  below-min:aesthetic  -3,000  the score is below the minimum
          dedup   exact-duplicate        -200  another image has the same bytes
                  semantic-duplicate     -100  another image has nearly the same embedding
        kept                            8,990  72.8%, in 9 shards of 1.2 GB

        partition  up to date      0.0 s
        read       1 of 4 units   12.3 s
        embed      4 units       100.0 s  1,240 computed, 11,000 taken over
        nsfw       up to date      0.0 s

        dataset  out
        run      runs/a
        report   runs/a/report/index.html
        ");
    }

    #[test]
    fn a_long_summary_fits_a_screen() {
        let mut long = summary();
        let step = StepName::fixed("rules");
        let mut counts = Counts::default();
        for number in 0..30 {
            let rule = Reason::about(ReasonKind::Rule, &format!("r{number:02}"));
            (0..=number).for_each(|_| counts.add(&step, Some(&rule)));
        }
        long.funnel = Some(Funnel::of(&counts, &[&step]));
        let line = long.steps[1].clone();
        long.steps.extend((0..13).map(|number| StepSummary {
            step: format!("step-{number}"),
            ..line.clone()
        }));
        let mut text = Vec::new();
        write(&long, false, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.lines().count() <= 23, "{text}");
        assert!(text.contains("22 other reasons  -253"), "{text}");
        assert!(text.contains("12 other steps  "), "{text}");
    }

    #[test]
    fn the_result_sums() {
        let result = summary().as_json();
        let funnel = &result["funnel"];
        let dropped: u64 = funnel["steps"]
            .as_array()
            .unwrap()
            .iter()
            .map(|level| level["dropped"].as_u64().unwrap())
            .sum();
        let kept = funnel["kept"].as_u64().unwrap();
        assert_eq!(funnel["in"].as_u64().unwrap(), kept + dropped);
        assert_eq!(result["steps"][1]["units"]["done"], 1);
        assert_eq!(result["steps"][1]["computed"], Value::Null);
        assert_eq!(result["steps"][2]["computed"], 1_240);
        assert_eq!(result["steps"][2]["reused"], 11_000);
    }
}
