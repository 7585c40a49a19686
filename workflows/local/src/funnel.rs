//! The end of `sluice run`: where the samples went, and how long each step took.

use std::io::{self, Write};

use serde_json::{Value, json};
use sluice_harness::{StepDone, add_rows};
use sluice_manifest::numbers::{bytes, plural, thousands};
use sluice_report::Funnel;

use crate::text::columns;

/// What a run did.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Where the run is.
    pub run: String,
    /// Where the curated dataset is.
    pub output: String,
    /// Where the report is.
    pub report: String,
    /// Where the samples went, once that is decided.
    pub funnel: Option<Funnel>,
    /// Shards of the curated dataset.
    pub output_shards: u64,
    /// Their bytes.
    pub output_bytes: u64,
    /// The steps that were done.
    pub steps: Vec<StepLine>,
}

/// A step that was done.
#[derive(Debug, Clone)]
pub struct StepLine {
    /// The step, with the subcommand where the step has several.
    pub step: String,
    /// Its command line.
    pub command: String,
    /// What it did.
    pub done: StepDone,
}

impl StepLine {
    /// Whether nothing was left to do, as with a step that has no units at all.
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
/// When `out` cannot be written.
pub fn write(summary: &Summary, up_to_date: bool, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out)?;
    if let Some(funnel) = &summary.funnel {
        write!(out, "{}", funnel_text(funnel, summary))?;
        writeln!(out)?;
    }
    write!(out, "{}", steps_text(&summary.steps))?;
    writeln!(out)?;
    if up_to_date {
        writeln!(out, "everything was up to date\n")?;
    }
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
    for level in &funnel.steps {
        for (number, dropped) in level.reasons.iter().enumerate() {
            let step = if number == 0 { level.step.as_str() } else { "" };
            rows.push(vec![
                format!("  {step}"),
                dropped.reason.to_string(),
                format!("-{}", thousands(dropped.count)),
                dropped.text.to_owned(),
            ]);
        }
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

fn steps_text(steps: &[StepLine]) -> String {
    let rows: Vec<Vec<String>> = steps
        .iter()
        .map(|line| {
            let (units, old) = (line.done.units, line.done.up_to_date);
            let did = match (units, old) {
                (units, old) if units == old => "up to date".to_owned(),
                (units, 0) => plural(units, "unit"),
                (units, old) => format!("{} of {}", units - old, plural(units, "unit")),
            };
            let seconds = format!("{:.1} s", line.done.seconds);
            let rows = match line.done.rows {
                Some((computed, reused)) if units > old => format!(
                    "{} computed, {} taken over",
                    thousands(computed),
                    thousands(reused)
                ),
                _ => String::new(),
            };
            vec![line.step.clone(), did, seconds, rows]
        })
        .collect();
    columns(&rows, &[2], "")
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
        let line = |step: &str, units, up_to_date, seconds, rows| StepLine {
            step: step.to_owned(),
            command: format!("sluice-{step} --run runs/a"),
            done: StepDone {
                units,
                up_to_date,
                counts: Counts::default(),
                rows,
                seconds,
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
