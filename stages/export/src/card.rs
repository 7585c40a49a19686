//! The dataset card: what the curated dataset contains, and how it was made.
//!
//! The card does not depend on when or where the run took place, so repeating the run writes the
//! same card. It starts with the YAML that dataset hubs read.

use serde_json::Value;
use sluice_manifest::numbers::{plural, thousands};
use sluice_manifest::{Counts, StepName};
use sluice_pixels::{Encoding, JPEG_QUALITY, Recode, Shape};

use crate::columns::{COLUMNS, EMBEDDING_COLUMN, IMAGE_COLUMN};
use crate::format::OutputFormat;
use crate::hub::{Extensions, front_matter};
use crate::splits::{OutputShardInfo, OutputSplit};
use crate::words::{bytes, settings_of, table_row};

/// The content of the card.
#[derive(Debug, Clone)]
pub struct DatasetCard {
    /// The root of the source.
    pub source: String,
    /// The number of source shards.
    pub source_shards: u64,
    /// The size of the source shards in bytes.
    pub source_bytes: u64,
    /// The licence of the images, if the user gave one.
    pub licence: Option<String>,
    /// The format of the output's shards.
    pub format: OutputFormat,
    /// The conversion applied to the images.
    pub recode: Recode,
    /// The splits and their shards. A single one without a name if the output has no splits.
    pub splits: Vec<OutputSplit>,
    /// A hash of all shards and tables.
    pub content: String,
    /// The extensions of the samples' members, if the receipts of all shards have them.
    pub extensions: Option<Extensions>,
    /// The deciding steps, in order.
    pub deciders: Vec<StepName>,
    /// The number of samples in, kept, and dropped by step and reason.
    pub counts: Counts,
    /// The steps that the decisions and scores come from.
    pub steps: Vec<CardStep>,
    /// The score columns of the Parquet files, with descriptions.
    pub scores: Vec<(String, String)>,
    /// Whether the Parquet files contain embeddings.
    pub embeddings: bool,
}

/// A step that the decisions or scores come from.
#[derive(Debug, Clone)]
pub struct CardStep {
    /// The step's name, with the subcommand if there are several.
    pub name: String,
    /// The step's stage.
    pub stage: String,
    /// The settings in its receipts.
    pub settings: Value,
    /// The model's licence.
    pub licence: Option<String>,
    /// The source of the model.
    pub origin: Option<String>,
}

impl DatasetCard {
    /// Returns the columns of the Parquet files, with descriptions.
    pub fn columns(&self) -> impl Iterator<Item = (&str, &str)> {
        let image = (self.format == OutputFormat::Parquet).then_some(IMAGE_COLUMN);
        let scores = self.scores.iter();
        let scores = scores.map(|(name, meaning)| (name.as_str(), meaning.as_str()));
        let embedding = self.embeddings.then_some(EMBEDDING_COLUMN);
        let fixed = image.into_iter().chain(COLUMNS.iter().copied());
        fixed.chain(scores).chain(embedding)
    }

    /// Returns the number of output shards.
    pub fn shards(&self) -> u64 {
        self.splits
            .iter()
            .map(|split| split.shards.len() as u64)
            .sum()
    }

    /// Returns the size in bytes of the objects with the samples.
    pub fn bytes(&self) -> u64 {
        self.splits.iter().map(OutputSplit::bytes).sum()
    }

    /// Returns whether the output has splits.
    fn is_split(&self) -> bool {
        self.splits.iter().any(|split| split.name.is_some())
    }

    /// Returns one sentence about the dataset.
    pub fn summary(&self) -> String {
        format!(
            "{} of the {} of `{}` ({}, {}), in {} ({}).",
            thousands(self.counts.kept),
            plural(self.counts.input, "sample"),
            source_name(&self.source),
            plural(self.source_shards, "shard"),
            bytes(self.source_bytes),
            plural(self.shards(), self.format.shard()),
            bytes(self.bytes())
        )
    }
}

