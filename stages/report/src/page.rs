//! The page: what the template shows, as text.

use askama::Template;
use serde_json::Value;
use sluice_harness::Receipts;
use sluice_manifest::dag::{self, STEPS, Step};
use sluice_manifest::{Receipt, RunInfo};

use crate::funnel::Funnel;
use crate::gather::{Found, Group};
use crate::histogram::{Histogram, number};

/// The page about a run.
#[derive(Debug, Template)]
#[template(path = "report.html")]
pub struct Page {
    input: String,
    patterns: Vec<String>,
    /// Whether the patterns tell more than the input.
    asked: bool,
    shards: String,
    bytes: String,
    partitions: String,
    output: Option<String>,
    written: Option<String>,
    funnel: Option<Funnel>,
    decided: bool,
    scores: Vec<Scores>,
    rejects: Vec<Reject>,
    read: bool,
    groups: Vec<Group>,
    deduplicated: bool,
    damaged: Vec<(String, String)>,
    damaged_more: u64,
    steps: Vec<StepLine>,
    version: &'static str,
}

/// Scores of a stage.
#[derive(Debug)]
struct Scores {
    title: &'static str,
    stage: &'static str,
    svg: Option<String>,
    note: String,
}

/// Samples that `read` rejected for one reason.
#[derive(Debug)]
struct Reject {
    reason: &'static str,
    text: &'static str,
    count: u64,
    examples: Vec<(String, String)>,
}

/// A step of the DAG.
#[derive(Debug)]
struct StepLine {
    name: &'static str,
    state: String,
    seconds: String,
    settings: Vec<(String, String)>,
    version: String,
}

