//! The dataset card: what the curated dataset is, and how it was made.
//!
//! Nothing in it depends on when or where the run took place, so a run done again writes the same
//! card. It begins with the YAML that dataset hubs read.

use std::fmt::Write;

use serde_json::{Number, Value};
use sluice_manifest::{Counts, StepName};

use crate::columns::{COLUMNS, EMBEDDING_COLUMN};

/// What the card says.
#[derive(Debug, Clone)]
pub struct Card {
    /// The source's root.
    pub source: String,
    /// Number of source shards.
    pub source_shards: u64,
    /// Their bytes.
    pub source_bytes: u64,
    /// Number of output shards.
    pub shards: u64,
    /// Bytes of their tars.
    pub bytes: u64,
    /// The deciding steps, in order.
    pub deciders: Vec<StepName>,
    /// Samples in, kept, and dropped by step and reason.
    pub counts: Counts,
    /// The steps that the decisions and the scores come from, with the settings and the notes in their
    /// receipts.
    pub steps: Vec<(String, Value)>,
    /// Columns of scores in the Parquet files, with their meaning.
    pub scores: Vec<(String, String)>,
    /// Whether the Parquet files carry embeddings.
    pub embeddings: bool,
}

/// Returns the card as Markdown.
pub fn render(card: &Card) -> String {
    let sections = [
        front_matter(card),
        introduction(card),
        funnel(card),
        settings(card),
        files(card),
        loading(card.shards),
    ];
    sections.join("\n")
}

fn front_matter(card: &Card) -> String {
    let mut yaml = String::from("---\ntags:\n- image\n- webdataset\n- sluice\n");
    yaml += &format!("size_categories:\n- {}\n", size_category(card.counts.kept));
    if card.shards > 0 {
        yaml += "configs:\n";
        yaml += "- config_name: default\n  data_files: shard-*.tar\n";
        yaml += "- config_name: table\n  data_files: shard-*.parquet\n";
    }
    yaml + "---\n"
}

/// Returns the hubs' name for a size.
fn size_category(samples: u64) -> &'static str {
    match samples {
        0..1_000 => "n<1K",
        1_000..10_000 => "1K<n<10K",
        10_000..100_000 => "10K<n<100K",
        100_000..1_000_000 => "100K<n<1M",
        1_000_000..10_000_000 => "1M<n<10M",
        10_000_000..100_000_000 => "10M<n<100M",
        100_000_000..1_000_000_000 => "100M<n<1B",
        1_000_000_000..10_000_000_000 => "1B<n<10B",
        _ => "10B<n<100B",
    }
}

fn introduction(card: &Card) -> String {
    format!(
        "# Curated image dataset\n\n\
        {} of {} samples of `{}` ({} shards, {} bytes), in {} WebDataset shards ({} bytes). \
        Each sample was copied with all its members, byte for byte: nothing was re-encoded, and \
        captions and metadata are the source's. So are the rights in the images, about which this \
        card knows nothing.\n",
        card.counts.kept,
        card.counts.input,
        source_name(&card.source),
        card.source_shards,
        card.source_bytes,
        card.shards,
        card.bytes
    )
}

/// Returns a remote source's URI, or a local one's folder name: its path is private.
fn source_name(source: &str) -> &str {
    match source.contains("://") {
        true => source,
        false => source.rsplit('/').next().unwrap_or(source),
    }
}

fn funnel(card: &Card) -> String {
    let mut text = String::from(
        "## What stayed and what did not\n\n\
        | step | reason | samples | |\n| --- | --- | ---: | --- |\n",
    );
    let counts = &card.counts;
    put(&mut text, &["", "came in", &counts.input.to_string(), ""]);
    let read = StepName::read();
    for step in [&read].into_iter().chain(&card.deciders) {
        let dropped = counts.dropped.iter();
        for (dropped, samples) in dropped.filter(|(dropped, _)| dropped.step == *step) {
            let (reason, samples) = (dropped.reason.to_string(), samples.to_string());
            let row = [step.as_str(), &reason, &samples, dropped.reason.text()];
            put(&mut text, &row);
        }
    }
    put(&mut text, &["", "stayed", &counts.kept.to_string(), ""]);
    text
}

fn settings(card: &Card) -> String {
    let deciders: Vec<&str> = card.deciders.iter().map(StepName::as_str).collect();
    let deciders = match deciders.is_empty() {
        true => "none: only what could not be used was left out".to_owned(),
        false => deciders.join(", "),
    };
    let mut table = String::new();
    for (step, settings) in &card.steps {
        let mut pairs = Vec::new();
        flatten("", settings, &mut pairs);
        for (name, value) in pairs {
            put(&mut table, &[step, &name, &value]);
        }
    }
    let text = format!("## Models and settings\n\nDeciding steps: {deciders}.\n");
    match table.is_empty() {
        true => text,
        false => text + "\n| step | setting | value |\n| --- | --- | --- |\n" + &table,
    }
}