/// Returns the card as Markdown.
pub fn render(card: &DatasetCard) -> String {
    let sections = [
        front_matter(card),
        introduction(card),
        loading(card),
        splits(card),
        funnel(card),
        provenance(card),
        models(card),
        settings(card),
        files(card),
    ];
    let sections: Vec<String> = sections.into_iter().filter(|s| !s.is_empty()).collect();
    sections.join("\n")
}

fn introduction(card: &DatasetCard) -> String {
    if !card.recode.is_verbatim() {
        let done = recoded(card.recode);
        return format!("# Curated image dataset\n\n{} {done}\n", card.summary());
    }
    let copied = match card.format {
        OutputFormat::Webdataset => {
            "Each sample was copied with all its members, byte for byte: nothing was re-encoded, \
             and captions and metadata are the source's."
        }
        OutputFormat::Parquet => {
            "Each image was copied byte for byte: nothing was re-encoded. Captions and metadata \
             are the source's; other members of the samples were left out."
        }
    };
    format!("# Curated image dataset\n\n{} {copied}\n", card.summary())
}

/// Describes the conversion of the images.
fn recoded(recode: Recode) -> String {
    let size = recode.resize.map(|size| match size.shape {
        Shape::Fit => format!("the long side has at most {} pixels (Lanczos)", size.side),
        Shape::Crop => format!(
            "squares of {} pixels, the middle of the image (Lanczos)",
            size.side
        ),
    });
    let format = recode.encode.map(|encoding| match encoding {
        Encoding::Jpeg => format!("JPEG of quality {JPEG_QUALITY}"),
        Encoding::Webp => "lossless WebP".to_owned(),
        Encoding::Png => "PNG".to_owned(),
    });
    let done: Vec<String> = size.into_iter().chain(format).collect();
    format!(
        "Images were written anew: {}. Those that were so already are the source's, byte for byte. \
        Captions and metadata are the source's; hashes and sizes are those of the images here, \
        `phash` and scores those of the source's.",
        done.join("; ")
    )
}

/// Returns a remote source's URI, or a local one's folder name: its path is private.
fn source_name(source: &str) -> &str {
    if source.contains("://") {
        source
    } else {
        source.rsplit('/').next().unwrap_or(source)
    }
}

fn funnel(card: &DatasetCard) -> String {
    let mut text = String::from(
        "## What stayed and what did not\n\n\
        | step | reason | samples | |\n| --- | --- | ---: | --- |\n",
    );
    let counts = &card.counts;
    table_row(&mut text, &["", "came in", &thousands(counts.input), ""]);
    let read = StepName::read();
    for step in [&read].into_iter().chain(&card.deciders) {
        let dropped = counts.dropped.iter();
        for (dropped, samples) in dropped.filter(|(dropped, _)| dropped.step == *step) {
            let (reason, samples) = (dropped.reason.to_string(), thousands(*samples));
            let row = [step.as_str(), &reason, &samples, dropped.reason.text()];
            table_row(&mut text, &row);
        }
    }
    table_row(&mut text, &["", "stayed", &thousands(counts.kept), ""]);
    text
}

fn provenance(card: &DatasetCard) -> String {
    let licence = card.licence.as_deref().unwrap_or(
        "not stated: the rights in the images are those of the source (`sluice-export index --license`)",
    );
    let deciders: Vec<&str> = card.deciders.iter().map(StepName::as_str).collect();
    let deciders = if deciders.is_empty() {
        "none: only what could not be used was left out".to_owned()
    } else {
        deciders.join(", ")
    };
    let mut text = String::from("## Licence and provenance\n\n| | |\n| --- | --- |\n");
    table_row(&mut text, &["licence of the images", licence]);
    table_row(
        &mut text,
        &["source", &format!("`{}`", source_name(&card.source))],
    );
    table_row(&mut text, &["deciding steps", &deciders]);
    let program = concat!("sluice ", env!("CARGO_PKG_VERSION"));
    table_row(&mut text, &["made with", program]);
    text
}