impl Page {
    /// Lays out what is known about a run.
    pub fn new(info: &RunInfo, receipts: &Receipts, found: Found) -> Self {
        let decided = receipts.complete(&dag::EXPORT_DECIDE);
        let read = receipts.complete(&dag::READ);
        let counts = match decided {
            true => Some(receipts.counts(&dag::EXPORT_DECIDE)),
            false => read.then(|| receipts.counts(&dag::READ)),
        };
        let dropped_by_read = receipts.counts(&dag::READ).dropped;
        let rejects = dropped_by_read.into_iter().map(|(reason, count)| {
            let examples = found.rejects.get(&reason).into_iter().flatten();
            let examples = examples.map(|e| (e.image_id.clone(), e.detail.clone()));
            Reject {
                reason: reason.as_str(),
                text: reason.text(),
                count,
                examples: examples.collect(),
            }
        });
        let rejects = rejects.collect();
        let duplicates = [&dag::DEDUP_EXACT, &dag::DEDUP_PERCEPTUAL, &dag::DEDUP_MATCH];
        let steps = STEPS.iter().filter(|step| step.name != dag::REPORT.name);
        Self {
            input: info.input.clone(),
            patterns: info.patterns.clone(),
            asked: info.patterns != [info.input.as_str()],
            shards: plural(info.shards, "shard"),
            bytes: bytes(info.bytes),
            partitions: plural(info.partitions.into(), "partition"),
            output: output(receipts),
            written: written(receipts),
            funnel: counts.map(|counts| Funnel::of(&counts)),
            decided,
            scores: vec![
                scores(
                    "Aesthetic scores",
                    &dag::AESTHETIC,
                    "min_score",
                    found.aesthetic.as_ref(),
                    receipts,
                ),
                scores(
                    "NSFW scores",
                    &dag::NSFW,
                    "max_score",
                    found.nsfw.as_ref(),
                    receipts,
                ),
            ],
            rejects,
            read,
            groups: found.groups,
            deduplicated: duplicates.iter().any(|step| !receipts.of(step).is_empty()),
            damaged_more: found.damaged_total - found.damaged.len() as u64,
            damaged: found.damaged,
            steps: steps.map(|step| step_line(step, receipts)).collect(),
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    /// Width of a funnel's bar, in percent.
    fn share(&self, count: &u64) -> String {
        let input = self.funnel.as_ref().map_or(0, |funnel| funnel.input);
        format!("{:.2}", *count as f64 * 100.0 / input.max(1) as f64)
    }
}

fn scores(
    title: &'static str,
    step: &Step,
    threshold: &str,
    histogram: Option<&Histogram>,
    receipts: &Receipts,
) -> Scores {
    let threshold = receipts
        .of(step)
        .first()
        .and_then(|receipt| receipt.settings.get(threshold)?.as_f64())
        .map(|threshold| threshold as f32);
    let note = match histogram {
        Some(histogram) => {
            let (kept, dropped) = histogram.totals();
            let rule = match threshold {
                Some(threshold) => format!("threshold {}", number(threshold)),
                None => "no threshold".to_owned(),
            };
            let (kept, dropped) = (thousands(kept), thousands(dropped));
            format!("{rule}: {kept} kept, {dropped} dropped.")
        }
        None if receipts.of(step).is_empty() => {
            format!("sluice-{} has not been run.", step.stage)
        }
        None => "No image was scored.".to_owned(),
    };
    Scores {
        title,
        stage: step.stage,
        svg: histogram.map(|histogram| histogram.svg(title, threshold)),
        note,
    }
}

impl Group {
    /// How many members the page does not name.
    fn more(&self) -> u64 {
        self.count - self.members.len() as u64
    }
}

/// Where the curated dataset lies: the folder of the objects that `export` wrote.
fn output(receipts: &Receipts) -> Option<String> {
    let written = receipts.of(&dag::EXPORT_INDEX).iter();
    let written = written.chain(receipts.of(&dag::EXPORT_WRITE));
    let mut outside = written.flat_map(|receipt| &receipt.outputs);
    let (folder, _) = outside.next()?.path.rsplit_once('/')?;
    Some(folder.to_owned())
}

/// What the curated dataset holds.
fn written(receipts: &Receipts) -> Option<String> {
    receipts.complete(&dag::EXPORT_WRITE).then(|| {
        let outputs = receipts.of(&dag::EXPORT_WRITE).iter();
        let shards = outputs
            .flat_map(|receipt| &receipt.outputs)
            .filter(|output| output.path.ends_with(".tar"));
        let (count, size) = shards.fold((0, 0), |(n, b), o| (n + 1, b + o.bytes));
        format!("{} in {}", bytes(size), plural(count, "shard"))
    })
}

fn step_line(step: &'static Step, receipts: &Receipts) -> StepLine {
    let units = receipts.of(step);
    let Some(first) = units.first() else {
        return StepLine {
            name: step.name,
            state: "not run".into(),
            seconds: String::new(),
            settings: Vec::new(),
            version: String::new(),
        };
    };
    let state = match receipts.complete(step) {
        true => plural(units.len() as u64, "unit"),
        false => format!("{} of {} units", units.len(), first.units),
    };
    let seconds: f64 = units.iter().map(|receipt| receipt.seconds).sum();
    let mut settings = settings(first);
    if units
        .iter()
        .any(|receipt| receipt.settings != first.settings)
    {
        settings.push(("note".into(), "other units have other settings".into()));
    }
    let mut versions: Vec<&str> = units.iter().map(|r| r.version.as_str()).collect();
    versions.sort_unstable();
    versions.dedup();
    StepLine {
        name: step.name,
        state,
        seconds: format!("{seconds:.1}"),
        settings,
        version: versions.join(", "),
    }
}

/// A step's settings, and what it read besides other steps' outputs and shards: its models.
fn settings(receipt: &Receipt) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    if let Value::Object(settings) = &receipt.settings {
        for (name, value) in settings {
            if value["name"].is_string() {
                pairs.extend(model(name, value));
                continue;
            }
            let text = match value {
                Value::Null => continue,
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            pairs.push((name.replace('_', " "), text));
        }
    }
    if receipt.step != dag::PARTITION.name && receipt.step != dag::READ.name {
        let others = receipt.inputs.iter().filter(|input| {
            let head = input.name.split('/').next().unwrap_or_default();
            STEPS.iter().all(|step| step.name != head)
        });
        pairs.extend(others.map(|input| (input.name.clone(), input.fingerprint.to_string())));
    }
    pairs
}

/// What to say of a model: its name, where it is from, its licence and the start of its hash.
fn model(name: &str, model: &Value) -> Vec<(String, String)> {
    let text = |key: &str| model[key].as_str().unwrap_or_default();
    let hash: String = text("sha256").chars().take(12).collect();
    let pairs = [
        (name, text("name")),
        ("licence", text("licence")),
        ("origin", text("origin")),
        ("sha256", &hash),
    ];
    let told = pairs.into_iter().filter(|(_, value)| !value.is_empty());
    told.map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// `1234567` as `1,234,567`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of bytes for people.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut size = bytes as f64 / 1000.0;
    let mut unit = 0;
    while size >= 999.95 && unit + 1 < UNITS.len() {
        size /= 1000.0;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}

/// `1 shard`, `2 shards`.
pub fn plural(count: u64, noun: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{} {noun}{s}", thousands(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        let numbers = [0, 999, 1000, 1_234_567].map(thousands);
        assert_eq!(numbers, ["0", "999", "1,000", "1,234,567"]);
        let sizes = [999, 1000, 999_999, 8_600_000_000].map(bytes);
        assert_eq!(sizes, ["999 B", "1.0 kB", "1.0 MB", "8.6 GB"]);
        assert_eq!([1, 2].map(|n| plural(n, "shard")), ["1 shard", "2 shards"]);
    }
}
