//! The YAML front matter of the dataset card, for Hugging Face's `datasets` and the Hub.
//!
//! - `datasets` uses one builder for all configurations of a card, so there is one configuration:
//!   the shards. The tables of a WebDataset output can be loaded by path.
//! - Its builder for WebDataset derives the columns from the first five samples, and rejects
//!   samples that differ. So the card lists all columns: one for each extension.
//! - Its cache key is the card, not the shards. So the card contains a hash of the shards.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::card::DatasetCard;
use crate::format::OutputFormat;

/// The maximum number of extensions in a card. A shard whose keys contain dots may have as many as
/// samples.
const MOST_EXTENSIONS: usize = 100;

/// Extensions of images that `datasets` opens with Pillow.
const IMAGES: &[&str] = &[
    "apng", "avif", "bmp", "dib", "gif", "ico", "j2k", "jfif", "jp2", "jpe", "jpeg", "jpg", "jpx",
    "pbm", "pgm", "png", "pnm", "ppm", "tga", "tif", "tiff", "webp",
];

/// Extensions that the builder does not read as bytes and whose type cannot be given here: arrays,
/// objects, compressed members.
const UNSTATED: &[&str] = &[
    "bz2", "cbor", "gz", "lz4", "mp", "msg", "npy", "npz", "pth", "tb", "ten", "xz", "zip", "zst",
];

/// The extensions of an output's members, and whether it is the extension of a sample's image.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Extensions(BTreeMap<String, bool>);

impl Extensions {
    /// Adds the extension of a member.
    pub fn add(&mut self, extension: &str, is_image: bool) {
        if let Some(known) = self.0.get_mut(extension) {
            *known |= is_image;
        } else if self.0.len() < MOST_EXTENSIONS || is_image {
            self.0.insert(extension.to_owned(), is_image);
        }
    }

    /// Adds the extensions of another shard.
    pub fn merge(&mut self, other: &Self) {
        for (extension, is_image) in &other.0 {
            self.add(extension, *is_image);
        }
    }

    /// Returns the extensions with their type in `datasets`, images first.
    fn columns(&self) -> impl Iterator<Item = (&str, &'static str)> {
        let typed = self.0.iter().filter_map(|(extension, &is_image)| {
            let column = column_type(extension, is_image)?;
            Some((extension.as_str(), column))
        });
        let (images, others): (Vec<_>, Vec<_>) = typed.partition(|(_, column)| *column == "image");
        images.into_iter().chain(others).take(MOST_EXTENSIONS)
    }
}

/// Returns the column type of members with this extension, if there is one.
fn column_type(extension: &str, is_image: bool) -> Option<&'static str> {
    let last = extension.rsplit('.').next().unwrap_or(extension);
    match last.to_ascii_lowercase().as_str() {
        "txt" | "text" | "transcript" => Some("string"),
        "cls" | "cls2" | "id" | "index" | "inx" => Some("int64"),
        "json" | "jsn" => Some("json"),
        other if UNSTATED.contains(&other) => None,
        other if is_image || IMAGES.contains(&other) => Some("image"),
        _ => Some("binary"),
    }
}

/// Returns the front matter, with the lines that delimit it.
pub fn front_matter(card: &DatasetCard) -> String {
    let mut yaml = String::from("---\n");
    if let Some(licence) = &card.licence {
        line(&mut yaml, &format!("license: {}", quoted(licence)));
    }
    let format = match card.format {
        OutputFormat::Webdataset => "webdataset",
        OutputFormat::Parquet => "parquet",
    };
    for text in ["tags:", "- image", &format!("- {format}"), "- sluice"] {
        line(&mut yaml, text);
    }
    let size = size_category(card.counts.kept);
    line(&mut yaml, &format!("size_categories:\n- {size}"));
    if card.shards() > 0 {
        yaml += &configuration(card);
    }
    yaml + "---\n"
}

fn configuration(card: &DatasetCard) -> String {
    let mut yaml = String::from("configs:\n- config_name: default\n  data_files:\n");
    for split in &card.splits {
        let pattern = split.pattern(card.format.extension());
        line(&mut yaml, &format!("  - split: {}", split.label()));
        line(&mut yaml, &format!("    path: {pattern}"));
    }
    line(
        &mut yaml,
        &format!("  description: content {}", card.content),
    );
    line(&mut yaml, "dataset_info:\n  config_name: default");
    if card.format == OutputFormat::Webdataset
        && let Some(extensions) = &card.extensions
    {
        line(&mut yaml, "  features:");
        let names = [("__key__", "string"), ("__url__", "string")];
        for (name, column) in extensions.columns().chain(names) {
            line(&mut yaml, &format!("  - name: {}", quoted(name)));
            line(&mut yaml, &format!("    dtype: {column}"));
        }
    }
    line(&mut yaml, "  splits:");
    for split in &card.splits {
        line(&mut yaml, &format!("  - name: {}", split.label()));
        line(&mut yaml, &format!("    num_bytes: {}", split.bytes()));
        line(&mut yaml, &format!("    num_examples: {}", split.samples()));
    }
    let bytes = card.bytes();
    line(&mut yaml, &format!("  download_size: {bytes}"));
    line(&mut yaml, &format!("  dataset_size: {bytes}"));
    yaml
}

/// Quotes a text for YAML, in which JSON strings are valid.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn line(yaml: &mut String, text: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(yaml, "{text}");
}

/// Returns the hubs' category for a number of samples.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_extension_is_a_column() {
        let mut extensions = Extensions::default();
        for (extension, is_image) in [
            ("txt", false),
            ("PNG", true),
            ("meta.json", false),
            ("mask.png", false),
            ("picture", true),
            ("npy", false),
            ("bin", false),
        ] {
            extensions.add(extension, is_image);
        }
        let columns: Vec<_> = extensions.columns().collect();
        let expected = [
            ("PNG", "image"),
            ("mask.png", "image"),
            ("picture", "image"),
            ("bin", "binary"),
            ("meta.json", "json"),
            ("txt", "string"),
        ];
        assert_eq!(columns, expected);
    }

    #[test]
    fn extensions_are_bounded() {
        let mut extensions = Extensions::default();
        for number in 0..1000 {
            extensions.add(&format!("{number}.txt"), false);
        }
        extensions.add("jpg", true);
        let columns: Vec<_> = extensions.columns().collect();
        assert_eq!(
            (columns.len(), columns[0]),
            (MOST_EXTENSIONS, ("jpg", "image"))
        );
    }
}