/// Lists nested settings as `a.b`, without those that are not set.
fn flatten(prefix: &str, value: &Value, pairs: &mut Vec<(String, String)>) {
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            for (name, field) in fields {
                let name = match prefix {
                    "" => name.clone(),
                    prefix => format!("{prefix}.{name}"),
                };
                flatten(&name, field, pairs);
            }
        }
        Value::String(text) => pairs.push((prefix.to_owned(), text.clone())),
        Value::Number(number) if number.is_f64() => pairs.push((prefix.to_owned(), short(number))),
        other => pairs.push((prefix.to_owned(), other.to_string())),
    }
}

/// Returns a number with a point. Most are float32, and have as few digits as those need.
fn short(number: &Number) -> String {
    match number.as_f64() {
        Some(value) if f64::from(value as f32) == value => format!("{:?}", value as f32),
        _ => number.to_string(),
    }
}

fn files(card: &Card) -> String {
    let mut text = String::from(
        "## Files\n\n| file | holds |\n| --- | --- |\n\
        | `shard-*.tar` | the samples; a member's name is `KEY.EXTENSION`, its key made from `image_id` |\n\
        | `shard-*.parquet` | a row for each sample of the tar with the same number, in its order |\n\
        | `index.json` | the shards with their numbers of samples, for `wids` |\n\n\
        Columns of the Parquet files:\n\n| column | holds |\n| --- | --- |\n",
    );
    let scores = card.scores.iter();
    let scores = scores.map(|(name, meaning)| (name.as_str(), meaning.as_str()));
    let embedding = card.embeddings.then_some(EMBEDDING_COLUMN);
    for (name, meaning) in COLUMNS.iter().copied().chain(scores).chain(embedding) {
        put(&mut text, &[&format!("`{name}`"), meaning]);
    }
    text
}

fn loading(shards: u64) -> String {
    let Some(last) = shards.checked_sub(1) else {
        return "No sample stayed, so there are no shards.\n".to_owned();
    };
    format!(
        "## Load it\n\n```python\nimport webdataset as wds\n\
        for sample in wds.WebDataset(\"shard-{{00000..{last:05}}}.tar\", shardshuffle=False):\n    \
        print(sample[\"__key__\"], sorted(sample))\n```\n"
    )
}

/// Adds a row to a Markdown table.
fn put(text: &mut String, cells: &[&str]) {
    for cell in cells {
        let cell = cell.replace('|', "\\|").replace(['\n', '\r'], " ");
        // Writing to a string does not fail.
        let _ = write!(text, "| {cell} ");
    }
    text.push_str("|\n");
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sluice_manifest::{Reason, ReasonKind};

    use super::*;

    fn card() -> Card {
        let mut counts = Counts::default();
        let (read, filter) = (StepName::read(), StepName::fixed("filter"));
        let below = Reason::about(ReasonKind::BelowMin, "aesthetic");
        counts.add(&filter, None);
        counts.add(&filter, Some(&below));
        counts.add(&read, Some(&ReasonKind::Truncated.into()));
        counts.add(&filter, None);
        Card {
            source: "/home/someone/photos".into(),
            source_shards: 2,
            source_bytes: 5000,
            shards: 2,
            bytes: 4000,
            deciders: vec![filter],
            counts,
            steps: vec![(
                "aesthetic".into(),
                json!({ "model": { "name": "a|b", "sha256": "00" }, "limit": 5.0, "eps": 0.15_f32, "x": null }),
            )],
            scores: vec![("aesthetic".into(), "a score".into())],
            embeddings: true,
        }
    }

    #[test]
    fn the_card_shows_counts_settings_and_columns() {
        let text = render(&card());
        for line in [
            "2 of 4 samples of `photos` (2 shards, 5000 bytes), in 2 WebDataset shards (4000 bytes).",
            "| read | truncated-image | 1 | the image ends before its last pixel |",
            "| filter | below-min:aesthetic | 1 | the score is below the minimum |",
            "|  | stayed | 2 |  |",
            "Deciding steps: filter.",
            "| aesthetic | limit | 5.0 |",
            "| aesthetic | eps | 0.15 |",
            "| aesthetic | model.name | a\\|b |",
            "| `phash` | 64-bit perceptual hash |\n| `aesthetic` | a score |\n| `embedding` |",
            "| `embedding` | embedding of length 1; the file's metadata name the model |",
            "for sample in wds.WebDataset(\"shard-{00000..00001}.tar\", shardshuffle=False):",
        ] {
            assert!(text.contains(line), "{line}\n\n{text}");
        }
        assert!(text.starts_with("---\ntags:\n") && !text.contains("someone"));
        assert_eq!(text, render(&card()));
        assert!(text.find("| read | truncated") < text.find("| filter | below"));
    }

    #[test]
    fn an_empty_dataset_has_a_card_too() {
        let empty = Card {
            shards: 0,
            counts: Counts::default(),
            deciders: Vec::new(),
            ..card()
        };
        let text = render(&empty);
        assert!(text.contains("Deciding steps: none") && !text.contains("configs:"));
        assert!(text.ends_with("so there are no shards.\n"));
    }
}