fn models(card: &DatasetCard) -> String {
    let mut rows = String::new();
    for step in &card.steps {
        let Some(model) = step.settings.get("model").filter(|model| model.is_object()) else {
            continue;
        };
        let field = |name: &str| model[name].as_str().unwrap_or_default();
        let sha256 = match field("sha256") {
            "" => String::new(),
            sha256 => format!("`{sha256}`"),
        };
        let (licence, origin) = (step.licence.as_deref(), step.origin.as_deref());
        let about = [
            licence.unwrap_or("not stated"),
            origin.unwrap_or_default(),
            &sha256,
        ];
        let (name, precision) = (field("name"), field("precision"));
        table_row(
            &mut rows,
            &[&[step.name.as_str(), name, precision], &about[..]].concat(),
        );
    }
    if rows.is_empty() {
        rows
    } else {
        format!(
            "## Models\n\n| step | model | precision | licence | origin | SHA-256 |\n\
            | --- | --- | --- | --- | --- | --- |\n{rows}"
        )
    }
}

fn settings(card: &DatasetCard) -> String {
    let mut rows = String::new();
    for step in &card.steps {
        for (name, value) in settings_of(&step.settings) {
            table_row(&mut rows, &[&step.name, &step.stage, &name, &value]);
        }
    }
    if rows.is_empty() {
        rows
    } else {
        "## Settings\n\n| step | stage | setting | value |\n| --- | --- | --- | --- |\n".to_owned()
            + &rows
    }
}

fn files(card: &DatasetCard) -> String {
    let mut text = String::from("## Files\n\n| file | holds |\n| --- | --- |\n");
    let held: &[(&str, &str)] = match card.format {
        OutputFormat::Webdataset => &[
            (
                "`shard-*.tar`",
                "the samples; a member's name is `KEY.EXTENSION`, its key made from `image_id`",
            ),
            (
                "`shard-*.parquet`",
                "a row for each sample of the tar with the same number, in its order",
            ),
            (
                "`index.json`",
                "the shards with their numbers of samples, for `wids`",
            ),
        ],
        OutputFormat::Parquet => &[("`shard-*.parquet`", "a row for each sample, with its image")],
    };
    for (file, holds) in held {
        let file = if card.is_split() {
            format!("`*/{}", file.trim_start_matches('`'))
        } else {
            (*file).to_owned()
        };
        let file = file.replace("*/index.json", "index-*.json");
        table_row(&mut text, &[&file, holds]);
    }
    table_row(
        &mut text,
        &["`croissant.json`", "this dataset in Croissant's JSON-LD"],
    );
    text += "\nColumns of the Parquet files:\n\n| column | holds |\n| --- | --- |\n";
    for (name, meaning) in card.columns() {
        table_row(&mut text, &[&format!("`{name}`"), meaning]);
    }
    text
}

/// Returns a table of the splits, or an empty text if there are none.
fn splits(card: &DatasetCard) -> String {
    if !card.is_split() {
        return String::new();
    }
    let mut text = String::from(
        "## Splits\n\nEqual pictures and their copies are in the same split.\n\n\
        | split | samples | shards | |\n| --- | ---: | --- | ---: |\n",
    );
    for split in &card.splits {
        let (samples, size) = (thousands(split.samples()), bytes(split.bytes()));
        let shards = format!("`{}`", braces(split, card.format));
        table_row(&mut text, &[split.label(), &samples, &shards, &size]);
    }
    text
}

/// Returns the paths of a split's shards, in the brace notation of WebDataset and shells.
fn braces(split: &OutputSplit, format: OutputFormat) -> String {
    let number = |shard: Option<&OutputShardInfo>| shard.map_or(0, |shard| shard.number);
    let (first, last) = (number(split.shards.first()), number(split.shards.last()));
    let (folder, extension) = (split.folder(), format.extension());
    format!("{folder}shard-{{{first:05}..{last:05}}}.{extension}")
}

fn loading(card: &DatasetCard) -> String {
    let Some((split, shard)) = card
        .splits
        .first()
        .and_then(|s| Some((s, s.shards.first()?)))
    else {
        return "No sample stayed, so there are no shards.\n".to_owned();
    };
    let folder = if card.is_split() { "*/" } else { "" };
    let webdataset = match card.format {
        OutputFormat::Webdataset => WEBDATASET,
        OutputFormat::Parquet => "",
    };
    let lines = format!("{HUGGING_FACE}{webdataset}{TABLES}");
    let lines = lines
        .replace("SPLIT", split.label())
        .replace("SHARDS", &braces(split, card.format))
        .replace("FIRST", &format!("{}.parquet", shard.path))
        .replace("TABLES_OF", &split.pattern("parquet"))
        .replace("TABLES", &format!("{folder}shard-*.parquet"));
    format!("## Load it\n\nIn the dataset's folder:\n{lines}")
}

const HUGGING_FACE: &str = r#"
```python
import os
from datasets import load_dataset
folder = os.path.abspath(".")  # or the dataset's name on the Hub
dataset = load_dataset(folder, split="SPLIT")
stream = load_dataset(folder, split="SPLIT", streaming=True)
tables = load_dataset("parquet", data_files="TABLES_OF", split="train")
```
"#;

const WEBDATASET: &str = r#"
```python
import webdataset as wds
for sample in wds.WebDataset("SHARDS", shardshuffle=False):
    print(sample["__key__"], sorted(sample))
```
"#;

const TABLES: &str = r#"
```python
import pyarrow.dataset
table = pyarrow.dataset.dataset("FIRST").to_table(columns=["key", "width", "height"])
```

```python
import duckdb
duckdb.sql("SELECT format, count(*) FROM 'TABLES' GROUP BY format").show()
```

```python
import polars
polars.scan_parquet("TABLES").select("key", "width", "height").collect()
```

```python
import mlcroissant
rows = mlcroissant.Dataset("croissant.json").records("samples")
```
"#;

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sluice_manifest::{Reason, ReasonKind};

    use super::*;

    fn split(name: Option<&str>, shards: std::ops::Range<u32>) -> OutputSplit {
        let mut split = OutputSplit::new(name.map(str::to_owned));
        let shards = shards.map(|number| OutputShardInfo {
            number,
            path: format!("{}shard-{number:05}", split.folder()),
            samples: 1,
            bytes: 2000,
        });
        split.shards = shards.collect();
        split
    }

    fn card() -> DatasetCard {
        let mut counts = Counts::default();
        let (read, filter) = (StepName::read(), StepName::fixed("filter"));
        let below = Reason::about(ReasonKind::BelowMin, "aesthetic");
        counts.add(&filter, None);
        counts.add(&filter, Some(&below));
        counts.add(&read, Some(&ReasonKind::Truncated.into()));
        counts.add(&filter, None);
        DatasetCard {
            source: "/home/someone/photos".into(),
            source_shards: 1,
            source_bytes: 5_000_000,
            licence: None,
            format: OutputFormat::Webdataset,
            recode: Recode::default(),
            splits: vec![split(None, 0..2)],
            content: "0123456789abcdef".into(),
            extensions: Some(Extensions::default()),
            deciders: vec![filter],
            counts,
            steps: vec![CardStep {
                name: "aesthetic".into(),
                stage: "aesthetic".into(),
                settings: json!({
                    "model": { "name": "a|b", "sha256": "00", "precision": "int8" },
                    "limit": 5.0, "eps": 0.15_f32, "x": null,
                }),
                licence: Some("MIT".into()),
                origin: None,
            }],
            scores: vec![("aesthetic".into(), "a score".into())],
            embeddings: true,
        }
    }

    #[test]
    fn the_card_shows_counts_settings_and_columns() {
        let text = render(&card());
        for line in [
            "2 of the 4 samples of `photos` (1 shard, 5.0 MB), in 2 WebDataset shards (4.0 kB).",
            "| read | truncated-image | 1 | the image ends before its last pixel |",
            "| filter | below-min:aesthetic | 1 | the score is below the minimum |",
            "|  | stayed | 2 |  |",
            "| deciding steps | filter |",
            "| aesthetic | aesthetic | limit | 5 |",
            "| aesthetic | aesthetic | eps | 0.15 |",
            "| aesthetic | a\\|b | int8 | MIT |  | `00` |",
            "| `group_size` | images of the group; 1: it has no duplicates |\n| `aesthetic` | a score |\n\
             | `embedding` |",
            "| `embedding` | embedding of length 1; the file's metadata name the model |",
            "for sample in wds.WebDataset(\"shard-{00000..00001}.tar\", shardshuffle=False):",
            "    num_examples: 2\n",
            "  description: content 0123456789abcdef\n",
        ] {
            assert!(text.contains(line), "{line}\n\n{text}");
        }
        assert!(text.starts_with("---\ntags:\n") && !text.contains("someone"));
        assert_eq!(text, render(&card()));
        assert!(text.find("| read | truncated") < text.find("| filter | below"));
    }

    #[test]
    fn an_empty_dataset_has_a_card_too() {
        let empty = DatasetCard {
            splits: vec![OutputSplit::new(None)],
            counts: Counts::default(),
            deciders: Vec::new(),
            ..card()
        };
        let text = render(&empty);
        assert!(text.contains("| deciding steps | none") && !text.contains("configs:"));
        assert!(text.contains("so there are no shards.\n"));
    }

    #[test]
    fn a_licence_is_for_people_and_hubs() {
        let licensed = DatasetCard {
            licence: Some("cc-by-4.0".into()),
            ..card()
        };
        let text = render(&licensed);
        assert!(text.starts_with("---\nlicense: \"cc-by-4.0\"\n"), "{text}");
        assert!(text.contains("| licence of the images | cc-by-4.0 |"));
    }

    #[test]
    fn parquet_files_have_one_configuration_and_no_tars() {
        let parquet = DatasetCard {
            format: OutputFormat::Parquet,
            ..card()
        };
        let text = render(&parquet);
        assert!(text.contains("    path: shard-*.parquet\n"), "{text}");
        assert!(text.contains("| `image` | "), "{text}");
        assert!(!text.contains(".tar"), "{text}");
    }

    #[test]
    fn splits_are_those_of_hubs() {
        let card = DatasetCard {
            splits: vec![split(Some("train"), 0..2), split(Some("val"), 2..3)],
            ..card()
        };
        let text = render(&card);
        for line in [
            "  - split: val\n    path: val/shard-*.tar\n",
            "  - name: train\n    num_bytes: 4000\n    num_examples: 2\n",
            "| val | 1 | `val/shard-{00002..00002}.tar` | 2.0 kB |",
            "wds.WebDataset(\"train/shard-{00000..00001}.tar\"",
            "pyarrow.dataset.dataset(\"train/shard-00000.parquet\")",
            "FROM '*/shard-*.parquet'",
            "data_files=\"train/shard-*.parquet\"",
        ] {
            assert!(text.contains(line), "{line}\n\n{text}");
        }
    }

    #[test]
    fn images_that_were_written_anew_are_not_called_verbatim() {
        let recode = Recode {
            resize: "512:crop".parse().ok(),
            encode: Some(Encoding::Jpeg),
        };
        let text = render(&DatasetCard { recode, ..card() });
        let line =
            "anew: squares of 512 pixels, the middle of the image (Lanczos); JPEG of quality 95.";
        assert!(
            text.contains(line) && !text.contains("nothing was re-encoded"),
            "{text}"
        );
    }
}
